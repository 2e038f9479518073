"""Shared by all tests: shape checks are on, threads are few, and real data is found or its absence named."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("vqmem", "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data, from VQMEM_DATA or beside the checkout; skips where there is none."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("VQMEM_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VQMEM_DATA")
    return folder
