"""Shared by all subcommands of `vqmem`: the parser of the command line, and streams that never raise."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from .schema import expand

DEVICE = "auto, cpu, cuda, cuda:N or mps (default cpu)"
"""Help of options for the device."""
RECORDINGS = "recordings: wav, flac, ogg, mp3; any rate, any length"
"""Help of arguments for recordings."""
_LITERAL = "\0"
"""Marks a word that is not an option. No word of a command line can contain this character."""


@dataclass(frozen=True)
class Command:
    """One subcommand: its line in the overview, its arguments, and what it does."""

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    epilog: str
    more: Callable[[], str] = str
    """The end of the help, which takes long to compute."""
    suggestions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Argument -> words that a shell completes there."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises its errors instead of printing them with the usage."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=layout, allow_abbrev=False)
        self.register("type", None, _word)

    def error(self, message: str) -> NoReturn:
        """Raise ``ValueError``."""
        raise ValueError(f"{message.replace(_LITERAL, '')}; see `{self.prog} --help`")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments. Options may stand anywhere before ``--``; no word after ``--`` is an option.

        argparse ignores ``--`` if options and other arguments are mixed.
        """
        end = words.index("--") if "--" in words else len(words)
        return self.parse_intermixed_args([*words[:end], *(_LITERAL + word for word in words[end + 1 :])])


class RenamedOption(argparse.Action):
    """An option with an old name, left out of the help: using it is an error that gives the new name."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, now: str) -> None:
        super().__init__(option_strings, dest, nargs="?", help=argparse.SUPPRESS)
        self.now = now

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option_string: str | None = None
    ) -> NoReturn:
        """Raise ``ValueError``."""
        parser.error(f"the option {option_string} is called {self.now} now; rename it")


# --- types of arguments --------------------------------------------------------------------------------------------


def _word(text: str) -> str:
    return text.removeprefix(_LITERAL)


def file_name(text: str) -> str:
    """Parse a file to read, or ``-``, as messages call it."""
    try:
        return expand(_word(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_path(text: str) -> Path:
    """Parse a file or folder to read."""
    return Path(file_name(text))


def output_folder(text: str) -> Path:
    """Parse a folder to write."""
    if _word(text) == "-":
        raise argparse.ArgumentTypeError("a folder cannot go to standard output; give a path")
    return file_path(text)


def output_file(text: str) -> Path:
    """Parse a file to write; ``-`` is standard output."""
    return Path("/dev/stdout") if _word(text) == "-" else file_path(text)


# --- streams -------------------------------------------------------------------------------------------------------


def prepare_streams() -> None:
    r"""Make sure that no command fails because of the streams of the process.

    Closed streams become the null device. Characters that a stream cannot encode are written as ``\uXXXX``, which JSON
    reads back. If nobody reads standard error any more, its messages are lost and the command continues.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, so that no other file gets it
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    codecs.register_error("vqmem", _escape)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="vqmem")
    encoding = sys.stderr.encoding if sys.stderr else None
    sys.stderr = io.TextIOWrapper(_Messages(2, "w", closefd=False), encoding, "vqmem", write_through=True)


def discard_stdout() -> None:
    """Discard the rest of standard output, so that Python does not fail at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Messages(io.FileIO):
    """Standard error that ignores failed writes."""

    def write(self, data: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end
