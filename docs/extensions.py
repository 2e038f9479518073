"""What the pages need of Sphinx: the block ``{variants} KIND``, and links to anchors that are written in HTML.

The block becomes a table of all variants of a kind and a section for each, from the code.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from vqmem import registry

_PAPER = re.compile(r"arXiv:(\d{4}\.\d{5})")
_VARIANTS = re.compile(r"(?m)^```\{variants\} (\S+)\n```$")
_ANCHOR = re.compile(r'<a id="([^"]+)"')
_NEEDS = {
    "scores": "a scorer: 1 to 4 % of a prompt's time",
    "usage": "attention weights, which fused attention does not give",
    "norms": "norms of keys, which cost nothing",
    "layers": "queries and keys of the layers",
    "signals": "signals of attention",
    "decay": "a model with forget gates",
    "future": "the whole text beforehand",
}


def _fill_in(app: Any, page: str, source: list[str]) -> None:
    source[0] = _VARIANTS.sub(lambda found: markdown(found[1]), source[0])


def markdown(kind: str) -> str:
    """The table of a kind and the sections below it."""
    has_needs = kind == "policies"
    lines = [f"| name | what it does |{' what it needs and costs | paper |' if has_needs else ''}"]
    lines.append(f"| --- | --- |{' --- | --- |' if has_needs else ''}")
    sections = []
    for name in registry.names(kind):
        doc = class_docstring(kind, name)
        row = f"| [`{name}`](#{name.replace('_', '-')}) | {registry.describe(kind, name)} |"
        lines.append(row + (f" {needs(name)} | {paper(name, doc)} |" if has_needs else ""))
        sections.append(f"## {name}\n\n{_linked(doc)}\n\n{keys(kind, name)}")
    return "\n".join([*lines, "", *sections])


def class_docstring(kind: str, name: str) -> str:
    """The docstring of the class that a variant defines, which has its formula and its source."""
    spec = registry.KINDS[kind]
    tree = ast.parse((registry.ROOT / spec.folder / f"{name}.py").read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == spec.symbol)
    return (ast.get_docstring(node) or "").split("\n\nArgs:")[0]


def needs(policy: str) -> str:
    """What a policy needs beside the positions of the slots, with its defaults."""
    needed = registry.build("policies", {"name": policy}).requires
    return "; ".join(_NEEDS[one] for one in needed) or "nothing"


def paper(policy: str, doc: str) -> str:
    """A link to the first paper that the docstring of a policy names, or whose idea it is."""
    if found := _PAPER.search(doc):
        return f"[{found[1]}](https://arxiv.org/abs/{found[1]})"
    return "ours" if "(ours)" in registry.describe("policies", policy) else ""


def keys(kind: str, name: str) -> str:
    """The keys of a variant with their types, defaults and what they mean."""
    from vqmem.recipes.engine.config_help import json_schema
    from vqmem.recipes.engine.config_help import keys as described

    rows = [
        f"| `{key.name}` | {key.type} | `{key.default}` | {' '.join(key.doc.split())} |".replace("``", "")
        for key in described(json_schema(registry.load(kind, name)))
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]) if rows else ""


def _linked(doc: str) -> str:
    return _PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", doc.replace("``", "`"))


def _find_anchors(app: Any, doctree: nodes.document) -> None:
    """Let links lead to ``<a id="name">``, which is what the pages have on GitHub."""
    names = {name for node in doctree.findall(nodes.raw) for name in _ANCHOR.findall(node.astext())}
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    slugs.update({name: (0, name, name) for name in names})
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node["reftarget"] in names:
            node.replace_self(nodes.reference("", "", *node.children, refid=node["reftarget"]))


def setup(app: Any) -> dict[str, bool]:
    """Register both with Sphinx."""
    app.connect("source-read", _fill_in)
    app.connect("doctree-read", _find_anchors)
    return {"parallel_read_safe": True}
