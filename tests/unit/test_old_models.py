"""Models of version 0.1 load under today's names; its config keys are refused with their new names."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from vqmem.artifacts import load_model, rename_keys, save_model
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.speech.mel_rvq import MelRVQ, MelRVQConfig
from vqmem.models.speech.spectral import Bandwidth
from vqmem.models.speech.unit_speaker import SpeakerConfig, UnitSpeaker
from vqmem.models.speech.unit_vocoder import UnitVocoder, VocoderConfig
from vqmem.recipes.engine.config import load
from vqmem.recipes.lm.language_model import LanguageModel, load_language_model, strategies
from vqmem.recipes.tts.recipe import Config
from vqmem.recipes.tts.voice import _load_rvq

SPEAKER = UnitSpeaker(SpeakerConfig(dim=16, layers=1, heads=2), " ab", 5, max_train_letters=7)
VOCODER = UnitVocoder(VocoderConfig(width=8, unit_only_prob=0.25), 5, 3, Bandwidth(), 100.0)


class Renamed(torch.nn.Module):
    """A module whose weights have their old names."""

    def __init__(self, module: torch.nn.Module, old_names: dict[str, str]) -> None:
        super().__init__()
        self.module, self.old_names = module, old_names

    def state_dict(self, **options):
        return rename_keys(self.module.state_dict(**options), self.old_names)


@pytest.mark.parametrize("model", [SPEAKER, VOCODER])
def test_weights_and_fields_with_old_names_load(model, tmp_path):
    fields = rename_keys(model.fields(), {"max_train_letters": "taught"})
    fields["shape"] = rename_keys(fields["shape"], {"unit_only_prob": "untold"})
    old_names = {new: old for old, new in model.renamed_weights.items()}
    save_model(tmp_path, model.kind, fields, Renamed(model, old_names))
    loaded = load_model(tmp_path, type(model).from_fields, kind=model.kind)
    assert loaded.fields() == model.fields()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_residual_quantiser_of_an_old_run_loads(tmp_path):
    rvq = MelRVQ(MelRVQConfig(num_quantizers=2, codes=4))
    shape = rename_keys(rvq.fields()["shape"], {"num_quantizers": "books"})
    save_model(tmp_path / "details", "unit_details", {"shape": shape}, rvq)
    loaded = _load_rvq(tmp_path, "cpu")
    assert loaded is not None
    assert loaded.config == rvq.config


@pytest.mark.parametrize(
    ("old", "new"), [("details.books", "rvq.num_quantizers"), ("vocoder.untold", "vocoder.unit_only_prob")]
)
def test_old_config_keys_are_refused_with_the_new_name(old, new):
    with pytest.raises(ValueError, match=f"the config key {old} is called {new} now; rename it"):
        load(Config, None, [f"{old}=1"])


def test_a_learned_compression_with_its_old_name_loads(tmp_path):
    shape = TransformerConfig(vocab_size=5, dim=16, layers=1, heads=2)
    given = {"pooled": {"policy": "fifo", "compression": {"name": "pool", "how": "conv"}}}
    model = LanguageModel(shape, strategies(given))
    save_model(
        tmp_path,
        "language_model",
        {"shape": asdict(shape), "strategies": given},
        Renamed(model, {"compressors": "squeezers"}),
    )
    loaded = load_language_model(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
