"""The command `vqmem transcribe`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...cli_base import DEVICE, RECORDINGS, Command, file_name, file_path


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=RECORDINGS)
    finished = "the folder of a finished `vqmem asr` (default runs/asr_demo)"
    parser.add_argument("--run", type=file_path, metavar="DIR", default=Path("runs/asr_demo"), help=finished)
    parser.add_argument("--way", metavar="NAME", help="one of those that evaluation.json lists (default: the first)")
    beam = "of a ctc run: hypotheses to keep, 0 for greedy (default: the run's); needs the extra asr"
    parser.add_argument("--beam", type=int, metavar="N", help=beam)
    parser.add_argument("--device", default="cpu", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="one JSON object a word and line")


def _transcribe(asked: argparse.Namespace) -> None:
    from .transcribe import show

    show(asked.files, asked.run, as_json=asked.json, beam=asked.beam, way=asked.way, device=asked.device)


_TRANSCRIBE = Command(
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
are several. A recording in which nothing is heard is one line, from 0 to its length, with an empty text. Memory does
not grow with the length of a recording. Files that cannot be read are passed over and listed at the end, and the exit
code is then 2. Characters that a terminal would obey are written as escapes, such as \\u001b.
`vqmem asr --help` says how to train a recogniser.""",
)


COMMANDS = {"transcribe": _TRANSCRIBE}
