"""Models with forget gates in the commands: trained, compared, with a fitted policy, and generating."""

from __future__ import annotations

import json

import yaml
from vqmem.cli import main

STRATEGIES = {
    "transformer_xl": {"policy": "fifo"},
    "forget_gate": {"policy": "forget_gate"},
    "learned": {"policy": {"name": "weighted", "learned": 1.0, "folder": "{run}/policy", "score": 0.0}},
}


def comparison(config_file, tmp_path, gates: bool) -> list[str]:
    """The arguments of a tiny comparison; 96 tokens are the fewest that can be fitted on."""
    lm = yaml.safe_load(config_file.read_text())
    for key in ("strategies", "capacities", "eval_passages"):
        del lm[key]
    config = {
        "out": str(tmp_path / "out"),
        "strategies": STRATEGIES,
        "capacities": [24, 96],
        "passages": 3,
        "seeds": [0],
        "shown": 40,
        "fit": {"passages": 3, "stream_passages": 2},
        "lm": {**lm, "passage": 96, "shape": {**lm["shape"], "forget_gate": gates}},
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(config))
    return ["compare", str(tmp_path / "compare.yaml")]


def test_a_comparison_trains_fits_and_measures_models_with_gates(config_file, tmp_path, capsys):
    assert main(comparison(config_file, tmp_path, gates=True)) == 0
    out = tmp_path / "out"
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert {(row["strategy"], row["capacity"]) for row in rows} == {
        ("transformer_xl", 24),
        ("transformer_xl", 96),
        ("forget_gate", 24),
        ("learned", 24),
    }
    assert (out / "seed-0" / "policy").is_dir()
    capsys.readouterr()
    command = ["generate", str(out / "seed-0"), "--prompt", "Call me " * 20, "--tokens", "9"]
    assert main([*command, "--strategy", "forget_gate"]) == 0
    assert capsys.readouterr().out.startswith("Call me")


def test_a_comparison_without_gates_refuses_the_policy_in_one_line(config_file, tmp_path, capsys):
    assert main(comparison(config_file, tmp_path, gates=False)) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "strategy 'forget_gate': policy forget_gate reads the decay of forget gates; give the model some with" in err
    assert not (tmp_path / "out").exists()
