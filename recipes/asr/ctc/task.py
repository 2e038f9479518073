"""Training by CTC, and letters with times from the classes of frames, however long the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ....files import missing_file
from ....models.loss import Loss
from ....models.speech.ctc import BLANK, ctc_loss
from ...speech.text_normalisation import Alphabet
from ..base import Decoding, Letter

LEXICON = "lexicon.txt"
"""The words of the training texts, each with its spelling, as flashlight reads them."""


class Batch(NamedTuple):
    """What the network is given, and the letters to write, padded."""

    inputs: tuple[Tensor, ...]
    letters: Int[Tensor, "batch letters"]
    lengths: Int[Tensor, " batch"]


class CTCTask:
    """Training of a network that gives log-probabilities and how many of their times are valid."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def initial_state(self) -> None:
        """Nothing is carried from batch to batch."""

    def step(self, batch: Batch, state: None) -> tuple[Loss, None]:
        """The loss in nats a letter."""
        log_probs, counts = self.module(*batch.inputs)
        loss = ctc_loss(log_probs, counts, batch.letters, batch.lengths)
        return Loss(loss, {"tokens": float(batch.lengths.sum())}), None


def greedy(windows: Iterable[Float[Tensor, "_ classes"]], alphabet: Alphabet, seconds: float) -> Iterator[Letter]:
    """The letters of the likeliest class at each time (``seconds`` long), runs collapsed, blanks left out."""
    last, first, at = BLANK, 0, 0  # class of the run in progress, where it began, and where we are
    for window in windows:
        for best in window.argmax(-1).tolist():
            if best != last:
                if last != BLANK:
                    yield Letter(alphabet.characters[last - 1], first * seconds, at * seconds)
                last, first = best, at
            at += 1
    if last != BLANK:
        yield Letter(alphabet.characters[last - 1], first * seconds, at * seconds)


def beam(
    windows: Iterable[Float[Tensor, "_ classes"]], alphabet: Alphabet, seconds: float, decode: Callable[..., Any]
) -> Iterator[Letter]:
    """The letters of the best hypothesis of ``decode`` (see `decoder`), stretch by stretch."""
    for first, stretch in stretches(windows):
        best = decode(stretch[None])[0][0]
        letters = [
            (alphabet.characters[token - 1], place)
            for token, place in zip(best.tokens.tolist(), best.timesteps.tolist(), strict=True)
        ]
        for character, place in letters:
            start = (first + max(0, place - 1)) * seconds  # flashlight counts times from 1
            yield Letter(character, start, start + seconds)
        if letters and letters[-1][0] != " ":
            yield Letter(" ", (first + len(stretch)) * seconds, (first + len(stretch)) * seconds)


def stretches(
    windows: Iterable[Float[Tensor, "_ classes"]], size: int = 1000
) -> Iterator[tuple[int, Float[Tensor, "_ classes"]]]:
    """Where each stretch begins, and its log-probabilities: at most ``2 * size`` times plus a window.

    They are cut in the longest run of blanks after their first half, which is where nothing is said.
    """
    held: Tensor | None = None
    first = 0
    for window in windows:
        held = window if held is None else torch.cat([held, window])
        while len(held) >= 2 * size:
            cut = size // 2 + _quietest(held[size // 2 : 2 * size])
            yield first, held[:cut]
            held, first = held[cut:], first + cut
    if held is not None and len(held):
        yield first, held


def _quietest(log_probs: Float[Tensor, "time classes"]) -> int:
    """The middle of the longest run of blanks; the end where there is none."""
    classes, runs = torch.unique_consecutive(log_probs.argmax(-1), return_counts=True)
    lengths = torch.where(classes == BLANK, runs, 0)
    longest = int(lengths.argmax())
    if not lengths[longest]:
        return len(log_probs)
    return int(runs[:longest].sum()) + max(1, int(runs[longest]) // 2)


def beam_search(decoding: Decoding) -> Callable[..., Any]:
    """What makes torchaudio's beam search (flashlight).

    Raises `ValueError` without the extra ``asr``, and where the language model is not there.
    """
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (ImportError, RuntimeError) as error:  # torchaudio makes the one of the other
        raise ValueError("decoding with a beam needs flashlight-text; run `pip install 'vqmem[asr]'`") from error
    if decoding.lm is not None and not Path(decoding.lm).is_file():
        raise missing_file("decoding.lm (a KenLM file)", Path(decoding.lm))
    return ctc_decoder


def decoder(alphabet: Alphabet, decoding: Decoding, lexicon: Path) -> Callable[..., Any]:
    """The beam search of a run. Raises `ValueError` as `beam_search` does, and for files that flashlight refuses."""
    make = beam_search(decoding)
    if decoding.lexicon and not lexicon.is_file():
        raise missing_file("lexicon of the run", lexicon)
    tokens = ["-", *alphabet.characters.replace(" ", "|")]
    try:
        return make(
            lexicon=str(lexicon) if decoding.lexicon else None,
            tokens=tokens,
            lm=decoding.lm,
            beam_size=decoding.beam,
            lm_weight=decoding.lm_weight,
            word_score=decoding.word_score if decoding.lexicon else 0.0,
            sil_score=0.0 if decoding.lexicon else decoding.word_score,
            blank_token="-",
            sil_token="|",
        )
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"the beam cannot be made ({reason}); check decoding.lm and decoding.lexicon") from error


def write_lexicon(texts: Iterable[str], alphabet: Alphabet) -> str:
    """The words of normalised ``texts`` that the alphabet can spell, each with its letters."""
    words = sorted({word for text in texts for word in text.split() if set(word) <= set(alphabet.characters)})
    return "".join(f"{word} {' '.join(word)} |\n" for word in words)
