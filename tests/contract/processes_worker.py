"""One of two processes of ``test_two_processes``: ``torchrun processes_worker.py FOLDER TOKENIZER``.

It runs one shipped config of each kind in its tiny form, and again, killed after the first checkpoint of each of its
trainings and given anew until it ends. Every run is a fork, as a fresh process of the same `torchrun`:
importing torch anew would take longer than the runs. What came of it is left in ``FOLDER/results-RANK.json``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from test_recipes import SHIPPED, lay_out, tiny
from vqmem import cli, registry
from vqmem.recipes.engine import checkpoint as _checkpoint
from vqmem.recipes.engine import distributed as _parallel
from vqmem.recipes.engine.config import as_dict, flat, load

RANK = int(os.environ["RANK"])
LIMIT = 90
"""Seconds after which a run is taken to hang, and killed."""
RUNS = 0


def main(folder: Path, tokenizer: Path) -> None:
    plan = folder / "plan.json"
    if RANK == 0:
        (folder / "plan").write_text(json.dumps([lay_out(folder), commands(folder, tokenizer)]))
        (folder / "plan").rename(plan)
    _wait_for(plan)
    environment, planned = json.loads(plan.read_text())
    os.environ |= environment
    results: dict[str, Any] = {}
    for label, argv in planned.items():
        out = folder / label.replace(" ", "-")
        if isinstance(argv, str):
            results[label] = {"skipped": argv}
            continue
        results[label] = once(out, argv)
        results[f"{label}, killed"] = until_it_ends(out.with_name(f"{out.name}-killed"), argv)
    nowhere = ["data={name: text_files, path: /nowhere}", f"out={folder / 'nowhere'}"]
    results["no data"] = once(folder / "nowhere", ["text_lm", "english", *nowhere])
    results["no config"] = once(folder / "nothing", ["text_lm", "englisch"])
    (folder / f"results-{RANK}.json").write_text(json.dumps(results))


def commands(folder: Path, tokenizer: Path) -> dict[str, list[str] | str]:
    """The command for one shipped config of each kind, or why there is none; `test_recipes` runs all of them."""
    found: dict[str, list[str] | str] = {}
    kinds = set()
    for name, path in SHIPPED:
        kind = (name, "name: units\n" in path.read_text(encoding="utf-8"))
        if kind in kinds:
            continue
        try:
            overrides = tiny(name, path, folder / f"{name}-{path.stem}", tokenizer)
        except pytest.skip.Exception as skipped:
            found[f"{name} {path.stem}"] = str(skipped)
            continue
        kinds.add(kind)
        found[f"{name} {path.stem}"] = [name, str(path), *overrides]
    return found


def once(out: Path, argv: list[str]) -> dict[str, Any]:
    """One run of the command ``vqmem``: exit code, what it printed, and the sums of its modules and files."""
    log = out.parent / f"{out.name}-log-{RANK}"
    log.mkdir(parents=True, exist_ok=True)
    return {"code": _forked(log, lambda: _command(argv, log))} | _found(out, log)


def until_it_ends(out: Path, argv: list[str]) -> dict[str, Any]:
    """As `once`, but killed after the first checkpoint of each training. ``starts`` says how often it was given."""
    log = out.parent / f"{out.name}-log-{RANK}"
    log.mkdir(parents=True, exist_ok=True)
    saved = [key for key in flat(as_dict(_config(argv))) if key.endswith("train.save_every")]
    argv = [*argv, *(f"{key}=1" for key in saved), f"out={out}"]
    starts, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL and starts < 20:
        starts, code = starts + 1, _forked(log, lambda: _command(argv, log, kill=True))
    return {"code": code, "starts": starts} | _found(out, log)


def _config(argv: list[str]) -> Any:
    return load(registry.load("recipes", argv[0]).Config, argv[1], argv[2:])


def _command(argv: list[str], log: Path, kill: bool = False) -> int:
    """In the fork: `vqmem`, with the sums of trained modules noted as each training ends."""
    finish, save, init = _parallel.Replica.finish, _checkpoint.save, dist.init_process_group

    def finish_and_note(self: Any) -> None:
        finish(self)
        sums = hashlib.sha256()
        for tensor_name, tensor in self.module.state_dict().items():
            sums.update(tensor_name.encode() + tensor.cpu().numpy().tobytes())
        with (log / "modules").open("a") as file:
            file.write(sums.hexdigest() + "\n")

    def save_and_die(folder: Path, *rest: Any) -> Path:
        first = not any(folder.glob("step-*"))
        target = save(folder, *rest)
        if first:  # both together: of the death of one alone the other would hear before it has saved
            for rank in (RANK, 1 - RANK):
                mark = log.parent / f"saved-{RUNS}-{rank}"
                mark.touch() if rank == RANK else _wait_for(mark)
            os.kill(os.getpid(), signal.SIGKILL)
        return target

    def init_apart(*given: Any, **named: Any) -> None:
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        place = {"rank": RANK, "world_size": 2, "store": dist.PrefixStore(str(RUNS), store)}
        init(*given, **named, **place)  # the store of `torchrun` still holds what earlier runs put there

    dist.init_process_group = init_apart
    _parallel.Replica.finish = finish_and_note
    if kill:
        _checkpoint.save = save_and_die
    return cli.main(argv)


def _forked(log: Path, work: Callable[[], int]) -> int:
    """The exit code of ``work`` in a fork, negative for a signal; None where it took longer than `LIMIT`."""
    global RUNS
    RUNS += 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ["TORCHELASTIC_RESTART_COUNT"] = str(RUNS)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            faulthandler.dump_traceback_later(LIMIT - 10)
            code = work()
            sys.stdout.flush()
            if dist.is_initialized():
                dist.destroy_process_group()
        finally:
            os._exit(code)
    ends = time.monotonic() + LIMIT
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


def _found(out: Path, log: Path) -> dict[str, Any]:
    modules = (log / "modules").read_text().split() if (log / "modules").is_file() else []
    files = [path for name in ("model.safetensors", "metrics.jsonl") for path in sorted(out.rglob(name))]
    sums = {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"out": (log / "out").read_text(), "err": (log / "err").read_text(), "modules": modules, "files": sums}


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(Path(sys.argv[1]), Path(sys.argv[2]))
