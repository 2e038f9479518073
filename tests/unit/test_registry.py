"""Variants are found by listing, described without being imported, and named nearly when misspelt."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from vqmem import registry
from vqmem.cli import main
from vqmem.recipes.engine.config import from_dict
from vqmem.registry import KINDS, ROOT, UnknownNameError, build, check_variants, describe, load, names


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_the_folder_is_a_variant(kind):
    spec = KINDS[kind]
    entries = sorted((ROOT / spec.folder).iterdir())
    if spec.leaf:
        found = [path.name for path in entries if (path / f"{spec.leaf}.py").is_file()]
    else:
        found = [path.stem for path in entries if path.suffix == ".py" and path.stem != "base"]
    assert names(kind) == [name for name in found if not name.startswith("_")]
    for name in names(kind):
        loaded = load(kind, name)
        variant = loaded.Config if kind == "recipes" else loaded
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
    for spec, message in [
        ("fiffo", "unknown policy 'fiffo'; did you mean fifo?"),
        ({"name": "random", "sed": 3}, "unknown key 'random.sed'; did you mean random.seed?"),
        ({"name": "random", "seed": "x"}, "random.seed = 'x' is not an integer"),
        ({"seed": 3}, "has no name; add `name: ...`"),
    ]:
        with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
            build("policies", spec)
        assert message in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"unknown kind 'policy'; did you mean policies\?"):
        names("policy")


def test_variants_of_a_config_are_checked_with_their_dotted_keys():
    """Not where a config is loaded: a run can be used where the package of its data is missing."""
    schema = load("recipes", "asr").Config
    for values, message in [
        ({"data": "gone"}, "unknown data source 'gone'; "),
        (
            {"data": {"name": "spoken_text", "text": {"name": "text_files", "pth": "x"}}},
            "unknown key 'data.text.pth'; ",
        ),
        ({"recogniser": {"name": "ctc", "filters": 9000}}, "recogniser.filters = 9000.0 Hz must be above 60"),
    ]:
        config = from_dict(schema, values)
        with pytest.raises(ValueError, match=rf"\A{message}"):
            check_variants(config)
    check_variants(schema())


def test_the_root_is_the_package():
    assert Path(ROOT, "registry.py").samefile(registry.__file__)


# --- what is broken, or stands in another's place -------------------------------------------------------------------

BROKEN = {
    "syntax": ('"""Mine."""\nclass Policy(:\n', "invalid syntax (line 2)", "SyntaxError"),
    "unfinished": ('"""Mine.', "unterminated triple-quoted string literal", "unterminated"),
    "bytes": ("\0\0", "null bytes", "null bytes"),
    "no_class": ('"""Mine."""\nlimit = 3\n', "it defines no Policy", "has no attribute 'Policy'"),
    "no_dataclass": (
        '"""Mine."""\nclass Policy:\n    pass\n',
        "its Policy is not a dataclass",
        "its Policy is not a dataclass",
    ),
    "imports": ('"""Mine."""\nimport not_installed_here\nPolicy = 3\n', "", "No module named 'not_installed_here'"),
    "raises": ('"""Mine."""\nraise RuntimeError("no GPU\\nat all")\nPolicy = 3\n', "", "RuntimeError: no GPU at all"),
    "exits": ('"""Mine."""\nraise SystemExit(3)\nPolicy = 3\n', "", "SystemExit: 3"),
}


@pytest.fixture
def folder_of_policies(tmp_path, monkeypatch) -> Path:
    """A folder that stands in for that of the policies."""
    folder = tmp_path / "memory" / "policies"
    folder.mkdir(parents=True)
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.import_module("vqmem.memory.policies"), "__path__", [str(folder)])
    (folder / "sound.py").write_text(
        '"""Sound."""\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Policy:\n    size: int = 1\n'
    )
    return folder


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_leaves_the_others_usable(folder_of_policies, capsys, kind):
    source, message, used = BROKEN[kind]
    path = folder_of_policies / f"broken_{kind}.py"
    path.write_text(source)
    assert main(["list", "policies"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() == {"sound", f"broken_{kind}"}
    assert lines["sound"] == "Sound."
    assert lines[f"broken_{kind}"] == "Mine." if not message else message in lines[f"broken_{kind}"]
    assert (str(path) in lines[f"broken_{kind}"]) == bool(message)
    assert main(["list", "policies", f"broken_{kind}"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert error.startswith(f"vqmem: policy 'broken_{kind}' is broken: {path}: ")
    assert used in error or (message and message in error)
    assert load("policies", "sound")().size == 1


def test_a_file_without_a_docstring_is_listed(folder_of_policies, capsys):
    (folder_of_policies / "sound.py").write_text((folder_of_policies / "sound.py").read_text().split("\n", 1)[1])
    assert main(["list", "policies"]) == 0
    assert "(no docstring in " in capsys.readouterr().out
    assert main(["list", "policies", "sound"]) == 0


def test_a_broken_recipe_leaves_the_other_commands_usable(tmp_path, monkeypatch, capsys):
    (tmp_path / "recipes" / "mine").mkdir(parents=True)
    (tmp_path / "recipes" / "mine" / "__init__.py").write_text("")
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    assert main(["list", "recipes"]) == 0
    assert "mine" not in capsys.readouterr().out  # a folder without recipe.py is not a recipe
    (tmp_path / "recipes" / "mine" / "recipe.py").write_text("def")
    assert main([]) == 0
    assert "broken: " in capsys.readouterr().out
    assert main(["mine", "config"]) == 2
    assert capsys.readouterr().err.startswith("vqmem: recipe 'mine' is broken: ")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with one entry point, as far as Python can tell."""
    registry._entry_points.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)

    def install(package: str, kind: str, name: str, value: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[vqmem.{kind}]\n{name} = {value}\n")

    yield install
    registry._entry_points.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_point_replaces_what_is_built_in(installed, capsys, kind):
    name = names(kind)[0]
    before = load(kind, name)
    registry._entry_points.cache_clear()
    installed("evil", kind, name, "json:JSONDecoder")
    assert load(kind, name) is before
    assert describe(kind, name) != "from the package json:JSONDecoder"
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{name!r} of the package evil is ignored, as vqmem itself has one of that name" in message


def test_of_two_entry_points_of_one_name_the_second_is_named(installed, capsys):
    value = "vqmem.memory.policies.fifo:Policy"
    installed("one", "policies", "mine", value)
    installed("two", "policies", "mine", "vqmem.memory.policies.lru:Policy")
    assert load("policies", "mine") is load("policies", "fifo")
    message = capsys.readouterr().err
    assert message == (
        "vqmem: the policy 'mine' of the package two is ignored, as the package one has one of that name; "
        "rename its entry point\n"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("not_installed_here:Policy", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("json:Policy", "AttributeError: module 'json' has no attribute 'Policy'"),
        ("json:JSONDecoder", "its Policy is not a dataclass"),
        ("json:dumps", "its Policy is not a dataclass"),
    ],
)
def test_an_entry_point_that_is_broken(installed, capsys, value, message):
    installed("theirs", "policies", "mine", value)
    assert main(["list", "policies"]) == 0
    assert f"mine         from the package {value}" in capsys.readouterr().out
    assert main(["list", "policies", "mine"]) == 2
    assert capsys.readouterr().err == f"vqmem: policy 'mine' is broken: {value} of the package theirs: {message}\n"


def test_no_recipe_replaces_a_command(installed, capsys):
    installed("evil", "recipes", "list", "vqmem.recipes.tts.recipe")
    assert main(["list", "policies"]) == 0
    out, message = capsys.readouterr()
    assert "fifo" in out
    assert message == "vqmem: the recipe 'list' is ignored, as that is the name of a command; rename it\n"
