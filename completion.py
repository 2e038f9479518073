"""The command `vqmem completion`: a script with which a shell completes commands, options, configs and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from .cli_base import Command, file_name, file_path, output_file, output_folder
from .registry import UnknownNameError

SHELLS = ("bash", "zsh", "fish")
_FILES, _FOLDERS = (file_name, file_path, output_file), (output_folder,)


def completion_command(commands: Mapping[str, Command]) -> Command:
    """The command that prints a script which completes ``commands``, as they are when it runs."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))

    def run(args: argparse.Namespace) -> None:
        if args.shell not in SHELLS:
            raise UnknownNameError("shell", args.shell, list(SHELLS))
        print(_script(args.shell, commands))

    return Command(
        "print a script that completes commands, options, configs and files in bash, zsh or fish",
        arguments,
        run,
        """\
examples:
  eval "$(vqmem completion bash)"                                    # in ~/.bashrc
  vqmem completion zsh > "${fpath[1]}/_vqmem"                        # then start a new shell
  vqmem completion fish > ~/.config/fish/completions/vqmem.fish""",
        suggestions={"shell": SHELLS},
    )


def _script(shell: str, commands: Mapping[str, Command]) -> str:
    import shtab

    parser = argparse.ArgumentParser("vqmem")
    subparsers = parser.add_subparsers()
    for name, command in commands.items():
        child = subparsers.add_parser(name, help=command.summary)
        command.arguments(child)
        for action in child._actions:
            if words := command.suggestions.get(action.dest):
                action.choices = words
            elif action.type in _FILES:
                action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
            elif action.type in _FOLDERS:
                action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]
    return shtab.complete(parser, shell)
