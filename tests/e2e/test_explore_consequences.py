"""What evictions cost, on the page of `vqmem explore`: against readings by a plain policy, and in Chromium."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import soundfile
import torch
from vqmem.cli import main
from vqmem.memory.bank import Memory
from vqmem.recipes.explore.consequences import SHOWN, consequences, effects, quality, read_fully
from vqmem.recipes.explore.explored import Explored
from vqmem.recipes.explore.loading import load_reader
from vqmem.recipes.explore.page import costs, trace
from vqmem.recipes.explore.readers import CHARACTERS_TO_READ, Reader
from vqmem.recipes.explore.settings import Settings
from vqmem.tests.e2e.conftest import CONFIG
from vqmem.tests.e2e.explorer import in_page, open_app, paste, show, start_app, wait

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
def explored(tiny_run) -> Explored:
    return explore(load_reader(tiny_run), Settings(("fifo", "surprise", "random", "h2o"), 24, 1, 3))


def explore(reader: Reader, settings: Settings) -> Explored:
    return Explored.follow(reader, reader.text(TEXT * 2, "story"), settings)


def losses(explored: Explored, memory: Memory) -> torch.Tensor:
    read = explored.reader.read(explored.passage, memory).losses
    assert read is not None
    return read[0]


def test_what_is_followed_without_the_model_is_what_the_model_keeps(explored):
    reader, passage = explored.reader, explored.passage
    for name, policy in reader.policies(passage.names).items():
        memory = replace(explored.memories["fifo"], policy=policy)
        followed = reader.follow(passage, memory)
        assert followed.kept == reader.read(passage, memory).kept, name
        assert (followed.losses is None) == ({*policy.requires} <= {"scores"})


def test_each_effect_is_that_of_a_reading_with_the_token_kept(explored):
    found, memory = consequences(explored, "fifo"), explored.memories["fifo"]
    assert len(found) > 3
    assert [effect["saved"] for effect in found] == sorted((effect["saved"] for effect in found), reverse=True)
    assert len({int(explored.passage.ids[effect["at"]]) for effect in found}) == len(found)
    before = losses(explored, memory)
    for effect in found:
        assert any(effect["at"] not in positions for positions in explored.followed["fifo"].kept)
        saved = before - losses(explored, replace(memory, policy=Slow(effect["at"])))
        assert effect["saved"] == pytest.approx(float(saved.sum()), abs=2e-3)
        assert len(effect["later"]) <= SHOWN
        for place, change in effect["later"]:
            assert change == pytest.approx(float(saved[place - 1]), abs=1e-3)
            assert place > effect["at"]


@pytest.mark.parametrize("strategy", ["fifo", "h2o"])
def test_effects_of_several_positions_are_those_of_each_alone(explored, strategy):
    evicted = [effect["at"] for effect in consequences(explored, strategy)][:3]
    alone = [effects(explored, strategy, [place])[0] for place in evicted]
    for one, other in zip(effects(explored, strategy, evicted), alone, strict=True):
        assert one["saved"] == pytest.approx(other["saved"], abs=1e-3)
        assert one["at"] == other["at"]


def test_quality_is_the_mean_loss_and_everything_is_the_longest_memory(explored):
    memory, found = explored.memories["fifo"], quality(explored, read_fully(explored))
    assert found["capacities"] == [16, 24, 32, 64, 128]
    for capacity, value in zip(found["capacities"], found["rows"]["fifo"], strict=True):
        assert value == pytest.approx(float(losses(explored, replace(memory, capacity=capacity)).mean()), abs=1e-4)
    full = replace(memory, capacity=10 * len(explored.passage.ids))
    assert found["full"] == pytest.approx(float(losses(explored, full).mean()), abs=1e-4)


def test_guards_that_leave_no_room_leave_a_gap(explored):
    guarded = explore(explored.reader, Settings(("fifo",), 40, 2, 20))
    assert quality(guarded, read_fully(guarded))["rows"]["fifo"][0] is None


def test_where_guards_fill_the_memory_nothing_else_can_be_kept(explored):
    filled = explore(explored.reader, Settings(("fifo",), 24, 4, 20))
    assert consequences(filled, "fifo") == []


def test_a_passage_of_one_token_is_refused(explored):
    with pytest.raises(ValueError, match="story has one token, and a model needs two"):
        Explored.follow(explored.reader, explored.reader.text("a", "story"), explored.settings)


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


def test_any_evicted_token_is_tried_in_the_app(browser, explored, tiny_run):
    with start_app("--model", str(tiny_run), "--capacity", "24", "--strategies", "fifo", "--sinks", "1") as address:
        paste(open_app(browser, address), TEXT * 2)
        show(browser)
        in_page(browser)
        wait(lambda: browser.find_element("id", "costs-part").is_displayed())
        assert not browser.find_element("id", "waiting").is_displayed()
        tried = len(browser.find_elements("css selector", "#costs button"))
        known = {effect["at"] for effect in consequences(explored, "fifo")}
        place = next(at for at in range(2, 60) if at not in known)
        browser.find_element("css selector", f"#cost-text span[data-i='{place}']").click()
        wait(lambda: len(browser.find_elements("css selector", "#costs button")) == tried + 1)
        chosen = browser.find_element("css selector", f"#costs button[data-at='{place}']")
        assert chosen.get_attribute("aria-pressed") == "true"
        asked = explore(explored.reader, Settings(("fifo",), 24, 1))
        saved = effects(asked, "fifo", [place])[0]["saved"]
        said = browser.find_element("id", "cost-said").text
        assert f"(token {place}) kept" in said
        assert f"{abs(saved):.2f} nats" in said
        browser.find_element("css selector", "#cost-text").send_keys("\ue010\ue007")  # End, Enter
        assert "was never evicted by fifo" in browser.find_element("id", "cost-said").text
        browser.switch_to.default_content()


def test_a_model_of_units_reads_a_recording(tmp_path):
    """Chirps, and a model that was trained on them."""
    for number in range(8):
        time = np.arange((1.0 + number / 10) * 16_000) / 16_000
        soundfile.write(tmp_path / f"{number}.wav", 0.2 * np.sin(2 * np.pi * (150 + 20 * number) * time**2), 16_000)
    config = tmp_path / "tiny.yaml"
    data = f"data: {{name: audio_files, path: {tmp_path}}}\nfront_end: {{name: hubert_units, clusters: 6}}\n"
    config.write_text(data + CONFIG.split("\n", 2)[2])
    assert main(["text_lm", str(config), f"out={tmp_path / 'run'}"]) == 0
    reader = load_reader(tmp_path / "run")
    heard = Explored.follow(reader, reader.clip(tmp_path / "7.wav", "chirp"), Settings(("fifo", "surprise"), 24))
    known = costs(heard)
    assert known["quality"]["full"] > 0
    assert known["consequences"].keys() == trace(heard)["kept_sounds"].keys() == {"fifo", "surprise"}


def test_a_text_that_is_too_long_for_a_language_model_is_refused(explored):
    with pytest.raises(ValueError, match=r"has 15,001 characters, and at most 15,000 can be shown here"):
        explored.reader.text("a" * (CHARACTERS_TO_READ + 1), "story")
