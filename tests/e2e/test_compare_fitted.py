"""`vqmem compare` fits policies to its models by itself, and shows what another comparison found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from vqmem.cli import main
from vqmem.recipes.fit_policy.trained import TrainedHost

POLICY = {"name": "weighted", "learned": 1.0, "folder": "{run}/policy"}
STRATEGIES = {
    "transformer_xl": {"policy": "fifo"},
    "learned": {"policy": {**POLICY, "score": 0.0}},
    "beside": {"policy": {**POLICY, "score": 0.2, "surprise": 1.0}},
}


@pytest.fixture
def compare(config_file, tmp_path):
    """The arguments of a tiny comparison with a fitted policy; 96 tokens are the fewest that can be fitted on."""
    lm = yaml.safe_load(config_file.read_text())
    for key in ("strategies", "capacities", "eval_passages"):
        del lm[key]
    config = {
        "strategies": STRATEGIES,
        "capacities": [24, 96],
        "passages": 7,
        "seeds": [0],
        "shown": 40,
        "fit": {"passages": 3, "stream_passages": 2},
        "lm": {**lm, "passage": 96},
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump({**config, "out": str(tmp_path / "out")}))
    return ["compare", str(tmp_path / "compare.yaml")]


class Killed(BaseException):
    """What no command catches."""


def cells(out: Path) -> list[dict]:
    """The results, without how fast they were."""
    lines = (out / "results.jsonl").read_text().splitlines()
    return [{**json.loads(line), "tokens_per_second": 0} for line in lines]


def test_policies_are_fitted_to_the_models_of_each_seed_once(compare, tmp_path, capsys, monkeypatch):
    given = ["seeds=[0,1]", "native={strategies: [transformer_xl, learned], capacity: 24, train: {steps: 2}}"]
    assert main([*compare, *given]) == 0
    out, names = tmp_path / "out", ("seed-0", "seed-1", "seed-0-transformer_xl-24", "seed-1-transformer_xl-24")
    assert sorted(path.parent.name for path in out.glob("*/policy")) == sorted(names)
    rows = json.loads((out / "summary.json").read_text())["rows"]
    mixed = {("transformer_xl", 24), ("transformer_xl", 96), ("learned", 24), ("beside", 24)}
    assert {(row["strategy"], row["capacity"]) for row in rows if row["train"] == "mixed"} == mixed
    assert {row["strategy"] for row in rows if row["train"] == "native"} == {"transformer_xl", "learned"}
    assert capsys.readouterr().err.count("fitting the policy") == 2 * len(names)  # to either attention to come
    before, times = cells(out), [path.stat().st_mtime_ns for path in out.glob("*/policy/*")]
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("vqmem.recipes.fit_policy.run.load_trained", lambda *_: pytest.fail("files show it"))
        assert main([*compare, *given]) == 0
    assert "fitting the policy" not in capsys.readouterr().err
    assert cells(out) == before
    assert [path.stat().st_mtime_ns for path in out.glob("*/policy/*")] == times
    for name in names[1:3]:
        fit = ["fit_policy", str(out / name), f"out={tmp_path / name}", "passages=3", "stream_passages=2"]
        assert main(fit) == 0
        by_hand = (tmp_path / name / "policy.safetensors").read_bytes()
        assert (out / name / "policy" / "policy.safetensors").read_bytes() == by_hand


@pytest.mark.parametrize("at", [1, 2])
def test_a_fit_that_was_killed_is_done_again_to_the_bit(compare, tmp_path, monkeypatch, at):
    read, done = TrainedHost.read_stream, []

    def killed(self, stream, use):
        done.append(1)
        if len(done) == at:
            raise Killed
        return read(self, stream, use)

    monkeypatch.setattr(TrainedHost, "read_stream", killed)
    with pytest.raises(Killed):
        main(compare)
    assert not (tmp_path / "out" / "results.jsonl").exists()
    assert main(compare) == 0
    assert main([*compare, f"out={tmp_path / 'other'}"]) == 0
    first, second = (tmp_path / name / "seed-0" / "policy" / "policy.safetensors" for name in ("out", "other"))
    assert first.read_bytes() == second.read_bytes()
    found = [
        [(cell["strategy"], cell["capacity"], cell["figures"]) for cell in cells(x.parents[2])] for x in (first, second)
    ]
    assert found[0] == found[1]


def test_a_model_that_trains_on_gets_a_new_policy(compare, tmp_path):
    policy = tmp_path / "out" / "seed-0" / "policy" / "policy.json"
    assert main(compare) == 0
    before = json.loads(policy.read_text())["host"]
    assert main([*compare, "lm.train.steps=3"]) == 0
    assert json.loads(policy.read_text())["host"] != before
    assert len(cells(tmp_path / "out")) == 8


def test_other_keys_of_the_fit_fit_anew_and_are_measured(compare, tmp_path):
    folder = tmp_path / "out" / "seed-0" / "policy"
    assert main(compare) == 0
    before = json.loads((folder / "policy.json").read_text())
    assert main([*compare, "fit.ahead=later"]) == 0
    after = json.loads((folder / "policy.json").read_text())
    assert (before["ahead"], after["ahead"]) == ("auto", "later")
    assert len([cell for cell in cells(tmp_path / "out") if cell["strategy"] == "learned"]) == 2  # with each policy
    by_hand = ["fit_policy", str(folder.parent), f"out={tmp_path / 'policy'}", "passages=3", "stream_passages=2"]
    assert main(by_hand) == 0
    (tmp_path / "policy").rename(folder.with_name("by_hand"))
    folder.rename(folder.with_name("fitted"))
    folder.with_name("by_hand").rename(folder)
    made = (folder / "policy.json").read_bytes()
    assert main([*compare, "fit.ahead=next"]) == 0
    assert (folder / "policy.json").read_bytes() == made


def test_the_policy_stays_until_there_is_another(compare, tmp_path, monkeypatch):
    folder = tmp_path / "out" / "seed-0" / "policy"
    assert main(compare) == 0
    before = (folder / "policy.json").read_bytes()

    def killed(self, stream, use):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(TrainedHost, "read_stream", killed)
        with pytest.raises(Killed):
            main([*compare, "fit.passages=4"])
    assert (folder / "policy.json").read_bytes() == before
    (folder / "policy.json").write_text("{")
    assert main(compare) == 2
    assert (folder / "policy.json").read_text() == "{"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["trained=[learned]"], "leave it out of trained"),
        (["native.strategies=[learned]", "baseline=learned"], "do not make it the baseline"),
        (["strategies.learned.policy.folder=nowhere"], "policy 'nowhere' not found"),
        (
            ["lm.passage=64"],
            "no policy can be fitted with passages of 64 tokens: length=64 is too short for capacity=24",
        ),
        (["lm.sinks=4", "lm.recent=20"], "capacity=24 leaves nothing to choose: the guards keep 24 slots"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_trained(compare, refused, tmp_path, given, message):
    assert message in refused(*compare, *given)
    assert not (tmp_path / "out").exists()


def test_a_comparison_shows_what_another_one_found(compare, tmp_path, capsys):
    other = ["title=Second & last", f"out={tmp_path / 'other'}"]
    assert main([*compare, *other, f"beside={tmp_path / 'none'}"]) == 0
    capsys.readouterr()
    assert main([*compare, "title=First", f"beside={tmp_path / 'other'}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    first, second = printed.index("First"), printed.index("Second & last")
    assert first < second
    assert printed[first + 1].startswith("  On bits per byte, ")
    assert printed[-1] == f"  report: {tmp_path / 'other' / 'report.html'}"
    assert '<a href="../other/report.html">Second &amp; last</a>' in (tmp_path / "out" / "report.html").read_text()
