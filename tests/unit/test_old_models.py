"""Models of version 0.1 load under today's names; its config keys are refused with their new names."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest
import torch
from vqmem.artifacts import load_model, rename_keys, save_model
from vqmem.cli import main
from vqmem.memory.bank import Memory
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.speech.mel_rvq import MelRVQ, MelRVQConfig
from vqmem.models.speech.spectral import Bandwidth
from vqmem.models.speech.unit_speaker import SpeakerConfig, UnitSpeaker
from vqmem.models.speech.unit_vocoder import UnitVocoder, VocoderConfig
from vqmem.recipes.asr import recipe as asr
from vqmem.recipes.compare import recipe as compare
from vqmem.recipes.engine import checkpoint
from vqmem.recipes.engine.config import load
from vqmem.recipes.lm.language_model import LanguageModel, load_language_model
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.speech_pretraining import recipe as speech_pretraining
from vqmem.recipes.text_lm import recipe as text_lm
from vqmem.recipes.tts import recipe as tts
from vqmem.recipes.tts.voice import _load_rvq
from vqmem.registry import build

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
    ("config", "old", "new"),
    [
        (tts.Config, "details", "rvq"),
        (tts.Config, "rvq.books", "rvq.num_quantizers"),
        (tts.Config, "vocoder.untold", "vocoder.unit_only_prob"),
        (tts.Config, "vocoder_rows", "vocoder_batch_size"),
        (text_lm.Config, "rows", "batch_size"),
        (text_lm.Config, "budgets", "capacities"),
        (text_lm.Config, "hold", "resample_every"),
        (compare.Config, "native.budget", "native.capacity"),
        (compare.Config, "lm.rows", "lm.batch_size"),
        (asr.Config, "worst", "worst_utterances"),
        (speech_pretraining.Config, "unmasked_weight", "off_target_weight"),
    ],
)
def test_old_config_keys_are_refused_with_the_new_name(config, old, new, tmp_path):
    message = f"the config key {old} is called {new} now; rename it"
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        load(config, None, [f"{old}=1"])
    file = tmp_path / "old.yaml"
    *sections, key = old.split(".")
    file.write_text("".join(f"{section}: {{" for section in sections) + f"{key}: 1" + "}" * len(sections))
    with pytest.raises(ValueError, match=rf"\A{re.escape(str(file))}: {message}\Z"):
        load(config, file, [f"out=runs/{old}"])


def test_an_old_option_is_refused_with_the_new_name(capsys):
    for words in (["--way", "greedy"], ["--way=greedy"], ["--way"]):
        assert main(["transcribe", "x.wav", *words]) == 2
        assert "the option --way is called --decoder now; rename it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["transcribe", "--help"])
    assert "--way" not in capsys.readouterr().out


def test_old_keys_of_a_variant_are_refused_with_the_new_name():
    with pytest.raises(ValueError, match=r"the config key units.budgets is called units.capacities now"):
        build("recognisers", {"name": "units", "budgets": [8]})


def test_old_keys_of_a_variant_in_a_config_are_refused_at_their_place(capsys):
    for old, new in [
        ("recogniser.budgets", "recogniser.capacities"),
        ("recogniser.aligner.rows", "recogniser.aligner.batch_size"),
    ]:
        assert main(["asr", "ljspeech_units", f"{old}=3", "--print-config"]) == 2
        assert capsys.readouterr() == ("", f"vqmem: the config key {old} is called {new} now; rename it\n")


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
    loaded = load_language_model(tmp_path, None)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def old_score_bias(folder, weight: torch.Tensor) -> LanguageModel:
    """Save a model with a bias on scores as it was when every scorer had the columns surprise, rarity and gain."""
    shape = TransformerConfig(vocab_size=9, dim=16, layers=1, heads=2, score_bias=True)
    model = LanguageModel(shape, strategies({"fifo": {"policy": "fifo"}})).eval()
    model.transformer.score_weight.data = weight
    fields = asdict(shape)
    del fields["signals"]
    save_model(folder, "language_model", {"shape": fields, "strategies": {"fifo": {"policy": "fifo"}}}, model)
    return model


@pytest.mark.parametrize(
    ("name", "weight", "meant"),
    [
        ("vq_lm", [[0.3, -1.0, 2.0], [0.0, 1.5, -0.5]], ["surprise", "rarity", "gain"]),
        ("reuse", [[0.0, 0.0, 2.0], [0.0, 0.0, -0.5]], ["", "", "reuse"]),
        ("unigram", [[0.5, 2.0, 0.0], [-1.0, 0.25, 0.0]], ["rarity", "rarity", ""]),
    ],
)
@torch.no_grad()
def test_an_old_bias_on_scores_gives_the_same_logits(name, weight, meant, tmp_path):
    old = old_score_bias(tmp_path, torch.tensor(weight)).transformer
    scorer = build("scorers", name).build(9)
    new = load_language_model(tmp_path, scorer).transformer
    tokens, positions = torch.randint(9, (1, 6)), torch.arange(6)[None]
    scores = torch.randn(1, 6, len(scorer.signals))
    slots = (
        Memory(6)
        .append(
            Memory(6).empty(old.empty_payload(1), scorer.signals),
            old(tokens, positions).payload,
            tokens,
            positions,
            scores,
            tokens >= 0,
        )
        .slots
    )
    columns = [slots.standard_score(signal) if signal else torch.zeros(1, 6) for signal in meant]
    standard = torch.stack(columns, -1)
    before = replace(slots, scores=standard, standard=standard, score_names=old.config.signals)
    given = (tokens, positions + 6)
    torch.testing.assert_close(new(*given, slots).logits, old(*given, before).logits)
    assert not torch.allclose(new(*given, slots).logits, new(*given, replace(slots, standard=scores * 0)).logits)


def test_an_old_bias_on_what_the_scorer_does_not_give_now_is_refused(tmp_path):
    old_score_bias(tmp_path, torch.tensor([[0.0, 0.1, 2.0], [0.0, 0.0, 1.0]]))
    with pytest.raises(
        ValueError, match=r"bias \(score_bias\) on rarity, which its scorer does not give \(reuse\); train"
    ):
        load_language_model(tmp_path, build("scorers", "reuse").build(9))


def test_an_old_checkpoint_of_a_memory_is_refused_in_one_line():
    tensors, skeleton = checkpoint.encode(Memory(4).empty((torch.zeros(1, 0, 2),), ("rarity",)))
    loaded = checkpoint.decode(tensors, skeleton, torch.device("cpu"))
    assert loaded.slots.score_names == ("rarity",)
    del skeleton["fields"]["slots"]["fields"]["score_names"]
    with pytest.raises(
        ValueError, match=r"\Athe checkpoint is of an earlier version, whose Slots had no score_names; del"
    ):
        checkpoint.decode(tensors, skeleton, torch.device("cpu"))
