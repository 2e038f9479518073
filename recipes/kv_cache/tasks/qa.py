"""A fact in one of many passages about made-up people (in place of RULER's qa on SQuAD and HotpotQA)."""

from __future__ import annotations

import calendar
import random
from dataclasses import dataclass

from .base import Quiz, distinct, made_up_word

ANSWER_TOKENS = 32
PASSAGE = (
    "Document {number}: {name}\n{name} was born in {birthplace} on {day} {month} {year}. After some years as a {trade} "
    "in that town, {name} moved to {home}."
)
TRADES = ("baker", "carpenter", "doctor", "farmer", "judge", "painter", "sailor", "tailor", "teacher", "watchmaker")
QUESTIONS = (
    ("In which town was {name} born?", ("{birthplace}",)),
    ("On what date was {name} born?", ("{day} {month} {year}", "{month} {day}, {year}", "{month} {day} {year}")),
    ("To which town did {name} move?", ("{home}",)),
)
"""Questions, each with the forms that its answer may have."""
INSTRUCTION = "Answer the question by the given documents, with the answer alone.\n"


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """Such passages."""
        return self.quiz(prose, 500, random.Random(0)).text

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """All passages are generated, and no one can know their facts; any form of the answer is right."""
        count = max(2, words // len(PASSAGE.split()))
        names = distinct(_full_name, count, rng)
        towns = [town.title() for town in distinct(made_up_word, 2 * count, rng)]
        people = [
            {
                "number": n + 1,
                "name": name,
                "birthplace": towns[2 * n],
                "home": towns[2 * n + 1],
                "day": rng.randint(1, 28),
                "month": rng.choice(calendar.month_name[1:]),
                "year": rng.randint(1700, 1999),
                "trade": rng.choice(TRADES),
            }
            for n, name in enumerate(names)
        ]
        text = INSTRUCTION + "\n".join(PASSAGE.format(**person) for person in people)
        question, forms = rng.choice(QUESTIONS)
        person = rng.choice(people)
        values = tuple(form.format(**person) for form in forms)
        return Quiz(
            text,
            f"\n{INSTRUCTION}Question: {question.format(**person)}",
            " Answer:",
            values,
            ANSWER_TOKENS,
            any_of=True,
        )


def _full_name(rng: random.Random) -> str:
    return f"{made_up_word(rng)} {made_up_word(rng)}".title()
