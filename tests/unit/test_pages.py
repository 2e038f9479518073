"""The pages link to what exists, teach public imports that work, and name commands and configs that are there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from vqmem import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*/README.md")]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    headings = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"(?m)^#+ (.*)$", text)]
    return {*headings, *re.findall(r'<a id="([^"]+)"', text)}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@every_page
def test_python_imports_are_public_and_work(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vqmem"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("_")], f"private: {node.module}"
                if "kvpress" not in node.module:  # an extra that is not always installed
                    module = importlib.import_module(node.module)
                    assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@every_page
def test_commands_name_recipes_and_configs_that_are_there(page: Path) -> None:
    recipes = {name.replace("_", "-"): name for name in registry.names("recipes")}
    recipes |= {name: name for name in recipes.values()}
    for command, config in re.findall(r"(?m)^vqmem ([\w-]+) (\w+)(?=\s|$)", "\n".join(blocks(page, ""))):
        if command in recipes:
            assert (ROOT / "recipes" / recipes[command] / "configs" / f"{config}.yaml").is_file(), f"{command} {config}"


def test_every_recipe_has_a_page_that_the_list_links_to() -> None:
    listed = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in [*registry.names("recipes"), "fit_policy", "explore", "score_corpus"]:
        assert f"(../recipes/{name}/README.md)" in listed


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_a_decision_is_a_heading_and_three_sentences() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    for decision in re.split(r"(?m)^#+ ", text)[1:]:
        heading, _, body = decision.partition("\n")
        assert len(re.findall(r"[.?!)](?=\s|$)", re.sub(r"\([^)]*\)|\[[^]]*\]", "", body))) <= 3, heading
