"""Folders that are given in place of others are named for what they are; data that is not there leaves no folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem import registry
from vqmem.cli import main
from vqmem.recipes.engine.config import as_dict, dump, flat, load

USES = {
    "generate": ["generate", "FOLDER", "--prompt", "a"],
    "score": ["score", "text.txt", "--model", "FOLDER"],
    "transcribe": ["transcribe", "clip.wav", "--run", "FOLDER"],
    "speak": ["speak", "a", "-o", "out.wav", "--run", "FOLDER"],
    "units": ["units", "clip.wav", "--model", "FOLDER"],
}
RUNS = {
    "compare": "a comparison: FOLDER/report.html shows it, and `vqmem generate FOLDER/seed-N --prompt TEXT` uses",
    "cross_domain": "a comparison across domains: FOLDER/report.html shows it",
    "same_content": "a comparison of text and speech: FOLDER/report.html shows it",
    "kv_cache": "a comparison of caches: FOLDER/report.html shows it and says what to choose",
    "tts": "a voice: `vqmem speak TEXT -o out.wav --run FOLDER` uses it",
    "asr": "a recogniser: `vqmem transcribe FILE --run FOLDER` uses it",
    "fit_units": "speech units: `vqmem units FILE --model FOLDER` uses them",
    "frame_scorer": "a scorer of frames of speech: `vqmem score FILE --model FOLDER` uses it",
    "speech_pretraining": "an encoder of speech: `vqmem asr CONFIG recogniser.encoder=FOLDER` uses it",
    "vqvae": "a VQ-VAE of speech: `vqmem text_lm codes front_end.path=FOLDER` uses it",
    "text_lm": "a scorer or language model: `vqmem score FILE --model FOLDER` or `vqmem generate FOLDER --prompt",
}
SHIPPED = [
    (name, path)
    for name in registry.names("recipes")
    for path in sorted((registry.ROOT / "recipes" / name / "configs").glob("*.yaml"))
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a text and a recording."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text")
    soundfile.write(tmp_path / "clip.wav", np.random.default_rng(0).standard_normal(8000) * 0.1, 16_000)
    return tmp_path


def given(command: str, folder: str) -> list[str]:
    return [folder if word == "FOLDER" else word for word in USES[command]]


def test_every_recipe_says_what_its_runs_are():
    assert sorted(RUNS) == registry.names("recipes")


@pytest.mark.parametrize("recipe", RUNS)
def test_a_folder_is_for_one_recipe(here, refused, recipe):
    """Whatever a recipe made, no other writes into it, and what is there remains."""
    shipped = next(path for name, path in SHIPPED if name == recipe)
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text(dump(load(registry.load("recipes", recipe).Config, shipped)))
    (here / "run" / "report.html").write_text("found")
    other = "tts" if recipe == "asr" else "asr"
    before = {path: path.read_bytes() for path in (here / "run").iterdir()}
    assert refused(other, "demo", "out=run").startswith(f"vqmem: 'run' is {RUNS[recipe].replace('FOLDER', 'run')}")
    assert {path: path.read_bytes() for path in (here / "run").iterdir()} == before


@pytest.mark.parametrize("recipe", RUNS)
def test_runs_of_other_recipes(here, refused, recipe):
    """Where a command can use the run, it does not matter here what it says."""
    module = registry.load("recipes", recipe)
    shipped = next(path for name, path in SHIPPED if name == recipe)
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text(dump(load(module.Config, shipped)))
    for command in USES:
        message = refused(*given(command, "run"))
        if f"vqmem {command} " not in RUNS[recipe] or recipe == "compare":
            if command == "units" and recipe in ("tts", "text_lm"):  # which may have units
                continue
            assert message.startswith("vqmem: 'run' is not a")
            assert f", but {RUNS[recipe].replace('FOLDER', 'run')}" in message
    assert not (here / "out.wav").exists()


def test_a_voice_given_as_an_encoder(here, refused):
    module = registry.load("recipes", "tts")
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text(dump(load(module.Config, None)))
    message = refused("asr", "demo", "recogniser.encoder=run", "out=deep/run")
    assert message.startswith(
        "vqmem: 'run' is not an encoder (the folder of a finished `vqmem speech_pretraining`), but a voice:"
    )
    assert not (here / "deep").exists()


@pytest.mark.parametrize(
    ("files", "folder", "message"),
    [
        ({}, "", "an empty folder"),
        ({"a.txt": ""}, "", "a folder of texts: data to train on (data.path=FOLDER)"),
        ({"a.FLAC": ""}, "", "a folder of recordings: data to train on (data.path=FOLDER)"),
        ({"config.json": '{"model_type": "llama"}'}, "", "a model or tokenizer of transformers"),
        ({"tokenizer_config.json": "{}"}, "", "a model or tokenizer of transformers"),
        ({"config.json": '{"kind": "scorers/vq_lm"}'}, "scorer", "a part of a run, of kind 'scorers/vq_lm'"),
        ({"front_end.json": "{}"}, "front_end", "the front-end of a run; give the folder of the run, things"),
        ({"config.yaml": "lr: 1\nmodel: x\n", "log": ""}, "", "a folder with config.yaml, log"),
        ({"file": ""}, "file", "a file; give a folder"),
    ],
)
def test_what_is_no_run(here, refused, files, folder, message):
    path = here / "things" / folder
    for name, text in files.items():
        file = path / name if folder != "file" else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path.mkdir(parents=True, exist_ok=True) if folder != "file" else None
    shown = str(Path("things") / folder)
    for command in USES:
        assert f"'{shown}' is not a" in (line := refused(*given(command, shown)))
        assert f", but {message.replace('FOLDER', shown)}" in line


@pytest.mark.parametrize(
    ("command", "folder", "message"),
    [
        (
            "speak",
            "runs/tts_demo",
            "voice 'runs/tts_demo' not found; `vqmem tts demo` makes it (under 5 minutes on two cores; ",
        ),
        (
            "transcribe",
            "runs/asr_demo",
            "run (the folder of a finished `vqmem asr`) 'runs/asr_demo' not found; `vqmem asr demo` makes it (75 s of ",
        ),
        ("generate", "runs/novels_lm", "language model 'runs/novels_lm' not found; `vqmem text_lm novels` makes it"),
        ("score", "runs/mine", "scorer 'runs/mine' not found; `vqmem text_lm CONFIG out=runs/mine` makes it"),
        ("units", "mine", "run with speech units 'mine' not found; `vqmem fit_units demo out=mine` makes it"),
    ],
)
def test_runs_that_are_not_there_yet(here, refused, command, folder, message):
    assert message in refused(*given(command, folder))


@pytest.mark.parametrize(("recipe", "command"), [("text_lm", "generate"), ("tts", "speak"), ("fit_units", "units")])
def test_a_run_that_is_not_finished(here, refused, recipe, command):
    shipped = [path for name, path in SHIPPED if name == recipe]
    config = load(registry.load("recipes", recipe).Config, shipped[-1])
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text(dump(config))
    assert "perhaps the run is not finished: its command, given again, goes on" in refused(*given(command, "run"))


def test_a_run_given_as_a_config(here, refused, copy):
    message = refused("text_lm", copy)
    assert message == f"vqmem: config '{copy}' is a folder; give a YAML file, such as the config.yaml in it"


def test_a_scorer_alone_does_not_generate(here, refused, config_file, copy):
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text().split("strategies:")[0])
    message = refused(*given("generate", str(copy)))
    assert message == f"vqmem: {copy} contains only a scorer, which `vqmem score FILE --model {copy}` uses"
    assert main(["score", "text.txt", "--model", str(copy), "--json"]) == 0


def test_a_comparison_finds_its_parts_wherever_they_are(here, refused, copy):
    """Its seeds are runs of text_lm themselves."""
    module = registry.load("recipes", "compare")
    copy.rename(here / "seed-0")
    (here / "config.yaml").write_text(
        dump(load(module.Config, "demo", folder=Path(module.__file__).parent / "configs"))
    )
    assert "but a comparison" in refused(*given("generate", "."))
    assert main(["generate", "seed-0", "--prompt", "a", "--tokens", "1"]) == 0


# --- data that is not there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_configs_name_no_place_of_their_authors(here, refused, monkeypatch, name, path):
    """Data is built in, on the hub, or a placeholder: then one line says which key to give, and nothing is made."""
    for variable in ("VQMEM_DATA", "LIBRISPEECH", "LJSPEECH"):
        monkeypatch.delenv(variable, raising=False)
    values = flat(as_dict(load(registry.load("recipes", name).Config, path)))
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    assert [value for value in texts.values() if value.startswith(("/", "..", "~"))] == []
    if name == "cross_domain":  # leaves out the domains whose data is missing
        return
    missing = [key for key, value in texts.items() if "MY_FOLDER" in value]
    if not missing:
        sources = [value for key, value in values.items() if key in ("data", "data.name", "lm.data", "lm.data.name")]
        assert sources[0] in ("builtin_text", "spoken_text", "recall", "mqar", "facts", "hub", "spoken_recall")
        return
    before = sorted(here.iterdir())
    message = refused(name, path.stem)
    key = missing[0]
    assert message == f"vqmem: {key} is not given: {texts[key]} stands for your data; give {key}=FILE_OR_FOLDER"
    assert f"{key}=MY_FOLDER" in path.read_text().split("\n")[0]
    assert sorted(here.iterdir()) == before


SPEECH = ["asr", "fit_units", "frame_scorer", "speech_pretraining", "tts", "vqvae"]


@pytest.mark.parametrize("recipe", [*SPEECH, "text_lm", "compare"])
def test_data_that_is_not_there_leaves_no_folder(here, refused, recipe):
    key = "lm.data" if recipe == "compare" else "data"
    source = "audio_files" if recipe in SPEECH else "text_files"
    config = "english" if recipe == "text_lm" else "demo"
    before = sorted(here.rglob("*"))
    words = [recipe, config, f"{key}={{name: {source}, path: nowhere}}", "out=deep/run"]
    assert "no such file or folder: 'nowhere'" in refused(*words)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("recipe", SPEECH)
def test_a_split_that_is_empty_leaves_no_folder(here, refused, recipe):
    """The training split is there, and could be learnt from before anybody looks at the other one."""
    before = sorted(here.rglob("*"))
    source = "{name: audio_files, path: ., splits: {train: {path: '*'}}}"
    assert "dev" in refused(recipe, "demo", f"data={source}", "out=deep/run")
    assert sorted(here.rglob("*")) == before


def test_what_was_there_before_a_run_that_could_not_begin_stays(here, refused, config_file):
    (here / "run").mkdir()
    refused("text_lm", config_file, "data.path=nowhere", "out=run")
    assert (here / "run").is_dir()


def test_a_run_that_fails_later_keeps_what_it_has_learnt(here, refused, config_file, interrupted_once):
    from vqmem.recipes.lm.language_model import LanguageModelTask

    interrupted_once(LanguageModelTask, 1)
    with pytest.raises(InterruptedError):
        registry.load("recipes", "text_lm").run(
            load(registry.load("recipes", "text_lm").Config, config_file, ["out=run"])
        )
    assert json.loads((here / "run" / "scorer" / "config.json").read_text())["kind"] == "scorers/vq_lm"
