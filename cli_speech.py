"""The subcommands of `vqmem` that read or write recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli import Command

# --- units ---------------------------------------------------------------------------------------------------------


def _units_arguments(parser: argparse.ArgumentParser) -> None:
    recordings = "recordings: wav, flac, ogg, mp3; any rate, any length"
    parser.add_argument("files", metavar="FILE", nargs="+", help=recordings)
    fitted = "run of `vqmem fit-units` (default: the packaged units, 100 clusters of MFCC)"
    parser.add_argument("--model", type=Path, metavar="DIR", help=fitted)
    parser.add_argument("--deduplicate", action="store_true", help="make one unit of a run, with its whole duration")
    parser.add_argument("--json", action="store_true", help="one JSON object a unit and line")


def _show_units(asked: argparse.Namespace) -> None:
    from .recipes._units import show_units

    show_units(asked.files, asked.model, deduplicate=asked.deduplicate, as_json=asked.json)


UNITS = Command(
    "turn recordings into speech units, 50 a second",
    _units_arguments,
    _show_units,
    """\
examples:
  vqmem units clip.flac
  vqmem units clip.flac --json --deduplicate
  vqmem units *.wav --model runs/mfcc100 > units.tsv
Without --json a recording is one line of numbers; of several files, the file's name and a tab stand before them.
An object of --json has the keys unit, start and end (seconds), and file where there are several. Files that cannot be
read are passed over and listed at the end; where none can, the exit code is 2.
`vqmem fit-units --help` says how to make units of your own.""",
)


# --- transcribe ----------------------------------------------------------------------------------------------------


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    recordings = "recordings: wav, flac, ogg, mp3; any rate, any length"
    parser.add_argument("files", metavar="FILE", nargs="+", help=recordings)
    finished = "the folder of a finished `vqmem asr` (default runs/asr_demo)"
    parser.add_argument("--run", type=Path, metavar="DIR", default=Path("runs/asr_demo"), help=finished)
    parser.add_argument("--way", metavar="NAME", help="one of those that evaluation.json lists (default: the first)")
    beam = "of a ctc run: hypotheses to keep, 0 for greedy (default: the run's); needs the extra asr"
    parser.add_argument("--beam", type=int, metavar="N", help=beam)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")
    parser.add_argument("--json", action="store_true", help="one JSON object a word and line")


def _transcribe(asked: argparse.Namespace) -> None:
    from .recipes.asr.transcribe import show

    show(asked.files, asked.run, as_json=asked.json, beam=asked.beam, way=asked.way, device=asked.device)


TRANSCRIBE = Command(
    "write what is said in recordings, with times, by a recogniser of your own",
    _transcribe_arguments,
    _transcribe,
    """\
examples:
  vqmem asr demo && vqmem transcribe clip.flac
  vqmem transcribe *.wav --run runs/digits --json
  vqmem transcribe talk.mp3 --run runs/librispeech --beam 50
Without --json a line is a stretch between pauses: start and end in seconds and the text, with tabs between; of several
files, the file's name stands before them. An object of --json has the keys word, start and end, and file where there
are several. Memory does not grow with the length of a recording. Files that cannot be read are passed over and listed
at the end, and the exit code is then 2.
`vqmem asr --help` says how to train a recogniser.""",
)
