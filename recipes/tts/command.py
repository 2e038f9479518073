"""The command `vqmem speak`; nothing heavy is imported before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "speak a text of any length with a voice that `vqmem tts` has trained"
EPILOG = """\
examples:
  vqmem speak "What a fine day it is." -o day.wav
  vqmem speak --file chapter.txt -o chapter.flac --run runs/kerstin
  echo "Good morning." | vqmem speak - -o morning.wav --temperature 0.8 --seed 3
Characters that the voice has not learnt are named and left out. The file is written whole or not at all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to say, or - for standard input")
    parser.add_argument("--file", type=Path, metavar="FILE", help="read the text from a file instead")
    parser.add_argument("--encoding", default="utf-8", help="of that file, as Python names it (default utf-8)")
    written = "file to write; its name says how: wav, flac or ogg"
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", required=True, help=written)
    trained = "folder of a finished `vqmem tts` (default runs/tts_demo, which `vqmem tts demo` makes)"
    parser.add_argument("--run", type=Path, metavar="DIR", default=Path("runs/tts_demo"), help=trained)
    drawn = "0 says the likeliest unit at each step, more varies more (default 0.5)"
    parser.add_argument("--temperature", type=float, default=0.5, metavar="T", help=drawn)
    parser.add_argument("--seed", type=int, default=0, help="the same seed speaks the same (default 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")


def run(asked: argparse.Namespace) -> None:
    """Speak. Raises `ValueError` for mistakes of the user's."""
    from ...data._reading import read_text
    from .speak import Manner, show

    if (asked.text is None) == (asked.file is None):
        raise ValueError("give either a text or --file FILE; see `vqmem speak --help`")
    text = read_text(asked.file or "-", asked.encoding, "--encoding") if asked.text in (None, "-") else asked.text
    show(text, asked.run, asked.out, Manner(asked.temperature, asked.seed), asked.device)
