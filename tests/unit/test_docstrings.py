"""Docstrings: a public function of four parameters or more describes each of them, and what it returns or yields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "data", "memory", "models", "recipes", "tokenizers_")
ARGS = re.compile(r"^Args:\n((?:(?: .*)?\n?)+)", re.MULTILINE)
RESULT = re.compile(r"^(?:Returns|Yields):\n +\S", re.MULTILINE)


def sources() -> dict[str, str]:
    paths = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def public(node: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.ClassDef | None, ast.FunctionDef]]:
    """The public functions and methods, each with its class."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child)
        elif isinstance(child, ast.FunctionDef) and (child.name == "__init__" or not child.name.startswith("_")):
            yield node if isinstance(node, ast.ClassDef) else None, child


def wrong(files: dict[str, str]) -> set[str]:
    """The places of functions whose docstring is not right; an override may leave ``Args:`` to its base or protocol."""
    found, documented = {}, set()
    for name, source in files.items():
        for owner, function in public(ast.parse(source)):
            spec = function.args
            named = {arg.arg for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)} - {"self", "cls"}
            every = named | {arg.arg for arg in (spec.vararg, spec.kwarg) if arg}
            texts = [ast.get_docstring(node) or "" for node in (function, owner) if node is not None]
            block = ARGS.search(texts[-1] if function.name == "__init__" and not texts[0] else texts[0])
            described = {*re.findall(r"^ {4}\**(\w+)(?: \(.*\))?: \S", block[1], re.MULTILINE)} if block else set()
            kinds = {owner.name, *map(ast.unparse, owner.bases)} if owner else set()
            keys = {(kind, function.name, *sorted(every)) for kind in kinds}
            returns = function.returns is not None and ast.unparse(function.returns) not in ("None", "NoReturn")
            silent = returns and len(named) >= 4 and not RESULT.search(texts[0])
            if block and described == every and not silent:
                documented |= keys
            elif block or len(named) >= 4:
                found[f"{name}:{function.lineno} {function.name}"] = (keys, block)
    return {place for place, (keys, block) in found.items() if block or not keys & documented}


def test_public_functions_describe_their_parameters_and_results():
    assert not wrong(sources())


def test_what_the_check_finds():
    head = "def f(a, b, c, *, d, **more) -> int:\n"
    args = "    Args:\n" + "".join(f"        {x}: It.\n" for x in "abcd")
    right = head + f'    """Do.\n\n{args}        more: It.\n\n    Returns:\n        x: y.\n    """'
    files = {
        "none.py": head + '    """Do."""',
        "short.py": head + f'    """Do.\n\n{args}    """',
        "extra.py": right.replace("more: It.", "more: It.\n        z: It."),
        "silent.py": right.replace("Returns", "Result"),
        "right.py": right,
        "yields.py": right.replace("Returns", "Yields"),
        "nothing.py": right.replace("Returns", "Result").replace("int", "None"),
        "private.py": right.replace("def f", "def _f").replace("Args", "Arguments"),
        "base.py": "class Base:\n" + indent(right, "    "),
        "override.py": f'class Other(Base):\n    {head}        """Do it fast."""',
        "new.py": f'class Other:\n    {head}        """Do it fast."""',
    }
    found = {place.split(":")[0] for place in wrong(files)}
    assert found == {"none.py", "short.py", "extra.py", "silent.py", "new.py"}
