"""What a run depends on is noted with it: its documents, and the models behind its features."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HubertConfig as TheirConfig
from transformers import HubertModel
from vqmem.artifacts import save_model
from vqmem.data.reading.audio import Audio
from vqmem.data.reading.files import local_path
from vqmem.models.speech import hubert
from vqmem.models.speech.frame_scorer import KIND, FrameScorer, load_frame_scorer
from vqmem.models.speech.hubert import HubertConfig
from vqmem.models.vq_lm import VQLMConfig
from vqmem.recipes.engine.data_record import compare_with_record, documents, forget
from vqmem.registry import build
from vqmem.tokenizers_._pinned import pin
from vqmem.tokenizers_.base import load_tokenizer, save_tokenizer

TINY = HubertConfig(
    extractor_conv_layer_config=((8, 20, 20), (8, 8, 4), (8, 4, 4)),
    encoder_embed_dim=16,
    encoder_num_layers=2,
    encoder_num_heads=2,
    encoder_ff_interm_features=16,
    encoder_pos_conv_kernel=4,
    final_dim=8,
)


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(f"document {i}\n", encoding="utf-8")
    (tmp_path / "run").mkdir()
    return folder


def read(folder: Path, limit: int = 99) -> list[str]:
    """The names of the first training documents."""
    found = []
    for document in documents({"name": "text_files", "path": str(folder)}, "train", folder.parent / "run"):
        found.append(document.name)
        if len(found) == limit:
            break
    return found


def test_a_record_grows_and_is_compared(texts, tmp_path):
    assert not compare_with_record({"name": "text_files", "path": str(texts)}, tmp_path / "run")
    names = read(texts, 3)
    record = tmp_path / "run" / ".data-train.jsonl"
    assert len(record.read_text().splitlines()) == 3
    with record.open("a") as file:
        file.write('{"name": "half a li')
    assert read(texts) == read(texts)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["name"] for line in lines[:-1]] == read(texts)
    assert lines[-1] == {"end": len(lines) - 1}
    assert compare_with_record(
        {"name": "text_files", "path": str(shutil.copytree(texts, tmp_path / "b"))}, record.parent
    )
    path = texts / names[2]
    path.write_text("document x\n")
    assert read(texts, 2) == names[:2]
    with pytest.raises(ValueError, match=f"'{names[2]}' of the split train .*SHA-256 differs; put the old data back"):
        read(texts)
    forget(record.parent)
    assert len(read(texts)) == len(lines) - 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda names: names.pop(), r"ends after 3 documents, where 'row 3' came next"),
        (lambda names: names.append("row 4"), r"had 4 documents .*, and 'row 4' is one more"),
        (lambda names: names.insert(1, "another"), r"document 2 of the split train is 'another', and was 'row 1'"),
        (lambda names: names.reverse(), r"document 1 of the split train is 'row 3', and was 'row 0'"),
    ],
)
def test_documents_that_come_and_go(tmp_path, change, reason):
    names, path = [f"row {i}" for i in range(4)], tmp_path / "rows.jsonl"
    spec = {"name": "unit_files", "path": str(tmp_path), "train": path.name}

    def write() -> None:
        rows = [json.dumps({"id": name, "units": [len(name), ord(name[-1])]}) for name in names]
        path.write_text("\n".join(rows) + "\n")

    (tmp_path / "dev.jsonl").write_text('{"id": "a", "units": [1]}\n')
    spec |= {"dev": "dev.jsonl", "test": "dev.jsonl"}
    write()
    first = list(documents(spec, "train", tmp_path))
    change(names)
    write()
    with pytest.raises(ValueError, match=rf"\A.*{reason}.*use another out\Z"):
        list(documents(spec, "train", tmp_path))
    assert len(first) == 4


def test_a_recording_that_was_not_touched_is_not_read(tmp_path, monkeypatch):
    wave = tmp_path / "a.wav"
    soundfile.write(wave, np.sin(np.arange(16_000) / 9), 16_000)
    spec, sums = {"name": "audio_files", "path": str(wave)}, []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda file, kind: sums.append(file.name) or digest(file, kind))
    for _ in range(3):
        list(documents(spec, "train", tmp_path))
    assert sums == [str(wave)]
    wave.touch()
    list(documents(spec, "train", tmp_path))
    assert len(sums) == 2
    data = bytearray(wave.read_bytes())
    data[9000] ^= 1
    wave.write_bytes(data)
    os.utime(wave, (0, 0))
    with pytest.raises(ValueError, match=r"'a\.wav/train' of the split train .*SHA-256"):
        list(documents(spec, "train", tmp_path))


# --- models elsewhere ----------------------------------------------------------------------------------------------


def pretrain(folder: Path, seed: int, config: HubertConfig = TINY) -> Path:
    torch.manual_seed(seed)
    save_model(folder / "model", hubert.KIND, {"config": asdict(config), "num_classes": 3}, hubert.build(config, 3))
    return folder


def audio() -> Audio:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).standard_normal(32_000) * 0.1, 16_000, format="WAV")
    return Audio("noise", file.getvalue())


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder with a model, named by a relative path, and the units that were fitted on its features."""
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.chdir(tree)
    pretrain(Path("runs/encoder"), seed=0)
    spec = {"name": "hubert_units", "features": {"name": "hubert", "folder": "runs/encoder"}, "clusters": 5}
    save_tokenizer(build("front-ends", spec).fit([audio()]), spec, Path("runs/units"))
    return tree


def test_units_of_a_model_are_the_same_anywhere(tree, tmp_path, monkeypatch):
    units = load_tokenizer(Path("runs/units")).encode(audio()).ids
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load_tokenizer(tree / "runs/units").encode(audio()).ids, units)
    moved = tree.rename(tmp_path / "moved")
    assert torch.equal(load_tokenizer(moved / "runs/units").encode(audio()).ids, units)
    pretrain(tree / "runs/encoder", seed=1)  # where it was before; the one that was moved along is taken
    assert torch.equal(load_tokenizer(moved / "runs/units").encode(audio()).ids, units)
    shutil.move(moved / "runs/units", tmp_path / "alone")
    shutil.rmtree(tree)
    shutil.move(moved, tree)
    assert torch.equal(load_tokenizer(tmp_path / "alone").encode(audio()).ids, units)


def test_units_of_another_model_are_refused(tree):
    path = tree / "runs/encoder"
    message = r"\A{} .*runs/units.*put (that one|it) back, or make 'runs/units' anew\Z"
    for other in (
        lambda: pretrain(path, seed=1),
        lambda: pretrain(path, seed=0, config=replace(TINY, encoder_layer_norm_first=True)),
        lambda: pretrain(path, seed=0, config=replace(TINY, encoder_embed_dim=32)),
    ):
        other()
        with pytest.raises(ValueError, match=message.format(f"the model in '{path}' is not the one that")):
            load_tokenizer(Path("runs/units"))
    pretrain(path, seed=0)
    load_tokenizer(Path("runs/units"))
    shutil.rmtree(path)
    with pytest.raises(
        ValueError, match=rf"\A'runs/units' needs the model in '{path}', which is not there; put it back"
    ):
        load_tokenizer(Path("runs/units"))


def test_units_from_before_sums_were_noted(tree):
    """They have no encoder.json, and are read as they were."""
    path = Path("runs/units")
    (path / "encoder.json").unlink()
    description = json.loads((path / "front_end.json").read_text())
    del description["files"]["encoder.json"]
    (path / "front_end.json").write_text(json.dumps(description))
    assert load_tokenizer(path).vocab_size == 5
    pretrain(Path("runs/encoder"), seed=0, config=replace(TINY, encoder_embed_dim=32))
    with pytest.raises(ValueError, match="the clusters in 'runs/units' are of other features"):
        load_tokenizer(path)


def test_a_frame_scorer_needs_the_model_it_was_trained_on(tree, tmp_path, monkeypatch):
    spec, run = {"name": "hubert", "folder": "runs/encoder"}, Path("runs/frames")
    note = pin(build("features", spec).build(), run / "model")
    scorer = FrameScorer(spec, VQLMConfig(frame_dim=16, dim=4, hidden=4, codes=4), note)
    save_model(run / "model", KIND, scorer.fields(), scorer)
    monkeypatch.chdir(tmp_path)
    assert load_frame_scorer(tree / run).extractor().dim == 16
    pretrain(tree / "runs/encoder", seed=1)
    with pytest.raises(ValueError, match=r"the model in .*encoder' is not the one that .*frames/model' was made with"):
        load_frame_scorer(tree / run).extractor()


def test_a_pretrained_model_in_a_folder(tmp_path, monkeypatch):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"conv_dim": (8, 8, 8), "conv_kernel": (20, 8, 4), "conv_stride": (20, 4, 4)}
    sizes |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        HubertModel(TheirConfig(**sizes)).save_pretrained(tmp_path / "theirs" / "hubert")

    save(0)
    monkeypatch.chdir(tmp_path)
    spec = {
        "name": "hubert_units",
        "features": {"name": "pretrained", "path": "theirs/hubert", "layer": 2},
        "clusters": 3,
    }
    save_tokenizer(build("front-ends", spec).fit([audio()]), spec, tmp_path / "units")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load_tokenizer(tmp_path / "units")
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    shutil.move(tmp_path / "theirs", tmp_path / "gone")
    with pytest.raises(ValueError, match=r"needs the model in '.*theirs/hubert', which is not there"):
        load_tokenizer(tmp_path / "units")
    monkeypatch.undo()
    shutil.move(tmp_path / "gone", tmp_path / "theirs")
    save(1)
    with pytest.raises(ValueError, match=r"the model in '.*theirs/hubert' is not the one that"):
        load_tokenizer(tmp_path / "units")


def test_what_is_a_path_and_what_is_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "hubert").mkdir(parents=True)
    assert local_path("models/hubert") == tmp_path / "models" / "hubert"
    assert local_path("models") == tmp_path / "models"
    assert local_path("facebook/hubert-base-ls960") is None
    assert local_path("gpt2") is None
    for name in ("models/huber", "./gpt2", "~/no-such-model", "/no/such", "a/b/c", "../x"):
        with pytest.raises(ValueError, match="no such file or folder"):
            local_path(name)
