"""A pretrained model on the page of `vqmem explore`: against its own readings, and in Chromium."""

import shutil
from dataclasses import replace

import pytest
import torch
from tokenizers import decoders
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM
from vqmem.cli import main
from vqmem.recipes.explore.consequences import effects, following, quality, read_fully
from vqmem.recipes.explore.explored import Explored
from vqmem.recipes.explore.loading import load_reader
from vqmem.recipes.explore.readers import Reading
from vqmem.recipes.explore.settings import Settings
from vqmem.tests.unit.tiny_host import tiny_model

TEXT = "the name of a function is bound in the local namespace. A class is bound too: name, class, function.\n" * 3


@pytest.fixture(scope="module")
def folder(tokenizer_folder, tmp_path_factory):
    made = tmp_path_factory.mktemp("host")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save_pretrained(made)
    tiny_model(300).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def explored(folder):
    reader = load_reader(folder)
    strategies = (*reader.usual, "h2o", "knorm")
    return Explored.follow(reader, reader.text(TEXT, "story"), Settings(strategies, 40, 2, 8))


def test_every_strategy_keeps_the_capacity_and_the_guards(explored):
    length, segment = len(explored.passage.ids), explored.reader.segment
    for reading in explored.followed.values():
        assert [len(kept) for kept in reading.kept] == [40] * -(-(length - 1) // segment)
        assert {0, 1, *range(length - 9, length - 1)} <= set(reading.kept[-1])
    assert set(explored.followed["fifo"].kept[-1]) == {0, 1, *range(length - 39, length - 1)}


def test_losses_with_everything_kept_are_those_of_the_model(explored):
    model, ids = explored.reader.host.model, explored.passage.ids
    inputs = torch.cat([ids.new_tensor([explored.reader.host.separator]), ids[:-1]])
    expected = torch.nn.functional.cross_entropy(model(inputs[None]).logits[0], ids, reduction="none")[1:]
    torch.testing.assert_close(read_fully(explored).losses[0], expected, atol=1e-5, rtol=0)


def test_the_full_cache_goes_on_as_generate_does(explored):
    model, full = explored.reader.host.model, read_fully(explored)
    prompt = torch.cat([torch.tensor([explored.reader.host.separator]), explored.passage.ids])[None]
    expected = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=48, do_sample=False)
    assert list(full.following) == expected[0, prompt.shape[1] :].tolist()
    found = following(explored, full)
    for name, row in found["rows"].items():
        assert row["same"] + row["rest"] == explored.reader.decode(list(explored.reading(name).following))
        assert found["full"].startswith(row["same"])
        assert (row["parts"] is None) == (row["rest"] == "")


def test_an_effect_is_that_of_a_cache_with_the_token_among_its_sinks(explored):
    """The token after the sinks is what a cache keeps that has one sink more."""
    reader = explored.reader
    one = Explored.follow(reader, explored.passage, Settings(("fifo",), 40, 2, 8))
    found = effects(one, "fifo", [2])[0]
    more = Explored.follow(reader, explored.passage, Settings(("fifo",), 40, 3, 8))
    saved = one.reading("fifo").losses[0] - more.reading("fifo").losses[0]
    assert found["saved"] == pytest.approx(float(saved.sum()), abs=1e-3)


@pytest.mark.parametrize("strategy", ["fifo", "h2o", "auto", "reuse"])
def test_effects_of_several_positions_are_those_of_each_alone(explored, strategy):
    evicted = [place for place in range(3, 60) if place not in explored.followed[strategy].kept[-1]][:3]
    alone = [effects(explored, strategy, [place])[0] for place in evicted]
    for one, other in zip(effects(explored, strategy, evicted), alone, strict=True):
        assert one["saved"] == pytest.approx(other["saved"], abs=1e-3)


def test_a_model_without_queries_that_can_be_found_is_read_with_the_usual_strategies(tokenizer_folder, tmp_path):
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 2048, "rotary_dim": 4}
    GPTJForCausalLM(GPTJConfig(vocab_size=300, **shape)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(tmp_path)
    reader = load_reader(tmp_path)
    read = Explored.follow(reader, reader.text(TEXT, "story"), Settings(reader.usual, 40))
    assert [len(reading.kept[-1]) for reading in read.followed.values()] == [40, 40, 40]
    assert not any(module._forward_hooks for module in reader.host.model.modules())  # every cache was closed


def test_a_text_that_is_longer_than_the_model_reads_is_refused(tokenizer_folder, tmp_path):
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=300, **shape)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(tmp_path)
    reader = load_reader(tmp_path)
    with pytest.raises(ValueError, match=r"story has \d+ tokens, and the model reads at most 79; give less text"):
        reader.text(TEXT, "story")
    short = reader.text(TEXT[:100], "story")
    assert len(read_fully(Explored.follow(reader, short, Settings(("fifo",), 8))).following) == reader.new


def test_texts_part_between_characters_though_tokens_do_not(explored):
    ids = [explored.reader.host.tokenizer.encode(text).ids.tolist() for text in ("ab 😀 c", "ab 😃 c")]
    read = explored.followed["fifo"]._replace(following=tuple(ids[1]))
    one = replace(explored, memories={"fifo": explored.memories["fifo"]}, followed={"fifo": read})
    found = following(one, Reading([], following=tuple(ids[0])))
    row = found["rows"]["fifo"]
    assert (row["same"], row["rest"]) == ("ab ", "😃 c")
    assert row["parts"] == next(i for i, (one, other) in enumerate(zip(*ids, strict=True)) if one != other)


def test_quality_is_that_of_the_cache_by_capacity(explored):
    found = quality(explored, read_fully(explored))
    assert found["capacities"] == [40, 64]
    assert found["rows"]["fifo"][0] == pytest.approx(float(explored.reading("fifo").losses.mean()), abs=1e-4)


def test_the_command_writes_the_page(folder, browser, open_page, assert_quiet, tmp_path, capsys):
    (tmp_path / "story.txt").write_text(TEXT)
    page = tmp_path / "story.html"
    given = ["--html", str(page), "--model", str(folder), "--capacity", "40", "--strategies", "fifo,auto"]
    assert main(["explore", str(tmp_path / "story.txt"), *given]) == 0
    capsys.readouterr()
    open_page(page)
    rows = browser.find_elements("css selector", "#following tbody tr")
    assert [row.text.split()[0] for row in rows] == ["everything", "fifo", "auto"]
    assert browser.find_elements("css selector", "#costs button")
    never = browser.find_element("css selector", "#cost-text span:last-child")
    browser.execute_script("arguments[0].click()", never)
    assert "was never evicted by fifo" in browser.find_element("id", "cost-said").text
    assert_quiet()


def test_a_recording_is_refused_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    assert (
        main(["explore", str(tmp_path / "clip.wav"), "--html", str(tmp_path / "x.html"), "--model", str(folder)]) == 2
    )
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "vqmem: clip.wav is a recording, and the model reads text; give a text"
    )


@pytest.mark.parametrize("name", ["gpt2", "nothere.gguf"])
def test_a_model_that_is_not_there_is_named(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(TEXT)
    assert main(["explore", "story.txt", "--html", "x.html", "--model", name]) == 2
    said = f"vqmem: model '{name}' not found; give a model of transformers, or a run of `vqmem text_lm`"
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_damaged_weights_are_named(folder, tmp_path, capsys):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "story.txt").write_text(TEXT)
    given = ["--html", str(tmp_path / "x.html"), "--model", str(broken)]
    assert main(["explore", str(tmp_path / "story.txt"), *given]) == 2
    assert f"model={broken}: no pretrained language model there" in capsys.readouterr().err.splitlines()[-1]


def test_a_strategy_that_the_cache_does_not_have_is_named(folder, tmp_path, capsys):
    (tmp_path / "story.txt").write_text(TEXT)
    given = ["--html", str(tmp_path / "x.html"), "--model", str(folder), "--strategies", "surprise"]
    assert main(["explore", str(tmp_path / "story.txt"), *given]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("vqmem: unknown strategy 'surprise'; known: auto, fifo, h2o")
    )
