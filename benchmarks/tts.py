"""How well a recogniser understands what the voices of the recipe `tts` say, and how fast they say it.

    python benchmarks/tts.py --whisper FOLDER [--quick] [--json] [--save] [--voices NAMES] [--clips N] [--threads N]
                             [--data FOLDER] [--runs FOLDER]

Trains the recipe's configs `kerstin` (German, 46 minutes of recordings) and `spoken` (text that Python carries, spoken
by eSpeak NG), or takes them from the folder of runs. Sentences of the test split, on which nothing was chosen, are then
heard by Whisper base: the recordings; copies from their units by Griffin-Lim, by filters, and by filters that are told
the letters too; and the text spoken. `_whisper.py` says how to get the recogniser; without it, speed alone is measured.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _results import figure, options, present
from _whisper import Whisper, error_rates, missing
from vqmem.models.unit_vocoder import RATE
from vqmem.recipes._config import load
from vqmem.recipes._progress import progress
from vqmem.recipes.tts import recipe
from vqmem.recipes.tts.clips import Clip, align, aligned, read_clips
from vqmem.recipes.tts.report import versions
from vqmem.recipes.tts.speak import Manner, speak
from vqmem.recipes.tts.voice import Voice, load_voice
from vqmem.registry import ROOT

VOICES = {"kerstin": ("de", 40.0), "spoken": ("en", 20.0)}
"""Config -> its language, and the most per cent of characters that may be misheard of text."""
ADDED, FAST = 2.0, 5.0
"""Points of word error rate that copies may add; times as fast as real time."""
QUICK = ["units.clusters=20", "vocoder_train.steps=5", "speaker_train.steps=20", "eval_clips=2", "samples=0"]
QUICK += ["train_seconds=60"]


def main() -> None:
    """Train, listen, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--whisper", type=Path, help="folder of Whisper base for CTranslate2")
    parser.add_argument("--voices", nargs="+", choices=VOICES, default=list(VOICES), help="which ones (default all)")
    parser.add_argument("--clips", type=int, default=60, help="sentences of each, taken evenly (default 60)")
    parser.add_argument("--data", default=default, help="folder that holds speech/ (default $VQMEM_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tts_benchmark"), help="where to train")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    os.environ["VQMEM_DATA"] = flags.data
    if reason := missing(flags.whisper):
        print(f"not heard: {reason}", file=sys.stderr)
    figures: dict[str, Any] = {}
    for name in flags.voices:
        changes = [f"out={flags.runs / name}", *(QUICK if flags.quick else [])]
        config = load(recipe.Config, name, changes, folder=ROOT / "recipes" / "tts" / "configs")
        recipe.run(config)
        voice = load_voice(Path(config.out))
        clips = sentences(config, voice, 2 if flags.quick else flags.clips)
        figures[f"{name}, speaking"] = figure(round(speed(voice, clips), 1), "x real time", FAST)
        if not reason:
            recogniser = Whisper(flags.whisper, VOICES[name][0], flags.threads)
            figures |= {f"{name}, {key}": value for key, value in heard(name, voice, clips, recogniser).items()}
    present(
        "tts",
        figures,
        flags,
        title="How well a recogniser understands synthesised speech",
        claim=(
            "Copies from units add at most 2 points to the word error rate of recordings; of spoken text at most 40 % "
            "of the characters are misheard in German and 20 % in the voice of eSpeak NG; speaking is five times as "
            "fast as real time."
        ),
        measured=(
            f"The configs {' and '.join(flags.voices)} of `vqmem tts`, on {flags.clips} sentences of each test split. "
            "Whisper base (CTranslate2, 8 bits, beam 5) hears the recordings, which is the ceiling; copies from their "
            "units by Griffin-Lim, by filters, and by filters told the letters too; and the text spoken. Case and "
            "punctuation do not count."
        ),
    )


def sentences(config: recipe.Config, voice: Voice, count: int) -> list[Clip]:
    """Clips of the test split that have a text, with the letters of their units."""
    train = read_clips(config.data, "train", voice.tokenizer, seconds=config.train_seconds)
    letters, aligner = align(train, voice.tokenizer.vocab_size)
    clips, read = aligned(read_clips(config.data, "test", voice.tokenizer, count=count), letters, aligner)
    assert len(read) == len(clips), "every sentence has its text"
    return clips


def speed(voice: Voice, clips: Sequence[Clip]) -> float:
    """Seconds of speech a second."""
    began = time.perf_counter()
    samples = sum(len(piece) for clip in clips for piece in speak(voice, clip.text, Manner()))
    return samples / RATE / (time.perf_counter() - began)


def heard(name: str, voice: Voice, clips: Sequence[Clip], recogniser: Whisper) -> dict[str, Any]:
    """Error rates of every version of the clips, as figures."""
    told: dict[str, list[str]] = {}
    for clip in progress(clips, len(clips), f"hearing {name}"):
        for version, waveform in versions(voice, clip).items():
            told.setdefault(version, []).append(recogniser(waveform))
    rates = {version: error_rates([clip.text for clip in clips], texts) for version, texts in told.items()}
    table = {f"{version}, {key}": round(x, 2) for version, of in rates.items() for key, x in of.items()}
    added = min(rates[way]["wer"] for way in rates if way.startswith("its units")) - rates["recording"]["wer"]
    return {
        "WER that copies add": figure(round(added, 2), "points", ADDED, least=False, **table),
        "CER of text": figure(round(rates["its text"]["cer"], 2), "%", VOICES[name][1], least=False),
    }


if __name__ == "__main__":
    main()
