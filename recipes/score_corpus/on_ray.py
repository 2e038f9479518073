"""Score a corpus with Ray Data: one task reads documents, and actors that hold the scorer write the shards."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ..engine.ray_cluster import picklable, ray_cluster
from .shards import Job, Outcome, ShardScorer


def score_on_ray(job: Job, address: str, workers: int | None, shards: int) -> Iterator[Outcome]:
    """Score the shards of a job in the actors of a Ray cluster, and yield what became of each as it is done.

    All machines must see the folders of the data, the model and the scores under the same paths.

    Args:
        job: what is to be scored.
        address: of the cluster; see `ray_cluster`.
        workers: number of actors; None is as many as the cluster has room for. There are no more than ``shards``.
        shards: number of shards that are to be scored.

    Yields:
        The outcome of each shard, in any order.

    Raises:
        ValueError: in one line, where Ray or the cluster is missing or fails, and as `ShardScorer` does.
        OSError: as `ShardScorer` does.
    """
    with ray_cluster(address) as ray:
        logging.getLogger(ray.data.__name__).setLevel(logging.ERROR)  # after the import, which sets it
        resources = ray.cluster_resources()
        on_gpu = job.device.startswith("cuda") or (job.device == "auto" and resources.get("GPU", 0) > 0)
        needed = {"num_cpus": job.threads, "num_gpus": int(on_gpu)}
        room = int(resources.get("GPU", 0) if on_gpu else resources.get("CPU", 0) // job.threads)
        if room < (workers or 1):
            kind = "GPUs" if on_gpu else f"cores, of which a worker takes {job.threads}"
            total = int(resources.get("GPU" if on_gpu else "CPU", 0))
            raise ValueError(f"workers={workers or 1} do not fit the cluster: it has {total} {kind}; give fewer")
        try:
            for row in _dataset(ray, job, min(workers or room, shards), needed).iter_rows():
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        except ray.exceptions.RayError as error:
            reason = str(error).strip().split("\n")[-1]
            raise ValueError(f"Ray failed ({reason}); give the same command again, which continues") from error


def _dataset(ray: Any, job: Job, workers: int, needed: dict[str, int]) -> Any:
    """The outcomes as a dataset of Ray, which computes them when it is iterated over."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Shards(Datasource):
        """One task reads the documents of shard after shard, and each shard is a block."""

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(lambda: _read(job), about)]

        def estimate_inmemory_data_size(self) -> None:
            return None

    # Without a core of its own, the reader fits beside actors that fill the cluster.
    shards = ray.data.read_datasource(Shards(), override_num_blocks=1, num_cpus=0)
    shards.context.enable_progress_bars = False
    shards.context.print_on_execution_start = False
    shards.context.target_max_block_size = 1  # Ray would join shards to large blocks, which one actor gets
    # The second shard of an actor waits there, since Ray takes a tenth of a second to hand one out. More would wait in
    # vain at the end, behind others, while another actor is idle.
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    return shards.map_batches(
        _Worker, fn_constructor_args=(ShardScorer(job),), batch_size=1, batch_format="pyarrow", compute=pool, **needed
    )


# Errors travel as values: Ray would wrap them in its own, with a traceback of many lines.


def _read(job: Job) -> Iterator[pa.Table]:
    """Yield a table of one row for each shard; the last one is the error, where reading fails."""
    try:
        os.chdir(job.here)
        for shard in job.shards():
            yield pa.table({"shard": [pickle.dumps(shard)]})
    except (ValueError, OSError) as error:
        yield pa.table({"shard": [pickle.dumps(picklable(error))]})


class _Worker:
    """The actor: scores the shard of each batch."""

    def __init__(self, scorer: ShardScorer) -> None:
        self.scorer = scorer

    def __call__(self, batch: pa.Table) -> pa.Table:
        shard = pickle.loads(batch["shard"][0].as_py())
        return pa.table({"outcome": [pickle.dumps(shard if isinstance(shard, Exception) else self._score(shard))]})

    def _score(self, shard: Any) -> Outcome | Exception:
        import torch

        torch.set_num_threads(self.scorer.job.threads)
        try:
            os.chdir(self.scorer.job.here)
            return self.scorer(shard)
        except (ValueError, OSError) as error:
            return picklable(error)
