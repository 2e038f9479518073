"""Texts that are not English prose are noticed, and English ones are not."""

import argparse
import json
from pathlib import Path

import pytest
from vqmem.cli import main
from vqmem.recipes.scoring.language import unlike_english

ENGLISH = (
    "There was a table set out under a tree in front of the house, and the March Hare and the Hatter were having tea "
    "at it: a Dormouse was sitting between them, fast asleep, and the other two were using it as a cushion."
)
GERMAN = (
    "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett zu einem ungeheueren "
    "Ungeziefer verwandelt. Er lag auf seinem panzerartig harten Rücken und sah, wenn er den Kopf ein wenig hob."
)
CHINESE = "道可道,非常道。名可名,非常名。无名天地之始;有名万物之母。故常无欲,以观其妙;常有欲,以观其徼。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"


@pytest.mark.parametrize("text", [ENGLISH, ENGLISH.upper(), "Wer ist das?", "", "12 + 30 = 42\n" * 100])
def test_english_and_what_is_too_short_to_tell_is_not_noticed(text):
    assert unlike_english(text) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GERMAN, "0% of its words are common words of English"),
        (CHINESE, "most of its letters are not Latin"),
        (JAPANESE, "most of its letters are not Latin"),
    ],
)
def test_other_languages_are_noticed_and_why(text, reason):
    assert unlike_english(text) == reason


def test_english_with_some_words_of_another_script_is_not_noticed():
    assert unlike_english(f"{ENGLISH} {CHINESE}") == ""
    assert unlike_english(Path(argparse.__file__).read_text().split('"""')[1]) == ""  # English prose in a module


@pytest.mark.parametrize(("text", "said"), [(CHINESE, True), (ENGLISH, False)])
def test_score_says_it_and_keeps_characters_whole(text, said, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    assert main(["score", str(file), "--json"]) == 0
    out, err = capsys.readouterr()
    assert ("may not be English, as most of its letters are not Latin." in err) == said
    assert "\ufffd" not in out
    assert "".join(json.loads(line)["text"] for line in out.splitlines()) == text
