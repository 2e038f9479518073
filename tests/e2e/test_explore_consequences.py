"""What evictions cost, on the page of `vqmem explore`: against readings by a plain policy, and in Chromium."""

from dataclasses import dataclass

import pytest
import torch
from vqmem.cli import main
from vqmem.recipes.explore.consequences import SHOWN, Reader, consequences, quality
from vqmem.recipes.explore.memories import follow, memories_for
from vqmem.recipes.explore.passage import CHARACTERS_TO_READ, read_passage
from vqmem.recipes.explore.settings import Settings
from vqmem.recipes.lm.language_model import PassageScores, read_passages
from vqmem.recipes.lm.strategies import Strategy

TEXT = (
    "Call me Ishmael. Some years ago I thought I would sail. "
    "Ishmael, they said, you are naive, and some 12 years old.\n"
)


@dataclass(frozen=True)
class Slow:
    """`fifo`, but one position stays."""

    stays: int
    requires = ()

    def priority(self, slots, now):
        newest = (slots.positions - now[:, None]).float()
        for row, positions in enumerate(slots.positions):
            for slot, position in enumerate(positions):
                if position == self.stays:
                    newest[row, slot] = 1e9
        return newest


@pytest.fixture(scope="module")
def reading(tiny_run):
    passage = read_passage(TEXT * 2, "story", tiny_run)
    assert passage.run is not None
    memory = memories_for(passage.names, Settings(("fifo",), 24))["fifo"]
    return passage, memory, Reader(passage.run, passage)


def test_memories_that_are_followed_are_those_of_the_model(reading):
    passage, _, reader = reading
    segment = passage.run.config.segment
    scores = PassageScores(passage.names, [passage.scores])
    for name, made in memories_for(passage.names, Settings(("fifo", "surprise", "random"), 24, 1, 3)).items():
        strategy = Strategy(name, made.policy, made.compression)
        read, _ = read_passages(passage.run.model, strategy, made, [reader.item], scores, 1, segment)
        before_last = [sorted(kept) for kept in read[0].kept[:-1]]  # the last token is only predicted
        assert before_last == follow(passage, made, segment)[: len(before_last)]


def test_each_effect_is_that_of_a_reading_with_the_token_kept(reading):
    passage, memory, reader = reading
    kept = follow(passage, memory, passage.run.config.segment)
    found = consequences(reader, memory, kept)
    assert len(found) > 3
    assert [effect["saved"] for effect in found] == sorted((effect["saved"] for effect in found), reverse=True)
    assert len({int(passage.ids[effect["at"]]) for effect in found}) == len(found)
    before = reader.losses(memory)[0]
    for effect in found:
        assert any(effect["at"] not in positions for positions in kept)
        pinned = type(memory)(memory.capacity, Slow(effect["at"]), memory.compression, memory.guard)
        saved = before - reader.losses(pinned)[0]
        assert effect["saved"] == pytest.approx(float(saved.sum()), abs=2e-3)
        assert len(effect["later"]) <= SHOWN
        for place, change in effect["later"]:
            assert change == pytest.approx(float(saved[place - 1]), abs=1e-3)
            assert place > effect["at"]


def test_quality_is_the_mean_loss_and_everything_is_the_longest_memory(reading):
    passage, memory, reader = reading
    found = quality(reader, {"fifo": memory})
    assert found["capacities"] == [16, 32, 64, 128]
    for capacity, value in zip(found["capacities"], found["rows"]["fifo"], strict=True):
        alone = type(memory)(capacity, memory.policy, memory.compression, memory.guard)
        assert value == pytest.approx(float(reader.losses(alone).mean()), abs=1e-4)
    full = type(memory)(10 * len(passage.ids), memory.policy, memory.compression, memory.guard)
    assert found["full"] == pytest.approx(float(reader.losses(full).mean()), abs=1e-4)


def test_guards_that_leave_no_room_leave_a_gap(reading):
    passage, _, reader = reading
    guarded = memories_for(passage.names, Settings(("fifo",), 40, 2, 20))
    assert quality(reader, guarded)["rows"]["fifo"][0] is None


def test_the_page_ranks_evictions_and_shows_what_each_changes(
    browser, open_page, assert_quiet, tiny_run, tmp_path, capsys
):
    (tmp_path / "story.txt").write_text(TEXT * 2)
    page = tmp_path / "story.html"
    keys = ["--html", str(page), "--model", str(tiny_run), "--capacity", "24", "--strategies", "fifo,rarity"]
    assert main(["explore", str(tmp_path / "story.txt"), *keys]) == 0
    capsys.readouterr()
    open_page(page)
    buttons = browser.find_elements("css selector", "#costs button")
    assert buttons[0].get_attribute("aria-pressed") == "true"
    buttons[1].click()
    assert [button.get_attribute("aria-pressed") for button in buttons[:2]] == ["false", "true"]
    assert browser.find_element("css selector", "#cost-text .gone").text.strip() in buttons[1].text
    arcs = browser.find_elements("css selector", "#arcs path")
    assert len(arcs) == len(browser.find_elements("css selector", "#cost-text .saved, #cost-text .lost")) > 0
    cells = browser.find_elements("css selector", "#quality tbody tr")
    assert [cell.text.split()[0] for cell in cells] == ["fifo", "rarity"]
    assert_quiet()


def test_a_text_that_is_too_long_for_a_language_model_is_refused(tiny_run):
    with pytest.raises(ValueError, match=r"has 12,001 characters, and at most 12,000 can be shown with a language"):
        read_passage("a" * (CHARACTERS_TO_READ + 1), "story", tiny_run)


def test_positions_may_be_pinned_in_every_row(reading):
    _, memory, reader = reading
    assert torch.equal(reader.losses(memory, 3)[2], reader.losses(memory, 3)[0])
