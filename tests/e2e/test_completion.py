"""Shells complete commands, options, configs and files by the script that `vqmem completion` prints."""

import shutil
import subprocess

import pytest
from vqmem.cli import main

CASES = [
    ("sco", {"score", "score_corpus"}),
    ("compare re", {"recall", "recall_demo"}),
    ("list po", {"policies"}),
    ("completion z", {"zsh"}),
    ("score --h", {"--help", "--html"}),
    ("score boo", {"book.txt"}),
]
BASH = """
source completion
COMP_WORDS=(vqmem $1)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_vqmem vqmem "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(capsys, tmp_path, request):
    """The folder with the script of the shell ``request.param``, and a file to complete."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    assert main(["completion", shell]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    (tmp_path / "book.txt").touch()
    return tmp_path


def output(command: list[str], folder) -> str:
    """What a shell prints."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_bash_completes(script, words, completed):
    assert set(output(["bash", "-c", BASH, "bash", words], script).split()) == completed


@pytest.mark.parametrize("script", ["fish"], indirect=True)
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_fish_completes(script, words, completed):
    lines = output(["fish", "-c", f"source completion; complete -C 'vqmem {words}'"], script).splitlines()
    assert completed <= {line.split("\t")[0] for line in lines}


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_reads_the_script_and_finds_every_command(script):
    output(["zsh", "-n", "completion"], script)
    text = (script / "completion").read_text()
    assert all(f"_shtab_vqmem_{command}_options" in text for command in ("score", "compare", "completion"))


def test_another_shell_is_named(capsys):
    assert main(["completion", "bas"]) == 2
    assert capsys.readouterr().err == "vqmem: unknown shell 'bas'; did you mean bash?\n"
