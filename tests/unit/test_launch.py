"""The launch examples parse, and every `vqmem` command in them names a recipe, a config and keys that exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from vqmem import cli
from vqmem.registry import ROOT

LAUNCH = ROOT / "docs" / "launch"
PAGE = ROOT / "docs" / "clusters.md"
SHELL = sorted(LAUNCH.glob("*.sbatch"))


def commands(text: str) -> list[list[str]]:
    """The arguments of the `vqmem` commands in a script, with its variables in place."""
    joined = os.path.expandvars(text.replace("\\\n", " "))
    lines = [line.partition(" # ")[0] for line in joined.splitlines() if not line.lstrip().startswith("#")]
    found = (re.search(r"(?:^|-m )vqmem (.+)", line.strip()) for line in lines)
    return [shlex.split(match[1]) for match in found if match]


@pytest.fixture(autouse=True)
def cluster(monkeypatch):
    """What Slurm sets, as far as the scripts use it."""
    for name, value in {"RAY_ADDRESS": "head:6379", "SLURM_NNODES": "2", "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)


def check(arguments: list[str], capsys) -> str:
    """Resolve the config of a command, without running it."""
    assert cli.main([*arguments, "--print-config"]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.stem)
def test_scripts_for_slurm_parse_and_run_commands_that_exist(path: Path, capsys):
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    assert f"sbatch docs/launch/{path.name}" in text
    (arguments,) = commands(text)
    assert "/home/me/runs/" in check(arguments, capsys)


def test_the_job_for_kubernetes_parses_and_runs_a_command_that_exists(capsys):
    job = yaml.safe_load((LAUNCH / "ray-job.yaml").read_text(encoding="utf-8"))
    assert job["kind"] == "RayJob"
    spec = job["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all(pod["template"]["spec"]["containers"][0]["image"] == "IMAGE" for pod in pods)
    (arguments,) = commands(job["spec"]["entrypoint"])
    assert "executor: ray" in check(arguments, capsys)


def test_commands_of_the_page_exist_and_every_file_is_named(capsys):
    text = PAGE.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    found = commands(blocks)
    assert len(found) >= 3
    for arguments in found:
        check(arguments, capsys)
    assert all(f"(launch/{path.name})" in text for path in LAUNCH.iterdir())
