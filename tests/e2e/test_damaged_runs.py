"""Runs whose files were damaged, changed, mixed up or lost are refused in one line, and stay as they are."""

from __future__ import annotations

import json
import shutil

import pytest
from vqmem.artifacts import seal
from vqmem.cli import main

USES = {"scorer": ["score", "TEXT", "--model", "RUN"], "transformer": ["generate", "RUN", "--prompt", "a"]}


@pytest.mark.parametrize("part", USES)
@pytest.mark.parametrize("damage", ["flipped", "shortened", "missing", "config"])
def test_damaged_checkpoints(contents, refused, copy, config_file, part, damage):
    weights, config = copy / part / "model.safetensors", copy / part / "config.json"
    data = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    elif damage == "config":
        config.write_text(config.read_text()[:-20])
    else:
        middle = len(data) // 2
        weights.write_bytes(
            data[:middle] if damage == "shortened" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        )
    before = {name: data for name, data in contents(copy).items() if name != "config.yaml"}  # says where the copy is
    text = copy.parent / "text.txt"
    text.write_text("some text")
    argv = [{"TEXT": text, "RUN": copy}.get(word, word) for word in USES[part]]
    message = refused(*argv)
    assert ("not found" if damage == "missing" else "is damaged") in message
    assert str(copy / part) in message
    assert "damaged" in message or "not found" in message
    refused("text_lm", config_file, f"out={copy}")
    assert {name: data for name, data in contents(copy).items() if name in before} == before


@pytest.mark.parametrize("part", USES)
def test_checkpoints_of_another_architecture(refused, copy, part):
    """The weights are sound, but their config says they are of a wider model."""
    path = copy / part / "config.json"
    config = json.loads(path.read_text())
    shape = config["fields"]["scorer" if part == "scorer" else "shape"]
    shape["dim"] = 32
    text = copy.parent / "text.txt"
    text.write_text("some text")
    argv = [{"TEXT": text, "RUN": copy}.get(word, word) for word in USES[part]]
    path.write_text(json.dumps(seal(config)))
    assert "are of another architecture than" in refused(*argv)
    path.write_text(json.dumps(config))
    assert "config.json is damaged or was edited" in refused(*argv)


@pytest.mark.parametrize("part", USES)
def test_parts_in_each_others_place(refused, copy, part):
    other = next(name for name in USES if name != part)
    shutil.rmtree(copy / part)
    shutil.copytree(copy / other, copy / part)
    text = copy.parent / "text.txt"
    text.write_text("some text")
    message = refused(*({"TEXT": text, "RUN": copy}.get(word, word) for word in USES[part]))
    kinds = {"scorer": "'scorers/vq_lm'", "transformer": "'language_model'"}
    assert f"{copy / part} contains a model of kind {kinds[other]}" in message


def test_every_file_of_a_training_checkpoint_is_checked_against_its_sum(refused, copy, config_file):
    (copy / "transformer" / "config.json").unlink()  # so that training goes on from its checkpoint
    folder = next((copy / "transformer" / "training" / "checkpoints").iterdir())
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        digits = [place for place, byte in enumerate(data) if chr(byte).isdigit()]  # still JSON when one is changed
        place = digits[len(digits) // 2]
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        message = refused("text_lm", config_file, f"out={copy}")
        assert f"checkpoint {folder} is damaged: {path.relative_to(folder)} is missing or changed" in message
        path.write_bytes(data)
    assert main(["text_lm", str(config_file), f"out={copy}"]) == 0


def test_a_damaged_front_end(refused, copy):
    part = copy / "front_end" / "tokenizer.json"
    (copy / "text.txt").write_text("some text")
    ids = json.loads(part.read_text())
    ids["model"]["vocab"] |= {"a": ids["model"]["vocab"]["b"], "b": ids["model"]["vocab"]["a"]}
    part.write_text(json.dumps(ids))  # still a tokenizer, but another one
    assert "tokenizer.json' is missing or damaged" in refused("score", copy / "text.txt", "--model", copy)
    part.unlink()
    assert "tokenizer.json' is missing or damaged" in refused("generate", copy, "--prompt", "a")


def test_parts_of_different_runs(refused, copy):
    (copy / "front_end" / "front_end.json").write_text('{"name": "bytes", "fields": {}}')
    (copy / "text.txt").write_text("some text")
    assert "they belong to different runs" in refused("score", copy / "text.txt", "--model", copy)


def test_a_run_without_its_parts(refused, copy):
    shutil.rmtree(copy / "front_end")
    (copy / "text.txt").write_text("some text")
    assert "no front_end.json in" in refused("score", copy / "text.txt", "--model", copy)
    assert "front_end" in refused("generate", copy, "--prompt", "a")
    message = refused("generate", copy, "--prompt", "a", "--strategy", "gian")
    assert "front_end" in message


def steps_in(run, part):
    lines = (run / part / "training" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_steps_are_added_to_a_finished_run(refused, copy, config_file, capsys):
    def argv(*more):
        return ["text_lm", str(config_file), f"out={copy}", *more]

    scorer = (copy / "scorer" / "model.safetensors").read_bytes()
    before = (copy / "transformer" / "model.safetensors").read_bytes()
    assert main(argv("train.steps=5")) == 0
    assert "language model: continuing from step 2 to 5, not 2; the learning rate follows" in capsys.readouterr().err
    assert steps_in(copy, "transformer")[-1] == 5
    assert (copy / "transformer" / "model.safetensors").read_bytes() != before
    assert (copy / "scorer" / "model.safetensors").read_bytes() == scorer
    assert main(argv("train.steps=5")) == 0
    capsys.readouterr()
    assert "steps = 4 is below the 5 that are done in" in refused(*argv("train.steps=4"))
    shutil.rmtree(copy / "transformer" / "training" / "checkpoints")
    assert main(argv("train.steps=5")) == 0
    capsys.readouterr()
    assert "was trained for 5 steps and has no checkpoint to continue from" in refused(*argv("train.steps=6"))
    message = refused(*argv("train.steps=5", "scorer_train.steps=3"))
    assert f"{copy}/transformer was made with the 2 steps of {copy}/scorer; for 3 of them use another out" in message


def test_data_of_a_run_that_changed(refused, copy, config_file, tmp_path):
    """The scorer is trained, the language model is not."""
    shutil.rmtree(copy / "transformer")
    text = tmp_path / "text.txt"
    settings = config_file.read_text().replace(str(config_file.parent / "text.txt"), str(text))
    (tmp_path / "tiny.yaml").write_text(settings)
    text.write_text((config_file.parent / "text.txt").read_text().replace("Ishmael", "Ishmaël"))
    message = refused("text_lm", tmp_path / "tiny.yaml", f"out={copy}")
    assert "'text.txt/train' of the split train has" in message
    assert "put the old data back, or use another out" in message
    assert not (copy / "transformer").exists()
    shutil.copy(config_file.parent / "text.txt", text)
    assert main(["text_lm", str(tmp_path / "tiny.yaml"), f"out={copy}"]) == 0
