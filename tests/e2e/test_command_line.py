"""How the words of a command line are read, and streams that are closed, full, or too narrow for what is written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vqmem.cli import main
from vqmem.registry import build

COMMAND = [sys.executable, "-m", "vqmem"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-file.txt", "--json", "--", "-5"])
@pytest.mark.parametrize("before", [[], ["--json"]], ids=["alone", "after options"])
def test_what_follows_two_dashes_is_no_option(here, capsys, tiny_run, name, before):
    (here / name).write_text("some text")
    assert main(["score", "--model", str(tiny_run), "--json", *before, "--", name]) == 0
    tokens = map(json.loads, capsys.readouterr().out.splitlines())
    assert "".join(token["text"] for token in tokens) == "some text"


def test_two_dashes_in_other_places(here, capsys, refused, tiny_run, config_file, monkeypatch):
    assert main(["text_lm", "--print-config", "--", str(config_file), "segment=8"]) == 0
    assert "segment: 8\n" in capsys.readouterr().out
    assert main(["--", "list", "policies", "--", "fifo"]) == 0
    assert capsys.readouterr().out.startswith("Keep the newest")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from standard input")))
    assert main(["score", "--json", "--model", str(tiny_run), "--", "-"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["text"]
    assert "unrecognized arguments: -x; see `vqmem score --help`" in refused("score", "text.txt", "--", "-x")
    assert "no such file or folder: '-x.txt'" in refused("score", "--", "-x.txt")


def test_the_home_folder_is_expanded_in_configs(here, capsys, config_file):
    home = here / "home"
    assert main(["text_lm", str(config_file), "out=~/run", "scorer_from=~/other", "--print-config"]) == 0
    message = capsys.readouterr().out
    assert f"out: {home}/run\n" in message
    assert f"scorer_from: {home}/other\n" in message
    (home / "text.txt").write_text("a line of text\n" * 20)
    document = next(iter(build("data", {"name": "text_files", "path": "~/text.txt"}).documents("train")))
    assert document.text.startswith("a line of text")
    assert build("front-ends", {"name": "vqvae_codes", "path": "~/run"}).path == f"{home}/run"
    assert build("features", {"name": "hubert", "folder": "~"}).folder == str(home)
    assert build("data", {"name": "hub", "path": "someone/stories"}).path == "someone/stories"


def test_the_home_folder_is_expanded_in_arguments(here, capsys, tiny_run):
    (here / "home" / "text.txt").write_text("some text")
    (here / "home" / "run").symlink_to(tiny_run)
    assert main(["score", "~/text.txt", "--model=~/run", "--html=~/deep/page.html"]) == 0
    assert (here / "home" / "deep" / "page.html").is_file()
    assert [path.name for path in here.iterdir()] == ["home"]


def test_names_that_begin_with_a_tilde(here, capsys, refused, tiny_run, config_file):
    (here / "~text.txt").write_text("some text")
    assert main(["score", "~text.txt", "--model", str(tiny_run), "--json"]) == 0
    capsys.readouterr()
    for words in (["score", "~nobody-here/x.txt"], ["text_lm", config_file, "out=~nobody-here/x"]):
        assert "there is no user 'nobody-here'; give another path, or ./~nobody-here/x" in refused(*words)
    assert sorted(path.name for path in here.iterdir()) == ["home", "~text.txt"]


def test_a_dash_is_never_made_a_file(here, refused, config_file, tiny_run):
    (here / "text.txt").write_text("some text")
    done = subprocess.run([*COMMAND, "score", "text.txt", "--html", "-"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.endswith("</html>\n")
    for override in ("out=-", "out='-'"):  # YAML takes the first for a list
        assert "out = '-' would be standard input or output" in refused("text_lm", config_file, override)
    words = ["train-scorer", "--tokenizer", "x", "--out", "-"]
    assert "argument --out: a folder cannot go to standard output; give a path" in refused(*words)
    assert sorted(path.name for path in here.iterdir()) == ["home", "text.txt"]


@pytest.mark.parametrize("key", ["out", "data.path", "train.device"])
def test_an_override_that_is_not_utf8_is_named(here, refused, config_file, key):
    message = refused("text_lm", config_file, f"{key}=a\udcff")
    assert f"override '{key}=a\\udcff' is not UTF-8" in message
    assert [path.name for path in here.iterdir()] == ["home"]


def test_a_link_to_nothing_is_named(here, refused):
    for name in ("text.txt", "speech.wav", "~odd.txt"):
        (here / name).symlink_to("gone")
        command = "units" if name.endswith("wav") else "score"
        assert f"'{name}' is a link to 'gone', which is not there; mend the link" in refused(command, name)


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">&-", 0, ""),
        ("| true", 0, ""),
        ("| head -n 1", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/full", 2, "vqmem: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("command", ["list", "--help"])
def test_streams_that_are_closed_or_full(command, redirection, code, message):
    if command == "--help" and code:
        pytest.skip("argparse ends the process itself")
    script = f"{sys.executable} -m vqmem {command} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, message)


def test_messages_that_nobody_reads_are_lost_and_the_work_goes_on(here, tiny_run):
    (here / "text.txt").write_text("some text")
    reading, writing = os.pipe()
    os.close(reading)
    words = ["score", "text.txt", "--model", str(tiny_run), "--html", "page.html"]  # which says so on standard error
    assert subprocess.run([*COMMAND, *words], stderr=writing, timeout=120).returncode == 0
    assert (here / "page.html").is_file()
    assert subprocess.run([*COMMAND, "lst"], stderr=writing, timeout=60).returncode == 2
    os.close(writing)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_narrow_terminals(here, tiny_run, encoding):
    """Colours end lines with a sign of ours; JSON gives the very text back."""
    text = "plain text\nnaïve 語 🐋\n"
    (here / "text.txt").write_text(text)
    environment = os.environ | {"PYTHONIOENCODING": encoding, "NO_COLOR": "1"}
    script = f"""
import sys
from vqmem.cli import main
sys.argv = ["vqmem", "score", "text.txt", "--model", "{tiny_run}", "--json"]
assert main() == 0
sys.argv.pop()
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(encoding).splitlines(keepends=True)
    tokens = [json.loads(line) for line in lines if line.startswith("{")]
    assert "".join(token["text"] for token in tokens) == text
    shown = "".join(lines[len(tokens) :])
    assert "plain text$\n" in shown
    assert "\\u8a9e \\ud83d\\udc0b$\n" in shown
