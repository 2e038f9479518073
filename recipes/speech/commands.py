"""The command `vqmem units`."""

from __future__ import annotations

import argparse

from ...cli_base import RECORDINGS, Command, file_name, file_path


def _units_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=file_name, metavar="FILE", nargs="+", help=RECORDINGS)
    fitted = "run of `vqmem fit_units` (default: the packaged units, 100 clusters of MFCC)"
    parser.add_argument("--model", type=file_path, metavar="DIR", help=fitted)
    parser.add_argument(
        "--deduplicate", action="store_true", help="merge repeated units into one, with their total duration"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line for each unit")


def _show_units(args: argparse.Namespace) -> None:
    from .units import show_units

    show_units(args.files, args.model, deduplicate=args.deduplicate, as_json=args.json)


COMMANDS = {
    "units": Command(
        "turn recordings into speech units, 50 a second",
        _units_arguments,
        _show_units,
        """\
examples:
  vqmem units clip.flac
  vqmem units clip.flac --json --deduplicate
  vqmem units *.wav --model runs/mfcc100 > units.tsv
Without --json, each recording is one line of numbers. With several files, the file name and a tab come first. Objects
of --json have the keys unit, start and end (seconds), and file if there are several. Control characters in names are
written as escapes, such as \\u001b. Unreadable files are skipped and listed at the end; if no file is readable, the
exit code is 2.
`vqmem fit_units --help` shows how to fit units on your recordings.""",
    ),
}
