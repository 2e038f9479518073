"""Print units of recordings with times: what `vqmem units` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ...console import one_line
from ...data.reading.audio import RATE, Audio
from ...data.reading.files import Skipping, UnreadableError
from ...folders import loading
from ...tokenizers_._units import stream_of
from ...tokenizers_.base import Stream, Tokenizer, load_tokenizer
from ...tokenizers_.hubert_units import PACKAGED, UnitTokenizer
from ..engine.progress import Bar

_FULL_SCALE = 0.999  # amplitude of clipped samples
_CLIPPED = 1e-3  # share of such samples from which on a recording counts as clipped


def show_units(files: Sequence[str], model: Path | None, *, deduplicate: bool, as_json: bool) -> None:
    """Print the units of recordings; with several files, each with its name.

    A recording is printed after all of it was read. Clipped recordings and unreadable ones, which are skipped, are
    listed on standard error at the end.

    Args:
        files: paths of the recordings.
        model: folder of a run of `vqmem fit_units`; None = the packaged units.
        deduplicate: merge repeated units into one.
        as_json: print a JSON object per unit, in place of a line per recording.

    Raises:
        UnreadableError: No recording could be read.
    """
    tokenizer = load_units(model)
    recordings, skipping, clipped = [Audio(file) for file in files], Skipping(), []
    total = sum(map(seconds_of, recordings))
    with Bar("units", total, transient=True) as bar:
        for recording in recordings:
            with skipping:
                stream, loud = _read(recording, tokenizer, bar)
                if loud > _CLIPPED:
                    clipped.append(
                        f"{recording.name!r} is clipped: {100 * loud:.1f} % of its samples are at full scale"
                    )
                if deduplicate and not tokenizer.deduplicate:
                    stream = stream_of(stream.ids, deduplicate=True)
                name = recording.name if len(files) > 1 else ""
                lines = _objects(stream, name) if as_json else [_line(stream, name, tokenizer)]
                bar.write("".join(f"{line}\n" for line in lines))
    for line in clipped:
        print(one_line(f"{line}; its units may be wrong"), file=sys.stderr)
    skipping.report()


def load_units(folder: Path | None = None) -> UnitTokenizer:
    """Load the units of a run, or the packaged ones. Raises `ValueError` if they are missing or of another kind."""
    folder = PACKAGED if folder is None else folder
    with loading(folder, "run with speech units", "fit_units", "tts", "text_lm"):
        tokenizer = load_tokenizer(folder / "front_end")
    if not isinstance(tokenizer, UnitTokenizer):
        raise ValueError(
            f"the front-end in {str(folder)!r} makes no units of recordings; give a run of vqmem fit_units"
        )
    return tokenizer


def _read(recording: Audio, tokenizer: UnitTokenizer, bar: Bar) -> tuple[Stream, float]:
    """The units of a recording, and the share of its samples at full scale."""
    loud = samples = 0
    before = bar.done

    def watched() -> Iterator[Tensor]:
        nonlocal loud, samples
        for chunk in recording.stream():
            loud, samples = loud + int((chunk.abs() >= _FULL_SCALE).sum()), samples + len(chunk)
            yield chunk
            bar.update(before + samples // RATE)

    return tokenizer.encode_chunks(watched(), recording.name), loud / samples


def _objects(stream: Stream, name: str) -> Iterable[str]:
    prefix = {"file": name} if name else {}
    for unit, start, end in zip(stream.ids.tolist(), stream.starts.tolist(), stream.ends.tolist(), strict=True):
        times = {"start": round(start, 2), "end": round(end, 2)}
        yield one_line(json.dumps({**prefix, "unit": unit, **times}, ensure_ascii=False))


def _line(stream: Stream, name: str, tokenizer: Tokenizer) -> str:
    units = tokenizer.decode(stream.ids.tolist())
    return f"{one_line(name)}\t{units}" if name else units


def seconds_of(recording: Audio) -> int:
    """The estimated duration, for the progress bar; 0 if unknown."""
    try:
        return int(recording.estimated_seconds())
    except UnreadableError:  # reported when it is read
        return 0
