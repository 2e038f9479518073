"""How fast recordings become units, and how much memory an hour-long one takes.

    python benchmarks/speed/units.py [--quick] [--json] [--save] [--data FOLDER]

Utterances of LibriSpeech are joined to a single file of an hour (``--quick``: of two minutes), once at
16 kHz in flac, as they come, and once in stereo at 44.1 kHz in wav, which has to be resampled. A separate process
reads each on one thread with the packaged units: MFCC, 100 clusters. Speed is seconds of speech a second of processor
time, which on an idle core is time; decoding and resampling count. Memory is the peak resident set while the
process reads, less that before, when it had imported everything and read a first clip (needs Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.speech._long import recording, resident
from vqmem.data.reading.audio import RATE, Audio
from vqmem.recipes.speech.units import load_units


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument(
        "--data", default=default, help="folder that holds speech/ (default $VQMEM_DATA or ../shared/data)"
    )
    parser.add_argument("--child", nargs=2, metavar=("FIRST", "FILE"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(read(*flags.child)))
        return
    seconds = 120 if flags.quick else 3600
    with TemporaryDirectory() as folder:
        figures = measure(Path(folder), Path(flags.data) / "speech", seconds)
    present(
        "units_speed",
        figures,
        flags,
        title="From recordings to units",
        question=(
            "Do recordings become MFCC units 100 times as fast as real time, and does an hour take less than 500 MB?"
        ),
        measured=f"{seconds} s of LibriSpeech in one file, one thread, packaged units (MFCC, 100 clusters).",
    )


def measure(folder: Path, speech: Path, seconds: int) -> dict[str, dict[str, Any]]:
    """Speed and memory for both files."""
    samples = recording(speech, seconds)
    soundfile.write(folder / "first.flac", samples[: 30 * RATE], RATE)
    soundfile.write(folder / "16 kHz flac.flac", samples, RATE)
    high = soxr.resample(samples, RATE, 44_100)
    soundfile.write(folder / "44.1 kHz stereo wav.wav", np.stack([high, 0.5 * high], 1), 44_100)
    figures = {}
    for name in ("16 kHz flac.flac", "44.1 kHz stereo wav.wav"):
        command = [sys.executable, __file__, "--child", str(folder / "first.flac"), str(folder / name)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found, what = json.loads(done.stdout), Path(name).stem
        more = {"units": found["units"], "wall_s": round(found["wall"], 1)}
        figures[f"speed, {what}"] = figure(round(seconds / found["cpu"]), "x real time", 100, **more)
        figures[f"memory, {what}"] = figure(round(found["grown"] / 1e6), "MB", 500, least=False)
    return figures


def read(first: str, path: str) -> dict[str, float]:
    """In the child: units, processor and wall seconds, and by how many bytes the peak memory grew."""
    torch.set_num_threads(1)
    tokenizer = load_units()
    tokenizer.encode(Audio(first))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest that importing has reached
    cpu, wall = time.process_time(), time.perf_counter()
    units = len(tokenizer.encode(Audio(path)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"units": units, "cpu": cpu, "wall": wall, "grown": resident("VmHWM") - before}


if __name__ == "__main__":
    main()
