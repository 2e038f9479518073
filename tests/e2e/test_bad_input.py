"""Whatever is wrong with what people give: one line on standard error, exit code 2, nothing lost or half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vqmem.cli import main
from vqmem.registry import build
from vqmem.tokenizers_.base import save_tokenizer

# --- texts ---------------------------------------------------------------------------------------------------------

BAD_TEXTS = {
    "empty": (b"", "is empty; give a file with text in it"),
    "binary": (b"\x7fELF\0\0\xff\xfe" * 99, "is not text (it has NUL bytes)"),
    "latin-1": ("naïve".encode("latin-1"), "is not valid utf-8 (byte 0xef at offset 2)"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
@pytest.mark.parametrize("output", ["--json", "--html"])
def test_texts_that_cannot_be_scored(contents, refused, tiny_run, tmp_path, kind, output):
    data, message = BAD_TEXTS[kind]
    (tmp_path / "text.txt").write_bytes(data)
    extra = ["--html", tmp_path / "page.html"] if output == "--html" else ["--json"]
    assert message in refused("score", tmp_path / "text.txt", "--model", tiny_run, *extra)
    assert contents(tmp_path) == {"text.txt": data}


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-8", "is not valid utf-8 (byte 0xef at offset 2); give its --encoding, such as latin-1"),
        ("utf8x", "unknown encoding 'utf8x'; give one Python knows"),
        ("hex", "unknown encoding 'hex'; give one Python knows"),
    ],
)
def test_encodings_that_are_not_the_texts(refused, tiny_run, tmp_path, encoding, message):
    (tmp_path / "text.txt").write_bytes("naïve".encode("latin-1"))
    assert message in refused("score", tmp_path / "text.txt", "--model", tiny_run, "--encoding", encoding)


@pytest.mark.parametrize("output", ["--signal=surprise", "--json", "--html"])
def test_a_text_of_white_space(capsys, refused, tiny_run, copy, tmp_path, output):
    """It has tokens for some front-ends and none for others."""
    text, page = tmp_path / "blank.txt", tmp_path / "page.html"
    text.write_text(" \n\t \n")
    argv = ["score", str(text), "--model", str(tiny_run), *([output, str(page)] if output == "--html" else [output])]
    assert main(argv) == 0
    assert page.is_file() if output == "--html" else capsys.readouterr().out.strip(" \n")
    page.unlink(missing_ok=True)
    size = json.loads((copy / "scorer" / "config.json").read_text())["fields"]["vocab_size"]
    words = Tokenizer(models.WordLevel({f"[{i}]": i for i in range(size)}, unk_token="[0]"))  # pyright: ignore[reportCallIssue]
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[0]").save_pretrained(tmp_path / "words")
    shutil.rmtree(copy / "front_end")
    spec = {"name": "pretrained", "path": str(tmp_path / "words")}
    save_tokenizer(build("front-ends", spec).fit([]), spec, copy / "front_end")
    capsys.readouterr()
    message = refused(*[copy if word == str(tiny_run) else word for word in argv])
    assert message == f"vqmem: '{text}' has no token: the model's front-end skips white space; give a file with words"
    assert not page.exists()


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_texts_that_cannot_be_trained_on(contents, refused, config_file, tmp_path, kind):
    data, message = BAD_TEXTS[kind]
    (tmp_path / "text.txt").write_bytes(data)
    argv = ["text_lm", config_file, f"data.path={tmp_path}/text.txt", f"out={tmp_path}/run"]
    assert message in refused(*argv)
    assert [name for name in contents(tmp_path / "run") if name not in ("config.yaml", ".lock")] == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.csv", "id,text\n0,a\n1,b,c\n", "line 3 has 3 cells and the first 2; put quotes around"),
        (
            "rows.jsonl",
            '{"text": ["a"], "body": "b"}\n' * 10,
            "column 'text' holds lists, not text; name a column of texts: body",
        ),
        ("rows.tsv", "id\ttxt\n0\ta\n", "'text'; did you mean txt?"),
        ("row.csv.gz", None, "no such file or folder: "),
    ],
)
def test_tables_that_cannot_be_trained_on(contents, refused, config_file, tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_text(data)
    table = f"data={{name: hub, path: '{tmp_path}/{name}'}}"
    assert message in refused("text_lm", config_file, table, f"out={tmp_path}/run")
    assert [name for name in contents(tmp_path / "run") if name not in ("config.yaml", ".lock")] == []


def test_a_text_of_one_token(capsys, refused, tiny_run, config_file, tmp_path):
    text = tmp_path / "one.txt"
    text.write_text("a")
    assert main(["score", str(text), "--model", str(tiny_run), "--json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["a"]
    assert main(["generate", str(tiny_run), "--prompt", "a", "--tokens", "2"]) == 0
    capsys.readouterr()
    for split in ("train", "dev", "test"):
        (tmp_path / "splits" / split).mkdir(parents=True)
        (tmp_path / "splits" / split / "one.txt").write_text("a")
    message = refused("text_lm", config_file, f"data.path={tmp_path}/splits", f"out={tmp_path}/run")
    assert "no document has two tokens or more" in message


def test_files_that_are_not_there(refused, tiny_run, tmp_path):
    (tmp_path / "novel.txt").write_text("text")
    message = refused("score", tmp_path / "novle.txt", "--model", tiny_run)
    assert message.endswith(f"did you mean '{tmp_path}/novel.txt'?")
    assert "is a folder" in refused("score", tmp_path, "--model", tiny_run)
    message = refused("score", tmp_path / "novel.txt", "--model", str(tiny_run) + "s")
    assert f"did you mean {tiny_run}?" in message
    message = refused("score", tmp_path / "novel.txt", "--model", tiny_run, "--html", tmp_path)
    assert "is a folder; give the name of a file" in message
    assert "run" in refused("generate", tiny_run.parent / "rum", "--prompt", "a")


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """50 MB without a line break."""
    path = tmp_path_factory.mktemp("line") / "line.txt"
    path.write_text("one line that never ends and " * (50_000_000 // 29 + 1))
    return path


def peak_of(script: str) -> float:
    """Peak memory in MB of a separate process that runs ``script``; it must succeed."""
    report = "import sys\nfrom vqmem.tests.peak import peak_mb\nprint('peak', peak_mb(), file=sys.stderr)"
    command = [sys.executable, "-c", f"from vqmem.cli import main\n{script}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return float(done.stderr.rsplit("peak ", 1)[1])


def test_a_line_of_50_mb_is_scored_as_it_is_read(tiny_run, line):
    """Its first tokens come at once, and memory holds the text but never all of its tokens (all take minutes)."""
    script = f"""
from itertools import islice
from pathlib import Path
from vqmem.data.reading.files import read_text
from vqmem.recipes.lm.text_scorer import load_scoring
from vqmem.recipes.scoring.text import score_text
text = read_text("{line}")
chunks = list(islice(score_text(text, load_scoring(Path("{tiny_run}"))), 8))
tokens = [token["text"] for chunk in chunks for token in chunk]
assert len(tokens) > 8000 and text.startswith("".join(tokens))
"""
    assert peak_of(script) < 1500  # torch and the text take about 1000; the tokens of 50 MB would be thousands more


def test_a_model_is_trained_on_a_long_line(config_file, line, tmp_path):
    """5 MB of it, since training tokenizes a document at once."""
    (tmp_path / "line.txt").write_text(line.read_text()[:5_000_000])
    fields = [f"data.path={tmp_path}/line.txt", f"out={tmp_path}/run", "front_end={name: bytes}", "train_tokens=2000"]
    assert peak_of(f"assert main(['text_lm', '{config_file}', *{fields!r}]) == 0") < 1500
    assert (tmp_path / "run" / "evaluation.json").is_file()


# --- configs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("segmnt=4", "unknown key 'segmnt'; did you mean segment"),
        ("train.stps=4", "unknown key 'train.stps'; did you mean train.steps"),
        ("segment=many", "segment = 'many' is not an integer"),
        ("segment", "override 'segment' is not key=value"),
        ("capacities=[0]", "capacity=0; a memory needs at least 1 slot"),
        ("sinks=20 recent=20", "guards (sinks=20 + recent=20 = 40) exceed the"),
        ("strategies.gain.policy.name=scoerd", "unknown policy 'scoerd'; did you mean scored"),
        ("strategies.gain.policy.surprize=1", "unknown key 'strategies.gain.policy.surprize'; did you mean"),
        ("strategies.used.compression.name=pol", "unknown compression 'pol'; did you mean pool"),
        ("scorer={name: vq_ml}", "unknown scorer 'vq_ml'; did you mean vq_lm"),
        ("scorer.quantiser=fqs", "scorer.quantiser = 'fqs' is not one of"),
        ("front_end={name: byte}", "unknown front-end 'byte'; did you mean bytes"),
        ("data={name: text_file}", "unknown data source 'text_file'; did you mean text_files"),
        ("scorer_from=nowhere", "scorer_from (the folder of a finished `vqmem text_lm`) 'nowhere' not found; "),
        ("scorer_from=.", "scorer_from = '.' has no front_end/front_end.json; give the folder of a finished"),
        ("data.path=nowhere.txt", "no such file or folder: 'nowhere.txt'"),
        ("device=gpu", "unknown device 'gpu'; use auto, cpu, cuda"),
        ("dtype=float23", "unknown dtype 'float23'; did you mean float"),
        ("dtype=float16", "unknown dtype 'float16'; did you mean bfloat16"),
        ("batch_size=0", "batch_size = 0 must be at least 1"),
        ("train_tokens=1", "train_tokens = 1 must be at least 2, or null"),
        ("eval_passages=0", "eval_passages = 0 must be at least 1, or null"),
        ("seed=-1", "seed = -1 must be at least 0 and below 9223372036854775808"),
        ("shape.layers=0", "shape.layers = 0 must be at least 1"),
        ("shape.dropout=1", "shape.dropout = 1.0 must be at least 0 and below 1"),
        ("train.min_lr_ratio=2", "train.min_lr_ratio = 2.0 must be at least 0 and at most 1"),
        ("train.seed=3", "train.seed is set by seed; leave it out and set seed"),
        ("scorer_train.dtype=bfloat16", "scorer_train.dtype is set by dtype"),
        ("strategies.gain=fifo", "strategy 'gain' is 'fifo'; it needs the key policy"),
        ("strategies.gain.compresion=drop", "'compresion'; did you mean compression"),
    ],
)
def test_configs_that_cannot_be(refused, config_file, tmp_path, override, message):
    argv = [
        "text_lm",
        config_file,
        f"out={tmp_path}/run",
        *(override.split(" ") if "sinks" in override else [override]),
    ]
    assert message in refused(*argv)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compare", "dmo"], "unknown config 'dmo'; did you mean demo"),
        (
            ["compare", "demo", "baseline=transformer_x"],
            "unknown strategy 'transformer_x'; did you mean transformer_xl",
        ),
        (["compare", "demo", "capacities=[0]"], "capacity=0; a memory needs at least 1 slot"),
        (["compare", "demo", "seeds=[]"], "seeds=[] must name at least one"),
        (["compare", "demo", "seeds=[1,1]"], "seeds=[1, 1] must name at least one, and none twice"),
        (["compare", "demo", "lm.train.steps=-1"], "lm.train.steps = -1 must be at least 1"),
        (["compare", "demo", "lm.train.sted=1"], "did you mean lm.train.steps or lm.train.lr or lm.train.betas?"),
        (["asr", "ljspeech_units", "recogniser.scorer.codse=3"], "'recogniser.scorer.codse'; did you mean recogniser."),
        (["asr", "ljspeech_units", "data.pth=x", "--print-config"], "unknown key 'data.pth'; did you mean data.path"),
        (["compare", "demo", "lm.front_end.vocab_siz=3"], "did you mean lm.front_end.vocab_size"),
        (["fit_units", "demo", "clusters=0"], "vqmem: clusters = 0 must be at least 1"),
        (["compare", "demo", "passages=0"], "passages = 0 must be at least 1, or null"),
        (["compare", "demo", "lm.seed=1"], "lm.seed is set from seeds of the comparison"),
        (["text_lm", "no/such.yaml"], "config 'no/such.yaml' not found"),
        (["text_lm"], "the following arguments are required: CONFIG; see `vqmem text_lm --help`"),
        (["list", "policies", "scoerd"], "unknown policy 'scoerd'; did you mean scored"),
        (["list", "polices", "scored"], "unknown kind 'polices'; did you mean policies"),
        (["list", "polices"], "unknown kind 'polices'; did you mean policies"),
        (["score", "x", "--signal", "gian"], "unknown signal 'gian'; did you mean gain"),
        (["score", "x", "--jsn"], "unrecognized arguments: --jsn; see `vqmem score --help`"),
        (["sore", "x"], "unknown command 'sore'; did you mean score"),
        (["--jsn"], "unrecognized arguments: --jsn; see `vqmem --help`"),
        (["generate", "x", "--prompt", "a", "--tokens", "many"], "invalid int value: 'many'"),
        (["generate", "x", "--prompt", "a", "--tokens", "-1"], "tokens = -1 must be at least 0"),
    ],
)
def test_commands_that_cannot_be(refused, argv, message):
    assert message in refused(*argv)


def test_a_config_that_is_no_config(refused, tmp_path):
    path = tmp_path / "bad.yaml"
    for text, message in [
        ("a: [1", "not valid YAML"),
        ("- a", "a config is a mapping"),
        ("a: 1", "unknown key 'a'"),
        ("\0\xff", "not valid YAML"),
    ]:
        path.write_bytes(text.encode("latin-1"))
        assert message in refused("text_lm", path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt", "a", "--temperature", "inf"], "temperature = inf must be at least 0 and below inf"),
        (["--prompt", "a", "--temperature", "nan"], "temperature = nan must be at least 0 and below inf"),
        (["--prompt", "a", "--top-k=-1"], "top_k = -1 must be at least 0"),
        (["--prompt", "a", "--seed=-1"], "seed = -1 must be at least 0"),
        (["--prompt", "a", "--capacity", "0"], "capacity=0; a memory needs at least 1 slot"),
        (["--prompt", "a", "--strategy", "gian"], "unknown strategy 'gian'; did you mean gain?"),
        (["--prompt", ""], "the prompt has no token; give at least one character"),
        (["--prompt", "na\udcefve"], "the prompt is not valid UTF-8 at character 2; give it in UTF-8"),
    ],
)
def test_what_cannot_be_generated_prints_nothing_else(refused, tiny_run, argv, message):
    assert message in refused("generate", tiny_run, *argv)


def test_debug_shows_where_it_comes_from(monkeypatch):
    monkeypatch.setenv("VQMEM_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["sore"])


def test_interruption_is_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vqmem.registry.describe", interrupted)
    assert main(["list", "policies"]) == 130
    assert capsys.readouterr().err == "vqmem: interrupted\n"


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_missing_split_is_an_error_before_training(refused, config_file, tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "a.txt").write_text("some words and more of them " * 99)
    message = refused("text_lm", config_file, f"data.path={tmp_path}/data", f"out={tmp_path}/run")
    assert "dev" in message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_run_that_could_not_begin_does_not_lock_its_folder(capsys, refused, config_file, tmp_path):
    refused("text_lm", config_file, "data.path=nowhere.txt", f"out={tmp_path}/run")
    assert main(["text_lm", str(config_file), f"out={tmp_path}/run"]) == 0
    capsys.readouterr()
    message = refused("text_lm", config_file, f"out={tmp_path}/run", "shape.dim=32")
    assert "shape.dim" in message


def test_a_model_keeps_the_scorer_it_was_trained_with(capsys, contents, refused, config_file, tiny_run, tmp_path):
    """Another scorer in the folder that ``scorer_from`` names is refused."""
    source = shutil.copytree(tiny_run, tmp_path / "source")
    argv = ["text_lm", str(config_file), f"out={tmp_path}/run", f"scorer_from={source}"]
    assert main(argv) == 0
    before = contents(tmp_path / "run" / "scorer")
    shutil.rmtree(source)
    assert main(["text_lm", str(config_file), f"out={source}", "scorer_train.lr=0.5"]) == 0
    capsys.readouterr()
    assert "was trained with a different scorer" in refused(*argv)
    assert contents(tmp_path / "run" / "scorer") == before
