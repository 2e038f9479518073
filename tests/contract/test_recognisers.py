"""What every recogniser of `vqmem asr` promises, for each one that listing the folder finds."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.reading.audio import Audio
from vqmem.data.reading.files import UnreadableError
from vqmem.recipes.asr.base import Decoding, Recogniser
from vqmem.recipes.speech.text_normalisation import Alphabet
from vqmem.registry import build, load, names


def recording(samples: int) -> Audio:
    """Noise at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).standard_normal(samples) * 0.1, 16_000, format="WAV")
    return Audio("noise.wav", file.getvalue())


@pytest.mark.parametrize("name", names("recognisers"))
class TestRecogniser:
    """Each test for each of them, with its defaults."""

    def test_it_is_frozen_and_does_what_the_recipe_asks_for(self, name: str) -> None:
        recogniser = build("recognisers", name)
        assert isinstance(recogniser, Recogniser)
        assert recogniser.input_kind in ("audio", "units")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(recogniser, dataclasses.fields(load("recognisers", name))[0].name, None)

    def test_a_recording_has_the_length_of_its_samples_or_is_refused(self, name: str) -> None:
        recogniser = build("recognisers", name)
        assert recogniser.length(recording(8_000)) == 8_000
        with pytest.raises(UnreadableError, match="has 399 samples"):
            recogniser.length(recording(399))

    def test_checking_makes_nothing(self, name: str, tmp_path: Path) -> None:
        build("recognisers", name).check(tmp_path / "run", Decoding())
        assert not list(tmp_path.iterdir())

    def test_a_folder_without_a_run_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=str(tmp_path)):
            build("recognisers", name).load(tmp_path, Alphabet(" ab"), Decoding(), torch.device("cpu"))
