"""Workers of Ray: a cluster of so many, the figure of two against one, which are at work, and how one dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from vqmem.benchmarks._results import figure

_OTHERS = tuple(f"ray::{name}" for name in ("IDLE", "RuntimeEnvAgent", "DashboardAgent", "_StatsActor", "Autoscaling"))


@contextmanager
def cluster(workers: int) -> Generator[None]:
    """A Ray cluster on this machine, with one core for each worker, for a block."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # workers would give way to other programs
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def two_against_one(speeds: Mapping[int, float], unit: str, goal: float) -> dict[str, dict[str, Any]]:
    """The figure of a benchmark that measured the speed of one worker and of two, in ``unit``."""
    named: dict[str, Any] = {f"{unit} with {workers}": round(speed, 2) for workers, speed in speeds.items()}
    return {"two workers against one": figure(round(speeds[2] / speeds[1], 2), "x", goal, **named)}


def workers_of(pid: int) -> list[int]:
    """The descendants of a process that do a task or hold an actor of Ray; idle workers are not among them."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    processes = [(int(one), int(parent), name) for one, parent, name in map(_fields, lines.splitlines())]
    family = {pid}
    for _ in processes:
        grown = family | {one for one, parent, _ in processes if parent in family}
        if grown == family:
            break
        family = grown
    return sorted(one for one, _, name in processes if one in family and _is_at_work(name))


def kill(pid: int) -> bool:
    """Kill a process at once; returns whether it was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _fields(line: str) -> tuple[str, str, str]:
    one, parent, name = (*line.split(None, 2), "")[:3]
    return one, parent, name


def _is_at_work(name: str) -> bool:
    return name.startswith("ray::") and not name.startswith(_OTHERS)
