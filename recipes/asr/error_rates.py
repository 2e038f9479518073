"""Word and character error rates, and the worst utterances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jiwer


class TranscriptPair(NamedTuple):
    """The reference and the hypothesis of an utterance, both normalised. The reference is not empty."""

    name: str
    reference: str
    hypothesis: str


def error_rates(pairs: Sequence[TranscriptPair]) -> dict[str, float]:
    """Word and character error rate over all pairs (jiwer), and the share of pairs without an error."""
    references, hypotheses = [pair.reference for pair in pairs], [pair.hypothesis for pair in pairs]
    words = jiwer.process_words(references, hypotheses)
    return {
        "wer": words.wer,
        "cer": jiwer.cer(references, hypotheses),
        "right": sum(map(str.__eq__, references, hypotheses)) / len(pairs),
        "substituted": words.substitutions,
        "deleted": words.deletions,
        "inserted": words.insertions,
        "words": sum(len(reference.split()) for reference in references),
        "utterances": len(pairs),
    }


def worst_utterances(pairs: Sequence[TranscriptPair], count: int) -> list[dict[str, Any]]:
    """The ``count`` pairs with the highest character error rate above 0; of equal rates, longer references first."""
    wrong = [pair for pair in pairs if pair.reference != pair.hypothesis]
    rates = {pair: jiwer.cer(pair.reference, pair.hypothesis) for pair in wrong}
    ranked = sorted(wrong, key=lambda pair: (-rates[pair], -len(pair.reference), pair.name))
    return [{**pair._asdict(), "cer": rates[pair]} for pair in ranked[:count]]


def part(references: Sequence[str], hypothesis: str) -> list[str]:
    """Cut the ``hypothesis`` of a recording into its utterances, one for each of ``references``.

    The joined references are aligned with the hypothesis by characters. Insertions between two utterances belong to the
    later one.
    """
    if len(references) == 1:
        return [hypothesis]
    chunks = jiwer.process_characters(" ".join(references), hypothesis).alignments[0] if hypothesis else []
    cuts, end = [0], 0
    for reference in references[:-1]:
        end += len(reference) + 1
        cuts.append(max(cuts[-1], _place(chunks, end)))
    return [hypothesis[start:stop].strip() for start, stop in zip(cuts, [*cuts[1:], len(hypothesis)], strict=True)]


def _place(chunks: Sequence[jiwer.AlignmentChunk], end: int) -> int:
    """The position in the hypothesis that aligns with position ``end`` of the reference."""
    place = 0
    for chunk in chunks:
        if chunk.ref_start_idx >= end:
            break
        place = min(chunk.hyp_end_idx, chunk.hyp_start_idx + end - chunk.ref_start_idx)
    return place
