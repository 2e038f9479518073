"""The public names: imported on first use, listed, and known to type checkers."""

import subprocess
import sys

import pytest
import vqmem


def test_every_name_is_there_listed_and_documented():
    assert dir(vqmem) == sorted(vqmem.__all__)
    for name in vqmem.__all__:
        assert getattr(vqmem, name).__doc__
    with pytest.raises(AttributeError, match="No vqmem attribute nothing"):
        _ = vqmem.nothing  # pyright: ignore[reportAttributeAccessIssue]


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
