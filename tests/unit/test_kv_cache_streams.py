"""Losses in streams, long-gap tokens, and the share of a gap, against what they say they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vqmem.recipes.kv_cache import figures
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.settings import FULL, Setting, read_policies
from vqmem.recipes.kv_cache.streams import Losses, Streams, sample
from vqmem.registry import build
from vqmem.schema import UnknownNameError
from vqmem.tests.unit.tiny_host import passage, tiny_host

FIFO = Setting("fifo", "fifo")


def test_a_gap_is_the_distance_to_the_last_time() -> None:
    ids = np.array([5, 7, 5, 5, 9, 7])
    assert figures.gaps(ids).tolist() == [0, 0, 2, 1, 0, 4]
    rarity = np.zeros(10)
    rarity[7] = 9.5
    assert figures.long_gap(ids, rarity, 9.0, 3).tolist() == [False] * 5 + [True]
    assert not figures.long_gap(ids, rarity, 9.0, 4).any()


def test_more_passages_include_the_fewer_and_come_from_every_book() -> None:
    items = [passage(f"{book}:{start}", [start] * 4) for book in "ab" for start in range(0, 40, 4)]
    few, many = (sample([*items, passage("a:40", [1])], 4, count) for count in (4, 9))
    assert [item.name for item in many[:4]] == [item.name for item in few]
    assert {item.name[0] for item in few[:2]} == {"a", "b"}
    assert len({item.name for item in many}) == 9
    with pytest.raises(ValueError, match="fewer than 21"):
        sample(items, 4, 21)


def test_the_share_of_a_gap_is_of_sums() -> None:
    worst, best = np.array([4.0, 10, 7, 8, 3, 5]), np.array([2.0, 6, 5, 5, 2, 3])
    share, low, high = figures.share_closed(worst - 0.25 * (worst - best), worst, best)
    assert (share, low, high) == pytest.approx((0.25, 0.25, 0.25))


def sums(nats: dict[str, Any], far: dict[str, Any], sizes: Any, baseline: str) -> figures.Sums:
    return figures.Sums(nats, far, nats, sizes, sizes, baseline)


def test_few_passages_give_no_verdict_on_the_others() -> None:
    nats = {name: np.full(3, loss) for name, loss in (("ours", 2.0), ("fifo", 3.0), (FULL, 1.0))}
    assert figures.verdicts(sums(nats, nats, np.ones(3), "fifo"), "ours") == {"too few passages": ["fifo"]}


def test_the_best_closes_most_of_the_gap_at_no_loss() -> None:
    level = np.full(6, 10.0)
    nats = {FULL: level - 2, "fifo": level, "dear": level + 1, "good": level - 1, "fair": level}
    far = {FULL: level - 8, "fifo": level, "dear": level - 7, "good": level - 5, "fair": level - 2}
    found = sums(nats, far, level, "fifo")
    assert figures.best(found, ["dear", "good", "fair"]) == "good"
    assert figures.best(found, ["dear"]) == "dear"
    values, intervals = figures.table(found)
    assert values["good"]["gap closed, %"] == pytest.approx(62.5)
    assert intervals["good"]["NLL - fifo"] == pytest.approx([-0.1, -0.1])
    assert figures.verdicts(found, "good") == {"worse": ["fifo", "fair"], "better": ["dear"]}


def test_sums_leave_out_the_tokens_that_fit() -> None:
    items = [passage("a", [1, 2, 1, 2, 1, 2, 2, 1])]
    losses = Losses(np.arange(8.0), np.arange(8.0) / 2, 1.0, 1.0)
    found = figures.sum_losses({"x": [losses]}, items, np.array([0.0, 0.0, 9.5]), rare=9.0, capacity=1, baseline="x")
    assert (found.nats["x"][0], found.kl["x"][0], found.tokens[0]) == (28, 14, 7)
    assert (found.far["x"][0], found.far_tokens[0]) == (3 + 5, 2)  # not the 2 that follows a 2


@pytest.fixture
def caches(tokenizer_folder: Path) -> Caches:
    return Caches(tiny_host(tokenizer_folder), {"unigram": build("scorers", "unigram").build(300)})


def test_chunks_through_a_cache_lose_what_the_text_at_once_does(caches: Caches, tmp_path: Path) -> None:
    ids = torch.randint(1, 300, (3, 160))
    with torch.no_grad():
        inputs = torch.cat([torch.full_like(ids[:, :1], caches.host.separator), ids[:, :-1]], 1)
        logits = caches.host.model(inputs).logits
    expected = -logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    streams = Streams(caches, tmp_path, 2)
    items = [passage(str(i), row) for i, row in enumerate(ids.tolist())]
    settings = [FIFO, Setting("scored", {"name": "scored", "surprise": 0.0, "rarity": 1.0}, "unigram")]
    found = streams.read(settings, [200], items)[200]  # more slots than tokens: nothing is evicted
    for losses in found.values():
        np.testing.assert_allclose(np.stack([one.nats for one in losses]), expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(np.stack([one.kl for one in losses]), 0, atol=1e-5)
    assert list(found) == [FULL, "fifo", "scored"]


def test_what_was_read_is_kept_and_more_settings_change_nothing(
    caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [passage(str(i), row) for i, row in enumerate(torch.randint(1, 300, (3, 160)).tolist())]
    streams = Streams(caches, tmp_path, 2, chunk=32)
    first = streams.read([FIFO], [40], items[:2])
    more = streams.read([FIFO, Setting("h2o", "h2o")], [40, 60], items)
    np.testing.assert_array_equal(more[40]["fifo"][1].nats, first[40]["fifo"][1].nats)
    assert more[40]["fifo"][1].seconds == first[40]["fifo"][1].seconds
    assert more[40][FULL][0].nats.tolist() == more[60][FULL][0].nats.tolist()
    monkeypatch.setattr(caches.host.model, "forward", None)  # nothing is read again
    again = streams.read([FIFO, Setting("h2o", "h2o")], [40, 60], items)
    assert [one.nats.tolist() for one in again[60]["h2o"]] == [one.nats.tolist() for one in more[60]["h2o"]]


def test_a_killed_run_loses_the_batch_that_it_was_reading(caches: Caches, tmp_path: Path) -> None:
    items = [passage(str(i), row) for i, row in enumerate(torch.randint(1, 300, (5, 96)).tolist())]
    expected = Streams(caches, tmp_path / "straight", 2, chunk=32).read([FIFO], [40], items)[40]
    streams, calls = Streams(caches, tmp_path / "killed", 2, chunk=32), []

    def killed(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 9:  # three chunks through two caches are a batch
            raise KeyboardInterrupt

    handle = caches.host.model.register_forward_pre_hook(killed)
    with pytest.raises(KeyboardInterrupt):
        streams.read([FIFO], [40], items)
    handle.remove()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("killed/*/*.npz")}
    assert len(done) == 4  # of two passages
    found = streams.read([FIFO], [40], items)[40]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for one, other in zip(found["fifo"], expected["fifo"], strict=True):
        np.testing.assert_array_equal(one.nats, other.nats)


def test_divergence_is_that_from_the_full_cache(caches: Caches, tmp_path: Path) -> None:
    for parameter in caches.host.model.parameters():  # so that attention is not flat
        if parameter.ndim == 2:
            parameter.data.mul_(10)
    items = [passage("a", torch.randint(1, 300, (160,)).tolist())]
    found = Streams(caches, tmp_path, 2, chunk=32).read([FIFO], [40], items)[40]
    ids = items[0].ids
    inputs = torch.cat([torch.tensor([caches.host.separator]), ids[:-1]])
    kl, cache = [], caches.make(FIFO, 40)
    from vqmem.memory.huggingface.cache_argument import cache_argument

    with torch.no_grad():
        p = caches.host.model(inputs[None]).logits.log_softmax(-1)[0]
        q = torch.cat(
            [caches.host.model(new[None], **cache_argument(cache)).logits[0] for new in inputs.split(32)]
        ).log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(found["fifo"][0].kl, kl.numpy(), atol=1e-5)
    assert found["fifo"][0].kl[:32] == pytest.approx(0, abs=1e-6)
    assert found["fifo"][0].kl[64:].max() > 1e-3


def test_policies_are_presets_names_and_mappings() -> None:
    given: dict[str, Any] = {
        "auto": "auto",
        "fifo": "fifo",
        "mine": {"name": "scored", "rarity": 1.0},
        "by layer": {"policy": "stream", "share": "layer", "block": 8, "scorer": "runs/x"},
        "scorer's own": {"policy": None},
    }
    found = {setting.name: setting for setting in read_policies(given, "packaged")}
    assert [found[name].scorer for name in given] == ["packaged", None, "packaged", "runs/x", "packaged"]
    assert found["by layer"].options == {"share": "layer", "block": 8}
    assert not any(setting.is_full for setting in found.values())
    for wrong, message in {
        "aut": "did you mean auto",
        "{}": "policies.x",
    }.items():
        with pytest.raises(UnknownNameError, match=message):
            read_policies({"x": wrong}, "packaged")
    for mapping, message in {
        "shar": "policies.x.shar.*did you mean policies.x.share",
        "block": "policies.x.block",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_policies({"x": {"policy": "fifo", mapping: "8 tokens"}}, "packaged")
