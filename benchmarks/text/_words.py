"""Scores of different tokenizers made comparable, word by word, and how alike their orders are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata
from vqmem.data.base import Document

Columns = Float[np.ndarray, "item column"]


def excerpts(documents: Sequence[Document], count: int, words: int) -> list[str]:
    """``count`` stretches of ``words`` words, from the middles of equal parts of each document.

    A document's first and last words, where title pages and tables of contents stand, are thus left out.
    """
    found = []
    for index, document in enumerate(documents):
        share = (index + 1) * count // len(documents) - index * count // len(documents)
        spans = [match.span() for match in re.finditer(r"\S+", document.text)]
        if len(spans) < words * share:
            raise ValueError(f"{document.name!r} has {len(spans)} words, too few for {share} x {words}; ask for fewer")
        for number in range(share):
            first = (len(spans) - words) * (2 * number + 1) // (2 * share)
            found.append(document.text[spans[first][0] : spans[first + words - 1][1]])
    return found


def by_word(text: str, tokens: Iterable[tuple[int, int]], values: Float[np.ndarray, "token column"]) -> Columns:
    """Sums over the tokens of each white-space-delimited word. Tokens of white space alone belong to no word.

    ``tokens`` are the characters that each stands for; a token belongs to the word of its first visible character.
    """
    starts = np.array([match.start() for match in re.finditer(r"\S+", text)])
    sums = np.zeros((len(starts), values.shape[1]))
    for (start, end), value in zip(tokens, values, strict=True):
        part = text[start:end]
        if visible := part.lstrip():
            sums[np.searchsorted(starts, start + len(part) - len(visible), "right") - 1] += value
    return sums


class WordRarity:
    """-log p of a word's lower-case letters and digits among those of the training text, add-one smoothed, in nats."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.counts = Counter(bare for text in texts for bare in map(_bare, text.split()))
        self.total = self.counts.total() + len(self.counts) + 1

    def __call__(self, text: str) -> Float[np.ndarray, " word"]:
        """Of every word of ``text``."""
        return np.log(self.total) - np.log([self.counts[_bare(word)] + 1 for word in text.split()])


def _bare(word: str) -> str:
    return re.sub(r"\W+", "", word).lower()


def correlations(
    columns: Columns, reference: Float[np.ndarray, " item"], given: Columns
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Spearman's rank correlation of each column with the reference, and the partial one; nan where not defined.

    The partial one is of the residuals of the ranks after their least-squares fit on the ranks of ``given``. It is not
    defined for a column that the given ones explain fully, nor the plain one for a constant.
    """
    ranks = rankdata(np.column_stack([reference, columns, given]), axis=0)
    ranks -= ranks.mean(0)
    ranks, base = np.split(ranks, [1 + columns.shape[1]], axis=1)
    basis = np.linalg.qr(base)[0]
    rest = ranks - basis @ (basis.T @ ranks)
    return _with_first(ranks, ranks), _with_first(rest, ranks)


def _with_first(ranks: Columns, full: Columns) -> Float[np.ndarray, " column"]:
    """Correlation of the first column with the others; nan where next to nothing of the full ranks is left."""
    norms = np.linalg.norm(ranks, axis=0)
    norms[norms <= 1e-8 * np.maximum(np.linalg.norm(full, axis=0), 1)] = np.nan
    return ranks[:, 1:].T @ ranks[:, 0] / (norms[1:] * norms[0])
