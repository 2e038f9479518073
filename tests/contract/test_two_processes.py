"""Every recipe under ``torchrun`` with two processes: it ends, says so once, and all processes have the same weights.

A run that is killed and given again gives the weights and the log of one that was not.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from vqmem import registry

LIMIT = 1500
"""Seconds for all recipes; the worker limits each run by itself and names the one that takes too long."""


@pytest.mark.timeout(LIMIT + 60)
def test_every_recipe_ends_in_two_processes_with_equal_weights_and_resumes_after_a_kill(tmp_path, tokenizer_folder):
    worker = Path(__file__).with_name("processes_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(worker)]
    with (tmp_path / "log").open("w") as log:
        launched = subprocess.Popen(
            [*command, str(tmp_path), str(tokenizer_folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            launched.wait(LIMIT)
        finally:
            if launched.poll() is None:
                os.killpg(launched.pid, signal.SIGKILL)
    assert launched.returncode == 0, (tmp_path / "log").read_text()[-4000:]
    first, second = (json.loads((tmp_path / f"results-{rank}.json").read_text()) for rank in (0, 1))
    mistakes = {name: (first.pop(name), second.pop(name)) for name in ("no data", "no config")}
    assert {name.split()[0] for name in first} == set(registry.names("recipes"))
    problems = {name: found for name in first if (found := _problem(name, first, second))}
    assert not problems, "\n\n".join(f"{name}: {what}" for name, what in problems.items())
    for name, (one, other) in mistakes.items():
        assert (one["code"], other["code"]) == (2, 2), f"{name}: {one}, {other}"
        lines = [line for line in (one["err"] + other["err"]).splitlines() if line.startswith("vqmem: ")]
        assert len(lines) == 1, f"{name}: {one['err']}{other['err']}"
        assert "Traceback" not in one["err"] + other["err"], f"{name}: {one['err']}{other['err']}"


def _problem(name: str, first: dict, second: dict) -> str:
    """What is wrong with a run, with the end of what its processes printed; empty where all is well."""
    one, other = first[name], second[name]
    if "skipped" in one:
        return ""
    if one["code"] or other["code"]:
        return f"ended with {one['code']} and {other['code']}:\n{one['err'][-3000:]}\n{other['err'][-3000:]}"
    if not one["out"] or other["out"]:
        return f"the first process prints {one['out']!r}, the second {other['out']!r}"
    if one["modules"] != other["modules"]:
        return "the weights of the processes differ"
    if name.endswith(", killed"):
        straight = first[name.removesuffix(", killed")]
        trained = sum(path.endswith("metrics.jsonl") for path in straight["files"])
        if one["starts"] != 1 + trained:
            return f"{one['starts']} starts for {trained} trainings"
        differ = [path for path in straight["files"] if straight["files"][path] != one["files"].get(path)]
        if differ:
            return f"not as in a run that was not killed: {', '.join(differ)}"
    return ""
