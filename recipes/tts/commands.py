"""The command `vqmem speak`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...cli_base import DEVICE, Command, file_path, output_file


def _speak_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="?", help="text to speak, or - for standard input")
    parser.add_argument("--file", type=file_path, metavar="FILE", help="read the text from a file instead")
    parser.add_argument("--encoding", default="utf-8", help="encoding of that file, as Python names it (default utf-8)")
    written = "file to write: wav, flac or ogg, by its name; - is standard output, as wav"
    parser.add_argument("-o", "--out", type=output_file, metavar="OUT", required=True, help=written)
    trained = "folder of a finished `vqmem tts` (default runs/tts_demo, from `vqmem tts demo`)"
    parser.add_argument("--run", type=file_path, metavar="DIR", default=Path("runs/tts_demo"), help=trained)
    drawn = "sampling temperature of units; 0 takes the likeliest unit at each step (default 0.5)"
    parser.add_argument("--temperature", type=float, default=0.5, metavar="T", help=drawn)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    read = "language of numbers and abbreviations: de, en, or '' to leave them as written (default: as the run says)"
    parser.add_argument("--language", metavar="CODE", help=read)
    parser.add_argument("--device", default="cpu", help=DEVICE)


def _speak(args: argparse.Namespace) -> None:
    from ...data.reading.files import read_text
    from .speak import Manner, show

    if (args.text is None) == (args.file is None):
        raise ValueError("give either a text or --file FILE; see `vqmem speak --help`")
    text = read_text(args.file or "-", args.encoding, "--encoding") if args.text in (None, "-") else args.text
    show(text, args.run, args.out, Manner(args.temperature, args.seed), args.device, args.language)


COMMANDS = {
    "speak": Command(
        "speak a text of any length with a voice that `vqmem tts` has trained",
        _speak_arguments,
        _speak,
        """\
examples:
  vqmem speak "two golden lions laugh" -o lions.wav
  vqmem speak --file chapter.txt -o chapter.flac --run runs/kerstin
  echo "six white cows run" | vqmem speak - -o cows.wav --temperature 0.8 --seed 3
Numbers, dates, amounts and abbreviations are spoken as words. Characters that the voice has not learnt are reported and
left out; signs among them separate words. The file is written completely or not at all.""",
    ),
}
