"""Which split falls to whom where nobody has said so: by a hash of a name, or by the place in a document."""

from __future__ import annotations

import hashlib

from .base import Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def share(names: list[str], split: Split) -> set[str]:
    """Those of ``names`` that fall to ``split``.

    Ordered by their hashes, the first tenth is ``test``, the next tenth ``dev`` and the rest ``train``; each of the
    first two gets one at least. Adding names may move others.
    """
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    tenth = max(1, len(ranked) // 10)
    return set({"test": ranked[:tenth], "dev": ranked[tenth : 2 * tenth], "train": ranked[2 * tenth :]}[split])
