"""The command `vqmem units`."""

from __future__ import annotations

import argparse

from ...cli_base import RECORDINGS, Command, file_name, file_path


def _units_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=RECORDINGS)
    fitted = "run of `vqmem fit-units` (default: the packaged units, 100 clusters of MFCC)"
    parser.add_argument("--model", type=file_path, metavar="DIR", help=fitted)
    parser.add_argument("--deduplicate", action="store_true", help="make one unit of a run, with its whole duration")
    parser.add_argument("--json", action="store_true", help="one JSON object a unit and line")


def _show_units(asked: argparse.Namespace) -> None:
    from .units import show_units

    show_units(asked.files, asked.model, deduplicate=asked.deduplicate, as_json=asked.json)


_UNITS = Command(
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


COMMANDS = {"units": _UNITS}
