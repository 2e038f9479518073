"""Python's own standard library as text: each module is a document of code. Needs no download."""

from __future__ import annotations

import os
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..schema import NonNegativeInt
from ._splits import share
from .base import Document, Split

_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__", "pydoc_data", "encodings"}
"""Folders that are not the library, or are mostly data."""


@dataclass(frozen=True)
class Source:
    """The modules of the Python that runs, about 8 MB (Python Software Foundation licence).

    A tenth of the modules each is ``test`` and ``dev``, by a hash of their names; another version of Python has
    others.

    Args:
        min_chars: leave out modules shorter than this.
    """

    min_chars: NonNegativeInt = 2000

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the modules of ``split`` by name. Raises `ValueError` if this Python comes without sources."""
        root = Path(sysconfig.get_paths()["stdlib"])
        names = sorted(_modules(root))
        if not names:
            raise ValueError(f"this Python comes without the sources of its library in {root}; use text_files")
        mine = share(names, split)
        for name in names:
            if name in mine:
                with tokenize.open(root / name) as file:  # a module may declare another encoding than UTF-8
                    text = file.read()
                if len(text) >= self.min_chars:
                    yield Document(name, text)


def _modules(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(folder, name).relative_to(root).as_posix() for name in files if name.endswith(".py"))
