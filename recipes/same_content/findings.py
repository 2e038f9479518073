"""What a comparison of text and speech found, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CRITERIA_IN_WORDS = {"half": "at least half of its tokens are", "any": "any of its tokens is"}
"""When a word counts as kept."""


def answer(summary: Mapping[str, Any]) -> list[str]:
    """The answer in sentences: whether both memories keep the same words, and whether scores of words agree."""
    return [*_about_memories(summary["memories"]), *_about_scores(summary["across"])]


def with_interval(entry: Mapping[str, Any], scale: float = 1.0, form: str = ".2f") -> str:
    """A figure and its interval, such as ``0.54 [0.48, 0.60]``; a dash where it is undefined.

    Args:
        entry: ``value``, ``low`` and ``high``.
        scale: factor of the numbers.
        form: their format.

    Returns:
        The text.
    """
    if entry["value"] is None:
        return "\u2013"
    value, low, high = (
        None if entry[key] is None else format(scale * entry[key], form) for key in ("value", "low", "high")
    )
    text = str(value) if low is None else f"{value} [{low}, {high}]"
    return text.replace("-", "\u2212")


def verdict(entry: Mapping[str, Any]) -> str:
    """``more``, ``less``, ``no difference`` or ``unknown``: whether the interval of a difference excludes 0."""
    if entry["low"] is None:
        return "unknown"
    if entry["low"] <= 0 <= entry["high"]:
        return "no difference"
    return "more" if entry["low"] > 0 else "less"


def _about_memories(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Whether scores, beside age and the lengths of words, make both memories keep the same words."""
    for criterion, kept in CRITERIA_IN_WORDS.items():
        compared = [row for row in rows if row["criterion"] == criterion and "over_shuffled" in row]
        compared = [row for row in compared if verdict(row["over_shuffled"]) != "unknown"]
        if not compared:
            continue
        more, less = (sum(verdict(row["over_shuffled"]) == which for row in compared) for which in ("more", "less"))
        none = len(compared) - more - less
        yield (
            f"If a word counts as kept where {kept}, memories that rank by score share more words than the number, "
            f"ages and lengths of the kept words explain in {more} of {len(compared)} comparisons, "
            f"fewer in {less}, and there is no difference in {none}."
        )
        best = max(compared, key=lambda row: row["over_shuffled"]["low"])
        if verdict(best["over_shuffled"]) == "more":
            yield (
                f"The surest of these is {best['strategy']} with {best['capacity']:g} s of content: "
                f"{with_interval(best['share'], 100.0, '.1f')} % of the kept words are the same, "
                f"{100 * best['same_age']['value']:.1f} % is expected of words of the same ages, and the difference is "
                f"{with_interval(best['over_shuffled'], 100.0, '+.1f')} points larger than with shuffled scores."
            )
    if not any("over_shuffled" in row and verdict(row["over_shuffled"]) != "unknown" for row in rows):
        yield "There are too few passages, or no shuffled control, to say whether scores make memories agree."


def _about_scores(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the score of a word in text predicts the one in speech."""
    found = {(row["pair"], row["signal"], row["controls"]): row for row in rows if row["statistic"] == "sum"}
    for signal in dict.fromkeys(row["signal"] for row in rows):
        plain, rest = (found["text and speech", signal, of] for of in ("none", "length and frequency"))
        ceiling = found.get(("two voices", signal, "length and frequency"))
        beside = f" In two voices it is {with_interval(ceiling)}." if ceiling else ""
        found_nothing = " That is no relation." if verdict(rest) == "no difference" else ""
        yield (
            f"The {signal} of a word in text and in speech, summed over its tokens, has a rank correlation of "
            f"{with_interval(plain)}; beyond duration, characters and frequency it is {with_interval(rest)}."
            f"{found_nothing}{beside}"
        )
