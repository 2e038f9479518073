"""Assign names to splits by a hash, if the data does not say which split they belong to."""

from __future__ import annotations

import hashlib

from .base import Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def share(names: list[str], split: Split) -> set[str]:
    """The ``names`` that belong to ``split``.

    In the order of their hashes, the first tenth is ``test``, the next tenth ``dev`` and the rest ``train``; ``test``
    and ``dev`` have at least one each. Adding names may move others.
    """
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    tenth = max(1, len(ranked) // 10)
    return set({"test": ranked[:tenth], "dev": ranked[tenth : 2 * tenth], "train": ranked[2 * tenth :]}[split])
