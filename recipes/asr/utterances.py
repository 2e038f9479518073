"""The utterances of a split: its documents that have a text. Their lengths are measured once."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from ...artifacts import read_sealed, seal
from ...console import one_line
from ...data.base import Document, Split
from ...data.reading.audio import Audio
from ...data.reading.files import Skipping, UnreadableError
from ...files import atomic_write
from ...tokenizers_.speech.frames import SPAN
from ..engine.data_record import documents as given
from ..engine.distributed import ranks
from ..engine.progress import progress
from ..speech.text_normalisation import normalise
from .base import Recogniser, Utterance
from .error_rates import TranscriptPair

Named = TypeVar("Named", Utterance, TranscriptPair)
"""An utterance, or its transcripts; both have its name."""


def read(
    data: str | dict[str, Any], split: Split, recogniser: Recogniser, cache: Path
) -> tuple[list[Utterance], list[str]]:
    """The utterances of ``split``, and a line for each document that is left out: unreadable, or without text.

    Measuring a length means reading the recording, so lengths are cached. Documents that were unreadable then stay left
    out, and a later run reports how many.

    Args:
        data: a data source: a name, or ``name`` and its keys.
        split: train, dev or test.
        recogniser: says which field of a document it reads, and measures it.
        cache: folder for the lengths, in the folder of the run.

    Returns:
        The utterances in the order of the documents, and the lines.

    Raises:
        ValueError: No utterance is left, or the cache is damaged or of other documents.
    """
    documents, kind = list(given(data, split, cache.parent)), recogniser.input_kind
    index = cache / f"{split}.json"
    is_new = not index.is_file()
    if is_new:
        _measure(documents, split, recogniser, index)
    about = read_sealed(index)
    if [document.name for document in documents] != about["documents"]:
        raise ValueError(f"the documents of the split {split} are not those of {index}; use another out")
    if about["skipped"] and not is_new and ranks()[0] == 0:
        reason = f"{len(about['skipped'])} documents of {split} are left out, as {one_line(str(index))} says"
        print(f"{reason}; use another out to read them again", file=sys.stderr)
    utterances = [
        Utterance(document.name, document.content(kind), normalise(document.text), length)
        for document, length in zip(documents, about["lengths"], strict=True)
        if length
    ]
    if not utterances:
        raise ValueError(f"the split {split} of {data!r} has no recordings; give data that has some")
    return utterances, about["skipped"]


def _measure(documents: Sequence[Document], split: Split, recogniser: Recogniser, index: Path) -> None:
    skipping, lengths, kind = Skipping(), [0] * len(documents), recogniser.input_kind
    for number, document in enumerate(progress(documents, len(documents), f"reading {split}")):
        with skipping:
            if not normalise(document.text):
                raise UnreadableError(f"{document.name!r} has no text; give one in the column `text`")
            lengths[number] = recogniser.length(document.content(kind))
    skipping.report()
    names = [document.name for document in documents]
    about = seal({"documents": names, "lengths": lengths, "skipped": skipping.reasons})
    atomic_write(index, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def size_of(content: Any) -> int:
    """The length of a recording in samples at 16 kHz, for which it is read to its end, or the number of units.

    Raises `UnreadableError` for a recording that cannot be read or is too short for a frame.
    """
    if not isinstance(content, Audio):
        return len(content)
    samples = sum(len(part) for part in content.stream())
    if samples < SPAN:
        raise UnreadableError(f"{content.name!r} has {samples} samples at 16 kHz, fewer than a frame's {SPAN}")
    return samples


def recordings(utterances: Sequence[Named], joint: str) -> list[list[Named]]:
    """Group neighbours whose names agree up to the last ``joint``; without ``joint`` each is a group."""
    if not joint:
        return [[utterance] for utterance in utterances]
    return [list(group) for _, group in groupby(utterances, key=lambda one: one.name.rpartition(joint)[0] or one.name)]
