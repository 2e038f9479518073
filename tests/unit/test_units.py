"""Units: frames streamed against frames in one go, parity of the features, times and runs, refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor
from vqmem.data.reading.audio import RATE, Audio, UnreadableError
from vqmem.models.features import mfcc39, pretrained
from vqmem.registry import build
from vqmem.tokenizers_._units import stream_of
from vqmem.tokenizers_.hubert_units import FrontEnd, UnitTokenizer, cluster
from vqmem.tokenizers_.speech.frames import HOP, SPAN, stream_frames

TINY = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(RATE * seconds), generator=torch.Generator().manual_seed(seed))


def tokenizer(**keys: object) -> UnitTokenizer:
    centroids = cluster(mfcc39.MFCC()(noise(20)), 20, 0)
    return UnitTokenizer(mfcc39.MFCC(), centroids, bool(keys.get("deduplicate")), bool(keys.get("frames")))


# --- frames --------------------------------------------------------------------------------------------------------


def test_mfcc_is_the_recipe_of_hubert():
    """As fairseq's dump_mfcc_feature.py makes them; of its 100 frames per second every other one."""
    wave = noise(1.3)
    cepstra = torchaudio.compliance.kaldi.mfcc(waveform=wave[None], sample_frequency=16_000, use_energy=False)
    deltas = torchaudio.functional.compute_deltas(cepstra.T)
    wanted = torch.cat([cepstra.T, deltas, torchaudio.functional.compute_deltas(deltas)]).T[::2]
    assert torch.equal(mfcc39.MFCC()(wave), wanted)


@given(samples=st.integers(SPAN, 9000), average=st.sampled_from([1, 3, 5]), loudness=st.sampled_from([0.0, 0.1, 3.0]))
@settings(max_examples=20)
def test_frames_are_made_even_as_a_loop_over_them_would(samples, average, loudness):
    wave = loudness * noise(1.0)[:samples]
    frames = mfcc39.MFCC()(wave)
    deviations = [column.std(correction=0).clamp(min=1e-5) for column in frames.T]
    even = torch.stack([(c - c.mean()) / d for c, d in zip(frames.T, deviations, strict=True)], 1)
    beside, last = average // 2, len(frames) - 1
    near = [[min(max(at + by, 0), last) for by in range(-beside, beside + 1)] for at in range(len(frames))]
    wanted = torch.stack([even[around].mean(0) for around in near])
    torch.testing.assert_close(mfcc39.MFCC(normalise=True, average=average)(wave), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("average", [0, 2, -1])
def test_a_mean_without_a_middle_is_refused(average):
    with pytest.raises(ValueError, match=f"average {average} has no middle; give an odd number"):
        mfcc39.Features(average=average)


@pytest.mark.parametrize("samples", [400, 719, 720, 1039, 1040, 16_000])
def test_as_many_frames_as_the_encoder_of_hubert_gives(samples):
    assert len(mfcc39.MFCC()(noise(1.0)[:samples])) == 1 + (samples - SPAN) // HOP


@given(
    samples=st.integers(SPAN, 20_000),
    window=st.integers(4, 40),
    more=st.integers(0, 3),
    size=st.integers(1, 9000),
    average=st.sampled_from([1, 3, 5]),
)
@settings(max_examples=20)
def test_streamed_frames_equal_those_at_once(samples, window, more, size, average):
    extractor = mfcc39.MFCC(average=average)
    extractor.window, extractor.context = window, extractor.context + more
    wave = noise(2.0)[:samples]
    streamed = torch.cat(list(stream_frames(wave.split(size), extractor, "noise")))
    full = mfcc39.MFCC(average=average)(wave)
    assert streamed.shape == full.shape
    assert (streamed - full).abs().max() < 1e-2  # of values up to a hundred


def test_too_little_context_is_seen():
    extractor = mfcc39.MFCC()
    extractor.window, extractor.context = 10, 1
    wave = noise(2.0)
    streamed = torch.cat(list(stream_frames([wave], extractor, "noise")))
    assert (streamed - mfcc39.MFCC()(wave)).abs().max() > 0.1


def test_real_units_equal_those_of_the_file_at_once(real_data):
    """To the frame, over a border of windows; and chunks do not matter to the bit."""
    folder = real_data / "speech" / "librispeech_test_other"
    wave = torch.cat([Audio(str(path)).read() for path in sorted(folder.iterdir())[:10]])
    assert len(wave) > 45 * RATE
    made = tokenizer()
    units = made.encode_chunks([wave]).ids
    assert torch.equal(units, made.nearest(mfcc39.MFCC()(wave)))
    assert torch.equal(units, made.encode_chunks(wave.split(12_345)).ids)
    assert len(units.unique()) == made.vocab_size


# --- units ---------------------------------------------------------------------------------------------------------


def test_times_runs_and_frames():
    plain = stream_of(torch.tensor([7, 7, 7, 2, 2, 7]), False)
    assert plain.starts.tolist() == [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert plain.ends.tolist() == [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]
    runs = stream_of(plain.ids, True, torch.arange(6.0)[:, None])
    assert runs.ids.tolist() == [7, 2, 7]
    assert runs.sizes.tolist() == [3, 2, 1]
    assert runs.starts.tolist() == [0.0, 0.06, 0.1]
    assert runs.ends.tolist() == [0.06, 0.1, 0.12]
    assert runs.frames is not None
    assert runs.frames[:, 0].tolist() == [1.0, 3.5, 5.0]
    assert torch.equal(runs.ids.repeat_interleave(runs.sizes), plain.ids)
    assert len(stream_of(torch.zeros(0, dtype=torch.long), True)) == 0


def test_nearest_is_what_an_exhaustive_search_finds():
    frames, made = mfcc39.MFCC()(noise(1.0, 1)), tokenizer(frames=True)
    wanted = [min(range(20), key=lambda k: float((frame - made.centroids[k]).norm())) for frame in frames]
    stream = made.encode_chunks([noise(1.0, 1)])
    assert stream.ids.tolist() == wanted
    assert stream.frames is not None
    assert torch.equal(stream.frames, frames)


def test_few_frames_are_drawn_evenly_and_fitting_goes_on_past_what_cannot_be_read(tmp_path, capsys):
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for i, path in enumerate(paths):
        soundfile.write(path, noise(1.0, i).numpy(), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    recordings = [Audio(str(path)) for path in [*paths, tmp_path / "text.wav", tmp_path / "absent.wav"]]
    fitted = FrontEnd(clusters=5, fit_frames=60).fit(iter(recordings))
    assert fitted.vocab_size == 5
    errors = capsys.readouterr().err
    assert "skipped 2 of 6:" in errors
    assert "text.wav" in errors
    assert "absent.wav" in errors


def test_what_cannot_be_units_is_one_line(tmp_path):
    soundfile.write(tmp_path / "one.wav", [0.5], RATE)
    with pytest.raises(UnreadableError, match=r"one\.wav' is too short for speech units: 1 samples at 16 kHz"):
        tokenizer().encode(Audio(str(tmp_path / "one.wav")))
    soundfile.write(tmp_path / "short.wav", noise(0.5).numpy(), RATE)
    with pytest.raises(ValueError, match="24 frames of 20 ms are fewer than 100 clusters"):
        FrontEnd().fit([Audio(str(tmp_path / "short.wav"))])
    with pytest.raises(ValueError, match="clusters = 0 must be at least 1"):
        FrontEnd(clusters=0)
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed = {seed} must be at least 0 and below 4294967296"):
            FrontEnd(seed=seed)
    with pytest.raises(ValueError, match="fit_frames 5 is less than clusters 100"):
        FrontEnd(fit_frames=5)
    with pytest.raises(ValueError, match=r"no kmeans\.safetensors"):
        FrontEnd().load(tmp_path)
    (tmp_path / "kmeans.safetensors").write_text("junk")
    with pytest.raises(ValueError, match="is damaged"):
        FrontEnd().load(tmp_path)


# --- pretrained features -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hubert(tmp_path_factory) -> Path:
    """A tiny random HuBERT as `transformers` saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hubert")
    HubertModel(HubertConfig(**TINY)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("normal", [None, False, True])
def test_a_layer_of_transformers(hubert, normal, tmp_path):
    model = HubertModel.from_pretrained(hubert).eval()
    model.save_pretrained(tmp_path)
    if normal is not None:
        Wav2Vec2FeatureExtractor(do_normalize=normal).save_pretrained(tmp_path)
    wave = 3 * noise(1.0) + 0.2
    given = (wave - wave.mean()) / wave.std(unbiased=False) if normal else wave
    with torch.no_grad():
        wanted = model(given[None], output_hidden_states=True).hidden_states[2][0]
    made = pretrained.Features(str(tmp_path), 2).build()
    assert made.dim == 16
    assert torch.allclose(made(wave), wanted, atol=1e-5)


def test_a_layer_of_a_pipeline_of_torchaudio(monkeypatch):
    """The weights cannot be had in a test: a pipeline with tiny random ones stands for them."""
    torch.manual_seed(0)
    shape = torchaudio.pipelines.HUBERT_BASE._params | {
        "extractor_conv_layer_config": [(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2,
        "encoder_embed_dim": 16, "encoder_num_layers": 3, "encoder_num_heads": 2, "encoder_ff_interm_features": 32,
    }  # fmt: skip
    model = torchaudio.models.wav2vec2_model(**shape).eval()
    asked = {}
    bundle = SimpleNamespace(_params=shape, get_model=lambda dl_kwargs: asked.update(dl_kwargs) or model)
    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_BASE", bundle)
    made = pretrained.Features("HUBERT_BASE", 2).build()
    assert asked["weights_only"]
    wave = noise(1.0)
    with torch.no_grad():
        assert torch.equal(made(wave), model.extract_features(wave[None])[0][1][0])
    with pytest.raises(ValueError, match="has 3 layers, not 4"):
        pretrained.Features("HUBERT_BASE", 4).build()
    with pytest.raises(ValueError, match="unknown pipeline of torchaudio 'HUBERT_BSE'; did you mean HUBERT_BASE"):
        pretrained.Features("HUBERT_BSE").build()


def test_units_of_a_model_do_not_depend_on_chunks_and_are_saved(hubert, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(30.0).numpy(), RATE, subtype="FLOAT")
    front_end = FrontEnd({"name": "pretrained", "path": str(hubert), "layer": 2}, clusters=6)
    fitted = front_end.fit([Audio(str(path))])
    units = fitted.encode(Audio(str(path))).ids
    assert len(units) == 1 + (30 * RATE - SPAN) // HOP
    assert torch.equal(units, fitted.encode_chunks(noise(30.0).split(50_001)).ids)
    fitted.save(tmp_path)
    assert torch.equal(front_end.load(tmp_path).encode(Audio(str(path))).ids, units)


def test_what_is_wrong_with_a_model_is_one_line(hubert, tmp_path):
    for features, match in (
        (pretrained.Features(str(tmp_path / "absent")), "no such file or folder"),
        (pretrained.Features(str(tmp_path)), "no model at .*; give a folder with config.json"),
        (pretrained.Features(str(hubert), 4), "has 3 layers, not 4; give 1 to 3"),
        (pretrained.Features(str(hubert), 2, "gpu"), "unknown device 'gpu'; use auto, cpu"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            features.build()
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="layer = 0 must be at least 1"):
        pretrained.Features(layer=0)
    with pytest.raises(ValueError, match="unknown kind of features 'mfcc'; did you mean mfcc39"):
        build("features", "mfcc")


# --- given units ---------------------------------------------------------------------------------------------------


def units(path: Path, split: str = "train", **keys: object) -> dict[str, tuple[int, ...]]:
    source = build("data", {"name": "unit_files", "path": str(path), **keys})
    return {document.name: document.units for document in source.documents(split)}


def test_utterances_of_a_chapter_are_one_document(tmp_path):
    rows = [{"id": f"LJ00{i % 4}-{i}", "units": [i, i + 1], "text": f"t{i}"} for i in range(8)]
    (tmp_path / "val.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "x", "units": [9]}))
    keys = {"train": "val.jsonl.gz", "test": "test.jsonl"}
    train, dev = units(tmp_path, joint="-", **keys), units(tmp_path, "dev", joint="-", **keys)
    assert (len(train), len(dev)) == (3, 1)
    assert (train | dev)["LJ001"] == (1, 2, 5, 6)
    assert units(tmp_path, "test", **keys) == {"x": (9,)}
    assert len(units(tmp_path, **keys)) == 7


def test_utterances_of_a_chapter_fall_to_the_same_split(tmp_path):
    rows = [{"id": f"LJ00{i % 4}-{i}", "units": [i]} for i in range(8)]
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "x", "units": [9]}))
    keys = {"train": "val.jsonl", "test": "test.jsonl", "by": "-"}
    train, dev = units(tmp_path, **keys), units(tmp_path, "dev", **keys)
    assert (len(train), len(dev)) == (6, 2)
    assert {name[:5] for name in train}.isdisjoint(name[:5] for name in dev)
    assert units(tmp_path, "test", **keys) == {"x": (9,)}


def test_what_is_wrong_with_units_is_one_line(tmp_path):
    for text, match in (
        ("", "has no units"),
        ('{"id": "a"}', "unknown line 1 of 'u.jsonl': key 'units'"),
        ('{"id": "a", "units": [1.5]}', "units are integers"),
        ('{"id": "a", "units": [1]}\n{"id"', "cannot read units from"),
        ("[1, 2]", "line 1 is not an object"),
    ):
        (tmp_path / "u.jsonl").write_text(text)
        with pytest.raises(ValueError, match=match):
            units(tmp_path / "u.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a", "units": [1]}' * 50)[:40])
    with pytest.raises(ValueError, match="cannot read units from"):
        units(tmp_path / "cut.jsonl.gz")
    fitted = build("front-ends", "units").fit([(3, 1)])
    with pytest.raises(ValueError, match="unit 4 is not among the 4 there are"):
        fitted.encode((4,))
    with pytest.raises(ValueError, match="no units to count"):
        build("front-ends", "units").fit([])


def test_real_units(real_data):
    """The counts that the data's description gives."""
    keys = {"train": "val.jsonl.gz", "test": "test.jsonl.gz", "joint": "-"}
    folder = real_data / "speech" / "hubert100_ljspeech"
    parts = {split: units(folder, split, **keys) for split in ("train", "dev", "test")}
    assert [len(part) for part in parts.values()] == [45, 5, 50]
    assert sum(map(len, (parts["train"] | parts["dev"]).values())) // 1000 == 436
    fitted = build("front-ends", {"name": "units", "deduplicate": True}).fit(parts["train"].values())
    assert fitted.vocab_size == 100
    stream = fitted.encode(parts["test"]["LJ001"])
    assert stream.sizes.sum() == len(parts["test"]["LJ001"])
    assert (np.diff(stream.ids.numpy()) != 0).all()
