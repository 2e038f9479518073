"""Fitted policies that come with the package, each for one pretrained model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ...artifacts import read_sealed
from ..fitted import ABOUT, host_fingerprint

FOLDER = Path(__file__).parents[2] / "models" / "pretrained" / "policies"
PACKAGED = "packaged"
"""Stands for the folder of the packaged policy of a model, so that saved caches do not depend on where that is."""


def packaged_policy(model: Any) -> Path | None:
    """The folder of the packaged policy that was fitted for ``model``; None if there is none."""
    try:
        return _by_host().get(host_fingerprint(model))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # offloaded or packed: none was fitted so
        return None


def policy_folder(folder: str, model: Any) -> str:
    """``folder``, or the packaged one for `PACKAGED`. Raises `ValueError` where the package has none for ``model``."""
    if folder != PACKAGED:
        return folder
    found = packaged_policy(model)
    if found is None:
        raise ValueError(
            f"the package has no policy that was fitted for this {type(model).__name__}; fit one with "
            "`vqmem fit_policy MODEL out=FOLDER`"
        )
    return str(found)


@cache
def _by_host() -> dict[str, Path]:
    return {read_sealed(path)["host"]: path.parent for path in sorted(FOLDER.glob(f"*/{ABOUT}"))}
