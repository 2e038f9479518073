"""The fingerprint of a run, and its folder, which contains one run only."""

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
from .distributed import UNSAVED, on_main_process


def fingerprint(config: Any, excluded: Collection[str]) -> dict[str, Any]:
    """The dotted keys of ``config`` and their values, without the top-level keys ``excluded`` and free keys."""
    return {key: value for key, value in lasting(flat(as_dict(config))).items() if key.split(".")[0] not in excluded}


@on_main_process
def init_run_dir(config: Any, excluded: Collection[str]) -> None:
    """Write ``config.yaml`` into ``config.out``. Raises `ValueError` where that holds a run of another `fingerprint`.

    The data may have moved if its documents are the same. A folder that contains only a config is not a run, since
    nothing was computed for it.
    """
    path = Path(config.out) / "config.yaml"
    if path.is_file() and any(other != path and other.name[0] != "." for other in path.parent.iterdir()):
        old = load(type(config), path)
        refuse_changes(path.parent, fingerprint(old, excluded), fingerprint(config, excluded))
        places = [{key: v for key, v in flat(as_dict(of)).items() if is_place(key)} for of in (old, config)]
        if places[0] != places[1] and not compare_with_record(config.data, path.parent):
            refuse_changes(path.parent, *places)
    else:
        forget(path.parent)
    atomic_write(path, dump(config))


def is_trained(folder: Path, steps: int, needed_by: Path | None = None) -> bool:
    """Whether ``folder`` contains a model that was trained (in ``folder/training``) for exactly ``steps`` steps.

    It does not where the training went on after the model was saved, or ended before.

    Raises ``ValueError`` if it was trained for more, or for fewer and the model in ``needed_by`` depends on it.
    """
    if not (folder / CONFIG).is_file():
        return False
    newest = next(iter(checkpoint.newest_first(folder / "training" / checkpoint.FOLDER)), None)
    if newest is None:
        log = folder / "training" / "metrics.jsonl"
        done = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] if log.is_file() else steps
        if done != steps:
            raise ValueError(
                f"{folder} was trained for {done} steps and has no checkpoint to continue from; give steps = {done}, "
                "or use another out"
            )
        return True
    done = checkpoint.step_of(newest)
    if done > steps:
        raise too_few_steps(steps, done, folder)
    if done < steps and needed_by is not None and needed_by.exists():
        raise ValueError(f"{needed_by} was made with the {done} steps of {folder}; for {steps} of them use another out")
    return done == steps and not (folder / "training" / UNSAVED).exists()


def too_few_steps(steps: int, done: int, folder: Path) -> ValueError:
    """The error for a training whose config asks for fewer ``steps`` than are ``done``."""
    return ValueError(f"steps = {steps} is below the {done} that are done in {folder}; give more, or use another out")
