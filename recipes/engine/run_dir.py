"""What makes a run what it is, and the folder that holds one run only."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...artifacts import CONFIG
from ...files import atomic_write
from . import checkpoint
from .config import as_dict, dump, flat, is_place, lasting, load, refuse_changes
from .data_record import compare_with_record, forget
from .distributed import on_main_process


def identity(config: Any, beside: Collection[str]) -> dict[str, Any]:
    """Every dotted key of ``config`` and its value, but the top-level ones in ``beside`` and those that may change."""
    return {key: value for key, value in lasting(flat(as_dict(config))).items() if key.split(".")[0] not in beside}


@on_main_process
def claim(config: Any, beside: Collection[str]) -> None:
    """Write ``config.yaml`` into ``config.out``. Raises `ValueError` where that holds a run of another `identity`.

    Data may be elsewhere than it was, if its documents are the same. A folder with nothing but a config holds no run:
    what was first asked for could not even begin.
    """
    path = Path(config.out) / "config.yaml"
    if path.is_file() and any(other != path and other.name[0] != "." for other in path.parent.iterdir()):
        old = load(type(config), path)
        refuse_changes(path.parent, identity(old, beside), identity(config, beside))
        places = [{key: v for key, v in flat(as_dict(of)).items() if is_place(key)} for of in (old, config)]
        if places[0] != places[1] and not compare_with_record(config.data, path.parent):
            refuse_changes(path.parent, *places)
    else:
        forget(path.parent)
    atomic_write(path, dump(config))


def is_trained(folder: Path, steps: int, needed_by: Path | None = None) -> bool:
    """Whether the model in ``folder`` is there, and its training (in ``folder/training``) had so many ``steps``.

    Raises ``ValueError`` where it had more, or fewer and the model in ``needed_by`` was made with it.
    """
    if not (folder / CONFIG).is_file():
        return False
    newest = next(iter(checkpoint.newest_first(folder / "training" / checkpoint.FOLDER)), None)
    if newest is None:
        log = folder / "training" / "metrics.jsonl"
        done = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] if log.is_file() else steps
        if done != steps:
            raise ValueError(
                f"{folder} was trained for {done} steps and has no checkpoint to go on from; give steps = {done}, or "
                "use another out"
            )
        return True
    done = checkpoint.step_of(newest)
    if done > steps:
        raise too_few_steps(steps, done, folder)
    if done < steps and needed_by is not None and needed_by.exists():
        raise ValueError(f"{needed_by} was made with the {done} steps of {folder}; for {steps} of them use another out")
    return done == steps


def too_few_steps(steps: int, done: int, folder: Path) -> ValueError:
    """The error for a training that is asked for fewer ``steps`` than are ``done``."""
    return ValueError(f"steps = {steps} is below the {done} that are done in {folder}; give more, or use another out")
