"""What every front-end gives: a `Stream` of tokens, whatever they were made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ..artifacts import FRONT_END
from ..data.base import Reads
from ..registry import build


@dataclass(frozen=True)
class Stream:
    """Tokens in order, and where each came from.

    ``starts`` and ``ends`` are character offsets for text and seconds for speech. ``sizes`` says how much of the source
    each token stands for (UTF-8 bytes for text, frames for speech), so that losses can be given per byte or per frame.
    """

    ids: Int[Tensor, " time"]
    starts: Float[Tensor, " time"] | Int[Tensor, " time"]
    ends: Float[Tensor, " time"] | Int[Tensor, " time"]
    sizes: Int[Tensor, " time"]
    frames: Float[Tensor, "time dim"] | None = None

    def __len__(self) -> int:
        """How many tokens."""
        return self.ids.shape[0]

    def slice(self, start: int, stop: int) -> Stream:
        """The tokens ``start`` to ``stop``; offsets still point into the whole source."""
        frames = None if self.frames is None else self.frames[start:stop]
        part = slice(start, stop)
        return Stream(self.ids[part], self.starts[part], self.ends[part], self.sizes[part], frames)


@runtime_checkable
class Tokenizer(Protocol):
    """A front-end that has been fitted, and can be saved beside a model.

    One that does not read text says in ``reads`` which field of a document it does read (see `reads_of`), and in
    ``measure`` what its ``sizes`` count (see `measure_of`). One whose tokens can be heard says so in ``makes`` (see
    `makes_of`).
    """

    vocab_size: int

    def encode(self, text: Any) -> Stream:
        """A document's content to tokens; for text, concatenating the source slices gives the text back."""
        ...

    def decode(self, ids: list[int]) -> Any:
        """Tokens to text, with U+FFFD where the ids do not spell valid UTF-8; units are written as their numbers."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer` needs into ``folder``."""
        ...


@runtime_checkable
class FrontEnd(Protocol):
    """The frozen dataclass ``FrontEnd`` of a front-end's file: its fields are its YAML keys."""

    def fit(self, texts: Iterable[Any]) -> Tokenizer:
        """Learn whatever there is to learn (merges, codes) from the contents of training documents, read once."""
        ...

    def load(self, folder: Path) -> Tokenizer:
        """Read what `Tokenizer.save` wrote."""
        ...


def reads_of(front_end: FrontEnd | Tokenizer) -> Reads:
    """Which field of a document it reads: text, unless its class says otherwise."""
    return getattr(front_end, "reads", "text")


def makes_of(front_end: FrontEnd | Tokenizer) -> str:
    """What its ``decode`` gives: text, unless its class says ``audio``: samples, ``rate`` of them a second."""
    return getattr(front_end, "makes", "text")


def measure_of(front_end: FrontEnd | Tokenizer) -> str:
    """What the ``sizes`` of its streams count: bytes, unless its class says otherwise."""
    return getattr(front_end, "measure", "byte")


def save_tokenizer(tokenizer: Tokenizer, spec: str | dict[str, Any], folder: Path) -> None:
    """Write a fitted front-end and its YAML form ``spec`` into ``folder`` (made if need be), for `load_tokenizer`.

    ``front_end.json``, written last, makes the folder whole: it holds the SHA-256 of every other file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    name = spec if isinstance(spec, str) else spec["name"]
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != FRONT_END}
    description = {"name": name, "fields": dataclasses.asdict(build("front-ends", spec)), "files": files}
    half = folder / f"{FRONT_END}.part"
    half.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    half.replace(folder / FRONT_END)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote. Raises `ValueError` when the folder holds no front-end or a damaged one."""
    path = Path(folder) / FRONT_END
    if not path.is_file():
        raise ValueError(f"no {FRONT_END} in {str(folder)!r}; give the folder of a saved run")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        spec = {**description["fields"], "name": description["name"]}
        files = dict(description.get("files", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); train or copy it again") from error
    for name, sha256 in files.items():
        part = Path(folder) / name
        if not part.is_file() or _sha256(part) != sha256:
            raise ValueError(f"{str(part)!r} is missing or damaged (its SHA-256 is another); train or copy it again")
    return build("front-ends", spec).load(Path(folder))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
