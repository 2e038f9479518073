"""The command line as people meet it: help, lists, training, scoring, generating."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import vqmem
from vqmem.cli import main
from vqmem.registry import KINDS, describe, names

SAMPLE = "Ahab said: “naïve 語学 🐋🐋”, \tand\r\nnothing  more.  "


def call(capsys, *argv: str, code: int = 0) -> tuple[str, str]:
    assert main(list(argv)) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["list"],
        ["list", "policies", "--json"],
        ["score", "--help"],
        ["train-scorer", "--help"],
        ["--version"],
    ],
)
def test_light_commands_import_nothing_heavy(argv):
    heavy = ["torch", "numpy", "omegaconf", "transformers", "rich", "torchaudio", "librosa"]
    code = f"""
import sys
from vqmem.cli import main
try:
    main({argv!r})
except SystemExit as done:
    assert not done.code
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_the_module_and_the_command_are_one():
    done = subprocess.run([sys.executable, "-m", "vqmem", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"vqmem {vqmem.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "vqmem", "lst"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "vqmem: unknown command 'lst'; did you mean list?\n")


def test_list_names_every_variant_in_one_line(capsys):
    for kind in KINDS:
        lines = call(capsys, "list", kind)[0].splitlines()
        assert [line.split()[0] for line in lines] == names(kind)
        assert all(len(line.split()) > 2 for line in lines), "a variant has no description"
        described = json.loads(call(capsys, "list", kind, "--json")[0])
        assert list(described) == names(kind)
        assert all(described.values())
    assert json.loads(call(capsys, "list", "--json")[0]).keys() == KINDS.keys()


@pytest.mark.parametrize("command", ["score", "train-scorer", "generate", *names("recipes")])
def test_help_teaches(capsys, command):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: vqmem {command}" in printed
    assert f"examples:\n  vqmem {command}" in printed


def test_help_of_a_recipe_explains_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["text_lm", "--help"])
    printed = capsys.readouterr().out
    assert "novels" in printed
    assert "  segment = 64    an integer\n      Tokens read at once;" in printed
    assert "  scorer_train.steps = 600  " in printed, "a default is the recipe's, not that of the nested class"


@pytest.mark.parametrize("kind", KINDS)
def test_list_shows_every_key_of_every_variant(capsys, kind):
    for name in names(kind):
        described = json.loads(call(capsys, "list", kind, name, "--json")[0])
        assert [key for key, about in described.items() if not about["doc"].endswith(".") or not about["type"]] == []
        out, _ = call(capsys, "list", kind, name)
        assert out.startswith(describe(kind, name))
        for key, about in described.items():
            assert f"  {key} = {json.dumps(about['default'], ensure_ascii=False)}    {about['type']}\n" in out
            assert f"      {about['doc']}\n" in out
        assert described or "It has no keys." in out


def test_list_knows_what_keys_mean(capsys):
    described = json.loads(call(capsys, "list", "policies", "scored", "--json")[0])
    assert described["age_weight"] == {"type": "a number", "default": 1.0, "doc": "Weight of the age."}
    described = json.loads(call(capsys, "list", "data", "recall", "--json")[0])
    assert described["gap"]["doc"].startswith("minimum number of characters between"), "from its docstring's Args"


def test_print_config_resolves_and_runs_nothing(capsys, config_file, tmp_path):
    printed, _ = call(capsys, "text_lm", str(config_file), f"out={tmp_path}/x", "--print-config", "train.steps=7")
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    assert call(capsys, "text_lm", str(again), "--print-config")[0] == printed
    assert "steps: 7" in printed
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("recipe", names("recipes"))
def test_shipped_configs_are_valid_and_open_with_their_command(capsys, recipe):
    shipped = list((Path(vqmem.__file__).parent / "recipes" / recipe / "configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert path.read_text().startswith(f"# vqmem {recipe} ")
        assert call(capsys, recipe, path.stem, "--print-config")[0]


def test_text_lm_prints_its_results_and_a_second_call_changes_nothing(capsys, config_file, tiny_run):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.suffix in (".safetensors", ".json")}
    out, _ = call(capsys, "text_lm", str(config_file), f"out={tiny_run}")
    assert "gain@24" in out
    assert "bits a byte" in out
    assert f"vqmem generate {tiny_run}" in out
    assert {path: path.read_bytes() for path in before} == before


def test_the_summary_of_a_scorer_alone_does_not_mention_generation(capsys, config_file, tmp_path):
    yaml = config_file.read_text().split("strategies:")[0]
    (tmp_path / "alone.yaml").write_text(yaml)
    out, _ = call(capsys, "text_lm", str(tmp_path / "alone.yaml"), f"out={tmp_path}/run")
    assert "surprise" in out
    assert "generate" not in out


def test_evaluating_while_training(config_file, tmp_path):
    argv = ["text_lm", str(config_file), f"out={tmp_path}", "train.eval_every=1", "scorer_train.eval_every=2"]
    assert main(argv) == 0
    for part, figure, times in (("scorer", "residual", 1), ("transformer", "bits_per_byte", 2)):
        lines = (tmp_path / part / "training" / "metrics.jsonl").read_text().splitlines()
        assert sum('"evaluation"' in line and figure in line for line in lines) == times, lines


# --- score ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path) -> Path:
    path = tmp_path / "sample.txt"
    path.write_bytes(SAMPLE.encode())
    return path


def test_score_json(capsys, tiny_run, sample):
    tokens = [
        json.loads(line)
        for line in call(capsys, "score", str(sample), "--model", str(tiny_run), "--json")[0].splitlines()
    ]
    assert "".join(token["text"] for token in tokens) == SAMPLE
    for token in tokens:
        assert list(token) == ["text", "start", "end", "score", "rarity", "gain", "code"]
        assert token["score"] > 0
        assert token["gain"] == pytest.approx(token["rarity"] - token["score"], abs=2e-5)
        assert SAMPLE[token["start"] : token["end"]].endswith(token["text"])
        assert 0 <= token["code"] < 4


def test_score_needs_no_training_first(capsys, sample):
    tokens = [json.loads(line) for line in call(capsys, "score", str(sample), "--json")[0].splitlines()]
    assert "".join(token["text"] for token in tokens) == SAMPLE


def test_score_reads_standard_input(capsys, tiny_run, sample, monkeypatch):
    from_file, _ = call(capsys, "score", str(sample), "--model", str(tiny_run), "--json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SAMPLE.encode())))
    assert call(capsys, "score", "-", "--model", str(tiny_run), "--json")[0] == from_file


@pytest.mark.parametrize("signal", ["surprise", "rarity", "gain"])
def test_score_colours_the_terminal(capsys, tiny_run, sample, signal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = call(capsys, "score", str(sample), "--model", str(tiny_run), "--signal", signal)
    assert "\x1b[" in out
    assert f"orange = high {signal}" in err


def test_score_writes_a_page(capsys, tiny_run, sample, tmp_path):
    page = tmp_path / "deep" / "page.html"
    call(capsys, "score", str(sample), "--model", str(tiny_run), "--html", str(page))
    assert "<title>sample.txt" in page.read_text()


def test_score_does_not_depend_on_pieces(tiny_run, monkeypatch):
    from vqmem.recipes.lm.text_scorer import load_scoring
    from vqmem.recipes.scoring import text as _score

    scoring = load_scoring(tiny_run)
    text = SAMPLE * 9 + " " * 50 + "end"
    at_once = [token for chunk in _score.score_text(text, scoring) for token in chunk]
    cut = _score.cut
    monkeypatch.setattr(_score, "cut", lambda text: cut(text, 40))
    pieces = [token for chunk in _score.score_text(text, scoring, chunk=7) for token in chunk]
    assert "".join(token["text"] for token in pieces) == text
    assert [(t["start"], t["end"]) for t in pieces if t["end"] < 400] == [
        (t["start"], t["end"]) for t in at_once if t["end"] < 400
    ]
    for one, other in zip(at_once[:300], pieces[:300], strict=False):
        if one["end"] < 400:
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


@pytest.mark.parametrize("output", ["--json", "--signal=gain"])
@pytest.mark.parametrize("times", [1, 1000], ids=["short", "long"])
def test_a_reader_that_leaves_early_is_no_error(tiny_run, tmp_path, output, times):
    path = tmp_path / "text.txt"
    path.write_text(SAMPLE * times)
    command = f"{sys.executable} -m vqmem score {path} --model {tiny_run} {output} | head -c 0"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"\xef\xbb\xbf" + SAMPLE.encode(), "utf-8"),
        (SAMPLE.encode("utf-16"), "utf-16"),
        ("naïve".encode("latin-1"), "latin-1"),
    ],
)
def test_score_of_other_encodings(capsys, tiny_run, tmp_path, data, encoding):
    """Without the byte order mark: the first character is one of the text."""
    (tmp_path / "text.txt").write_bytes(data)
    argv = [str(tmp_path / "text.txt"), "--model", str(tiny_run), "--json", "--encoding", encoding]
    tokens = [json.loads(line) for line in call(capsys, "score", *argv)[0].splitlines()]
    text = data.decode(encoding).removeprefix("\ufeff")
    assert "".join(token["text"] for token in tokens) == text
    assert (tokens[0]["start"], tokens[-1]["end"]) == (0, len(text))
    assert all(text[token["start"] : token["end"]].endswith(token["text"]) for token in tokens)


# --- generate ------------------------------------------------------------------------------------------------------


def test_generate_is_a_function_of_its_seed(capsys, tiny_run):
    def say(*more: str) -> str:
        return call(capsys, "generate", str(tiny_run), "--prompt", "Call me", "--tokens", "30", *more)[0]

    assert say("--seed", "1") == say("--seed", "1") != say("--seed", "2")
    assert say("--temperature", "0") == say("--temperature", "0", "--seed", "9")
    assert say("--strategy", "used", "--capacity", "16").startswith("Call me")
