"""The public names: imported on first use, listed, and known to type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import vqmem

SOURCE = Path(vqmem.__file__).read_text(encoding="utf-8")


def test_every_name_is_there_listed_and_documented():
    assert dir(vqmem) == sorted(vqmem.__all__)
    for name in vqmem.__all__:
        assert getattr(vqmem, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vqmem.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_same_places():
    (block,) = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    typed = {
        alias.name: f".{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == vqmem._PLACES
    assert {*typed, "__version__"} == {*vqmem.__all__}


@pytest.mark.parametrize("name", ["", "VQMemCache"])
def test_the_cache_needs_nothing_of_speech_or_training(name):
    code = f"""
import sys, vqmem
getattr(vqmem, {name!r}) if {name!r} else None
heavy = {{'librosa', 'torchaudio', 'datasets', 'sklearn', 'tensorboard', 'scipy', 'av', 'omegaconf', 'pydantic'}}
heavy |= set() if {name!r} else {{'torch', 'transformers'}}
sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
