"""The recipe `same_content`: words of tokens, what memories keep, shares and correlations, each against an oracle."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from vqmem.benchmarks.speech import same_content
from vqmem.cli import main
from vqmem.data.spoken_text import WordMark
from vqmem.memory import naive
from vqmem.memory.bank import Memory
from vqmem.recipes.lm.text_scorer import Scoring
from vqmem.recipes.same_content.agreement import KeptWords, Overlap, agreement, overlaps
from vqmem.recipes.same_content.config import STRATEGIES, Config
from vqmem.recipes.same_content.content import NO_WORD, TokenStream, speech_stream, text_stream
from vqmem.recipes.same_content.correlation import rank_correlation, word_scores, written_counts
from vqmem.recipes.same_content.findings import answer, verdict, with_interval
from vqmem.recipes.same_content.memories import kept_shares, schedule
from vqmem.recipes.same_content.strategies import read_strategies
from vqmem.recipes.scoring.audio import AudioScores
from vqmem.registry import build
from vqmem.tokenizers_.base import Stream

SIGNALS: tuple[str, ...] = ("surprise", "rarity", "gain")


class Pieces:
    """A front-end whose tokens end at given characters."""

    vocab_size = 9

    def __init__(self, ends: list[int]) -> None:
        self.ends = torch.tensor(ends)

    def encode(self, text: str) -> Stream:
        starts = torch.cat([torch.tensor([0]), self.ends[:-1]])
        return Stream(self.ends % 9, starts, self.ends, self.ends - starts)


class Scorer:
    """A scorer whose signals are the token ids."""

    signals = SIGNALS

    def initial_state(self, batch: int) -> None:
        return None

    def score(self, tokens, state):
        return tokens[..., None].expand(-1, -1, 3).float(), state


def random_stream(length: int, seconds: float, words: int, seed: int) -> TokenStream:
    """Tokens with random scores whose words are runs; some belong to none."""
    draw = np.random.default_rng(seed)
    numbers = np.sort(draw.integers(0, words, length))
    numbers[draw.random(length) < 0.2] = NO_WORD
    ends = torch.from_numpy(np.sort(draw.random(length)) * seconds)
    signals = torch.from_numpy(draw.standard_normal((length, 3))).float()
    return TokenStream(torch.from_numpy(draw.integers(0, 9, length)), ends, signals, SIGNALS, torch.from_numpy(numbers))


def test_tokens_of_a_text_belong_to_the_words_they_overlap_and_are_read_when_those_are_spoken():
    text = "One, two-three four."
    marks = [WordMark(0, 3, 0.1, 0.5), WordMark(5, 14, 0.7, 1.1), WordMark(15, 19, 1.2, 1.8)]
    ends = [3, 4, 8, 9, 14, 19, 20]  # One| ,| two|-|three| four|.
    front_end: Any = Pieces(ends)
    stream = text_stream(text, marks, 2.0, Scoring(front_end, Scorer(), "cpu"))
    starts = [0, *ends[:-1]]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        covering = [i for i, mark in enumerate(marks) if mark.start_char < end and mark.end_char > start]
        assert stream.words[number] == (covering[0] if covering else NO_WORD)
    assert stream.words.tolist() == [0, NO_WORD, 1, 1, 1, 2, NO_WORD]
    assert stream.ends.tolist() == pytest.approx([0.5, 0.6, 0.7 + 0.4 * 3 / 9, 0.7 + 0.4 * 4 / 9, 1.1, 1.8, 2.0])
    assert stream.word_sizes(3).tolist() == [1, 3, 1]
    assert word_scores(stream, 4, "gain", "sum")[:3].tolist() == [3, 8 + 0 + 5, 1]
    assert word_scores(stream, 4, "gain", "mean")[1] == pytest.approx(13 / 3)
    assert np.isnan(word_scores(stream, 4, "gain", "sum")[3])


def test_units_belong_to_the_word_that_is_spoken_at_their_middle():
    times = torch.arange(101, dtype=torch.float64) / 50
    marks = [WordMark(0, 1, 0.105, 0.5), WordMark(2, 3, 0.5, 0.9), WordMark(4, 5, 1.3, 1.99)]
    scores = AudioScores(times[:-1], times[1:], torch.zeros(100, 3), None, None, SIGNALS)
    stream = speech_stream(scores, marks)
    for number, word in enumerate(stream.words.tolist()):
        middle = (times[number] + times[number + 1]) / 2
        spoken = [i for i, mark in enumerate(marks) if mark.start <= middle < mark.end]
        assert word == (spoken[0] if spoken else NO_WORD)
    assert not stream.ids.any()


@pytest.mark.parametrize(
    "spec", ["fifo", "random", {"name": "scored", "scale": "raw"}, {"name": "scored", "window": 3}]
)
def test_memories_side_by_side_keep_what_a_list_would(spec):
    """Passages of unequal lengths, with segments in which some have no token."""
    policy = build("policies", spec)
    streams = [random_stream(70, 20.0, 12, 0), random_stream(33, 14.0, 9, 1), random_stream(4, 11.0, 2, 2)]
    plans = [schedule(seconds, 1.5, 3) for seconds in (20.0, 14.0, 11.0)]
    got = kept_shares(streams, Memory(8, policy), plans, [12, 9, 2])
    name = spec if isinstance(spec, str) else spec["name"]
    for stream, plan, count, shares in zip(streams, plans, [12, 9, 2], got, strict=True):
        assert shares.shape == (3, count)
        kept: list[naive.Slot] = []
        start, seen = 0, []
        standard = (
            Memory(99, policy)
            .append(
                Memory(99, policy).empty((stream.ids[None],), SIGNALS),
                (stream.ids[None],),
                stream.ids[None],
                torch.arange(len(stream))[None],
                stream.signals[None],
                torch.ones(1, len(stream), dtype=torch.bool),
            )
            .slots.standard[0]
        )
        for index, stop in enumerate(plan.stops):
            end = int((stream.ends <= stop).sum())
            for i in range(start, end):
                scores, scaled = (
                    dict(zip(SIGNALS, row[i].tolist(), strict=True)) for row in (stream.signals, standard)
                )
                kept.append(naive.Slot(int(stream.ids[i]), i, scores, scaled))
            start = end
            kept = [kept[i] for i in naive.select(kept, policy, naive.PRIORITIES[name], min(8, len(kept)), end)]
            if index in plan.moments:
                words = [int(stream.words[slot.position]) for slot in kept]
                seen.append([words.count(w) / max(1, stream.words.tolist().count(w)) for w in range(count)])
        assert shares.tolist() == pytest.approx(np.array(seen))


def test_a_schedule_ends_with_the_passage():
    plan = schedule(10.5, 2.0, 2)
    assert plan.stops == [2, 4, 6, 8, 10, float("inf")]
    assert (plan.moments, plan.seconds) == ([3, 5], [8, 10.5])


def kept(text: str, speech: str, ages: list[float] | None = None) -> KeptWords:
    """One moment of a passage; x marks a word that is kept."""
    given = np.arange(len(text))[::-1] if ages is None else ages
    in_text, in_speech = (np.array([[c == "x" for c in line]]) for line in (text, speech))
    return KeptWords(in_text, in_speech, np.array([given], dtype=float))


def test_overlaps_by_hand():
    first, second = overlaps([kept("x.xx.", "..xxx"), kept("x...", "xx..")])
    # Of five words the memories keep three each, and both keep the third and the fourth.
    assert (first.kept_text, first.kept_speech, first.both, first.by_chance) == (3, 3, 2, 9 / 5)
    assert (second.kept_text, second.kept_speech, second.both, second.by_chance) == (1, 2, 1, 2 / 4)
    # Newest first: .xx.x and xxx.., and ...x and ..xx; the fifth word is compared with the oldest one there.
    assert first.by_age == (2 + 0) / 2  # text .xx.x on ..xx(x); speech xxx.. on ...x(x)
    assert second.by_age == (0 + 1) / 2  # text ...x on xxx.; speech ..xx on .xx.


def test_words_that_were_not_read_do_not_count():
    (one, _) = overlaps([kept("xx.x", "xx.x", [2, 1, 0, -1]), kept("x", "x")])
    assert (one.kept_text, one.both, one.by_chance) == (2, 2, 4 / 3)


def test_chance_is_what_random_memories_share():
    draw = np.random.default_rng(0)
    sizes, total = (7, 12), 40
    shared = []
    for _ in range(20_000):
        text, speech = (draw.permutation(total) < size for size in sizes)
        shared.append((text & speech).sum())
    text, speech = ("x" * size + "." * (total - size) for size in sizes)
    (one, _) = overlaps([kept(text, speech), kept("x", "x")])
    assert one.by_chance == pytest.approx(np.mean(shared), abs=0.03)
    entry = agreement([one, one])["chance"]
    assert entry == {"value": pytest.approx(7 * 12 / 40 / 9.5), "low": None, "high": None}  # two passages only


def test_memories_that_agree_in_age_alone_share_no_more_than_the_same_ages():
    """Each passage keeps the newest words of another number; content plays no part."""
    passages = [kept("." * (30 - 4) + "x" * 4, "." * (30 - 5) + "x" * 5) for _ in range(8)]
    result = agreement(overlaps(passages))
    assert result["share"]["value"] == pytest.approx(4 / 4.5)
    assert result["over_same_age"]["value"] == pytest.approx(0)
    assert result["over_chance"]["low"] > 0.5
    assert "over_shuffled" not in result


def test_the_difference_from_shuffled_scores_is_paired():
    draw = np.random.default_rng(1)
    hard = draw.random(12)  # some passages share more under both
    ours = [Overlap(10.0, 10.0, 5 + 4 * x, 1.0, 1.0) for x in hard]
    control = [Overlap(10.0, 10.0, 4 + 4 * x, 1.0, 1.0) for x in hard]
    result = agreement(ours, control)
    assert result["over_shuffled"] == {key: pytest.approx(0.1) for key in ("value", "low", "high")}
    assert result["share"]["high"] - result["share"]["low"] > 0.1
    nothing = agreement([Overlap(0.0, 0.0, 0.0, 0.0, 0.0)] * 12)
    assert nothing["share"] == {"value": None, "low": None, "high": None}


def test_rank_correlations():
    def correlation(*pair) -> float:
        result: Any = spearmanr(*pair)
        return result.statistic

    draw = np.random.default_rng(2)
    z = draw.standard_normal(400)
    x, y = (np.exp(z + draw.standard_normal(400)).round(1) for _ in range(2))  # with ties
    assert rank_correlation(x, y) == pytest.approx(correlation(x, y))
    xy, xz, yz = (correlation(*pair) for pair in ((x, y), (x, z), (y, z)))
    partial = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert rank_correlation(x, y, [z]) == pytest.approx(partial)
    assert abs(partial) < 0.15 < xy
    assert np.isnan(rank_correlation(np.ones(9), draw.standard_normal(9)))
    assert np.isnan(rank_correlation(z, y, [z]))


def test_frequent_words_are_frequent():
    counts = written_counts()
    assert counts["the"] > counts["house"] > counts.get("hispaniola", 0)


def test_controls_are_found_by_their_policy():
    made: dict[str, Any] = {one.name: one for one in read_strategies(STRATEGIES)}
    pairs = [(a, b) for a, b in itertools.permutations(made, 2) if made[b].is_control_of(made[a])]
    assert len(pairs) == 5
    assert all(b == f"shuffled {a}" for a, b in pairs)
    assert made["surprise of half seconds"].policy_for(50.0).window == 25
    assert made["surprise of half seconds"].policy_for(4.0).window == 1
    assert made["surprise"].policy_for(50.0) == made["surprise"].policy


@pytest.mark.parametrize(
    ("node", "match"),
    [
        ({"policy": "h2o"}, "needs usage of a trained model"),
        ({"policy": "fifo", "window": 0.5}, "averages no scores"),
        ({"policy": "scored", "window": -1}, "window=-1 is not a number of seconds"),
        ({"policy": "scored", "shufle": True}, "did you mean shuffle"),
        ("fifo", "needs the key policy"),
    ],
)
def test_strategies_that_are_refused(node, match):
    with pytest.raises(ValueError, match=match):
        Config(strategies={"mine": node})


def test_configs_that_are_refused():
    with pytest.raises(ValueError, match="none twice"):
        Config(capacities=(5.0, 5.0))
    with pytest.raises(ValueError, match="names none"):
        Config(strategies={})


def test_the_answer_says_what_differs_and_what_does_not():
    def entry(value, low, high):
        return {"value": value, "low": low, "high": high}

    row = {"strategy": "gain", "capacity": 5.0, "criterion": "any", "share": entry(0.3, 0.2, 0.4)}
    row |= {"same_age": entry(0.1, 0.1, 0.1)}
    rows = [row | {"over_shuffled": entry(0.1, low, 0.2)} for low in (0.05, -0.05)]
    across = [
        {"pair": "text and speech", "signal": "gain", "statistic": "sum", "controls": controls} | figures
        for controls, figures in (("none", entry(0.5, 0.4, 0.6)), ("length and frequency", entry(-0.01, -0.1, 0.1)))
    ]
    first, best, scores = answer({"memories": rows, "across": across})
    assert "in 1 of 2 comparisons, fewer in 0, and there is no difference in 1" in first
    assert "the difference is +10.0 [+5.0, +20.0] points larger than with shuffled scores" in best
    assert "gain with 5 s of content: 30.0 [20.0, 40.0] %" in best
    assert "0.50 [0.40, 0.60]" in scores
    assert "\u22120.01 [\u22120.10, 0.10]. That is no relation." in scores
    assert [verdict(entry(0, *ends)) for ends in ((None, None), (1, 2), (-2, -1))] == ["unknown", "more", "less"]
    assert with_interval(entry(None, None, None)) == "\u2013"


def test_the_command_in_a_tiny_form(tmp_path, capsys):
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")
    out = tmp_path / "run"
    keys = [f"out={out}", f"cache={tmp_path / 'spoken'}", "chars=300", "passages=2", "moments=2", "segment=1"]
    assert main(["same_content", "demo", *keys, "capacities=[3]"]) == 0
    printed = capsys.readouterr().out
    assert "2 passages of the dev split" in printed
    assert "There are too few passages" in printed
    assert "has a rank correlation of" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["memories"]) == 2 * len(STRATEGIES)
    newest = next(row for row in summary["memories"] if row["strategy"] == "fifo")
    assert newest["share"]["value"] > 0.6 > newest["chance"]["value"] + 0.1
    assert {row["pair"] for row in summary["across"]} == {"text and speech", "two voices"}
    made = same_content.result(summary, [])
    rows = made.values["Words that both keep, where at least half of its tokens are kept"]
    assert rows["fifo, 3 s"]["share, %"] == pytest.approx(100 * newest["share"]["value"])
    assert any(name.startswith("two voices: surprise") for name in made.values["Rank correlation of a word's score"])
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 1
    assert page.index("There are too few passages") < page.index("<table")
    assert main(["same_content", "demo", *keys, "capacities=[100]", f"out={tmp_path / 'other'}"]) == 2
    assert "exceed half of the shortest passage" in capsys.readouterr().err


def test_shuffled_scores_are_those_of_the_passage():
    stream = random_stream(50, 5.0, 5, 0)
    mixed = stream.shuffled(3)
    assert not torch.equal(mixed.signals, stream.signals)
    assert torch.equal(mixed.signals.sort(dim=0).values, stream.signals.sort(dim=0).values)
    assert torch.equal(replace(mixed, signals=stream.signals).words, stream.words)
