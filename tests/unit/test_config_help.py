"""Help and JSON schemas: current, complete, and there before anything heavy is imported."""

import json
import subprocess
import sys

import pytest
import yaml
from vqmem.cli import main
from vqmem.cli_base import Parser
from vqmem.recipes.engine.config_help import FILE, json_schema, keys, recipe_schema
from vqmem.recipes.engine.recipe_command import recipe_command
from vqmem.registry import ROOT, load, names

RECIPES = names("recipes")
CONFIGS = sorted((ROOT / "recipes").glob("*/configs/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_schema_beside_a_recipe_is_that_of_its_config(recipe):
    written = json.loads((ROOT / "recipes" / recipe / FILE).read_text(encoding="utf-8"))
    assert written == json_schema(load("recipes", recipe).Config), "run `python -m vqmem.recipes.engine.config_help`"
    assert all(key.doc and key.type for key in keys(written))


def unknown(values: dict, schema: dict) -> list[str]:
    """Dotted keys that the schema does not allow."""
    found = []
    for name, value in values.items():
        about = schema["properties"].get(name)
        if about is None:
            found.append(name)
        elif "properties" in about:
            found += [f"{name}.{below}" for below in unknown(value, about)]
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_shipped_configs_fit_the_schema_that_they_name(path):
    line = next(line for line in path.read_text(encoding="utf-8").splitlines() if "yaml-language-server" in line)
    schema = json.loads((path.parent / line.partition("$schema=")[2]).read_text(encoding="utf-8"))
    assert not unknown(yaml.safe_load(path.read_bytes()), schema)
    assert unknown({"sed": 1}, schema) == ["sed"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_prints_the_path_of_its_schema(recipe, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([recipe, "--schema"])
    assert capsys.readouterr().out == f"{ROOT / 'recipes' / recipe / FILE}\n"


def test_a_recipe_without_a_schema_has_no_path_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("vqmem.recipes.engine.config_help.ROOT", tmp_path)
    parser = Parser("vqmem fit_units", "", "")
    recipe_command("fit_units").arguments(parser)
    with pytest.raises(ValueError, match="unrecognized arguments: --schema"):
        parser.read(["demo", "--schema"])


def test_a_recipe_without_a_schema_is_explained_by_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr("vqmem.recipes.engine.config_help.ROOT", tmp_path)
    assert recipe_schema("fit_units") == json_schema(load("recipes", "fit_units").Config)


@pytest.mark.parametrize("recipe", ["", *RECIPES])
def test_help_imports_nothing_heavy(recipe):
    code = (
        "import contextlib, sys\nfrom vqmem.cli import main\nwith contextlib.suppress(SystemExit):\n"
        f"    main({[*([recipe] if recipe else []), '--help']})\n"
        "sys.exit(bool({'torch', 'numpy', 'omegaconf', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "keys, with their defaults" in done.stdout if recipe else "commands:" in done.stdout
