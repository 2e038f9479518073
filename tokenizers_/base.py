"""The protocol of front-ends: each turns a document into a `Stream` of tokens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ..artifacts import FRONT_END
from ..data.base import InputKind
from ..files import atomic_write, file_sha256
from ..registry import build


@dataclass(frozen=True)
class Stream:
    """Tokens in order, and where each came from.

    ``starts`` and ``ends`` are character offsets for text and seconds for speech. ``sizes`` is how much of the source
    each token covers (UTF-8 bytes for text, frames for speech), so that losses can be given per byte or per frame.
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
        """The tokens ``start`` to ``stop``, with unchanged offsets."""
        frames = None if self.frames is None else self.frames[start:stop]
        part = slice(start, stop)
        return Stream(self.ids[part], self.starts[part], self.ends[part], self.sizes[part], frames)


@runtime_checkable
class Tokenizer(Protocol):
    """A fitted front-end, which can be saved beside a model.

    Front-ends that do not read text have the class attributes ``input_kind`` (the field of a document that they read)
    and ``size_unit`` (the unit of their ``sizes``). Front-ends that decode to sound have ``output_kind = "audio"``. See
    the functions `input_kind`, `unit_of_size` and `output_kind`. Front-ends that wrap a tokenizer of `transformers` or
    `tokenizers` have it as ``wrapped``. One may have ``ids_of``, which gives the ids of a text as a list without the
    rest of its stream: many short texts are counted by it.
    """

    vocab_size: int

    def encode(self, text: Any) -> Stream:
        """Encode the content of a document; the source slices of text tokens concatenate to the text."""
        ...

    def decode(self, ids: list[int]) -> Any:
        """Decode tokens to text, with U+FFFD for invalid UTF-8; units become their numbers."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that `load_tokenizer` reads into ``folder``."""
        ...


@runtime_checkable
class FrontEnd(Protocol):
    """The frozen dataclass ``FrontEnd`` of a front-end's file: its fields are its YAML keys."""

    def fit(self, texts: Iterable[Any]) -> Tokenizer:
        """Learn merges, codes and so on from the contents of the training documents, read once."""
        ...

    def load(self, folder: Path) -> Tokenizer:
        """Read the files of `Tokenizer.save`."""
        ...


def input_kind(front_end: FrontEnd | Tokenizer) -> InputKind:
    """The field of a document that a front-end reads: ``input_kind`` of its class; default text."""
    return getattr(front_end, "input_kind", "text")


def output_kind(front_end: FrontEnd | Tokenizer) -> str:
    """What its ``decode`` returns: ``output_kind`` of its class; ``audio`` is samples at its ``rate``; default text."""
    return getattr(front_end, "output_kind", "text")


def unit_of_size(front_end: FrontEnd | Tokenizer) -> str:
    """The unit of the ``sizes`` of its streams: ``size_unit`` of its class; default byte."""
    return getattr(front_end, "size_unit", "byte")


def save_tokenizer(tokenizer: Tokenizer, spec: str | dict[str, Any], folder: Path) -> None:
    """Write a fitted front-end and its YAML form ``spec`` into ``folder`` (made if need be), for `load_tokenizer`.

    ``front_end.json`` is written last and has the SHA-256 of every other file: with it the folder is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    name = spec if isinstance(spec, str) else spec["name"]
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != FRONT_END}
    description = {"name": name, "fields": dataclasses.asdict(build("front-ends", spec)), "files": files}
    atomic_write(folder / FRONT_END, json.dumps(description, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote. Raises `ValueError` if the folder has no front-end or a damaged one."""
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
        if not part.is_file() or file_sha256(part) != sha256:
            raise ValueError(f"{str(part)!r} is missing or damaged (its SHA-256 is another); train or copy it again")
    return build("front-ends", spec).load(Path(folder))
