"""Long passages read in chunks through a bounded cache: SmolLM2's loss on each token, kept on disk."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache
from vqmem.benchmarks.kv import _presses as presses
from vqmem.benchmarks.kv._argument import passed
from vqmem.benchmarks.kv.smollm2 import FILE, SEPARATOR
from vqmem.files import atomic_write, file_sha256
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.learned import ABOUT
from vqmem.recipes.compare.statistics import bootstrap_interval
from vqmem.recipes.engine.config import digest
from vqmem.recipes.lm.corpus import Passage

CHUNK = 64
"""Tokens read at a time: they see each other, and the slots."""
SINKS = 4


@dataclass(frozen=True)
class Setting:
    """A way to keep tokens: a policy and the scorer that it uses, or one of kvpress's presses.

    Without either nothing is ever evicted.

    Args:
        name: of its row in tables.
        policy: a policy's YAML mapping, a preset, or the folder of a fitted policy.
        scorer: the name of the scorer.
        press: the name of a press.
        options: other arguments of the cache.
    """

    name: str
    policy: str | Mapping[str, Any] | None = None
    scorer: str | None = None
    press: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Streams:
    """Reads passages with a language model through caches, and saves the losses in a file per passage.

    Args:
        model: the pretrained language model.
        scorers: the scorers that settings may name.
        folder: the folder of the saved losses; what is saved there is not read again.
        rows: passages that are read in parallel.
    """

    def __init__(self, model: Any, scorers: Mapping[str, Any], folder: Path, rows: int) -> None:
        self.model, self.scorers, self.folder, self.rows = model, scorers, folder, rows
        self.prints = {name: _fingerprint(scorer) for name, scorer in scorers.items()}

    def nats(self, setting: Setting, capacity: int, items: Sequence[Passage]) -> list[Float[np.ndarray, " time"]]:
        """-log p of every token of each passage, which must all be of one length."""
        key = self.key(setting, capacity)
        folder = self.folder / digest(key)
        paths = [folder / f"{digest(item.ids.tolist())}.npy" for item in items]
        todo = [i for i, path in enumerate(paths) if not path.is_file()]
        if todo:
            atomic_write(folder / "setting.json", json.dumps(key, indent=1))
        for start in range(0, len(todo), self.rows):
            began, some = time.perf_counter(), todo[start : start + self.rows]
            ids = torch.stack([items[i].ids for i in some])
            for i, row in zip(some, self._read(setting, capacity, ids), strict=True):
                atomic_write(paths[i], _to_bytes(row.numpy()))
            speed = ids.numel() / (time.perf_counter() - began)
            print(f"{setting.name} @ {capacity}: {len(some)} passages, {speed:.0f} tokens/s", file=sys.stderr)
        return [np.load(path) for path in paths]

    def key(self, setting: Setting, capacity: int) -> dict[str, Any]:
        """All that the nats depend on but the text."""
        return {
            "model": [FILE, str(self.model.dtype), f"transformers {transformers.__version__}"],
            "press": setting.press and [setting.press, presses.MADE.get(setting.press.removeprefix("kvpress "))],
            "policy": dict(setting.policy) if isinstance(setting.policy, Mapping) else _identity(setting.policy),
            **({"options": dict(setting.options)} if setting.options else {}),
            "scorer": setting.scorer and self.prints[setting.scorer],
            "capacity": None if setting.policy is None and setting.press is None else capacity,
            "sinks": SINKS,
            "chunk": CHUNK,
        }

    def cache(self, setting: Setting, capacity: int) -> Any:
        """An empty cache."""
        if setting.press is not None:
            return presses.PressCache(self.model, presses.make(setting.press), capacity, SINKS)
        if setting.policy is None:
            return DynamicCache()
        scorer = None if setting.scorer is None else self.scorers[setting.scorer]
        return VQMemCache(self.model, capacity, policy=setting.policy, scorer=scorer, sinks=SINKS, **setting.options)

    def _read(self, setting: Setting, capacity: int, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        return presses.seeded(lambda: read(self.model, self.cache(setting, capacity), ids))


@torch.no_grad()
def read(model: Any, cache: Any, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """-log p of each token given what is left in the cache and the chunk so far; the first given the separator."""
    inputs = torch.cat([torch.full_like(ids[:, :1], SEPARATOR), ids[:, :-1]], dim=1)
    parts = []
    for new, targets in zip(inputs.split(CHUNK, 1), ids.split(CHUNK, 1), strict=True):
        logits = model(new, **passed(cache)).logits.flatten(0, 1).float()
        nats = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        parts.append(nats.view_as(targets))
    return torch.cat(parts, dim=1)


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


def gaps(ids: Int[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
    """How many tokens ago each token was last seen; 0 where it was not."""
    last: dict[int, int] = {}
    found = np.zeros(len(ids), dtype=np.int64)
    for place, token in enumerate(ids.tolist()):
        found[place] = place - last.get(token, place)
        last[token] = place
    return found


def long_gap(
    ids: Int[np.ndarray, " time"], rarity: Float[np.ndarray, " vocab"], rare: float, capacity: int
) -> Bool[np.ndarray, " time"]:
    """Find the tokens that need memory: rare tokens whose last occurrence a cache of the newest tokens has evicted.

    Args:
        ids: the tokens of a passage.
        rarity: the unigram surprisal of each token, in nats.
        rare: the surprisal above which a token is rare, in nats.
        capacity: the distance to the last occurrence, in tokens, that a gap must exceed.

    Returns:
        Whether each token is rare and last occurred more than ``capacity`` tokens before.
    """
    return (rarity[ids] > rare) & (gaps(ids) > capacity)


def share_closed(
    ours: Float[np.ndarray, " passage"],
    worst: Float[np.ndarray, " passage"],
    best: Float[np.ndarray, " passage"],
    resamples: int,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much of the gap between ``worst`` and ``best`` is closed, and its 95 % interval over passages.

    Args:
        ours: summed nats of each passage.
        worst: the same where nothing of the gap is closed.
        best: the same where all of it is closed.
        resamples: how often the passages are drawn.
        seed: of the drawing.

    Returns:
        The share, and the low and the high end of its interval.
    """
    closed, gap = worst - ours, worst - best

    def share(drawn: Int[np.ndarray, "resample passage"]) -> Float[np.ndarray, " resample"]:
        return closed[drawn].sum(-1) / gap[drawn].sum(-1)

    low, high = bootstrap_interval(share, len(ours), resamples=resamples, seed=seed).tolist()
    return float(closed.sum() / gap.sum()), low, high


def _identity(policy: str | None) -> str | None:
    """The name of a policy or preset; of the folder of a fitted policy, the hash of the file that describes it."""
    described = None if policy is None else Path(policy, ABOUT)
    return file_sha256(described) if described is not None and described.is_file() else policy


def _fingerprint(scorer: nn.Module) -> str:
    """The hash of a scorer's tensors."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(scorer.state_dict().items()):
        hashed.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:12]


def _to_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
