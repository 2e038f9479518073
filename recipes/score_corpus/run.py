"""`vqmem score_corpus`: plan the shards, score those that are missing, and say what is in the folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...console import one_line
from ...data.reading.files import UnreadableError
from ...files import TEMPORARY, atomic_write
from ...registry import DataSpec
from ...schema import PathText, PositiveInt, Validated
from ..engine.config import dump, load, refuse_changes
from ..engine.lock import locked
from ..engine.progress import Bar, progress
from ..engine.run_dir import fingerprint
from .on_ray import score_on_ray
from .plan import PLAN, ShardSize, write_plan
from .scorer import choose_model, fingerprint_of, kind_of
from .shards import Job, Outcome, finished_shards, score_in_process
from .source import SplitName, read_documents

MAY_CHANGE = ("out", "model", "device", "threads", "workers", "executor", "address")
"""Keys that may differ when a run continues. The model may have moved: its fingerprint is compared."""


@dataclass(frozen=True)
class Config(Validated):
    """What is scored, by which model, and who does it."""

    out: PathText
    """Folder of the shards. The same command continues what was interrupted; another corpus or model is refused."""
    data: DataSpec
    """Data source of texts or speech; the command takes it from DATA."""
    split: SplitName = "all"
    """Documents to score: of one split, or all, each of them uncut."""
    model: PathText | None = None
    """Run of `vqmem text_lm`, train-scorer or frame_scorer. Null is the packaged scorer of texts or of recordings."""
    shard_documents: PositiveInt = 1000
    """A shard ends with the document that makes it this many,"""
    shard_bytes: PositiveInt = 16_000_000
    """or with the one that makes it this long: bytes of text, or of the files of recordings."""
    device: str = "auto"
    """Device of each worker: auto, cpu, cuda, cuda:N or mps."""
    threads: PositiveInt = 1
    """Threads of a worker. Other numbers may change the last bits of the scores."""
    executor: Literal["in_process", "ray"] = "in_process"
    """Score in this process, or in the workers of a Ray cluster (extra ray)."""
    address: str = "auto"
    """Address of the Ray cluster, as host:port; auto is the one of this machine, which is started if need be."""
    workers: PositiveInt | None = None
    """Workers on the Ray cluster. Null is as many as it has cores (or GPUs) for."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for values that do not fit each other."""
        super().__post_init__()
        if self.executor == "in_process" and self.workers not in (None, 1):
            raise ValueError(f"workers={self.workers} needs a cluster; give executor=ray, or threads={self.workers}")


@dataclass(frozen=True)
class Summary:
    """What the folder contains now, and how many of the shards were there before."""

    documents: int
    tokens: int
    shards: int
    kept: int


def run(config: Config) -> Summary:
    """Score the shards that are not there yet.

    Raises `ValueError` in one line for data or a model that cannot be used, for a folder with other scores, and, after
    all other shards are written, for documents that cannot be read.
    """
    out = Path(config.out)
    first = next(read_documents(config.data, config.split), None)
    if first is None:
        raise ValueError(f"the data has no documents ({config.data!r}, split={config.split}); give data that has some")
    model = choose_model(config.model, first)
    kind, scorer = kind_of(model), fingerprint_of(model)
    first.content(kind)  # raises for data of another kind
    with locked(out):
        tokens = _claim(config, scorer)
        documents = progress(read_documents(config.data, config.split), None, "documents read", transient=True)
        counts = write_plan(documents, out, ShardSize(config.shard_documents, config.shard_bytes), tokens)
        job = Job(
            *(config.data, config.split, out, model, kind, scorer),
            device=config.device,
            threads=config.threads,
            here=Path.cwd(),
            finished=frozenset(tokens),
        )
        outcomes = _score(config, job, counts) if len(tokens) < len(counts) else []
        written = [outcome for outcome in outcomes if not outcome.unreadable]
        _report_unreadable([outcome.unreadable for outcome in outcomes if outcome.unreadable])
    total = sum(tokens.values()) + sum(outcome.tokens for outcome in written)
    return Summary(sum(counts.values()), total, len(counts), len(tokens))


def format_summary(config: Config, summary: Summary) -> str:
    """What was written and how to load it, in plain text."""
    kept = f", {summary.kept} of them written before" if summary.kept else ""
    return (
        f"{summary.documents:,} documents, {summary.tokens:,} tokens in {summary.shards:,} shards{kept}: {config.out}\n"
        f'  datasets.load_dataset("parquet", data_files="{config.out}/*.parquet")'
    )


def _score(config: Config, job: Job, counts: dict[int, int]) -> list[Outcome]:
    done = sum(counts[index] for index in job.finished)
    outcomes: list[Outcome] = []
    with Bar("documents scored", sum(counts.values()), start=done) as bar:
        for outcome in _outcomes(config, job, len(counts) - len(job.finished), bar):
            outcomes.append(outcome)
            done += outcome.documents
            if bar.done != done:  # of a shard that was given up, no document counts
                bar.update(done)
    return outcomes


def _outcomes(config: Config, job: Job, shards: int, bar: Bar) -> Iterator[Outcome]:
    if config.executor == "ray":
        return score_on_ray(job, config.address, config.workers, shards)
    return score_in_process(job, lambda: bar.advance(1))


def _claim(config: Config, scorer: str) -> dict[int, int]:
    """Write ``config.yaml`` and remove what killed workers left; returns the tokens of each finished shard.

    Raises `ValueError` for the folder of something else, and if there are shards of another config or scorer. A folder
    without shards begins anew.
    """
    out = Path(config.out)
    path, plan = out / "config.yaml", out / PLAN
    is_begun = any(out.glob("shard-*.parquet"))
    if path.is_file():
        try:
            old = load(Config, path)
        except ValueError as error:
            raise ValueError(f"{config.out} is the folder of something else ({error}); use another out") from None
        if is_begun:
            refuse_changes(out, fingerprint(old, MAY_CHANGE), fingerprint(config, MAY_CHANGE))
    if is_begun and not (path.is_file() and plan.is_file()):
        raise ValueError(
            f"{config.out} has shards, but not config.yaml and {PLAN} that belong to them; use another out"
        )
    tokens = finished_shards(out, scorer)
    if not is_begun:
        plan.unlink(missing_ok=True)
    for unfinished in out.glob(f"{TEMPORARY}*"):
        unfinished.unlink(missing_ok=True)
    atomic_write(path, dump(config))
    return tokens


def _report_unreadable(reasons: list[str]) -> None:
    """Raise `UnreadableError` if documents could not be read, after all of them are listed on standard error."""
    if len(reasons) > 1:
        print("\n".join(f"  {one_line(reason)}" for reason in reasons), file=sys.stderr)
    if reasons:
        more = f" (and {len(reasons) - 1} more, see above)" if len(reasons) > 1 else ""
        raise UnreadableError(
            f"{reasons[0]}{more}; all other shards are written; mend it and give the same command again"
        )
