"""Alignment of letters to units, and the model that draws the units of a text."""

import json
import math
import random

import pytest
import torch
from vqmem.models.speech.pitch import track
from vqmem.models.speech.unit_speaker import SpokenSentence, _draw, from_steps, to_steps
from vqmem.models.speech.unit_vocoder import FRAME, HOP, RATE
from vqmem.recipes.tts import clips
from vqmem.recipes.tts.alignment import Aligner, LetterUnitPair
from vqmem.recipes.tts.clips import VoiceClip, sentence_loader, vocoder_loader
from vqmem.tests.unit.tiny_voice import LETTERS, UNITS, sentence, speaker


def test_too_many_characters_to_align_are_refused(monkeypatch):
    monkeypatch.setattr(clips, "PAIRS", 10)
    clip = VoiceClip("a", "abab" * 5, *[torch.zeros(3, dtype=torch.long)] * 5)
    with pytest.raises(ValueError, match="texts of 3 characters are too many to align"):
        clips.align([clip], 5)


# --- alignment -----------------------------------------------------------------------------------------------------


def test_alignment_finds_which_letter_sounds_how():
    draw = random.Random(0)
    sounds = {0: [0], 1: [1, 2], 2: [3], 3: [4, 5, 6], 4: [7, 8], 5: [9, 10]}
    pairs, truth = [], []
    for _ in range(60):
        letters = [0, draw.randrange(1, 6)]
        for _ in range(draw.randint(4, 12)):  # where one of two equal ones ends would be undefined
            letters.append(draw.choice([letter for letter in range(6) if letter != letters[-1]]))
        spoken = [(unit, place) for place, letter in enumerate(letters) for unit in sounds[letter]]
        pairs.append(LetterUnitPair(torch.tensor(letters), torch.tensor([unit for unit, _ in spoken])))
        truth.append(torch.tensor([place for _, place in spoken]))
    found = Aligner.fit(pairs, len(LETTERS), UNITS).owners(pairs)
    right = torch.cat([a == b for a, b in zip(found, truth, strict=True)]).float().mean()
    assert right > 0.9  # the best there is but for a unit that all of them give to the letter before


@pytest.mark.parametrize(("letters", "units"), [(1, 1), (9, 1), (9, 2), (1, 6), (3, 20)])
def test_alignment_of_few_units_or_few_letters_never_falls(letters, units):
    pairs = [LetterUnitPair(torch.arange(letters) % 6, torch.arange(units) % UNITS)] * 2
    for owners in Aligner.fit(pairs, 6, UNITS).owners(pairs):
        assert len(owners) == units
        assert (owners.diff() >= 0).all()
        assert 0 <= owners.min() <= owners.max() < letters


# --- text to units -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_steps_can_be_taken_back(seed):
    letters, spoken = sentence(seed)
    steps, place = to_steps(spoken, len(letters), UNITS)
    assert len(steps) == len(letters) + len(spoken.units)
    assert (place.diff() >= 0).all()
    assert int(place[-1]) == len(letters) - 1
    units, owners = from_steps(steps, UNITS)
    assert torch.equal(units, spoken.units)
    assert torch.equal(owners, spoken.owners)
    assert torch.equal(place[steps != UNITS], owners)


def test_sentences_side_by_side_are_learnt_as_they_are_alone():
    model = speaker()
    items = [sentence(seed) for seed in range(4)]
    together = model.training_step(model.batch(items)).metrics
    alone = [model.training_step(model.batch([item])).metrics for item in items]
    weights = [one["tokens"] for one in alone]
    runs = [len(item.spoken.units) for item in items]
    for name, weight in {"nll": weights, "accuracy": weights, "duration_nll": runs, "duration_error": runs}.items():
        mean = sum(one[name] * w for one, w in zip(alone, weight, strict=True)) / sum(weight)
        assert float(together[name]) == pytest.approx(float(mean), rel=1e-4), name


def test_steps_one_by_one_follow_the_probabilities_of_all_at_once():
    model = speaker()
    letters = torch.tensor([0, 1, 2, 0])
    spoken = model.speak([letters, letters[:2]], 0.0, torch.Generator())[0]
    assert len(spoken.units) > 2
    assert (spoken.units.diff() != 0).all()
    assert ((spoken.frames >= 1) & (spoken.frames <= 6)).all()
    batch = model.batch([SpokenSentence(letters, spoken)])
    context = model.context(batch.letters)
    before = torch.cat([torch.tensor([[model.start_id]]), batch.steps[:, :-1]], dim=1)
    frames = model.unit_embed(before) + context[0, batch.place]
    logits = model.transformer(frames, torch.arange(before.shape[1])[None]).logits[0].detach().clone()
    said, last = 0, None
    for number, step in enumerate(batch.steps[0].tolist()):
        row = logits[number]
        if last is not None:
            row[last] = -torch.inf
        assert step == (int(row.argmax()) if said < 16 else UNITS)
        said, last = (0, last) if step == UNITS else (said + 1, step)
    alone = model.speak([letters], 0.0, torch.Generator())[0]
    assert all(torch.equal(a, b) for a, b in zip(spoken, alone, strict=True))


def test_the_same_seed_draws_the_same_units():
    model, letters = speaker(), torch.tensor([0, 1, 2, 3, 0])
    first, again, other = (
        model.speak([letters], 1.0, torch.Generator().manual_seed(seed))[0].units for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_whether_a_letter_is_done_is_drawn_untempered_and_units_are_tempered(temperature):
    model, letters = speaker(), torch.tensor([0, 1, 2, 0])
    begun = model.batch([sentence(1)])
    frames = model.unit_embed(torch.tensor([[model.start_id]])) + model.context(begun.letters)[:, :1]
    logits = 3 * model.transformer(frames, torch.zeros(1, 1, dtype=torch.long)).logits[0, -1].detach()
    logits[4] = -torch.inf  # the unit that may not repeat
    plain_chances, tempered = [math.exp(x) for x in logits], [math.exp(x / temperature) for x in logits[:-1]]
    done = plain_chances[-1] / sum(plain_chances)
    wanted = [(1 - done) * x / sum(tempered) for x in tempered] + [done]
    count = 20_000
    drawn = _draw(logits.expand(count, -1), temperature, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=UNITS + 1) / count
    for share, chance in zip(shares.tolist(), wanted, strict=True):
        assert share == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / count) + 1e-9)
    assert len(model.speak([letters], temperature, torch.Generator().manual_seed(0))[0].units)


def test_a_temperature_near_0_does_not_make_letters_end_sooner():
    """The likeliest symbol is that the letter is done: tempered it would be drawn nearly always."""
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0, 2.0, 3.0]]).expand(20_000, -1)
    wanted = float(torch.softmax(logits[0], 0)[-1])
    for temperature in (1e-300, 0.05):
        drawn = _draw(logits, temperature, torch.Generator().manual_seed(0))
        assert (drawn == 5).float().mean() == pytest.approx(wanted, abs=0.02)
        assert {*drawn.tolist()} <= {4, 5}
    alone = torch.tensor([[-torch.inf, -3.0]])  # a single unit, which may not repeat
    assert _draw(alone, 0.5, torch.Generator()).tolist() == [1]


def test_batches_depend_on_how_many_came_before_alone():
    waveform = torch.randn(40 * FRAME, generator=torch.Generator().manual_seed(0))
    hz, voiced = track(waveform, RATE, HOP)
    units = torch.arange(40) % UNITS
    clip = VoiceClip("a", "abc", waveform, units, hz, voiced, torch.ones(40, 7, dtype=torch.long))
    short = VoiceClip(
        "b", "", waveform[: 3 * FRAME], units[:3], hz[:6], voiced[:6], torch.zeros(3, 7, dtype=torch.long)
    )
    for make in (
        lambda: vocoder_loader([clip, short], 3, 8, 0),
        lambda: sentence_loader(speaker(), [sentence(seed) for seed in range(7)], 2, 0),
    ):
        loader, again = make(), make()
        for _ in range(4):
            loader.next()
        again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        assert all(torch.equal(a, b) for a, b in zip(loader.next(), again.next(), strict=True))
    crop = vocoder_loader([short], 2, 8, 0).next()
    assert crop.waveform.shape == (2, 8 * FRAME)
    assert crop.units[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert not crop.waveform[:, 3 * FRAME :].any()
