"""Passages of a text and the same passages spoken: tokens of both, their scores, and the words that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...data.base import Document, take_evenly
from ...data.reading.audio import Audio
from ...data.spoken_text import WordMark, cut, plain, spoken_file_with_marks
from ...memory.scorer import signals_of
from ..engine.progress import progress
from ..lm.text_scorer import Scoring, load_scoring, require_text
from ..scoring.audio import AudioScorer, AudioScores, load_audio_scorer
from .config import Config
from .streams import NO_WORD, TokenStream


@dataclass(frozen=True)
class SpokenPassage:
    """A passage in both modalities. Every word has at least one token of the text and one unit of the speech.

    ``second_stream`` is the speech of a second voice, in which some words may have no unit.
    """

    name: str
    text: str
    seconds: float
    words: list[WordMark]
    text_stream: TokenStream
    speech_stream: TokenStream
    second_stream: TokenStream | None = None

    def word_texts(self) -> list[str]:
        """The words as they are written."""
        return [self.text[word.start_char : word.end_char] for word in self.words]


def read_passages(config: Config, documents: Iterable[Document], device: torch.device) -> list[SpokenPassage]:
    """Cut documents into passages, speak them, and score text and speech.

    Args:
        config: the run.
        documents: texts; evenly spaced passages of all of them are read.
        device: where the scorers run.

    Returns:
        The passages in order.

    Raises:
        ValueError: there are fewer than two passages, or a scorer reads another modality.
    """
    pieces = [piece for document in documents for piece in _pieces(document, config)]
    if len(pieces) < 2:
        raise ValueError(
            f"the split {config.split} of {config.data!r} has {len(pieces)} passages of {config.chars} characters; "
            "give more text, or fewer chars"
        )
    scoring = load_scoring(Path(config.text_scorer) if config.text_scorer else None, device)
    require_text(scoring.tokenizer)
    score_speech = load_audio_scorer(Path(config.speech_scorer) if config.speech_scorer else None, device)
    chosen = take_evenly(pieces, config.passages)
    return [
        read_passage(name, text, config, scoring, score_speech)
        for name, text in progress(chosen, len(chosen), "speaking and scoring", transient=True)
    ]


def read_passage(name: str, text: str, config: Config, scoring: Scoring, score_speech: AudioScorer) -> SpokenPassage:
    """Speak one passage, and score its text and its speech, both from empty states.

    Args:
        name: the name of the passage.
        text: its text.
        config: gives the voice, the speed and the cache.
        scoring: the front-end and the scorer of text.
        score_speech: the scorer of recordings.

    Returns:
        The passage. Words without a token or a unit (shorter than one) are left out.
    """
    path, marks = spoken_file_with_marks(text, config.voice, config.speed, config.cache)
    audio = Audio(str(path))
    seconds = audio.seconds()
    written = text_stream(text, marks, seconds, scoring)
    spoken = speech_stream(score_speech(audio), marks)
    has_both = (written.word_sizes(len(marks)) > 0) & (spoken.word_sizes(len(marks)) > 0)
    words = [mark for mark, kept in zip(marks, has_both.tolist(), strict=True) if kept]
    written, spoken = (_renumbered(stream, marks, words) for stream in (written, spoken))
    second = None
    if config.second_voice:
        path, marks = spoken_file_with_marks(text, config.second_voice, config.speed, config.cache)
        second = _renumbered(speech_stream(score_speech(Audio(str(path))), marks), marks, words)
    return SpokenPassage(name, text, seconds, words, written, spoken, second)


def _renumbered(stream: TokenStream, marks: list[WordMark], words: list[WordMark]) -> TokenStream:
    """The stream with indices of ``words`` in place of those of ``marks``; they are matched by their characters."""
    places = {word[:2]: index for index, word in enumerate(words)}
    numbers = [places.get(mark[:2], NO_WORD) for mark in marks]
    table = torch.tensor([*numbers, NO_WORD])  # the last entry is that of NO_WORD
    return replace(stream, words=table[stream.words])


@torch.no_grad()
def text_stream(text: str, marks: list[WordMark], seconds: float, scoring: Scoring) -> TokenStream:
    """Score a text by token. A token is read when its last character is spoken, interpolated within and between words.

    Args:
        text: the text of a passage.
        marks: the times of its words.
        seconds: the length of the spoken passage.
        scoring: the front-end and the scorer.

    Returns:
        The tokens; a token belongs to the word that it shares a character with.
    """
    stream = scoring.tokenizer.encode(text)
    ids = stream.ids[None].to(scoring.device)
    signals, _ = scoring.scorer.score(ids, scoring.scorer.initial_state(1))
    starts, ends = (torch.tensor([mark[side] for mark in marks]) for side in (0, 1))
    word = torch.searchsorted(starts, stream.ends) - 1  # the last word that begins before the token ends
    words = torch.where((word >= 0) & (ends[word] > stream.starts), word, NO_WORD)
    places = [0, *(place for mark in marks for place in mark[:2]), len(text)]
    times = [0.0, *(time for mark in marks for time in mark[2:]), seconds]
    read = torch.from_numpy(np.interp(stream.ends.numpy(), places, times))
    return TokenStream(stream.ids, read, signals[0].cpu(), signals_of(scoring.scorer), words)


def speech_stream(scores: AudioScores, marks: list[WordMark]) -> TokenStream:
    """The scored units of a recording; a unit belongs to the word that is spoken at its middle."""
    middles = (scores.starts + scores.ends).double() / 2
    starts, ends = (torch.tensor([mark[side] for mark in marks], dtype=torch.float64) for side in (2, 3))
    word = torch.searchsorted(starts, middles, right=True) - 1
    words = torch.where((word >= 0) & (middles < ends[word]), word, NO_WORD)
    ids = torch.zeros(len(middles), dtype=torch.long) if scores.ids is None else scores.ids
    return TokenStream(ids, scores.ends.double(), scores.signals, scores.given, words)


def _pieces(document: Document, config: Config) -> list[tuple[str, str]]:
    """The passages of a document with their names; the last one may be too short to keep."""
    text = plain(document.content("text")) if config.plain else document.content("text")
    cuts = cut(text, config.chars)
    return [(f"{document.name}/{i}", piece) for i, piece in enumerate(cuts) if len(piece) >= config.chars / 2]
