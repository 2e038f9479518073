"""What is printed for people cannot command the terminal."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from vqmem.cli import main
from vqmem.console import one_line, visible
from vqmem.data.reading.files import Skipping, UnreadableError, read_text
from vqmem.recipes.engine.progress import Bar
from vqmem.recipes.reporting.heatmap import heatmap_terminal
from vqmem.recipes.reporting.page import HERE, render

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = "\x1b]0;title\x07 \x9b31m \x7f \u202egnp.exe\u202c \u2067x\u2069 \udcff [red]x[/red]"


def test_commands_and_directions_are_shown():
    assert visible("a\x1b[1m\r\nb\tc\u202ed\x9b") == "a\\u001b[1m\nb\tc\\u202ed\\u009b"
    assert one_line("a\nb\tc\u2028") == "a\\u000ab\\u0009c\\u2028"
    assert visible("naïve 語 🐋 \u200e") == "naïve 語 🐋 \u200e"


@given(st.text(st.characters()))
def test_a_line_of_json_keeps_its_value(text):
    line = one_line(json.dumps(text, ensure_ascii=False))
    assert json.loads(line) == text
    assert not UNSAFE.search(line)
    assert len(line.splitlines()) == 1


def test_messages_of_errors_and_lists_are_safe(capsys, tmp_path):
    assert main(["score", str(tmp_path / HOSTILE)]) == 2
    assert main([HOSTILE]) == 2
    skipping = Skipping()
    for reason in (HOSTILE, None):
        with skipping:
            if reason:
                raise UnreadableError(reason)
    skipping.report()
    out, errors = capsys.readouterr()
    assert out == ""
    assert not UNSAFE.search(errors)
    assert errors.count("[red]x[/red]") == 3


def test_a_bar_shows_names_as_they_are(capsys, monkeypatch):
    with Bar(HOSTILE, 2) as bar:
        bar.say(HOSTILE)
        bar.update(2, "[red]2[/red]")
    assert not UNSAFE.search(capsys.readouterr().err)
    live = io.StringIO()
    monkeypatch.setattr(
        "vqmem.recipes.engine.progress.Console", lambda stderr: Console(file=live, force_terminal=True, width=200)
    )
    with Bar(HOSTILE, 2) as bar:
        bar.say(HOSTILE)
        bar.update(2, "[red]2[/red]")
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", live.getvalue()).replace("\r", "")
    assert not UNSAFE.search(shown)
    assert "[red]x[/red]" in shown
    assert "[red]2[/red]" in shown


def test_a_score_and_a_page_show_directions():
    tokens = [{"text": text, "score": 1.0, "rarity": 1.0, "gain": 0.0} for text in ("a\u202eb", "\x9b", "\x1b")]
    assert heatmap_terminal(tokens).plain == "a\\u202eb\\u009b\u241b"
    page = render(HERE / "heatmap.html", title="a\u202e<b>", data={"tokens": ["\u202e"]}, styles=[], scripts=[])
    assert "<title>a\\u202e&lt;b&gt;" in page
    assert not UNSAFE.search(page)


@pytest.mark.parametrize("data", [b"\xff", b"a\0"])
def test_an_encoding_is_asked_for_only_where_it_can_be_given(data, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"save it in utf-8$"):
        read_text(tmp_path / "text.txt")
    with pytest.raises(ValueError, match="its --encoding"):
        read_text(tmp_path / "text.txt", option="--encoding")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["score", "-"]) == 2
    assert "its --encoding" in capsys.readouterr().err
