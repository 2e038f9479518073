"""The command of a recipe: `vqmem RECIPE CONFIG key=value ...`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from ... import registry
from ...cli_base import Command, file_name
from ...console import visible
from .config_help import explain, recipe_schema, schema_path


def recipe_command(name: str) -> Command:
    """Build the command that runs the recipe ``name``."""
    shipped = sorted(path.stem for path in _configs(name).glob("*.yaml"))

    def arguments(parser: argparse.ArgumentParser) -> None:
        given = f"a YAML file, or the name of a shipped one: {', '.join(shipped)}"
        parser.add_argument("config", type=file_name, metavar="CONFIG", help=given)
        changes = "changes to it, such as train.steps=100"
        parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=changes)
        parser.add_argument("--print-config", action="store_true", help="print the resolved config and do nothing")
        if (path := schema_path(name)).is_file():
            about = "print the path of the JSON schema of the keys, for editors"
            parser.add_argument("--schema", action="version", version=str(path), help=about)

    def run(args: argparse.Namespace) -> None:
        _run_recipe(name, args)

    example = shipped[0] if shipped else "my.yaml"
    epilog = f"""\
examples:
  vqmem {name} {example}
  vqmem {name} {example} out=runs/mine --print-config
The same command continues an interrupted run where it stopped."""

    def more() -> str:
        return f"\n\nkeys, with their defaults and types:\n{explain(recipe_schema(name))}"

    return Command(registry.describe("recipes", name), arguments, run, epilog, more, {"config": shipped})


def _run_recipe(name: str, args: argparse.Namespace) -> None:
    recipe = registry.load("recipes", name)
    from .config import load

    config_name = args.config
    if config_name in getattr(recipe, "ELSEWHERE", {}):
        name, config_name = recipe.ELSEWHERE[config_name]
        recipe = registry.load("recipes", name)
    config = load(recipe.Config, config_name, args.overrides, folder=_configs(name))
    run_config(recipe, config, print_only=args.print_config)


def run_config(recipe: Any, config: Any, *, print_only: bool) -> None:
    """Run a recipe and print its summary, or only print the config. The variants of the config are checked first.

    Raises `ValueError` for a part of the run that failed, after the summary of the rest is printed.
    """
    from ...folders import refuse_other_run
    from .config import dump, refuse_placeholders

    registry.check_variants(config)
    main = os.environ.get("RANK", "0") == "0"  # only the first of several processes prints
    if print_only:
        print(dump(config) if main else "", end="")
        return
    if not getattr(recipe, "LEAVES_OUT", False):
        refuse_placeholders(config)
    refuse_other_run(Path(config.out), recipe.__package__.rpartition(".")[2])
    result = recipe.run(config)
    if main:
        _report(recipe, config, result)


def _report(recipe: Any, config: Any, result: Any) -> None:
    """Print the result as the recipe's ``summary.py`` formats it, if it has one."""
    module = f"{recipe.__package__}.summary"
    if importlib.util.find_spec(module) is None:
        print(visible(f"done; see {getattr(config, 'out', '.')}"))
        return
    summary = importlib.import_module(module)
    print(visible(summary.format_summary(config, result)))
    if hasattr(summary, "what_failed") and (failed := summary.what_failed(result)):
        raise ValueError(failed)


def _configs(name: str) -> Path:
    return registry.ROOT / "recipes" / name / "configs"
