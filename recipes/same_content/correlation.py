"""Whether the score of a word in text predicts its score in speech, beyond its length and its frequency."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ...artifacts import read_config
from ...default_scorer import FOLDER, read_frequencies
from .agreement import mean_interval
from .content import SpokenPassage
from .streams import NO_WORD, TokenStream

STATISTICS = ("sum", "mean")
"""How the score of a word is made of the scores of its tokens."""
CONFOUNDS = ("duration", "characters", "frequency")
"""What is known of a word without a scorer: log seconds, number of characters, log occurrences in written texts."""
PAIRS = {"text and speech": ("text", "speech"), "two voices": ("speech", "second")}
"""What is correlated: the modalities, and as a ceiling the same speech in two voices."""
CONTROLS: dict[str, tuple[str, ...]] = {
    "none": (),
    "length": ("duration", "characters"),
    "length and frequency": CONFOUNDS,
}
"""The sets of confounds that are removed from the ranks of both scores before they are correlated."""


def correlations(passages: Sequence[SpokenPassage], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Correlate the scores of the same words in both modalities, by Spearman's rank correlation.

    Correlations are computed in each passage and averaged with the numbers of words as weights, so that differences
    between passages do not count.

    Args:
        passages: the passages.
        seed: of the bootstrap over passages.

    Returns:
        ``across``: the correlation of each of `PAIRS`, by signal, statistic and set of `CONTROLS`. ``confounds``: the
        correlation with each of `CONFOUNDS`, by modality, signal and statistic. All have ``value``, ``low``, ``high``.
    """
    properties = [word_properties(passage) for passage in passages]
    across, confounds = [], []
    for signal, statistic in itertools.product(_shared_signals(passages[0]), STATISTICS):
        about = {"signal": signal, "statistic": statistic}
        scores = [_scores(passage, signal, statistic) for passage in passages]
        for pair, controls in itertools.product(PAIRS, CONTROLS):
            if all(set(PAIRS[pair]) <= set(one) for one in scores):
                values = [
                    _across(*both, PAIRS[pair], CONTROLS[controls]) for both in zip(scores, properties, strict=True)
                ]
                across.append({"pair": pair, **about, "controls": controls} | _mean(values, passages, seed))
        for modality, confound in itertools.product(("text", "speech"), CONFOUNDS):
            values = [
                rank_correlation(one[modality], known[confound]) for one, known in zip(scores, properties, strict=True)
            ]
            confounds.append({"modality": modality, **about, "confound": confound} | _mean(values, passages, seed))
    return {"across": across, "confounds": confounds}


def _shared_signals(passage: SpokenPassage) -> list[str]:
    """The signals that both scorers give."""
    return [name for name in passage.text_stream.signal_names if name in passage.speech_stream.signal_names]


def _scores(passage: SpokenPassage, signal: str, statistic: str) -> dict[str, Float[np.ndarray, " word"]]:
    """The scores of the words in each modality, and in the second voice if there is one."""
    streams = {
        "text": passage.text_stream,
        "speech": passage.speech_stream,
        "second": passage.second_stream,
    }
    return {
        name: word_scores(stream, len(passage.words), signal, statistic)
        for name, stream in streams.items()
        if stream is not None
    }


def _across(
    scores: Mapping[str, Float[np.ndarray, " word"]],
    properties: Mapping[str, Float[np.ndarray, " word"]],
    pair: tuple[str, str],
    controls: Sequence[str],
) -> float:
    """The rank correlation of a pair in one passage, over the words that have both scores."""
    x, y = (scores[name] for name in pair)
    has_both = ~np.isnan(x + y)
    return rank_correlation(x[has_both], y[has_both], [properties[name][has_both] for name in controls])


def _mean(values: Sequence[float], passages: Sequence[SpokenPassage], seed: int) -> dict[str, float | None]:
    weights = np.array([float(len(passage.words)) for passage in passages])
    return mean_interval(np.array(values), weights, seed)


def word_scores(stream: TokenStream, count: int, signal: str, statistic: str) -> Float[np.ndarray, " word"]:
    """The score of each word: the sum or the mean of a signal over its tokens.

    Args:
        stream: the tokens.
        count: the number of words.
        signal: the name of the signal.
        statistic: ``sum`` or ``mean``.

    Returns:
        The scores in nats; NaN for words without tokens.
    """
    inside = stream.words.numpy() != NO_WORD
    column = stream.signals[:, stream.signal_names.index(signal)].double().numpy()
    sizes = np.where(stream.word_sizes(count).numpy() > 0, stream.word_sizes(count).numpy(), np.nan)
    total = np.bincount(stream.words.numpy()[inside], column[inside], minlength=count)
    return total / sizes if statistic == "mean" else total + 0 * sizes


def word_properties(passage: SpokenPassage) -> dict[str, Float[np.ndarray, " word"]]:
    """The `CONFOUNDS` of each word. The frequency of several words under one mark is that of the rarest."""
    counts = written_counts()
    texts = passage.word_texts()
    rarest = [min(counts.get(part, 0) for part in _comparable(text).split()) for text in texts]
    return {
        "duration": np.log([word.end - word.start for word in passage.words]),
        "characters": np.array([float(len(text)) for text in texts]),
        "frequency": np.log1p(rarest),
    }


@functools.cache
def written_counts() -> Mapping[str, int]:
    """How often words occur in the texts on which the packaged scorer was trained, without regard to case."""
    fields = read_config(FOLDER / "scorer", "scorers")["fields"]
    counts: dict[str, int] = {}
    for piece, count in read_frequencies(FOLDER, fields["frequencies_sha256"]).items():
        if piece.startswith(" ") and piece[1:].isalnum():
            word = _comparable(piece[1:])
            counts[word] = counts.get(word, 0) + count
    return counts


def rank_correlation(
    x: Float[np.ndarray, " word"],
    y: Float[np.ndarray, " word"],
    controls: Sequence[Float[np.ndarray, " word"]] = (),
) -> float:
    """Spearman's rank correlation, partial if there are ``controls``.

    The ranks of both are regressed on the ranks of the controls; what remains is correlated. NaN where nothing remains.
    """
    from scipy.stats import rankdata  # takes a second to import

    ranks = [rankdata(one) for one in (x, y)]
    design = np.stack([np.ones(len(x)), *(rankdata(one) for one in controls)], axis=1)
    first, second = (rank - design @ np.linalg.lstsq(design, rank)[0] for rank in ranks)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm > 1e-9 * len(x) ** 3 else float("nan")


def _comparable(word: str) -> str:
    return word.casefold().replace("\u2019", "'")
