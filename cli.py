"""The command `vqmem`. Nothing heavy is imported before a command needs it, so that help and lists are instant."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from . import __version__, registry
from .cli_base import Command, Parser, discard_stdout, file_name, file_path, output_file, output_folder, prepare_streams
from .cli_speech import SPEAK, TRANSCRIBE, UNITS
from .console import one_line, visible

_EPILOG = """\
first steps:
  vqmem score FILE                  colour a text or a recording by how surprising it is; nothing to train first
  vqmem compare demo                train, compare six memories under one budget, write a report (minutes)
  vqmem list policies               what a memory can keep
  vqmem COMMAND --help              examples and all options of a command

VQMEM_DEBUG=1 shows the traceback behind an error."""


def main(argv: list[str] | None = None) -> int:
    """Run ``vqmem`` with ``argv`` (default: the process's own) and give the exit code.

    0 is success; 2 is a mistake of the user's, told in one line on standard error; 130 is an interruption.
    """
    if argv is None:
        prepare_streams()
        argv = sys.argv[1:]
    try:
        _dispatch(argv)
        sys.stdout.flush()  # while what is wrong with it can still be said
        return 0
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (ValueError, OSError) as error:
        if os.environ.get("VQMEM_DEBUG"):
            raise
        return _fail(_one_line(error), 2)
    except RuntimeError:  # among others, that a process of the same run is gone, which has said why
        if _is_first_to_fail():
            raise
        return 1
    finally:
        discard_stdout()


def _dispatch(argv: list[str]) -> None:
    commands = _commands()
    width = max(map(len, commands))
    overview = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in commands.items())
    parser = Parser("vqmem", "Decide what a language model's memory keeps.", f"commands:\n{overview}\n\n{_EPILOG}")
    parser.add_argument("--version", action="version", version=f"vqmem {__version__}")
    parser.add_argument("command", nargs="?", help="one of the commands below")
    parser.add_argument("arguments", nargs="*", help="those of the command")
    end = next((i for i, word in enumerate(argv, 1) if not word.startswith("-")), len(argv))
    name, words = parser.read(argv[:end]).command, argv[end:]
    if name is None:
        parser.print_help()
        return
    if (alias := name.replace("-", "_")) in commands:  # fit-units, as the others are spelt
        name = alias
    if name not in commands:
        raise registry.UnknownNameError("command", name, list(commands))
    command = commands[name]
    more = command.more() if {"-h", "--help"} & {*words} else ""
    parser = Parser(f"vqmem {name}", command.summary, command.epilog + more)
    command.arguments(parser)
    command.run(parser.read(words))


def _commands() -> dict[str, Command]:
    texts = {"list": _LIST, "score": _SCORE, "train-scorer": _TRAIN_SCORER}
    speech = {"generate": _GENERATE, "units": UNITS, "transcribe": TRANSCRIBE, "speak": SPEAK}
    recipes = {name: _recipe_command(name) for name in registry.names("recipes")}
    for name in recipes.keys() & {*texts, *speech}:
        print(f"vqmem: the recipe {name!r} is ignored, as that is the name of a command; rename it", file=sys.stderr)
        del recipes[name]
    return {**texts, **recipes, **speech}


def _fail(message: str, code: int) -> int:
    if _is_first_to_fail():
        print(f"vqmem: {one_line(message)}", file=sys.stderr)
    return code


def _is_first_to_fail() -> bool:
    """Whether no other process that ``torchrun`` started with this one has failed: one says what is wrong."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from .recipes.engine.distributed import first_to_fail

    return first_to_fail()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# --- list ----------------------------------------------------------------------------------------------------------


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help=f"{', '.join(registry.KINDS)}; all of them if left out")
    parser.add_argument("name", nargs="?", help="one of the kind: tell its keys too")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one object: name -> description (kind -> these, for all; key -> type, default and doc, for one)",
    )


def _list(asked: argparse.Namespace) -> None:
    if asked.name is not None:
        _list_keys(asked)
        return
    kinds = list(registry.KINDS) if asked.kind is None else [asked.kind]
    found = {
        kind: {name: registry.fault(kind, name) or registry.describe(kind, name) for name in registry.names(kind)}
        for kind in kinds
    }
    if asked.json:
        print(visible(json.dumps(found if asked.kind is None else found[asked.kind], indent=2, ensure_ascii=False)))
        return
    width = max(len(name) for names in found.values() for name in names)
    for kind, names in found.items():
        if asked.kind is None:
            print(kind)
        for name, description in names.items():
            print(one_line(f"{'' if asked.kind else '  '}{name:{width}}  {description}"))


def _list_keys(asked: argparse.Namespace) -> None:
    variant = registry.load(asked.kind, asked.name)
    schema = variant.Config if asked.kind == "recipes" else variant
    if not asked.json:
        print(one_line(registry.describe(asked.kind, asked.name)))
        explained = f"keys, with their defaults and types:\n{_explain(schema)}" if fields(schema) else "It has no keys."
        print(f"\n{visible(explained)}")
        return
    from .recipes.engine.config_help import keys

    told = {}
    for key in keys(schema):
        default = {"default": json.loads(key.default)} if key.default else {}
        told[key.name] = {"type": key.type, **default, "doc": key.doc}
    print(visible(json.dumps(told, indent=2, ensure_ascii=False)))


_LIST = Command(
    "name the policies, scorers, front-ends, compressions, data sources and recipes there are",
    _list_arguments,
    _list,
    """\
examples:
  vqmem list policies
  vqmem list policies scored
  vqmem list --json
Each is one file; docs/add-a-variant.md says how to add one.""",
)


# --- score ---------------------------------------------------------------------------------------------------------


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=file_name, metavar="FILE", help="a text, or - for one from standard input; or a recording"
    )
    parser.add_argument("--encoding", default="utf-8", help="of the text, as Python names it (default utf-8)")
    trained = "run of `vqmem text_lm`, train-scorer or frame_scorer (default: the packaged scorer)"
    parser.add_argument("--model", type=file_path, metavar="DIR", help=trained)
    taken = "score this tokenizer's tokens; without --model a small scorer for it is trained, once"
    parser.add_argument("--tokenizer", type=file_name, metavar="NAME_OR_DIR", help=taken)
    parser.add_argument(
        "--signal", help="what to colour by: surprise (default, where the scorer gives it), rarity or gain"
    )
    parser.add_argument("--span", metavar="START:END", help="show these seconds of a recording only")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object a token and line, instead of colours")
    page = "write a page: a text as a heat map; a recording to hear, its score above its spectrogram"
    output.add_argument("--html", type=output_file, metavar="OUT", help=page)
    output.add_argument(
        "--image",
        type=output_file,
        metavar="OUT",
        help="write that picture of a recording, as SVG; for both, - is standard output",
    )


def _score(asked: argparse.Namespace) -> None:
    from .recipes.scoring.render_text import show

    given = (asked.file, asked.encoding, asked.model, asked.signal, asked.device)
    written = {"as_json": asked.json, "html": asked.html, "image": asked.image}
    show(*given, tokenizer=asked.tokenizer, span=asked.span, **written)


_SCORE = Command(
    "score every token of a text or unit of a recording: how surprising, how rare, how much the context told",
    _score_arguments,
    _score,
    """\
examples:
  vqmem score book.txt | less -R
  vqmem score book.txt --signal gain --html book.html
  vqmem score book.txt --tokenizer HuggingFaceTB/SmolLM2-135M
  cat book.txt | vqmem score - --json | head
  vqmem score clip.flac --html clip.html
  vqmem score talk.mp3 --span 60:90 --signal gain --image talk.svg
An object of --json has the keys text, start, end (characters; a byte order mark is dropped and does not count), score
(the surprise), rarity, gain (nats) and code. For a recording it has unit instead of text (frame, its number, where the
run scores frames) and start and end in seconds. Recordings are told by what is in the file. The scorer `reuse` has
no surprise and therefore no score.
surprise: how badly the token is rebuilt from its code and what came before; rarity: from its code alone;
gain = rarity - surprise: how much the context told about it.""",
)


# --- recipes -------------------------------------------------------------------------------------------------------


def _recipe_command(name: str) -> Command:
    shipped = sorted(path.stem for path in _configs(name).glob("*.yaml"))

    def arguments(parser: argparse.ArgumentParser) -> None:
        given = f"a YAML file, or one that is shipped: {', '.join(shipped)}"
        parser.add_argument("config", type=file_name, metavar="CONFIG", help=given)
        changes = "changes to it, such as train.steps=100"
        parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=changes)
        parser.add_argument("--print-config", action="store_true", help="print the resolved config and do nothing")

    def run(asked: argparse.Namespace) -> None:
        _run_recipe(name, asked)

    example = shipped[0] if shipped else "my.yaml"
    epilog = f"""\
examples:
  vqmem {name} {example}
  vqmem {name} {example} out=runs/mine --print-config
A run that was interrupted goes on where it stopped when the same command is given again."""

    def more() -> str:
        return f"\n\nkeys, with their defaults and types:\n{_explain(registry.load('recipes', name).Config)}"

    return Command(registry.describe("recipes", name), arguments, run, epilog, more)


def _explain(schema: Any) -> str:
    """Every key of a config or of a variant."""
    from .recipes.engine.config_help import keys

    lines = []
    for key in keys(schema):
        default = f" = {key.default}" if key.default else " (needed)"
        lines += [f"  {key.name}{default}    {key.type}", *([f"      {key.doc}"] if key.doc else [])]
    return "\n".join(lines)


def _run_recipe(name: str, asked: argparse.Namespace) -> None:
    recipe = registry.load("recipes", name)
    from .recipes.engine.config import load

    config = load(recipe.Config, asked.config, asked.overrides, folder=_configs(name))
    _run_config(recipe, config, asked)


def _run_config(recipe: Any, config: Any, asked: argparse.Namespace) -> None:
    from .recipes.engine.config import dump, refuse_placeholders

    main = os.environ.get("RANK", "0") == "0"  # of several processes the first one tells
    if asked.print_config:
        print(dump(config) if main else "", end="")
        return
    refuse_placeholders(config)
    result = recipe.run(config)
    if main:
        print(visible(_tell(recipe, config, result)))


def _tell(recipe: Any, config: Any, result: Any) -> str:
    """What ``summary.py`` beside the recipe makes of the result, if there is one."""
    beside = f"{recipe.__package__}.summary"
    if importlib.util.find_spec(beside) is None:
        return f"done; see {getattr(config, 'out', '.')}"
    return importlib.import_module(beside).tell(config, result)


def _configs(name: str) -> Path:
    return registry.ROOT / "recipes" / name / "configs"


# --- train-scorer --------------------------------------------------------------------------------------------------


def _train_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=file_name, required=True, metavar="NAME_OR_DIR", help="as `AutoTokenizer` takes it"
    )
    texts = "text file, or folder of them (default: built-in text)"
    parser.add_argument("--data", type=file_path, metavar="PATH", help=texts)
    parser.add_argument(
        "--out", type=output_folder, metavar="DIR", help="folder of the run (default runs/scorer, or runs/scorer_quick)"
    )
    chosen = "a VQ-LM by default; `reuse` foretells which tokens come again; or a YAML file"
    parser.add_argument("--config", type=file_name, metavar="NAME_OR_FILE", help=chosen)
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="changes to the config")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and do nothing")


def _train_scorer(asked: argparse.Namespace) -> None:
    from .recipes.text_lm.for_tokenizer import configure

    config = configure(asked.tokenizer, asked.data, asked.out, asked.overrides, asked.config)
    _run_config(registry.load("recipes", "text_lm"), config, asked)


_TRAIN_SCORER = Command(
    "train a scorer for the tokenizer of a pretrained model, whose cache can then keep what it scores high",
    _train_scorer_arguments,
    _train_scorer,
    """\
examples:
  vqmem train-scorer --tokenizer HuggingFaceTB/SmolLM2-135M --data my_texts/ --out runs/smollm2
  vqmem train-scorer --tokenizer ./my_model --data book.txt scorer_train.steps=500
It is `vqmem text_lm` with the config scorer: 10 million tokens, seen as often as that takes; give text like that which
the model will read. Without --data it is scorer_quick: half a megabyte of built-in text, for a first look.
`vqmem text_lm --help` explains the keys. The same command given again goes on where it stopped.""",
)


# --- generate ------------------------------------------------------------------------------------------------------


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=file_path, metavar="RUN", help="the folder of a finished `vqmem text_lm`")
    goes_on = "what to go on from, of any length; for a run on speech, the file of a recording"
    parser.add_argument("--prompt", required=True, metavar="TEXT", help=goes_on)
    parser.add_argument(
        "-o", "--out", type=output_file, metavar="WAV", help="where a run on speech writes what it says"
    )
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="how many to add (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default 0.8)")
    parser.add_argument(
        "--top-k", type=int, default=50, metavar="K", help="draw from the K likeliest; 0 = all (default 50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same text (default 0)")
    parser.add_argument(
        "--capacity", type=int, metavar="SLOTS", help="of the memory (default: the run's largest budget)"
    )
    parser.add_argument("--strategy", metavar="NAME", help="what the memory keeps (default: the run's first strategy)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")


def _generate(asked: argparse.Namespace) -> None:
    from .recipes.text_lm.generate import Sampling, show

    sampling = Sampling(asked.tokens, asked.temperature, asked.top_k, asked.seed)
    memory = {"strategy": asked.strategy, "capacity": asked.capacity}
    show(asked.run, asked.prompt, sampling, asked.out, asked.device, **memory)


_GENERATE = Command(
    "continue a text, or a recording, with a trained model and its bounded memory",
    _generate_arguments,
    _generate,
    """\
examples:
  vqmem generate runs/novels --prompt "It was a dark and stormy night"
  vqmem generate runs/novels --prompt "$(cat chapter.txt)" --strategy gain --capacity 64
  vqmem generate runs/codes --prompt hello.flac --tokens 500 -o longer.wav
A run on speech is one whose front-end can be heard: vqvae_codes.""",
)
