"""The layers of the package: no file imports one above it, and neither files nor folders import in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {"recipes": 4, "models": 3, "memory": 2, "tokenizers_": 1, "data": 1}
"""Higher ones may import lower ones. The files of the root are the lowest, but for the ways in, the highest."""
TOP = {"__init__.py", "__main__.py", "cli.py"}


def sources(root: Path) -> dict[str, str]:
    """Each file of the package by its path from ``root``."""
    files = [*root.glob("*.py"), *(path for layer in LAYERS for path in (root / layer).rglob("*.py"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}


def imports(files: dict[str, str]) -> set[tuple[str, str]]:
    """Pairs of a file and one that it imports. Inside the package imports are relative."""
    pairs = set()
    for name, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = Path(name).parents[node.level - 1] / (node.module or "").replace(".", "/")
                pairs |= {(name, target) for alias in node.names if (target := _file(base, alias.name, files)) != name}
    return pairs


def _file(base: Path, name: str, files: Iterable[str]) -> str:
    candidates = (base / f"{name}.py", base / name / "__init__.py", Path(f"{base}.py"), base / "__init__.py")
    return next(path.as_posix() for path in candidates if path.as_posix() in files)


def upwards(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(one, other) for one, other in pairs if _layer(other) > _layer(one)}


def _layer(name: str) -> int:
    return 5 if name in TOP else LAYERS.get(name.split("/")[0], 0)


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for one, other in pairs:
        graph.setdefault(one, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def folders(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The same between folders; the files of the root serve and use all others."""
    parents = {(Path(one).parent.as_posix(), Path(other).parent.as_posix()) for one, other in pairs}
    return {(one, other) for one, other in parents if one != other and "." not in (one, other)}


def test_no_file_imports_from_a_higher_layer():
    assert not upwards(imports(sources(ROOT)))


def test_there_is_no_circle_of_files_or_of_folders():
    pairs = imports(sources(ROOT))
    assert len(pairs) > 300
    assert not circle(pairs)
    assert not circle(folders(pairs))


@pytest.mark.parametrize("lazily", [True, False])
def test_what_the_rules_find(lazily):
    line = "from ..{}.b import x"
    source = f"def f():\n    {line}" if lazily else line
    files = {"memory/a.py": source.format("models"), "models/b.py": source.format("data"), "data/b.py": "x = 1"}
    files["data/a.py"] = "from . import c"
    files["data/c.py"] = "from .a import x"
    pairs = imports(files)
    assert upwards(pairs) == {("memory/a.py", "models/b.py")}
    assert {*circle(pairs)} == {"data/a.py", "data/c.py"}
    assert not circle(folders(pairs))
    assert circle(folders(pairs | {("data/b.py", "memory/a.py")}))


def test_recipes_contains_folders_alone():
    assert not list((ROOT / "recipes").glob("*.py"))
