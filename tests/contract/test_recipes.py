"""Every recipe found by listing has configs, and every shipped config runs, made tiny."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM
from vqmem import registry
from vqmem.artifacts import save_model
from vqmem.models.speech.spectral import Bandwidth
from vqmem.models.speech.vqvae import VQVAE as VQVAEModel
from vqmem.models.speech.vqvae import VQVAEConfig
from vqmem.recipes.engine.config import load

SHIPPED = [
    (name, path)
    for name in registry.names("recipes")
    for path in sorted((registry.ROOT / "recipes" / name / "configs").glob("*.yaml"))
]
SPLITS = ("train", "dev", "test")
MODEL = ["passage=96", "batch_size=4", "segment=16", "eval_passages=3", "train_tokens=3000"]
VQVAE = [
    "model.strides=[[4,2]]",
    "model.width=4",
    "model.depth=1",
    "model.dim=4",
    "model.codes=16",
    "batch_size=2",
    "crop=512",
]
VQVAE += ["train.steps=2", "train.eval_every=1", "eval_clips=2", "eval_seconds=0.5", "samples=1", "train_seconds=2"]
MODEL += ["scorer_train.steps=3", "train.steps=4", "shape.dim=16", "shape.heads=2", "shape.layers=1"]
FRAMES = [
    "passage=40",
    "batch_size=2",
    "segment=16",
    "eval_clips=2",
    "scorer.dim=8",
    "scorer.hidden=8",
    "scorer.codes=4",
]
FRAMES += ["train.steps=3", "train.eval_every=2", "train.tensorboard=false"]
HUBERT = [
    "batch_size=2",
    "crop=0.5",
    "train.steps=2",
    "train.accumulate=1",
    "train.eval_every=1",
    "train.tensorboard=false",
]
HUBERT += ["targets.clusters=4", "eval_clips=2", "model.encoder_num_layers=6", "model.encoder_embed_dim=16"]
HUBERT += ["model.encoder_num_heads=2", "model.encoder_ff_interm_features=16", "model.encoder_pos_conv_kernel=4"]
HUBERT += ["model.extractor_conv_layer_config=[[8,20,20],[8,8,4],[8,4,4]]", "model.final_dim=8"]
ASR_NETWORK = "{extractor_conv_layer_config: [[8,20,20],[8,8,4],[8,4,4]], encoder_num_layers: 1, encoder_num_heads: 2,"
ASR_NETWORK += " encoder_embed_dim: 16, encoder_ff_interm_features: 16, encoder_pos_conv_kernel: 4}"
ASR = ["batch_size=2", "train.steps=2", "train.accumulate=1", "train.eval_every=1", "train.tensorboard=false"]
ASR_CTC = ["recogniser.encoder=null", f"recogniser.model={ASR_NETWORK}"]
ASR_UNITS = ["recogniser.aligner.train.steps=2", "recogniser.aligner.model.dim=8", "recogniser.scorer_train.steps=2"]
ASR_UNITS += [
    "recogniser.segment=16",
    "recogniser.shape.dim=16",
    "recogniser.shape.layers=1",
    "recogniser.capacities=[8]",
]
TTS = [
    "eval_clips=2",
    "samples=0",
    "batch_size=2",
    "vocoder_batch_size=2",
    "crop=16",
    "vocoder.width=8",
    "vocoder.iterations=2",
]
TTS += ["units.clusters=8", "speaker.dim=16", "speaker.layers=1", "speaker.heads=2", "speaker.longest=3"]
TTS += [f"{part}_train.{key}" for part in ("vocoder", "speaker") for key in ("steps=2", "tensorboard=false")]

KV_CACHE = [
    "policies={auto: auto, mine: {policy: h2o, share: layer}, fifo: fifo}",
    "capacities=[40,60]",
    "streams={passages: 6, length: 128, chunk: 32, rare: 2.0}",
    "needles={tasks: [niah_single_1, vt], texts: [400], quizzes: 1, shares: [0.25], threshold: 0}",
    "costs={prompt: 64, chunk: 32, answer: 2}",
]
SAME_CONTENT = ["chars=300", "passages=2", "capacities=[2]", "moments=2", "segment=1"]
PHRASES = ["length=90", "gap=20", "phrase=8", "cue=2", "phrases=1", "train_documents=20", "held_out_documents=8"]
TASK = ["train_documents=60", "held_out_documents=8"]
SPOKEN_RECALL = ["pairs=1", "others=1", "gap=20", "train_documents=20", "held_out_documents=8"]


DOMAINS = ("python_docs", "recall", "dialogue", "pretrained")
"""The domains of a grid that are run: the configs of the others are run by themselves."""


def tiny_grid(path: Path, folder: Path, tokenizer: Path) -> list[str]:
    """Overrides that leave some domains of a grid, and make them small."""
    domains = yaml.safe_load(path.read_text(encoding="utf-8"))["domains"]
    domains = {name: line for name, line in domains.items() if name in DOMAINS}
    made = [f"out={folder}", "domains={}", f"domains={json.dumps(domains)}", "shared.compare.seeds=[0]"]
    for name, line in domains.items():
        config = registry.ROOT / "recipes" / line["recipe"] / "configs" / f"{line['config']}.yaml"
        small = tiny(line["recipe"], config, folder, tokenizer)
        kept = [text for text in small if not text.startswith(("out=", "seeds=", "policies=", "capacities="))]
        kept.append("capacities=[8]" if line["recipe"] == "compare" else "capacities=[40]")
        made += [f"domains.{name}.{override}" for override in kept]
    return made


def tiny(name: str, path: Path, folder: Path, tokenizer: Path) -> list[str]:
    """Overrides that make any shipped config small; what is not of its kind is left out."""
    text = path.read_text(encoding="utf-8")
    if name == "cross_domain":
        return tiny_grid(path, folder, tokenizer)
    if name == "speech_pretraining":
        return [f"out={folder}", *HUBERT, *spoken(text, folder)]
    if name == "frame_scorer":
        return [f"out={folder}", *FRAMES, *spoken(text, folder)]
    if name == "tts":
        return [f"out={folder}", *TTS, *spoken(text, folder)]
    if name == "vqvae":
        return [f"out={folder}", *VQVAE, *spoken(text, folder)]
    if name == "asr":
        recogniser = ASR_UNITS if "name: units\n" in text else ASR_CTC
        rows = folder.parent / "data" / "rows.jsonl"  # in place of the data set of the hub
        hub = [f"data.path={rows}", "data.train=train", "data.subset=''"]
        return [f"out={folder}", *ASR, *recogniser, *(hub if "name: hub\n" in text else []), *spoken(text, folder)]
    if name == "fit_units":
        return [f"out={folder}", "clusters=10", "fit_frames=500", *spoken(text, folder)]
    if name == "same_content":
        pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")
        return [f"out={folder}", f"cache={folder.parent / 'spoken'}", *SAME_CONTENT]
    if name == "kv_cache":
        data = [f"data={{name: text_files, path: {folder.parent / 'data' / 'text'}}}"] if "path:" in text else []
        return [f"out={folder}", f"model={pretrained(folder.parent / 'pretrained', tokenizer)}", *KV_CACHE, *data]
    prefix = "" if name == "text_lm" else "lm."
    made = [f"out={folder}", *(f"{prefix}{override}" for override in MODEL)]
    if "capacities" in text:
        made.append("capacities=[8]" if "trained:" in text else "capacities=[8,12]")  # many strategies
    if "bpe" in text:
        made.append(f"{prefix}front_end.vocab_size=300")
    if "name: pretrained" in text:
        made.append(f"front_end.path={tokenizer}")
    if "cutoffs" in text:
        made.append("scorer.cutoffs=[20,60]")
    made += spoken(text, folder, prefix)
    if "vqvae_codes" in text:
        made.append(f"{prefix}front_end.path={small_vqvae(folder.parent)}")
    if "name: hubert_units, features" in text:  # fitted here
        made += [f"{prefix}front_end.clusters=10", f"{prefix}front_end.fit_frames=500"]
    if "repeated_phrases" in text:
        made += [f"{prefix}data.{key}" for key in PHRASES]
    if any(f"name: {task}, task" in text for task in ("facts", "mqar", "recall")):
        made += [f"{prefix}data.{key}" for key in TASK]
    if "spoken_recall" in text:
        made += [f"{prefix}data.{key}" for key in SPOKEN_RECALL]
        made.append(f"{prefix}data.recordings={{name: unit_files, path: {folder.parent / 'data' / 'words'}}}")
    if name == "compare":
        seeds = "seeds=[0]" if "trained:" in text else "seeds=[0,1]"
        made += [seeds, "passages=7", "shown=40", "native.capacity=8", "native.train.steps=2"]
        made += ["fit.passages=4", "fit.stream_passages=2"]
    return made


def pretrained(folder: Path, tokenizer: Path) -> Path:
    """The folder of a random Llama with a tokenizer."""
    if not folder.is_dir():
        torch.manual_seed(0)
        shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=300, num_hidden_layers=2, **shape)).save_pretrained(folder)
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def spoken(text: str, folder: Path, prefix: str = "") -> list[str]:
    """Overrides for configs that speak: few pieces, kept beside the run."""
    if "spoken_text" not in text:
        return []
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")
    return [f"{prefix}data.limit=8", f"{prefix}data.cache={folder.parent / 'spoken'}"]


def small_vqvae(folder: Path) -> Path:
    """The folder of a trained VQ-VAE, as far as the front-end needs it."""
    shape = VQVAEConfig(strides=((8,), (8, 16)), width=4, depth=1, dim=4, codes=16)
    model = VQVAEModel(shape, Bandwidth())
    save_model(folder / "vqvae" / "model", model.kind, model.fields(), model)
    return folder / "vqvae"


def read_aloud(folder: Path) -> None:
    """Twelve recordings with a pitch."""
    folder.mkdir(parents=True)
    for i in range(12):
        wave = np.sign(np.sin(2 * np.pi * (100 + 10 * i) * np.arange(8000) / 16_000)) * 0.1
        soundfile.write(folder / f"{i}.wav", wave + np.random.default_rng(i).standard_normal(8000) * 0.01, 16_000)


@pytest.fixture
def books(tmp_path, monkeypatch) -> Path:
    """Stands in for the folder of real data that some configs ask for."""
    for name, value in lay_out(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "data"


def lay_out(tmp_path: Path) -> dict[str, str]:
    """Data for every shipped config, and the environment variables by which they find it."""
    for split in (*SPLITS, *(f"general/{name}" for name in SPLITS), "dialogue/dev", "dialogue/test"):
        folder = tmp_path / "data" / "text" / split
        folder.mkdir(parents=True)
        for book in range(4):
            words = (
                f"{split} book {book} has chapter {chapter}, and {chapter * 7 % 11} birds. " for chapter in range(90)
            )
            (folder / f"{book}.txt").write_text("".join(words), encoding="utf-8")
    rows = ["path\tspeaker\ttext"]
    speech = tmp_path / "data" / "speech"
    for i, speaker in enumerate((103, 211, 307, 412, 508, 808, 8088)):
        clip = speech / ("librispeech_train_clean_100" if i < 6 else "librispeech_test_other") / f"{speaker}.flac"
        clip.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(clip, np.random.default_rng(i).standard_normal(16_000) * 0.1, 16_000)
        rows.append(f"{clip.parent.name}/{clip.name}\t{speaker}\tsome words")
        for part in ("train", "dev"):
            (tmp_path / "libri" / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, tmp_path / "libri" / part)
    (speech / "fsdd").mkdir()
    for take in (5, 6, 10, 11):
        shutil.copy(clip, speech / "fsdd" / f"0_theo_{take}.wav")
        rows.append(f"fsdd/0_theo_{take}.wav\ttheo\tzero")
    said = {"text": "Zero.", "sentence": "Zero.", "client_id": "theo"}  # as in LibriSpeech, and in Common Voice
    hub = [json.dumps({"audio": f"speech/fsdd/0_theo_{take}.wav", **said}) for take in (5, 6, 10, 11, 5) * 2]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(hub))
    read_aloud(speech / "kerstin_de")
    rows += [f"kerstin_de/{i}.wav\tkerstin\tein ton {i % 3} ein ton" for i in range(12)]
    (speech / "manifest.tsv").write_text("\n".join(rows))
    read_aloud(tmp_path / "lj")
    lines = [json.dumps({"audio": f"{i}.wav", "normalized_text": f"a tone {i % 3} a tone"}) for i in range(12)]
    (tmp_path / "lj" / "rows.jsonl").write_text("\n".join(lines))
    hubert = speech / "hubert100_ljspeech"
    hubert.mkdir()
    for part in ("val", "test"):
        lines = [
            json.dumps({"id": f"LJ{i % 7}-{i}", "units": [(i * j) % 100 for j in range(60)], "text": "Some words."})
            for i in range(21)
        ]
        (hubert / f"{part}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    words = [
        json.dumps({"id": f"{i}", "units": [i * j % 89 for j in range(1, 13)], "text": f"word {i % 3}"})
        for i in range(600)
    ]
    (tmp_path / "data" / "words").mkdir()
    (tmp_path / "data" / "words" / "train.jsonl").write_text("\n".join(words))
    return {
        "LJSPEECH": str(tmp_path / "lj" / "rows.jsonl"),
        "VQMEM_DATA": str(tmp_path / "data"),
        "LIBRISPEECH": str(tmp_path / "libri"),
    }


@pytest.mark.parametrize(("name", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_every_shipped_config_runs_in_a_tiny_form(name, path, books, tokenizer_folder, tmp_path):
    recipe = registry.load("recipes", name)
    out = tmp_path / "run"
    overrides = tiny(name, path, out, tokenizer_folder)
    if path.stem == "librispeech_2":
        first = path.with_stem("librispeech_1")
        recipe.run(load(recipe.Config, first, tiny(name, first, tmp_path / "first", tokenizer_folder)))
        overrides.append(f"targets.features.folder={tmp_path / 'first'}")
    result = recipe.run(load(recipe.Config, path, overrides))
    assert (out / "config.yaml").is_file()
    if name == "compare":
        _check_comparison(recipe, load(recipe.Config, path, overrides), out, result)
        return
    if name == "cross_domain":
        _check_grid(recipe, load(recipe.Config, path, overrides), out, result)
        return
    if name in ("kv_cache", "same_content"):
        assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(result))
        assert (out / "report.html").stat().st_size > 10_000
        return
    assert json.loads((out / "evaluation.json").read_text())["split"] == "dev"
    models = {"text_lm": "scorer", "tts": "speaker"} | dict.fromkeys(
        ["speech_pretraining", "vqvae", "frame_scorer"], "model"
    )
    if part := models.get(name):
        assert (out / part / "model.safetensors").is_file()


def _check_comparison(recipe, config, out, summary):
    lines = (out / "results.jsonl").read_text().splitlines()
    mixed = len(config.strategies) * len(config.capacities)
    assert len(lines) == len(config.seeds) * (mixed + len(config.native.strategies))
    assert len(summary["rows"]) == mixed + len(config.native.strategies)
    assert (out / "report.html").stat().st_size > 10_000
    for row in summary["rows"]:
        assert len(row["per_seed"]["bpb"]) == len(config.seeds)
        assert (row["metrics"]["bpb"]["verdict"] == "baseline") == (row["strategy"] == config.baseline)
    for memory in summary["passage"]["memories"].values():
        assert all(len(kept) <= memory["capacity"] for kept in memory["kept"])
    recipe.run(config)  # nothing is trained or measured again
    assert (out / "results.jsonl").read_text().splitlines() == lines
    torn = "\n".join([*lines[:-1], lines[-1][:40]])
    (out / "results.jsonl").write_text(torn)  # killed while it wrote: that cell is measured again
    again = recipe.run(config)
    assert (out / "results.jsonl").read_text().startswith(torn + "\n")
    assert [row["per_seed"] for row in again["rows"]] == [row["per_seed"] for row in summary["rows"]]


def _check_grid(recipe, config, out, summary):
    assert summary["failed"] == summary["left_out"] == {}
    assert list(summary["domains"]) == list(config.domains)
    for name, domain in summary["domains"].items():
        names = {row["strategy"] for row in domain["rows"]}
        assert names == {*(config.shared[domain["recipe"]].get("strategies") or config.shared["kv_cache"]["policies"])}
        assert (out / domain["report"]).is_file(), name
    assert (out / "report.html").stat().st_size > 10_000
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary))
    lines = {path: path.read_bytes() for path in out.glob("*/results.jsonl")}
    recipe.run(config)  # nothing is trained or measured again
    assert {path: path.read_bytes() for path in out.glob("*/results.jsonl")} == lines


@pytest.mark.parametrize(("name", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_every_config_opens_with_the_command_that_runs_it(name, path):
    assert path.read_text(encoding="utf-8").startswith(f"# vqmem {name} ")


PARTS = {"asr": "model", "fit_units": "front_end", "frame_scorer": "model", "speech_pretraining": "model"}
PARTS |= {"text_lm": "transformer", "tts": "speaker", "vqvae": "model"}
"""What is removed of a finished run of each recipe, so that it has to read its training data again."""


def with_texts(folder: Path) -> Path:
    """Recordings with their texts, or for text_lm the texts alone."""
    read_aloud(folder)
    rows = ["path\ttext", *(f"{i}.wav\tein ton {i % 3} ein ton" for i in range(12))]
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"book {i} has chapters and birds. " * 40, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", PARTS)
def test_data_may_be_moved_and_must_not_change(name, tokenizer_folder, tmp_path):
    recipe, out = registry.load("recipes", name), tmp_path / "run"
    path = registry.ROOT / "recipes" / name / "configs" / ("scorer_quick.yaml" if name == "text_lm" else "demo.yaml")
    overrides = [text for text in tiny(name, path, out, tokenizer_folder) if not text.startswith("data.")]
    if name == "text_lm":
        overrides += ["strategies={fifo: {policy: fifo}}", "capacities=[8]"]
    kind, suffix = ("text_files", "txt") if name == "text_lm" else ("audio_files", "wav")

    def run(data: Path) -> None:
        recipe.run(load(recipe.Config, path, [*overrides, f"data={{name: {kind}, path: {data}}}"]))

    run(with_texts(tmp_path / "data"))
    moved = Path(shutil.move(tmp_path / "data", tmp_path / "moved"))
    for file in moved.iterdir():
        file.touch()
    shutil.rmtree(out / PARTS[name])
    run(moved)
    shutil.rmtree(out / PARTS[name])
    changed = moved / json.loads((out / ".data-train.jsonl").read_text().splitlines()[1])["name"]
    before = changed.read_bytes()
    for content, reason in {before[:-2] + b"xx": "its SHA-256 differs", before + b"xx": "bytes, and had"}.items():
        changed.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"\A'{changed.name}' of the split train .*{reason}.* put the old data back"
        ):
            run(moved)
    changed.write_bytes(before)
    changed.rename(changed.with_name(f"new.{suffix}"))
    with pytest.raises(ValueError, match=r"\A.+\Z"):
        run(moved)
    assert not (out / PARTS[name] / "model.safetensors").exists()
