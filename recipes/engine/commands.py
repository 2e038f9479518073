"""The command `vqmem list`."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

from ... import registry
from ...cli_base import Command
from ...console import one_line, visible
from .config_help import explain, json_schema, keys


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help=f"{', '.join(registry.KINDS)}; all of them if left out")
    parser.add_argument("name", nargs="?", help="one of the kind: explain its keys too")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one object: name -> description (kind -> these, for all; key -> type, default and doc, for one)",
    )


def _list(args: argparse.Namespace) -> None:
    if args.name is not None:
        _list_keys(args)
        return
    kinds = list(registry.KINDS) if args.kind is None else [args.kind]
    found = {
        kind: {name: registry.fault(kind, name) or registry.describe(kind, name) for name in registry.names(kind)}
        for kind in kinds
    }
    if args.json:
        print(visible(json.dumps(found if args.kind is None else found[args.kind], indent=2, ensure_ascii=False)))
        return
    width = max((len(name) for names in found.values() for name in names), default=0)
    for kind, names in found.items():
        if args.kind is None:
            print(kind)
        for name, description in names.items():
            print(one_line(f"{'' if args.kind else '  '}{name:{width}}  {description}"))


def _list_keys(args: argparse.Namespace) -> None:
    variant = registry.load(args.kind, args.name)
    schema = variant.Config if args.kind == "recipes" else variant
    if not args.json:
        print(one_line(registry.describe(args.kind, args.name)))
        explained = (
            f"keys, with their defaults and types:\n{explain(json_schema(schema))}"
            if fields(schema)
            else "It has no keys."
        )
        print(f"\n{visible(explained)}")
        return
    described = {}
    for key in keys(json_schema(schema)):
        default = {"default": json.loads(key.default)} if key.default else {}
        described[key.name] = {"type": key.type, **default, "doc": key.doc}
    print(visible(json.dumps(described, indent=2, ensure_ascii=False)))


COMMANDS = {
    "list": Command(
        "list the policies, scorers, front-ends, compressions, data sources and recipes",
        _list_arguments,
        _list,
        """\
examples:
  vqmem list policies
  vqmem list policies scored
  vqmem list --json
Each is one file; docs/add-a-variant.md says how to add one.""",
        suggestions={"kind": tuple(registry.KINDS)},
    ),
}
