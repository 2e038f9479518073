"""Freed memory is kept for the next tensor, unless the user set the allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from vqmem.recipes.engine.allocator import keep_freed_memory
torch.set_num_threads(1)
if "keep" in sys.argv:
    assert keep_freed_memory() is (sys.argv[-1] == "works")
def fill():
    for _ in range(20):
        torch.ones(16 << 20)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library of C than glibc")


def faults(*arguments: str, **settings: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=True)
    return int(done.stdout)


@needs_glibc
def test_pages_of_freed_tensors_are_not_asked_for_again() -> None:
    assert faults("keep", "works") < faults() / 100


@pytest.mark.parametrize("setting", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}])
def test_settings_of_the_user_remain(setting: dict[str, str]) -> None:
    assert faults("keep", "refuses", **setting) > 1000 or platform.libc_ver()[0] != "glibc"
