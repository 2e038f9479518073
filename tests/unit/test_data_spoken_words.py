"""Spoken words: every combination once, with its text, in one split."""

from __future__ import annotations

import pytest
from vqmem.data.spoken_words import Source

pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")


def test_every_word_in_every_voice_at_every_speed_is_in_one_split(tmp_path) -> None:
    source = Source(("one", "two"), ("en-us", "en-us+f3"), (120, 130, 140, 150, 160, 170, 180), str(tmp_path))
    speeds = {"train": (120, 140, 160, 170), "dev": (130, 180), "test": (150,)}
    seen = []
    for split in ("train", "dev", "test"):
        documents = list(source.documents(split))
        assert {(d.text, d.speaker, int(d.name.rpartition("/")[2])) for d in documents} == {
            (word, voice, speed) for word in source.words for voice in source.voices for speed in speeds[split]
        }
        seen += [tuple(d.audio.read().tolist()) for d in documents if d.audio]
    assert len(set(seen)) == len(seen) == 28


def test_refused() -> None:
    for keys, message in [
        ({"words": ()}, "needs one word and one voice at least"),
        ({"words": ("one", " ")}, "words has ' ', which has no letter or digit to say; leave it out"),
        ({"speeds": (120, 130, 140, 150)}, r"speeds = \[120, 130, 140, 150\] are too few for three splits; give 5"),
        ({"speeds": (20, 130, 140, 150, 160)}, "must be at least 80"),
        ({"words": ("one", "one")}, "words has 'one' twice; give it once"),
    ]:
        with pytest.raises(ValueError, match=message):
            Source(**keys)
