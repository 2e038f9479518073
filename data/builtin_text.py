"""Text that comes with Python: the language reference of `pydoc`, each topic a document. Needs no download."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from .base import Document, Split

# Topics differ a hundredfold in length. This salt gives the splits 80, 10 and 10 % of the bytes.
_SALT = "516"


@dataclass(frozen=True)
class Source:
    """`pydoc_data.topics`, about 0.5 MB of technical English (Python Software Foundation licence).

    A hash of its name assigns a topic to a split, independent of the topics that other versions of Python add. With
    Python 3.11 the splits are 57 topics of 371 kB (train), 8 of 45 kB (dev) and 13 of 50 kB (test).

    Args:
        min_chars: leave out topics shorter than this (a few only refer to other topics).
    """

    min_chars: int = 200

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the topics of ``split`` by name. Raises `ValueError` if this Python lacks them."""
        seen = set()  # some topics, such as if and else, share one text
        for name, text in sorted(_topics().items()):
            if text not in seen and len(text) >= self.min_chars and _split_of(name) == split:
                yield Document(name, text)
            seen.add(text)


def _topics() -> dict[str, str]:
    try:
        return importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError("this Python comes without pydoc_data.topics; use the data source text_files") from error


def _split_of(name: str) -> Split:
    bucket = hashlib.sha256(f"{_SALT}:{name}".encode()).digest()[0] % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"
