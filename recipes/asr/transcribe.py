"""Transcribe recordings with times: what `vqmem transcribe` does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...console import one_line
from ...data.reading.audio import Audio
from ...data.reading.files import SilentError, Skipping, UnreadableError
from ...models.device import resolve_device
from ...registry import UnknownNameError
from ..engine.progress import Bar
from ..speech.units import seconds_of
from .base import DecodingMode
from .recipe import Run, load_run
from .text import Word, segments, words


def show(
    files: Sequence[str], folder: Path, *, as_json: bool, beam: int | None, decoding_mode: str | None, device: str
) -> None:
    """Print the transcript of recordings.

    A recording without speech is one segment, or word, of its length and without text, so that every recording has a
    line. A recording is printed after all of it was read. Unreadable recordings are skipped and listed on standard
    error at the end.

    Args:
        files: paths of the recordings.
        folder: a finished run of `vqmem asr`.
        as_json: print a JSON object per word, in place of a line per segment.
        beam: hypotheses to keep; None = as the run's config says.
        decoding_mode: one of the transcriber's; None = the first.
        device: where the model runs.

    Raises:
        ValueError: The run does not read recordings, or has no such decoding mode.
        UnreadableError: A recording could not be read.
    """
    run = load_run(folder, resolve_device(device), beam)
    if run.recogniser.input_kind != "audio":
        raise ValueError(
            f"the run {str(folder)!r} reads {run.recogniser.input_kind} that were made elsewhere, not recordings; "
            "give --run a run whose data are recordings"
        )
    mode = _decoding_mode(run, decoding_mode)
    skipping, total = Skipping(), sum(seconds_of(Audio(file)) for file in files)
    with Bar("transcribing", total, transient=True) as bar:
        for file in files:
            with skipping:
                found, name = _words(mode, file, bar), file if len(files) > 1 else ""
                lines = list(_objects(found, name) if as_json else _lines(segments(found), name))
                bar.write("".join(f"{line}\n" for line in lines))
    skipping.report()
    if skipping.reasons:
        raise UnreadableError(f"{len(skipping.reasons)} of {len(files)} recordings could not be read; see above")


def _decoding_mode(run: Run, name: str | None) -> DecodingMode:
    modes = run.transcriber.decoding_modes
    if name is None:
        return next(iter(modes.values()))
    if name not in modes:
        raise UnknownNameError("decoder", name, list(modes))
    return modes[name]


def _words(mode: DecodingMode, file: str, bar: Bar) -> list[Word]:
    """The words of a recording; if there are none, an empty word as long as the recording."""
    before, end = bar.done, 0.0

    def follow(second: float) -> None:
        nonlocal end
        end = second
        bar.update(before + int(second))

    try:
        found = list(words(letter for _, letter in mode([[Audio(file, on_progress=follow)]])))
    except SilentError:  # every sample is 0: there is no speech either
        found = []
    return found or [Word("", 0.0, end)]


def _lines(found: Iterable[Word], name: str) -> Iterator[str]:
    for segment in found:
        line = f"{segment.start:.2f}\t{segment.end:.2f}\t{segment.text}"
        yield f"{one_line(name)}\t{line}" if name else line


def _objects(found: Iterable[Word], name: str) -> Iterator[str]:
    prefix = {"file": name} if name else {}
    for word in found:
        times = {"start": round(word.start, 2), "end": round(word.end, 2)}
        yield one_line(json.dumps({**prefix, "word": word.text, **times}, ensure_ascii=False))
