"""The training log: JSON lines and optionally TensorBoard. No line is repeated, however often a run is resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files import append_line, atomic_write
from ...models.host import precise
from .distributed import gather

Window = dict[str, list[float]]
"""Weighted sum and weight of each metric since the last line of the log."""


class Pending:
    """The metrics of the batches since they were last read: reading them waits for the device."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, dict[str, float | None], Tensor | None]] = []

    def add(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Append the metrics of a batch of ``step``; its tensors become one, for there may be many batches."""
        scalars = [precise(x) for x in metrics.values() if isinstance(x, Tensor)]
        known: dict[str, float | None] = {name: None if isinstance(x, Tensor) else x for name, x in metrics.items()}
        self.batches.append((step, known, torch.stack(scalars) if scalars else None))

    def read(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield step and metrics of every batch, and forget them. All come from the device in one transfer."""
        batches, self.batches = self.batches, []
        stacked = [scalars for _, _, scalars in batches if scalars is not None]
        numbers = iter(torch.cat(stacked).tolist() if stacked else ())
        for step, known, _ in batches:
            yield step, {name: next(numbers) if x is None else x for name, x in known.items()}


def add(window: Window, metrics: Mapping[str, float]) -> None:
    """Add one batch's metrics to ``window``; ``tokens`` are counted, the rest averaged with them as the weight."""
    weight = metrics.get("tokens", 1.0)
    for name, value in metrics.items():
        part = window.setdefault(name, [0.0, 0.0])
        part[0] += value if name == "tokens" else value * weight
        part[1] += weight


class Log:
    """A context that writes ``metrics.jsonl``, ``timing.jsonl`` and ``tensorboard/``.

    ``metrics.jsonl`` contains nothing that depends on the machine's speed, so that the same run writes the same bytes.

    Args:
        folder: where to write.
        step: the step at which the run starts or continues; lines after it are removed first.
        tensorboard: whether to write ``tensorboard/``.
        main: whether this is the main process, which alone writes files.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool, *, main: bool) -> None:
        self.folder, self.main, self.writer = folder, main, None
        if not main:
            return
        for name in ("metrics.jsonl", "timing.jsonl"):
            _truncate(folder / name, step)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def train(self, step: int, window: Window, seconds: float) -> dict[str, float]:
        """Write and return the averages of ``window`` over all processes; all processes call this together."""
        total: Window = {}
        for part in gather(window):
            for name, (value, weight) in part.items():
                old = total.get(name, [0.0, 0.0])
                total[name] = [old[0] + value, old[1] + weight]
        tokens = total.pop("tokens", [0.0])[0]
        figures = {name: value / weight for name, (value, weight) in total.items() if weight}
        figures |= {"tokens": tokens} if tokens else {}
        self._write("metrics.jsonl", step, "train", figures)
        speed = {"seconds": seconds} | ({"tokens_per_second": tokens / seconds} if tokens and seconds else {})
        self._write("timing.jsonl", step, "timing", speed)
        return figures | speed

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of an evaluation."""
        self._write("metrics.jsonl", step, "evaluation", figures)

    def best(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the best evaluation when training ended at ``step``."""
        self._write("metrics.jsonl", step, "best", figures)

    def _write(self, name: str, step: int, kind: str, figures: Mapping[str, float]) -> None:
        if not self.main:
            return
        line: dict[str, Any] = {"step": step, "kind": kind}
        line |= {key: value if math.isfinite(value) else None for key, value in figures.items()}  # JSON has no NaN
        append_line(self.folder / name, json.dumps(line))
        for key, value in figures.items() if self.writer is not None else ():
            self.writer.add_scalar(f"{kind}/{key}", value, step)  # pyright: ignore[reportOptionalMemberAccess]


def note(figures: Mapping[str, float], token_unit: str = "tokens") -> str:
    """Format the figures that a progress bar shows; ``token_unit`` is what the task counts as tokens."""
    speed = f"  {figures['tokens_per_second']:,.0f} {token_unit}/s" if "tokens_per_second" in figures else ""
    return f"loss {figures['loss']:.4f}{speed}"


def _truncate(path: Path, step: int) -> None:
    """Keep the lines up to ``step``; a killed process may have left later lines and half a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        kept.append(line + "\n")
    atomic_write(path, "".join(kept))
