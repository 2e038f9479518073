"""The workers of Ray that a process started: which of them are at work, and how one dies."""

from __future__ import annotations

import os
import signal
import subprocess

_OTHERS = tuple(f"ray::{name}" for name in ("IDLE", "RuntimeEnvAgent", "DashboardAgent", "_StatsActor", "Autoscaling"))


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
