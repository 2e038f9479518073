"""Score a text token by token, in bounded memory: what `vqmem score` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..artifacts import load_model, read_config
from ..models.scorers.base import SIGNALS, signals_of
from ..registry import ROOT, build
from ..schema import expand
from ..tokenizers_._text import cut
from ..tokenizers_.base import Stream, Tokenizer, load_tokenizer, reads_of
from ._folders import loading

PACKAGED = ROOT / "models" / "pretrained" / "english"
"""The scorer that comes with the package; ``README.md`` in it says what it was trained on, and by which command."""

CHUNK = 4096
"""Tokens scored at once."""

KEYS: dict[str, str] = {"surprise": "score", "rarity": "rarity", "gain": "gain"}
"""What signals are called in JSON."""


class Scoring(NamedTuple):
    """A front-end and the scorer that was trained on its tokens."""

    tokenizer: Tokenizer
    scorer: Any
    device: torch.device | str


def load_scoring(folder: Path | None = None, device: torch.device | str = "cpu") -> Scoring:
    """The front-end and scorer of a run of ``vqmem text_lm``, or of the packaged model.

    Raises `ValueError` in one line where a part is missing (naming the nearest), damaged, of another architecture, or
    where the two belong to different runs.
    """
    folder = PACKAGED if folder is None else folder
    with loading(folder, "scorer", "text_lm"):
        tokenizer = load_tokenizer(folder / "front_end")
        fields = read_config(folder / "scorer", "scorers")["fields"]
    if fields.get("vocab_size") != tokenizer.vocab_size:
        raise ValueError(
            f"{folder}: the front-end has {tokenizer.vocab_size} ids and the scorer {fields.get('vocab_size')}; "
            "they are of different runs, copy both from one"
        )
    return Scoring(tokenizer, load_scorer(folder, device), device)


def require_text(tokenizer: Tokenizer) -> None:
    """Raise `ValueError` where the front-end of a run reads something else than text."""
    if reads_of(tokenizer) != "text":
        raise ValueError(f"this run reads {reads_of(tokenizer)}, not text; give one that was trained on text")


def choose_signal(signal: str | None, given: Sequence[str]) -> str:
    """The signal to show: the first of those that the scorer gives, if none is asked for. Raises `ValueError`."""
    if signal is not None and signal not in given:
        raise ValueError(f"signal {signal!r} is none that this scorer gives; use {' or '.join(given)}")
    return signal or given[0]


def load_scorer(folder: str | Path, device: torch.device | str = "cpu") -> Any:
    """The scorer of a run of ``vqmem text_lm`` or ``vqmem train-scorer``: a `ScorerModel` in eval mode.

    Raises `ValueError` where it is missing, damaged or of another architecture.
    """

    def make(fields: dict[str, Any]) -> Any:
        return build("scorers", fields["scorer"]).build(fields["vocab_size"])

    folder = Path(expand(str(folder)))
    with loading(folder, "scorer", "text_lm"):
        return load_model(folder / "scorer", make, kind="scorers", device=device)


def score_text(text: str, scoring: Scoring, chunk: int = CHUNK) -> Iterator[list[dict[str, Any]]]:
    """The tokens of ``text`` with their scores, at most ``chunk`` of them at a time.

    Keys: ``text``, ``start`` and ``end`` (characters), ``score`` (the surprise), ``rarity`` and ``gain`` in nats where
    the scorer gives them, and ``code`` (a number, or a list where the quantiser has several codebooks; None for scorers
    without one). The texts concatenate to the source: of tokens that share a character, the first has it. The values do
    not depend on ``chunk``; memory stays bounded because text is tokenized and scored piece by piece, with the state
    carried along.
    """
    state, offset, end = scoring.scorer.initial_state(1), 0, 0
    for piece in _pieces(text):
        stream = scoring.tokenizer.encode(piece)
        for begin in range(0, len(stream), chunk):
            part = stream.slice(begin, min(begin + chunk, len(stream)))
            made, state = _score(part, piece, offset, end, scoring, state)
            end = made[-1]["end"]
            yield made
        offset += len(piece)


def _score(
    stream: Stream, piece: str, offset: int, end: int, scoring: Scoring, state: Any
) -> tuple[list[dict[str, Any]], Any]:
    """One chunk: ``offset`` is where ``piece`` starts in the source, ``end`` where the token before ended."""
    tokens, scorer = stream.ids[None].to(scoring.device), scoring.scorer
    given = signals_of(scorer)
    signals, state = scorer.score(tokens, state)
    codes = scorer.codes(tokens)[0].tolist() if hasattr(scorer, "codes") else [None] * len(stream)
    made = []
    spans = zip(stream.starts.tolist(), stream.ends.tolist(), signals[0].tolist(), codes, strict=True)
    for start, stop, values, code in spans:
        whose = piece[max(start, end - offset) : stop]
        end = offset + stop
        scores = {KEYS[name]: rounded(x) for name, x in zip(SIGNALS, values, strict=True) if name in given}
        made.append({"text": whose, "start": offset + start, "end": end, **scores, "code": code})
    return made, state


def rounded(value: float) -> float:
    """A score as JSON shows it. Adding 0 takes the sign from a rounded -0."""
    return round(value, 5) + 0.0


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces that each have a character to tokenize: a front-end may find no token in white space."""
    held: list[str] = []
    blank = True
    for piece in cut(text):
        if not blank and not piece.isspace():
            yield "".join(held)
            held, blank = [], True
        held.append(piece)
        blank = blank and piece.isspace()
    yield "".join(held)
