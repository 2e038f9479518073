"""How fast a recogniser transcribes, and how much memory recordings of 1, 5 and 30 minutes take.

    python benchmarks/speech/asr_long.py [--quick] [--json] [--save] [--run FOLDER]

FOLDER is any finished run of `vqmem asr` (default runs/asr_demo). For one that reads recordings, utterances of
LibriSpeech stand one after another in one file (16 kHz, flac; from $VQMEM_DATA, default ../shared/data); for one that
reads units, as that of asr_units.py, the utterances of its test split are one recording. A separate process
transcribes each on one thread, as `vqmem transcribe` does. Speed is seconds of speech a second of processor time, which
on an idle core is time. Memory is the peak resident set of the process (needs Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soundfile
import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.speech._long import SPLIT, UNITS, recording, resident
from vqmem.data.reading.audio import RATE, Audio
from vqmem.recipes.asr.recipe import Run, load_run
from vqmem.recipes.asr.text import words
from vqmem.recipes.asr.utterances import read

MINUTES = (1, 5, 30)


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/asr_demo"), help="a finished `vqmem asr`")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(transcribe(flags.run, flags.child)))
        return
    sound = load_run(flags.run).recogniser.input_kind == "audio"
    with TemporaryDirectory() as folder:
        paths = {minutes: Path(folder) / f"{minutes}.flac" for minutes in MINUTES[: 2 if flags.quick else 3]}
        found = {minutes: measure(flags.run, path, minutes, sound) for minutes, path in paths.items()}
    longest, before = max(found), sorted(found)[-2]
    peaks = {f"{minutes} min, MB": round(one["peak"] / 1e6) for minutes, one in found.items()}
    grown = (found[longest]["peak"] - found[before]["peak"]) / 1e6
    speeds = {f"{minutes} min": round(60 * minutes / one["cpu"], 1) for minutes, one in found.items()}
    speed = 60 * longest / found[longest]["cpu"]
    present(
        "asr_long" if sound else "asr_long_units",
        {
            f"memory, {longest} less {before} minutes": figure(round(grown, 1), "MB", 50, least=False, **peaks),
            "speed": figure(round(speed, 1), "x real time", 5, **speeds, words=found[longest]["words"]),
        },
        flags,
        title="Transcribing half an hour" if sound else "Half an hour of units to text",
        question=(
            f"{'Waveforms' if sound else 'Units'}: are 30 minutes transcribed at 5 times real time or more, in the "
            "memory that 5 minutes take?"
        ),
        measured=(
            f"The run `{flags.run.name}` ({found[longest]['about']}) on utterances that are one recording of 1, 5 "
            "and 30 minutes, one thread, a process each. Its error rate is not measured here."
        ),
        split="LibriSpeech train-clean-100, the first 30 minutes of a sample of it" if sound else SPLIT,
    )


def measure(run: Path, path: Path, minutes: int, sound: bool) -> dict[str, Any]:
    """Transcribe a recording in a child process and measure it.

    Args:
        run: the folder of a finished `vqmem asr`.
        path: the file of the recording, called by its minutes; only written if the run reads sound.
        minutes: the length of the recording.
        sound: whether the run reads sound; otherwise it reads units.

    Returns:
        The report of the child; see `transcribe`.
    """
    if sound:
        speech = Path(os.environ.get("VQMEM_DATA", "../shared/data")) / "speech"
        soundfile.write(path, recording(speech, 60 * minutes), RATE)
    command = [sys.executable, __file__, "--run", str(run), "--child", str(path)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def transcribe(folder: Path, path: Path) -> dict[str, Any]:
    """In the child: processor seconds, peak memory in bytes, and how many words were written."""
    torch.set_num_threads(1)
    run = load_run(folder)
    name, decode = next(iter(run.transcriber.decoding_modes.items()))
    contents = [Audio(str(path))] if path.is_file() else units(run, 60 * int(path.stem))
    began = time.process_time()
    written = sum(1 for _ in words(letter for _, letter in decode([contents])))
    cpu = time.process_time() - began
    about = run.config.recogniser if isinstance(run.config.recogniser, str) else run.config.recogniser["name"]
    return {"cpu": cpu, "peak": resident("VmHWM"), "words": written, "about": f"{about}, {name}"}


def units(run: Run, seconds: int) -> list[Any]:
    """The first utterances of the test split, as many as last so long."""
    utterances, _ = read(run.config.data, "test", run.recogniser, Path(run.config.out) / "utterances")
    ends = accumulate(utterance.length for utterance in utterances)
    return [utterance.content for utterance, end in zip(utterances, ends, strict=True) if end <= UNITS * seconds]


if __name__ == "__main__":
    main()
