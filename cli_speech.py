"""The subcommands of `vqmem` that read or write recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli_base import Command, file_name, file_path, output_file

_DEVICE = "auto, cpu, cuda, cuda:N or mps (default cpu)"
_RECORDINGS = "recordings: wav, flac, ogg, mp3; any rate, any length"

# --- units ---------------------------------------------------------------------------------------------------------


def _units_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=_RECORDINGS)
    fitted = "run of `vqmem fit-units` (default: the packaged units, 100 clusters of MFCC)"
    parser.add_argument("--model", type=file_path, metavar="DIR", help=fitted)
    parser.add_argument("--deduplicate", action="store_true", help="make one unit of a run, with its whole duration")
    parser.add_argument("--json", action="store_true", help="one JSON object a unit and line")


def _show_units(asked: argparse.Namespace) -> None:
    from .recipes.speech.units import show_units

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
An object of --json has the keys unit, start and end (seconds), and file where there are several. Characters in names
that a terminal would obey are written as escapes, such as \\u001b. Files that cannot be read are passed over and listed
at the end; where none can, the exit code is 2.
`vqmem fit-units --help` says how to make units of your own.""",
)


# --- transcribe ----------------------------------------------------------------------------------------------------


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=_RECORDINGS)
    finished = "the folder of a finished `vqmem asr` (default runs/asr_demo)"
    parser.add_argument("--run", type=file_path, metavar="DIR", default=Path("runs/asr_demo"), help=finished)
    parser.add_argument("--way", metavar="NAME", help="one of those that evaluation.json lists (default: the first)")
    beam = "of a ctc run: hypotheses to keep, 0 for greedy (default: the run's); needs the extra asr"
    parser.add_argument("--beam", type=int, metavar="N", help=beam)
    parser.add_argument("--device", default="cpu", help=_DEVICE)
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
are several. A recording in which nothing is heard is one line, from 0 to its length, with an empty text. Memory does
not grow with the length of a recording. Files that cannot be read are passed over and listed at the end, and the exit
code is then 2. Characters that a terminal would obey are written as escapes, such as \\u001b.
`vqmem asr --help` says how to train a recogniser.""",
)


# --- speak ---------------------------------------------------------------------------------------------------------


def _speak_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to say, or - for standard input")
    parser.add_argument("--file", type=file_path, metavar="FILE", help="read the text from a file instead")
    parser.add_argument("--encoding", default="utf-8", help="of that file, as Python names it (default utf-8)")
    written = "file to write; its name says how: wav, flac or ogg; - is standard output, as wav"
    parser.add_argument("-o", "--out", type=output_file, metavar="OUT", required=True, help=written)
    trained = "folder of a finished `vqmem tts` (default runs/tts_demo, which `vqmem tts demo` makes)"
    parser.add_argument("--run", type=file_path, metavar="DIR", default=Path("runs/tts_demo"), help=trained)
    drawn = "0 says the likeliest unit at each step, more varies more (default 0.5)"
    parser.add_argument("--temperature", type=float, default=0.5, metavar="T", help=drawn)
    parser.add_argument("--seed", type=int, default=0, help="the same seed speaks the same (default 0)")
    read = "in which numbers and abbreviations are read: de, en, or '' to leave them (default: the run's)"
    parser.add_argument("--language", metavar="CODE", help=read)
    parser.add_argument("--device", default="cpu", help=_DEVICE)


def _speak(asked: argparse.Namespace) -> None:
    from .data._reading import read_text
    from .recipes.tts.speak import Manner, show

    if (asked.text is None) == (asked.file is None):
        raise ValueError("give either a text or --file FILE; see `vqmem speak --help`")
    text = read_text(asked.file or "-", asked.encoding, "--encoding") if asked.text in (None, "-") else asked.text
    show(text, asked.run, asked.out, Manner(asked.temperature, asked.seed), asked.device, asked.language)


SPEAK = Command(
    "speak a text of any length with a voice that `vqmem tts` has trained",
    _speak_arguments,
    _speak,
    """\
examples:
  vqmem speak "two golden lions laugh" -o lions.wav
  vqmem speak --file chapter.txt -o chapter.flac --run runs/kerstin
  echo "six white cows run" | vqmem speak - -o cows.wav --temperature 0.8 --seed 3
Numbers, dates, amounts and abbreviations are read in words. Characters that the voice has not learnt are named and left
out; signs among them separate words. The file is written whole or not at all.""",
)
