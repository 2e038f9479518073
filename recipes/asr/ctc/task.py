"""Training by CTC, and decoding of letters with times from recordings of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ....files import missing_file
from ....models.loss import Loss
from ....models.speech.ctc import BLANK, ctc_loss
from ...speech.text_normalisation import Alphabet
from ..base import Decoding, Letter

LEXICON = "lexicon.txt"
"""The words of the training texts with their spellings, in the format of flashlight."""


class CTCBatch(NamedTuple):
    """The inputs of the network, and the target letters, padded."""

    inputs: tuple[Tensor, ...]
    letters: Int[Tensor, "batch letters"]
    lengths: Int[Tensor, " batch"]

    @classmethod
    def of(cls, inputs: tuple[Tensor, ...], letters: list[Int[Tensor, " _"]]) -> CTCBatch:
        """Pad the letters of each row."""
        return cls(inputs, pad_sequence(letters, batch_first=True), torch.tensor([len(row) for row in letters]))


class CTCTask:
    """Training of a network that returns log-probabilities and the number of valid frames of each row."""

    token_unit = "letters"

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def initial_state(self) -> None:
        """There is no state between batches."""

    def step(self, batch: CTCBatch, state: None) -> tuple[Loss, None]:
        """The CTC loss in nats per letter."""
        log_probs, counts = self.module(*batch.inputs)
        loss = ctc_loss(log_probs, counts, batch.letters, batch.lengths)
        return Loss(loss, {"tokens": batch.lengths.sum()}), None


def greedy(windows: Iterable[Float[Tensor, "_ classes"]], alphabet: Alphabet, seconds: float) -> Iterator[Letter]:
    """Greedy decoding: the likeliest class of each frame of ``seconds``, runs collapsed, blanks removed."""
    last, first, at = BLANK, 0, 0  # class and start of the current run, and the current frame
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
    """Beam search: the letters of the best hypothesis of each stretch.

    Args:
        windows: log-probabilities of consecutive frames.
        alphabet: the letters.
        seconds: duration of a frame.
        decode: the beam search (see `decoder`).

    Yields:
        The letters in order, each with its start and end in seconds; a stretch with letters ends with a space.
    """
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
    """Yield the first frame and the log-probabilities of stretches of at most ``2 * size`` frames plus a window.

    A stretch ends in the longest run of blanks after its first ``size // 2`` frames, where there is probably no speech.
    """
    pending: Tensor | None = None
    first = 0
    for window in windows:
        pending = window if pending is None else torch.cat([pending, window])
        while len(pending) >= 2 * size:
            cut = size // 2 + _quietest(pending[size // 2 : 2 * size])
            yield first, pending[:cut]
            pending, first = pending[cut:], first + cut
    if pending is not None and len(pending):
        yield first, pending


def _quietest(log_probs: Float[Tensor, "time classes"]) -> int:
    """The middle of the longest run of blanks; the end if there is none."""
    classes, runs = torch.unique_consecutive(log_probs.argmax(-1), return_counts=True)
    lengths = torch.where(classes == BLANK, runs, 0)
    longest = int(lengths.argmax())
    if not lengths[longest]:
        return len(log_probs)
    return int(runs[:longest].sum()) + max(1, int(runs[longest]) // 2)


def beam_search(decoding: Decoding) -> Callable[..., Any]:
    """The constructor of torchaudio's beam search (flashlight).

    Raises `ValueError` without the extra ``asr``, and if the language model is missing.
    """
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (ImportError, RuntimeError) as error:  # torchaudio raises the latter for the former
        raise ValueError(
            "decoding with a beam needs flashlight-text, which has wheels up to Python 3.12; "
            "run `pip install 'vqmem[asr]'` there"
        ) from error
    if decoding.lm is not None and not Path(decoding.lm).is_file():
        raise missing_file("decoding.lm (a KenLM file)", Path(decoding.lm))
    return ctc_decoder


def decoder(alphabet: Alphabet, decoding: Decoding, lexicon: Path) -> Callable[..., Any]:
    """The beam search of a run. Raises `ValueError` as `beam_search` does, and for files that flashlight rejects."""
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
    """The lexicon file of ``texts``: their words that the alphabet can spell, each with its letters."""
    words = sorted({word for text in texts for word in text.split() if set(word) <= set(alphabet.characters)})
    return "".join(f"{word} {' '.join(word)} |\n" for word in words)
