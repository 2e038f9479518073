"""Recordings as text with times: what `vqmem transcribe` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...console import one_line
from ...data._audio import Audio
from ...data._reading import SilentError, Skipping, UnreadableError
from ...registry import UnknownNameError
from ..engine.config import resolve_device
from ..engine.progress import Bar
from ..speech.units import SLOW, seconds_of
from .base import Way
from .recipe import Run, load_run
from .text import Word, segments, words


def show(files: Sequence[str], folder: Path, *, as_json: bool, beam: int | None, way: str | None, device: str) -> None:
    """Print what is said in recordings: a line each segment, or with ``as_json`` an object each word.

    A recording in which nothing is heard is one segment, or word, of its length and without text, so that every
    recording that was read has a line. Nothing is printed of a recording before all of it was read. Those that cannot
    be read are passed over and listed on standard error at the end; `UnreadableError` is raised where there are any.
    """
    run = load_run(folder, resolve_device(device), beam)
    if run.recogniser.reads != "audio":
        raise ValueError(
            f"the run {str(folder)!r} reads {run.recogniser.reads} that were made elsewhere, not recordings; "
            "give --run with one whose data are recordings"
        )
    chosen = _way(run, way)
    skipping, total = Skipping(), sum(seconds_of(Audio(file)) for file in files)
    with Bar("transcribing", total, quiet=total < SLOW) as bar:
        for file in files:
            with skipping:
                found, name = _heard(chosen, file, bar), file if len(files) > 1 else ""
                lines = list(_objects(found, name) if as_json else _lines(segments(found), name))
                sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    skipping.report()
    if skipping.reasons:
        raise UnreadableError(f"{len(skipping.reasons)} of {len(files)} recordings could not be read; see above")


def _way(run: Run, name: str | None) -> Way:
    ways = run.transcriber.ways
    if name is None:
        return next(iter(ways.values()))
    if name not in ways:
        raise UnknownNameError("way", name, list(ways))
    return ways[name]


def _heard(way: Way, file: str, bar: Bar) -> list[Word]:
    """The words of a recording; where there is none, an empty one as long as the recording."""
    before, end = bar.done, 0.0

    def follow(second: float) -> None:
        nonlocal end
        end = second
        bar.update(before + int(second))

    try:
        found = list(words(letter for _, letter in way([[Audio(file, on_progress=follow)]])))
    except SilentError:  # every sample is 0: nothing is heard in it either
        found = []
    return found or [Word("", 0.0, end)]


def _lines(found: Iterable[Word], name: str) -> Iterator[str]:
    for segment in found:
        line = f"{segment.start:.2f}\t{segment.end:.2f}\t{segment.text}"
        yield f"{one_line(name)}\t{line}" if name else line


def _objects(found: Iterable[Word], name: str) -> Iterator[str]:
    whose = {"file": name} if name else {}
    for word in found:
        times = {"start": round(word.start, 2), "end": round(word.end, 2)}
        yield one_line(json.dumps({**whose, "word": word.text, **times}, ensure_ascii=False))
