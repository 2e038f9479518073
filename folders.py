"""Explain what kind of folder was given in place of another. ``RUN_IS`` of a recipe says what its runs are for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import yaml

from . import registry
from .artifacts import CONFIG, FRONT_END
from .files import missing_file

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".mp4", ".aac", ".webm", ".wma"),
)
"""Endings of the names of recordings."""

_PARTS = ("front_end", "scorer", "model")
"""A run has at least one of these folders, even the packaged models, which have no ``config.yaml``."""


@contextlib.contextmanager
def loading(folder: Path, wanted: str, *recipes: str) -> Generator[None]:
    """Wrap the loading of ``wanted`` ("voice") from ``folder``, a run of one of the ``recipes``.

    If loading raises ``ValueError`` and the folder is something else, the error says what the folder is and which
    command uses it. If there is no folder, the error names the command that makes one.
    """
    try:
        yield
    except ValueError as error:
        found = _recipe_of(folder)
        if found in recipes and not (folder / "evaluation.json").is_file():
            hint = "perhaps the run is not finished: its command, given again, goes on with it"
            raise ValueError(f"{error}; {hint}") from error
        if found in recipes or (found is None and any((folder / part).is_dir() for part in _PARTS)):
            raise
        if not folder.exists():
            raise missing_file(wanted, folder, otherwise=_maker(folder, recipes[0])) from error
        article = "an" if wanted.startswith(tuple("aeiou")) else "a"
        raise ValueError(f"{str(folder)!r} is not {article} {wanted}, but {_what_is(folder, found)}") from error


def refuse_other_run(folder: Path, recipe: str) -> None:
    """Raise ``ValueError`` if ``folder`` contains a run of another recipe. One that has only a config is not a run."""
    if _keys(folder) == _known_keys(recipe):  # as a rule; else all recipes are imported to recognise the run
        return
    found = _recipe_of(folder)
    if found not in (None, recipe) and any(file.name != "config.yaml" for file in folder.iterdir()):
        raise ValueError(f"{str(folder)!r} is {_what_is(folder, found)}; use another out")


def _recipe_of(folder: Path) -> str | None:
    """The recipe whose keys are most like those of the folder's ``config.yaml``; None if none is similar."""
    if not (keys := _keys(folder)):
        return None
    unlike: dict[str, int] = {}
    for name in registry.names("recipes"):
        with contextlib.suppress(ValueError):  # of a broken recipe
            known = _known_keys(name)
            if len(keys ^ known) < len(keys & known):
                unlike[name] = len(keys ^ known)
    return min(unlike, key=lambda name: unlike[name], default=None)


def _keys(folder: Path) -> set[Any]:
    """The keys of the folder's ``config.yaml``; empty if there is none or it cannot be read."""
    try:
        return set(yaml.safe_load((folder / "config.yaml").read_bytes()))
    except (OSError, TypeError, yaml.YAMLError):
        return set()


def _known_keys(recipe: str) -> set[str]:
    return {field.name for field in dataclasses.fields(registry.load("recipes", recipe).Config)}


def _what_is(path: Path, recipe: str | None) -> str:
    if recipe is not None:
        description = getattr(registry.load("recipes", recipe), "RUN_IS", f"a run of `vqmem {recipe}`")
        return description.format(folder=shlex.quote(str(path)))
    if path.is_file():
        return "a file; give a folder"
    if (path / FRONT_END).is_file():
        return f"the front-end of a run; give the folder of the run, {path.parent}"
    about = _json(path / CONFIG)
    if isinstance(about.get("kind"), str):
        return f"a part of a run, of kind {about['kind']!r}; give the folder of the run, {path.parent}"
    if "model_type" in about or "architectures" in about or (path / "tokenizer_config.json").is_file():
        return "a model or tokenizer of transformers"
    files = [file for file in sorted(path.iterdir()) if file.name[0] != "."]
    for what, suffixes in (("recordings", AUDIO_SUFFIXES), ("texts", (".txt",))):
        if any(file.suffix.lower() in suffixes for file in files):
            return f"a folder of {what}: data to train on (data.path={path})"
    return f"a folder with {', '.join(file.name for file in files[:8])}" if files else "an empty folder"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _maker(folder: Path, recipe: str) -> str:
    """The command that makes ``folder``, or one like it."""
    configs = sorted((registry.ROOT / "recipes" / recipe / "configs").glob("*.yaml"))
    for config in configs:
        if yaml.safe_load(config.read_bytes())["out"] == str(folder):
            return f"`vqmem {recipe} {config.stem}` makes it{_cost(config)}"
    demo = next((config for config in configs if config.stem == "demo"), None)
    example, cost = ("CONFIG", "") if demo is None else ("demo", _cost(demo))
    return f"`vqmem {recipe} {example} out={folder}` makes it{cost}; `vqmem {recipe} --help` names its configs"


def _cost(config: Path) -> str:
    """How long a shipped config takes and what it needs: the brackets at the end of its first line."""
    found = re.search(r" \(.+\)$", config.read_text(encoding="utf-8").split("\n", 1)[0])
    return found[0] if found else ""
