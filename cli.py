"""The command `vqmem`. Slow modules are imported only when a command needs them, so that help and lists are instant."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from . import registry
from ._version import __version__
from .cli_base import Command, Parser, discard_stdout, prepare_streams
from .completion import completion_command
from .console import one_line
from .recipes.engine.recipe_command import recipe_command

_EPILOG = """\
first steps:
  vqmem score FILE                  colour a text or a recording by how surprising it is; nothing to train first
  vqmem compare demo                train and compare four memories of equal capacity, write a report (minutes)
  vqmem list policies               what a memory can keep
  vqmem COMMAND --help              examples and all options of a command

VQMEM_DEBUG=1 shows the traceback behind an error."""


def main(argv: list[str] | None = None) -> int:
    """Run ``vqmem`` with ``argv`` (default: `sys.argv`) and return the exit code.

    0 is success, 2 a mistake of the user, which is reported in one line on standard error, and 130 an interruption.
    """
    if argv is None:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            # Each process of torchrun would print DDP's advice to turn `find_unused_parameters` off, which
            # `distributed.wrap` needs. It comes from C++, whose level torch reads when it is imported.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        prepare_streams()
        argv = sys.argv[1:]
    try:
        _dispatch(argv)
        sys.stdout.flush()  # while an error can still be reported
        return 0
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        return 0
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted", 130)
    except (ValueError, OSError) as error:
        if os.environ.get("VQMEM_DEBUG"):
            raise
        return _fail(error, _one_line(error), 2)
    except RuntimeError as error:  # includes the end of another process of the run, which has reported why
        if _reports(error):
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
    parser.add_argument("arguments", nargs="*", help="arguments of the command")
    end = next((i for i, word in enumerate(argv, 1) if not word.startswith("-")), len(argv))
    name, words = parser.read(argv[:end]).command, argv[end:]
    if name is None:
        parser.print_help()
        return
    if (alias := name.replace("-", "_")) in commands:  # allows fit-units
        name = alias
    if name not in commands:
        raise registry.UnknownNameError("command", name, list(commands))
    command = commands[name]
    more = command.more() if {"-h", "--help"} & {*words} else ""
    parser = Parser(f"vqmem {name}", command.summary, command.epilog + more)
    command.arguments(parser)
    command.run(parser.read(words))


def _commands() -> dict[str, Command]:
    """The commands in ``recipes/*/commands.py`` and ``completion``, then one for each recipe."""
    everything: dict[str, Command] = {}
    commands = {"completion": completion_command(everything)}
    for path in Path(__file__).parent.glob("recipes/*/commands.py"):
        commands |= importlib.import_module(f"{__package__}.recipes.{path.parent.name}.commands").COMMANDS
    recipes = {name: recipe_command(name) for name in registry.names("recipes")}
    for name in recipes.keys() & commands.keys():
        reason = "as that is the name of a command; rename it"
        print(f"vqmem: the recipe {name!r} is ignored, {reason}", file=sys.stderr)
        del recipes[name]
    everything |= {**dict(sorted(commands.items())), **recipes}
    return everything


def _fail(error: BaseException, message: str, code: int) -> int:
    if _reports(error):
        print(f"vqmem: {one_line(message)}", file=sys.stderr)
    return code


def _reports(error: BaseException) -> bool:
    """Whether this process, among those that ``torchrun`` started, reports the error."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from .recipes.engine.distributed import reports

    return reports(error)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
