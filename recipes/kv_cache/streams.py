"""Long passages read in chunks through bounded caches: the loss of each token, and what it cost, kept on disk."""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...files import atomic_write
from ...memory.huggingface.cache_argument import cache_argument
from ..engine.config import digest
from ..engine.progress import Bar
from ..lm.corpus import Passage
from .caches import Caches, held_bytes
from .cost import clock
from .presses import seeded
from .settings import FULL, Setting

CHUNK = 64
"""Tokens read at a time: they see each other, and the slots."""


class Cell(NamedTuple):
    """A setting at a capacity; None for the full cache."""

    setting: Setting
    capacity: int | None


class Losses(NamedTuple):
    """What one cache makes of one passage."""

    nats: Float[np.ndarray, " time"]
    """-log p of each token."""
    kl: Float[np.ndarray, " time"]
    """The divergence of each token's distribution from that of the full cache, in nats."""
    bytes: float
    """Most bytes held after a chunk."""
    seconds: float


class Streams:
    """Reads passages with a language model through caches, and saves the losses in a file per passage.

    Args:
        caches: makes the caches.
        folder: the folder of the saved losses; what is saved there is not read again.
        batch_size: passages that are read in parallel.
        chunk: tokens that are read at a time.
    """

    def __init__(self, caches: Caches, folder: Path, batch_size: int, chunk: int = CHUNK) -> None:
        self.caches, self.folder, self.batch_size, self.chunk = caches, folder, batch_size, chunk

    def read(
        self, settings: Sequence[Setting], capacities: Sequence[int], items: Sequence[Passage]
    ) -> dict[int, dict[str, list[Losses]]]:
        """Read every passage with every setting at every capacity, side by side.

        Args:
            settings: the settings to compare; the full cache is read too, once for all capacities.
            capacities: slots of the caches.
            items: the passages, all of one length.

        Returns:
            The losses of each passage, by capacity and then by name of the setting; the full cache comes first.
        """
        full = Cell(Setting(FULL), None)
        bounded = [setting for setting in settings if not setting.is_full]
        cells = [full, *(Cell(setting, capacity) for capacity in capacities for setting in bounded)]
        files = [f"{digest(item.ids.tolist())}.npz" for item in items]
        paths = [[folder / file for file in files] for folder in map(self._folder, cells)]
        missing = [i for i in range(len(items)) if not all(row[i].is_file() for row in paths)]
        total, chunks = len(items), -(-len(items[0].ids) // self.chunk)
        with Bar("reading passages", total * chunks, start=(total - len(missing)) * chunks) as bar:
            for start in range(0, len(missing), self.batch_size):
                group = missing[start : start + self.batch_size]
                todo = [number for number, row in enumerate(paths) if not all(row[i].is_file() for i in group)]
                ids = torch.stack([items[i].ids for i in group]).to(self.caches.host.device)
                read = self._read_batch([cells[number] for number in todo], ids, bar)
                for number, losses in zip(todo, read, strict=True):
                    for i, one in zip(group, losses, strict=True):
                        atomic_write(paths[number][i], _to_bytes(one))
        loaded = [[_load(path) for path in row] for row in paths]
        found: dict[int, dict[str, list[Losses]]] = {capacity: {FULL: loaded[0]} for capacity in capacities}
        for cell, losses in zip(cells[1:], loaded[1:], strict=True):
            assert cell.capacity is not None
            found[cell.capacity][cell.setting.name] = losses
        return found

    def _folder(self, cell: Cell) -> Path:
        """Where the losses of a setting at a capacity are kept."""
        key = self.caches.key(*cell) | {"chunk": self.chunk, "separator": self.caches.host.separator}
        folder = self.folder / digest(key)
        if not (folder / "setting.json").is_file():
            atomic_write(folder / "setting.json", json.dumps({"name": cell.setting.name, **key}, indent=1))
        return folder

    @torch.no_grad()
    def _read_batch(self, cells: Sequence[Cell], ids: Int[Tensor, "batch time"], bar: Bar) -> list[list[Losses]]:
        """What each cell makes of each row. The full cache is always read, because it is compared with."""
        model, rows = self.caches.host.model, len(ids)
        made = [self.caches.make(*cell) for cell in cells]
        if cells[0].capacity is not None:
            made.insert(0, self.caches.make(Setting(FULL), None))
        readings = [_Reading(cache) for cache in made]
        inputs = torch.cat([torch.full_like(ids[:, :1], self.caches.host.separator), ids[:, :-1]], dim=1)
        for number, (new, targets) in enumerate(
            zip(inputs.split(self.chunk, 1), ids.split(self.chunk, 1), strict=True)
        ):
            reference = None
            for reading in readings:
                found = seeded(lambda reading=reading, new=new: reading.read(model, new), number)
                reading.nats.append(nn.functional.nll_loss(found.mT, targets, reduction="none").cpu())
                reference = found if reference is None else reference
                reading.kl.append((reference.exp() * (reference - found)).sum(-1).cpu())
            bar.advance(rows)
        return [reading.losses(rows) for reading in readings[len(readings) - len(cells) :]]


class _Reading:
    """One cache while a batch is read through it."""

    def __init__(self, cache: Any) -> None:
        self.cache, self.bytes, self.seconds = cache, 0, 0.0
        self.nats: list[Tensor] = []
        self.kl: list[Tensor] = []

    def read(self, model: Any, new: Int[Tensor, "batch new"]) -> Float[Tensor, "batch new vocab"]:
        """The log probability of every token after each of the new ones."""
        began = clock(new.device)
        logits = model(new, **cache_argument(self.cache)).logits
        self.seconds += clock(new.device) - began
        self.bytes = max(self.bytes, held_bytes(self.cache))
        return logits.float().log_softmax(-1)

    def losses(self, rows: int) -> list[Losses]:
        """Those of each row."""
        nats, kl = (torch.cat(parts, dim=1).numpy() for parts in (self.nats, self.kl))
        return [Losses(nats[row], kl[row], self.bytes / rows, self.seconds / rows) for row in range(rows)]


def _to_bytes(losses: Losses) -> bytes:
    file = io.BytesIO()
    np.savez(file, **losses._asdict())
    return file.getvalue()


def _load(path: Path) -> Losses:
    with np.load(path) as saved:
        return Losses(saved["nats"], saved["kl"], float(saved["bytes"]), float(saved["seconds"]))


def sample(items: Sequence[Passage], length: int, count: int, seed: int = 0) -> list[Passage]:
    """Draw passages of full length, equally many of each document.

    A larger count includes the passages of a smaller one.

    Args:
        items: the passages to draw from.
        length: the number of tokens that a passage must have.
        count: passages to draw.
        seed: the seed of the order within a document.

    Returns:
        ``count`` passages, which take turns over the documents.

    Raises:
        ValueError: if there are fewer passages of this length than ``count``.
    """
    documents: dict[str, list[Passage]] = {}
    for item in items:
        if len(item.ids) == length:
            documents.setdefault(item.name.rpartition(":")[0], []).append(item)
    for passages in documents.values():
        random.Random(seed).shuffle(passages)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*documents.values()))
    chosen = list(itertools.islice((item for item in turns if item is not None), count))
    if len(chosen) < count:
        raise ValueError(f"there are {len(chosen)} passages of {length} tokens, fewer than {count}; ask for fewer")
    return chosen
