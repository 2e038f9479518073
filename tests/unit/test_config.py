"""Configs: what merges over what, and one clear line for everything that is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vqmem.models.device import resolve_device
from vqmem.recipes.engine.config import as_dict, autocast, digest, dump, from_dict, load, resolve_dtype
from vqmem.registry import UnknownNameError, build, names
from vqmem.registry import load as load_variant
from vqmem.schema import NonNegativeInt, PositiveFloat, PositiveInt, ShareBelowOne, Validated


@dataclass(frozen=True, slots=True)
class Train:
    steps: int = 10
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    parallel: Literal["none", "ddp"] = "none"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps} must be at least 1")


@dataclass(frozen=True)
class Schema:
    out: Path = Path("runs/x")
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "scored", "rarity": 1.0})
    front_end: str | dict[str, Any] = "bytes"
    train: Train = Train()
    width: int | None = None
    seeds: tuple[int, ...] = (1, 2)
    policies: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Needy:
    data: str
    train: Train = Train()


@dataclass(frozen=True)
class Limited(Validated):
    count: PositiveInt = 1
    most: NonNegativeInt | None = None
    rate: PositiveFloat = 1.0
    dropout: ShareBelowOne = 0.0
    sizes: tuple[PositiveInt, ...] = ()
    kind: Literal["mean", "max"] = "mean"


def fails(*overrides: str, path: Path | None = None, schema: type = Schema) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:  # one line: "." is no line break
        load(schema, path, overrides)
    return str(caught.value)


def test_file_over_defaults_and_overrides_over_file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("train: {steps: 30, lr: 0.1}\nseeds: [4]\nout: runs/${train.steps}\n")
    config = load(Schema, path, ["train.steps=1e2", "train.betas=[0.5, 1]", "width=3", "train.compile=true"])
    assert config.train == Train(100, 0.1, (0.5, 1.0), compile=True)
    assert (config.seeds, config.width, config.out) == ((4,), 3, Path("runs/100.0"))
    assert load(Schema, None) == Schema()


def test_variants_stay_open():
    assert load(Schema, None, ["policy.age=2"]).policy == {"name": "scored", "rarity": 1.0, "age": 2}
    assert load(Schema, None, ["policy.name=scored"]).policy["rarity"] == 1.0
    assert load(Schema, None, ["policy.name=fifo", "policy.x=1"]).policy == {"name": "fifo", "x": 1}
    assert load(Schema, None, ["front_end.size=9"]).front_end == {"name": "bytes", "size": 9}
    assert load(Schema, None, ["front_end=bpe"]).front_end == "bpe"
    assert load(Schema, None, ["policies=[{name: a, k: 1}]"]).policies == [{"name": "a", "k": 1}]


def test_a_variant_that_is_given_in_full_starts_anew(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("policy: {name: scored, where: {a: 1, b: 2}, rarity: 3.0}\nfront_end: {name: bpe, size: 4}\n")

    def policy(*overrides: str) -> dict[str, Any]:
        return load(Schema, path, overrides).policy

    assert policy("policy={name: scored, x: 1}") == {"name": "scored", "x": 1}
    assert policy("policy={name: fifo}") == {"name": "fifo"}
    assert policy("policy={name: scored}") == {"name": "scored"}
    assert policy("policy={name: scored, x: 1}", "policy.y=2") == {"name": "scored", "x": 1, "y": 2}
    assert policy("policy.where={}")["where"] == {}
    assert policy("policy={where: {}}") == {"name": "scored", "where": {}, "rarity": 3.0}
    assert policy("policy.where.a=5")["where"] == {"a": 5, "b": 2}
    assert policy("policy={rarity: 4}") == {"name": "scored", "where": {"a": 1, "b": 2}, "rarity": 4}
    assert load(Schema, path, ["front_end={name: bpe}"]).front_end == {"name": "bpe"}
    assert load(Schema, path, ["train={}", "train={steps: 3}"]).train == Train(steps=3)
    path.write_text("policy: {where: {}}\n")
    assert policy() == {"name": "scored", "rarity": 1.0, "where": {}}
    for name, schema in RECIPES.items():
        if name not in ("compare", "cross_domain"):
            assert load(schema, None, ["data.seed=1", "data={name: builtin_text}"]).data == {"name": "builtin_text"}, (
                name
            )


def test_a_variant_in_full_below_a_key_that_is_new():
    config = load(Schema, None, ["policy.new.deep={name: scored, surprise: 1.0}", "policy.new.other=2"])
    assert config.policy["new"] == {"deep": {"name": "scored", "surprise": 1.0}, "other": 2}
    config = load(Schema, None, ["policy.deep={name: a, b: 1}", "policy.deep={name: c}"])
    assert config.policy["deep"] == {"name": "c"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stps=1", "unknown key 'train.stps'; did you mean train.steps"),
        ("trian.steps=1", "unknown key 'trian'; did you mean train"),
        ("lr=1", "unknown key 'lr'; known: train.lr"),
        ("train.steps=abc", "train.steps = 'abc' is not an integer"),
        ("train.steps=1.5", "train.steps = 1.5 is not an integer"),
        ("train.steps=.inf", "train.steps = inf is not an integer"),
        ("train.steps=true", "train.steps = True is not an integer"),
        ("train.compile=1", "train.compile = 1 is not true or false"),
        ("train.parallel=dpp", "train.parallel = 'dpp' is not one of none, ddp; did you mean ddp?"),
        ("train.betas=[1]", "train.betas = [1] is not a list of 2 values (a number, a number)"),
        ("train.steps=0", "train.steps = 0 must be at least 1"),
        ("train=3", "train = 3 is not a mapping"),
        ("width=x", "width = 'x' is not an integer or null"),
        ("seeds=[1,a]", "seeds[1] = 'a' is not an integer"),
        ("train.steps", "override 'train.steps' is not key=value"),
        ("=3", "override '=3' is not key=value"),
        ("seeds=[1", "override 'seeds=[1'"),
        ("out=${nowhere}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_bad_override_is_one_line(override, message):
    assert message in fails(override)


def test_required_key():
    assert fails(schema=Needy) == "config needs the key data (text)"
    assert load(Needy, None, ["data=x"]).data == "x"


def test_bad_files(tmp_path):
    (tmp_path / "small.yaml").write_text("a: b\n  c: d: [\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.yaml").write_text("")
    assert "did you mean" in fails(path=tmp_path / "smal.yaml")
    assert str(tmp_path / "small.yaml") in fails(path=tmp_path / "smal.yaml")
    assert "line 2, column 4" in fails(path=tmp_path / "small.yaml")
    assert "mapping of keys to values" in fails(path=tmp_path / "list.yaml")
    assert "not valid YAML" in fails(path=tmp_path / "bytes.yaml")
    assert "not found" in fails(path=tmp_path / "no" / "such.yaml")
    assert load(Schema, tmp_path / "empty.yaml") == Schema()


def test_bare_name_is_looked_up_in_the_recipes_folder(tmp_path):
    (tmp_path / "small.yaml").write_text("width: 5\n")
    assert load(Schema, "small", folder=tmp_path).width == 5
    with pytest.raises(UnknownNameError, match="unknown config 'smal'; did you mean small"):
        load(Schema, "smal", folder=tmp_path)


CONFIGS = st.builds(
    Schema,
    out=st.sampled_from([Path("a"), Path("b/c")]),
    policy=st.dictionaries(st.sampled_from("xyz"), st.integers() | st.text("abc"), max_size=3),
    train=st.builds(
        Train, steps=st.integers(1, 99), lr=st.floats(1e-6, 1.0), parallel=st.sampled_from(["none", "ddp"])
    ),
    width=st.none() | st.integers(),
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
)


@given(CONFIGS, CONFIGS)
def test_dict_round_trip_and_digest(left, right):
    assert from_dict(Schema, as_dict(left)) == left
    assert (digest(left) == digest(right)) == (left == right)


def test_dump_round_trip(tmp_path):
    path = tmp_path / "dumped.yaml"
    path.write_text(dump(Schema(width=7)))
    assert load(Schema, path) == Schema(width=7)


def test_device_and_dtype():
    cpu = resolve_device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    with autocast(cpu, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=f"device '{name}'"):
            resolve_device(name)
    with pytest.raises(UnknownNameError, match="unknown dtype 'bfloat'; did you mean bfloat16"):
        resolve_dtype("bfloat", cpu)


RECIPES = {name: load_variant("recipes", name).Config for name in names("recipes")}
OTHER_TYPES = ("1.5", "null", "[]", "{}", "x", "{name: [x]}", "{a: {b: null}}")


@pytest.mark.parametrize("name", RECIPES)
def test_values_of_another_type_are_taken_or_refused_in_one_line(name):
    """Every key of every recipe, and what its variants are made of."""
    schema = RECIPES[name]
    keys = [field.name for field in fields(schema)]
    nested = {"strategies": ["strategies.x", "strategies.x.policy", "strategies.x.compression"], "data": ["data.name"]}
    nested |= {
        "train": ["train.betas"],
        "recogniser": ["recogniser.strategies"],
        "lm": ["lm.scorer", "lm.strategies.x"],
    }
    messages = []
    for key in [*keys, *(below for top in keys for below in nested.get(top, ()))]:
        for value in OTHER_TYPES:
            try:
                config = load(schema, None, [f"{key}={value}"])
                build("data", getattr(config, "data", "builtin_text"))
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 3 * len(keys)
    assert not [line for line in messages if "\n" in line]


@pytest.mark.parametrize("value", [1.5, None, [], {}, True, [1], {"name": None}, {"name": 7}, {1: 2}])
@pytest.mark.parametrize(
    "kind", ["policies", "compressions", "scorers", "front-ends", "features", "data", "recognisers"]
)
def test_variants_of_another_type_are_refused(kind, value):
    with pytest.raises(ValueError, match=r"\A.+ has no name; add `name: ...` \(one of .+\)\Z"):
        build(kind, value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count = 0 must be at least 1"),
        ({"most": -1}, "most = -1 must be at least 0, or null"),
        ({"rate": float("nan")}, "rate = nan must be above 0"),
        ({"dropout": 1.0}, "dropout = 1.0 must be at least 0 and below 1"),
        ({"sizes": (2, 0)}, "sizes[1] = 0 must be at least 1"),
        ({"kind": "maxi"}, "kind = 'maxi' is not one of mean, max; did you mean max?"),
    ],
)
def test_a_value_outside_its_range_is_one_line(values, message):
    assert Limited(3, None, 0.5, 0.9, (1, 2), "max").sizes == (1, 2)
    for make in (lambda: Limited(**values), lambda: from_dict(Limited, values)):
        with pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z"):
            make()
