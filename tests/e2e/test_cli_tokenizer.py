"""Scorers for the tokenizers of pretrained models: `vqmem train-scorer`, `vqmem score --tokenizer`, `load_scorer`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import vqmem
from vqmem import recipes, registry
from vqmem.cli import main
from vqmem.memory.policies.scored import Policy
from vqmem.recipes.text_lm import for_tokenizer

TINY = """\
device: cpu
passage: 64
batch_size: 2
segment: 16
train_tokens: 2000
eval_passages: 2
scorer: {name: vq_lm, dim: 8, hidden: 8, codes: 4, cutoffs: [20, 60]}
scorer_train: {steps: 2, tensorboard: false}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache; and both configs train in no time."""
    (tmp_path / "configs").mkdir()
    for name, data in (("scorer", "{name: text_files}"), ("scorer_quick", "builtin_text")):
        (tmp_path / "configs" / f"{name}.yaml").write_text(f"data: {data}\n{TINY}")
    monkeypatch.setattr(for_tokenizer, "CONFIGS", tmp_path / "configs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vqmem" / "scorers"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.txt"
    path.write_text("the name of the whale: à 🐋")
    return path


def score(capsys, *argv: object) -> tuple[list[dict], str]:
    assert main(["score", *map(str, argv), "--json"]) == 0
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_train_scorer_ends_with_what_to_do_with_it(capsys, tokenizer_folder, sample, tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{i} is the name of a whale\n" for i in range(500)))
    argv = ["train-scorer", "--tokenizer", str(tokenizer_folder), "--data", str(tmp_path / "texts.txt")]
    argv += ["--out", str(tmp_path / "run"), "scorer_train.steps=3"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert f"vqmem score FILE --model {tmp_path}/run" in out
    assert f'scorer=load_scorer("{tmp_path}/run")' in out
    assert "3/3" in err
    scorer = vqmem.load_scorer(f"{tmp_path}/run")
    tokens, _ = score(capsys, sample, "--model", tmp_path / "run")
    assert "".join(token["text"] for token in tokens) == sample.read_text()
    ids = for_tokenizer.FrontEnd(str(tokenizer_folder)).fit([]).encode(sample.read_text()).ids[None]
    signals, _ = scorer.score(ids, scorer.initial_state(1))
    torch.testing.assert_close(signals[0, :, 0], torch.tensor([token["score"] for token in tokens]), atol=1e-4, rtol=0)
    assert main(argv) == 0
    assert capsys.readouterr().out == out


def test_train_scorer_of_reuse_names_the_policy_for_it(capsys, tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(for_tokenizer, "CONFIGS", Path(recipes.text_lm.__file__).parent / "configs")
    argv = ["train-scorer", "--config", "reuse", "--tokenizer", str(tokenizer_folder), "--out", str(tmp_path / "run")]
    argv += [
        "data={name: builtin_text}",
        "device=cpu",
        "train_tokens=4000",
        "eval_passages=2",
        "passage=512",
        "batch_size=2",
    ]
    argv += ["segment=256", "scorer={name: reuse, horizon: 64}", "scorer_train={steps: 2, tensorboard: false}"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "cross entropy" in out
    (line,) = [line for line in out.splitlines() if "VQMemCache(" in line]
    policy = line.partition("policy=")[2].partition(", scorer")[0]
    assert registry.build("policies", json.loads(policy)) == Policy(surprise=0.0, reuse=1.0, scale="raw")


def test_train_scorer_reads_what_it_is_given(capsys, tokenizer_folder, tmp_path):
    def config(*more: str) -> str:
        assert main(["train-scorer", "--tokenizer", str(tokenizer_folder), "--print-config", *more]) == 0
        return capsys.readouterr().out

    assert "data: builtin_text" in config()
    assert "  name: text_files\n  pattern: x\n  path: books\n" in config("--data", "books", "data.pattern=x")
    assert "out: runs/x" in config("out=runs/x")
    assert "out: runs/y" in config("out=runs/x", "--out", "runs/y")
    (tmp_path / "configs" / "scorer_quick.yaml").unlink()
    assert "name: hub" in config("data.name=hub")


def test_score_trains_on_first_use_and_never_again(capsys, cache, contents, tokenizer_folder, sample, tmp_path):
    first, err = score(capsys, sample, "--tokenizer", tokenizer_folder)
    assert "".join(token["text"] for token in first) == sample.read_text()
    assert "training a small scorer" in err
    assert f"vqmem train-scorer --tokenizer {tokenizer_folder}" in err
    (folder,) = cache.glob("[!.]*")
    assert str(folder) in err
    before = contents(cache)
    renamed = shutil.copytree(tokenizer_folder, tmp_path / "renamed")
    for name in (tokenizer_folder, renamed):
        again, err = score(capsys, sample, "--tokenizer", name)
        assert again == first
        assert err == ""
    assert contents(cache) == before
    assert not list(cache.rglob("checkpoints"))


def test_a_first_use_that_was_interrupted_leaves_nothing_half_done(
    capsys, cache, tokenizer_folder, sample, monkeypatch
):
    def stop(config):
        (Path(config.out) / "scorer").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(for_tokenizer, "run", stop)
        assert main(["score", str(sample), "--tokenizer", str(tokenizer_folder)]) == 130
    assert not list(cache.glob("[!.]*"))
    assert score(capsys, sample, "--tokenizer", tokenizer_folder)[0]


def test_a_model_of_another_tokenizer_is_refused(refused, capsys, tiny_run, tokenizer_folder, sample, tmp_path):
    message = refused("score", sample, "--tokenizer", tokenizer_folder, "--model", tiny_run)
    assert message.startswith(
        f"vqmem: {tiny_run} was trained on the tokens of 'bpe', not on those of '{tokenizer_folder}';"
    )
    other = shutil.copytree(tokenizer_folder, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"add_prefix_space": false', '"add_prefix_space": true'))
    assert main(["train-scorer", "--tokenizer", str(tokenizer_folder), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    message = refused("score", sample, "--tokenizer", other, "--model", tmp_path / "run")
    assert f"{tmp_path}/run was trained on the tokens of '{tokenizer_folder}', not on those of '{other}'" in message
    moved = shutil.copytree(tokenizer_folder, tmp_path / "moved")
    assert score(capsys, sample, "--tokenizer", moved, "--model", tmp_path / "run")[0]


def test_mistakes_are_one_line(refused, tokenizer_folder, sample, tmp_path, cache):
    assert "--tokenizer" in refused("train-scorer")
    assert "no such file or folder" in refused("score", sample, "--tokenizer", tmp_path / "absent")
    argv = ["train-scorer", "--tokenizer", tokenizer_folder, "--out", tmp_path / "run"]
    assert "absent.txt" in refused(*argv, "--data", tmp_path / "absent.txt")
    message = refused(*argv, "scorer.cutoffs=[60,20]")
    assert "cutoffs are ranks of 1 or more that rise" in message
    cache.parent.parent.write_text("in the way")
    assert "is a file, where a folder is needed" in refused("score", sample, "--tokenizer", tokenizer_folder)
