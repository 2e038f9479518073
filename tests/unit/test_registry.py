"""Variants are found by listing, described without being imported, and named nearly when misspelt."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from vqmem import registry
from vqmem.registry import KINDS, ROOT, UnknownNameError, build, describe, load, names


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_the_folder_is_a_variant(kind):
    spec = KINDS[kind]
    entries = sorted((ROOT / spec.folder).iterdir())
    if spec.packages:
        found = [path.name for path in entries if (path / "recipe.py").is_file()]
    else:
        found = [path.stem for path in entries if path.suffix == ".py" and path.stem != "base"]
    assert names(kind) == [name for name in found if not name.startswith("_")]
    for name in names(kind):
        loaded = load(kind, name)
        variant = loaded.Config if spec.packages else loaded
        assert dataclasses.is_dataclass(variant)
        assert describe(kind, name).endswith((".", ")"))


def test_describing_imports_nothing():
    script = (
        "import sys; from vqmem.registry import *; [describe(k, n) for k in KINDS for n in names(k)]; "
        "print([m for m in sys.modules if m == 'torch' or m.startswith('vqmem.') and m.count('.') > 1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_a_new_file_is_a_new_policy_and_nothing_else_is_edited(tmp_path, monkeypatch):
    folder = tmp_path / "memory" / "policies"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text('"""Keep what I like."""\n')
    (folder / "_helper.py").write_text("")
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    assert names("policies") == ["mine"]
    assert describe("policies", "mine") == "Keep what I like."


def test_packages_outside_register_by_entry_point(monkeypatch, request):
    registry._entry_points.cache_clear()
    request.addfinalizer(registry._entry_points.cache_clear)
    point = importlib.metadata.EntryPoint("outside", "vqmem.memory.policies.fifo:Policy", "vqmem.policies")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    assert "outside" in names("policies")
    assert load("policies", "outside") is load("policies", "fifo")
    assert "vqmem.memory.policies.fifo" in describe("policies", "outside")
    assert build("policies", "outside") == build("policies", "fifo")


def test_fields_are_checked():
    assert build("policies", {"name": "random", "seed": 3}).seed == 3
    for spec, told in [
        ("fiffo", "unknown policy 'fiffo'; did you mean fifo?"),
        ({"name": "random", "sed": 3}, "unknown key 'random.sed'; did you mean random.seed?"),
        ({"name": "random", "seed": "x"}, "random.seed = 'x' is not a whole number"),
        ({"seed": 3}, "has no name; add `name: ...`"),
    ]:
        with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
            build("policies", spec)
        assert told in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"unknown kind 'policy'; did you mean policies\?"):
        names("policy")


def test_the_root_is_the_package():
    assert Path(ROOT, "registry.py").samefile(registry.__file__)
