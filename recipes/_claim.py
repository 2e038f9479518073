"""What makes a run what it is, and the folder that holds one run only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..artifacts import atomic_write
from ._config import as_dict, dump, flat, load, refuse_changes
from ._train import MAY_CHANGE


def identity(config: Any, beside: Collection[str]) -> dict[str, Any]:
    """Every dotted key of ``config`` and its value, but the top-level ones in ``beside`` and those in `MAY_CHANGE`."""
    found = flat(as_dict(config))
    return {k: v for k, v in found.items() if k.split(".")[0] not in beside and k.split(".")[-1] not in MAY_CHANGE}


def claim(config: Any, beside: Collection[str]) -> None:
    """Write ``config.yaml`` into ``config.out``. Raises `ValueError` where that holds a run of another `identity`.

    A folder with nothing but a config holds no run: what was first asked for could not even begin.
    """
    path = Path(config.out) / "config.yaml"
    if path.is_file() and any(other != path and other.name[0] != "." for other in path.parent.iterdir()):
        refuse_changes(path.parent, identity(load(type(config), path), beside), identity(config, beside))
    atomic_write(path, dump(config))
