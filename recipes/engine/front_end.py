"""The front-end of a run: fitted once, then loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...artifacts import FRONT_END
from ...registry import build
from ...tokenizers_.base import Tokenizer, load_tokenizer, save_tokenizer
from .progress import Bar


def load_or_fit(front_end: str | dict[str, Any], contents: Iterable[Any], folder: Path) -> Tokenizer:
    """Load the front-end in ``folder``, or fit it and save it there.

    Args:
        front_end: a name, or ``name`` and its keys.
        contents: texts or recordings of the training split; read only to fit.
        folder: the folder of the front-end.

    Returns:
        The front-end, loaded from ``folder``.
    """
    if not (folder / FRONT_END).is_file():
        with Bar("fitting the front-end", None, transient=True):
            fitted = build("front-ends", front_end).fit(contents)
        save_tokenizer(fitted, front_end, folder)
    return load_tokenizer(folder)
