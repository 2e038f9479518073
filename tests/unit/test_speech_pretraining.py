"""Labels, crops and batches of the HuBERT recipe."""

from dataclasses import asdict

import numpy as np
import pytest
import soundfile
import torch
from vqmem.artifacts import save_model
from vqmem.data.reading.audio import Audio
from vqmem.models.speech import hubert
from vqmem.models.speech.hubert import HubertConfig
from vqmem.recipes.engine.loader import BatchLoader
from vqmem.recipes.speech_pretraining.clips import CropLoading, PretrainingClip, pretraining_sampler
from vqmem.recipes.speech_pretraining.labels import read_labels
from vqmem.recipes.speech_pretraining.quality import unit_quality
from vqmem.recipes.speech_pretraining.recipe import Config, PretrainingTask
from vqmem.registry import build

MODEL = HubertConfig()


@pytest.fixture
def clips(tmp_path):
    """Clips whose sample i is i / 2^15, so that a crop tells where it was taken, and whose unit i is i."""
    made = []
    for number, frames in enumerate((9, 40, 77)):
        samples = np.arange(MODEL.samples(frames) + 100 * number) / 2**15
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000, subtype="FLOAT")
        made.append(PretrainingClip(f"{number}", Audio(str(tmp_path / f"{number}.wav")), torch.arange(frames)))
    return made


def test_crops_and_units_stay_together(clips):
    loader, starts = BatchLoader(pretraining_sampler(clips, 3, 0), CropLoading(MODEL, 30)), set()
    for _ in range(12):
        batch = loader.next()
        for row, length in enumerate(batch.lengths.tolist()):
            frames = MODEL.frames(length)
            assert frames in (9, 30)
            start = round(float(batch.waveforms[row, 0]) * 2**15) // 320
            starts.add(start)
            assert batch.waveforms[row, :length] == pytest.approx((np.arange(length) + start * 320) / 2**15)
            assert batch.units[row, :frames].tolist() == list(range(start, start + frames))
            assert batch.mask[row, :frames].any()
            assert not batch.mask[row, frames:].any()
    assert len(starts) > 9


def test_every_clip_comes_once_an_epoch_and_processes_share_them(clips):
    loaders = [
        BatchLoader(pretraining_sampler(clips, 1, 1, rank=rank, world=3), CropLoading(MODEL, 99)) for rank in range(3)
    ]
    for _ in range(4):
        assert sorted(MODEL.frames(int(loader.next().lengths)) for loader in loaders) == [9, 40, 77]


def test_a_loader_goes_on_where_it_was(clips):
    first, second = (BatchLoader(pretraining_sampler(clips, 2, 4), CropLoading(MODEL, 20)) for _ in range(2))
    for _ in range(5):
        first.next()
    second.load_state_dict(first.state_dict())
    for left, right in zip(first.next(), second.next(), strict=True):
        assert torch.equal(left, right)


def test_shown_frames_count_as_much_as_is_said(clips):
    shape = {"encoder_embed_dim": 32, "encoder_num_layers": 1, "encoder_num_heads": 2, "encoder_ff_interm_features": 32}
    small = HubertConfig(final_dim=8, extractor_conv_layer_config=((16, 400, 320),), **shape)
    batch = BatchLoader(pretraining_sampler(clips, 3, 0), CropLoading(small, 30)).next()
    model = hubert.build(small, 77).eval()
    losses = [PretrainingTask(model, 10.0, weight).step(batch, None)[0].value.item() for weight in (0.0, 1.0, 2.0)]
    encoding = hubert.encode(model, batch.waveforms, batch.lengths, batch.mask)
    shown = encoding.valid & ~batch.mask
    nll = -hubert.logits(model, encoding.layers[-1]).log_softmax(-1)[shown]
    expected = float(nll.gather(1, batch.units[shown][:, None]).mean().detach())
    assert losses[1] - losses[0] == pytest.approx(expected, abs=1e-4)
    assert losses[2] - losses[0] == pytest.approx(2 * expected, abs=1e-4)


@pytest.mark.parametrize("kernel", [10, 40])
def test_layers_are_features_where_frames_are_a_little_shorter_or_longer(tmp_path, kernel):
    shape = {"encoder_embed_dim": 32, "encoder_num_layers": 1, "encoder_num_heads": 2, "encoder_ff_interm_features": 32}
    small = HubertConfig(final_dim=8, extractor_conv_layer_config=((8, kernel, 20), (8, 8, 4), (8, 4, 4)), **shape)
    assert small.field == 380 + kernel
    model = hubert.build(small, 5).eval()
    save_model(tmp_path / "model", hubert.KIND, {"config": asdict(small), "num_classes": 5}, model)
    layer = build("features", {"name": "hubert", "folder": str(tmp_path), "layer": 1}).build()
    for samples in (400, 719, 720, 1999):
        wave = torch.randn(samples)
        assert layer(wave).shape == (1 + (samples - 400) // 320, 32)
    five = torch.cat([wave[:1680], torch.zeros(100)])[: small.samples(5)]  # 5 frames of 400 samples end at 1680
    assert torch.allclose(layer(wave[:1680]), hubert.encode(model, five[None]).layers[0][0], atol=1e-5)


def write(path, *rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


HEAD = ("name", "start", "end", "phone")


def test_labels_by_hand(tmp_path):
    # The middles of frames are 12.5 ms, 32.5 ms, 52.5 ms and so on.
    table = write(
        tmp_path / "phones.tsv", HEAD, ("a", "0.02", "0.06", "AH"), ("a", "0.06", "0.1", "T"), ("b", "0", "1", "AH")
    )
    labels = read_labels(table)
    assert labels["a"].at_frames(7, MODEL).tolist() == [-1, 0, 0, 1, 1, -1, -1]
    assert labels["b"].at_frames(2, MODEL).tolist() == [0, 0]
    units = {"a": torch.tensor([7, 3, 3, 4, 4, 4, 9]), "b": torch.tensor([3, 3])}
    figures = unit_quality(units, labels, MODEL)
    # Units change at 22.5, 62.5 and 122.5 ms in a; its phones change at 60 ms.
    assert figures == pytest.approx({"pnmi": 1.0, "phone_purity": 1.0, "cluster_purity": 1.0, "boundary_f1": 0.5})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("name", "phone")], "must name the columns name, start, end, phone"),
        ([HEAD], "has no labels"),
        ([HEAD, ("a", "0", "zero", "T")], "line 2 .* is not a phone from start to end"),
        ([HEAD, ("a", "1", "0.5", "T")], "line 2 .* is not a phone"),
        ([HEAD, ("a", "0", "nan", "T")], "line 2 .* is not a phone"),
        ([HEAD, ("a", "0", "1", "T"), ("a", "0.5", "2", "T")], "line 3 .* is not a phone"),
        ([HEAD, ("a", "0", "1")], "line 2 has 3 cells and the first 4"),
        ([HEAD, ("a", "0", "1", "")], "line 2 .* is not a phone"),
    ],
)
def test_bad_labels_are_refused(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_labels(write(tmp_path / "phones.tsv", *rows))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be at least 1"),
        ({"eval_clips": 0}, "eval_clips = 0 must be at least 1, or null"),
        ({"crop": 0.03}, "crop=0.03 seconds are fewer than two frames"),
        ({"targets": "hubert_unit"}, "did you mean hubert_units"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"feature_weight": -1.0}, "feature_weight = -1.0 must be at least 0"),
        ({"off_target_weight": -0.5}, "off_target_weight = -0.5 must be at least 0"),
    ],
)
def test_bad_keys_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Config(**keys)
