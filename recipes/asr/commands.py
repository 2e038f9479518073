"""The command `vqmem transcribe`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...cli_base import DEVICE, RECORDINGS, Command, RenamedOption, file_name, file_path


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=RECORDINGS)
    finished = "the folder of a finished `vqmem asr` (default runs/asr_demo)"
    parser.add_argument("--run", type=file_path, metavar="DIR", default=Path("runs/asr_demo"), help=finished)
    parser.add_argument(
        "--decoder", metavar="NAME", help="decoding mode, as evaluation.json lists them (default: the first)"
    )
    parser.add_argument("--way", action=RenamedOption, now="--decoder")
    beam = "hypotheses to keep, for a ctc run; 0 is greedy (default: as the run says); needs the extra asr"
    parser.add_argument("--beam", type=int, metavar="N", help=beam)
    parser.add_argument("--device", default="cpu", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line for each word")


def _transcribe(args: argparse.Namespace) -> None:
    from .transcribe import show

    show(args.files, args.run, as_json=args.json, beam=args.beam, decoding_mode=args.decoder, device=args.device)


COMMANDS = {
    "transcribe": Command(
        "transcribe recordings, with times, using a recogniser that you trained",
        _transcribe_arguments,
        _transcribe,
        """\
examples:
  vqmem asr demo && vqmem transcribe clip.flac
  vqmem transcribe *.wav --run runs/digits --json
  vqmem transcribe talk.mp3 --run runs/asr_librispeech --beam 50
Without --json, each line is a segment between pauses: start and end in seconds and the text, separated by tabs. With
several files, the file name comes first. Objects of --json have the keys word, start and end, and file if there are
several. A recording without speech is one line, from 0 to its length, with an empty text. Memory does not grow with the
length of a recording. Unreadable files are skipped and listed at the end, and the exit code is then 2. Control
characters are written as escapes, such as \\u001b.
`vqmem asr --help` shows how to train a recogniser.""",
    ),
}
