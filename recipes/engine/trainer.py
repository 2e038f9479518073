"""The training loop of all recipes, in plain torch, for one or many processes. A resumed run is identical to the bit.

A recipe provides a `Task` (a module and its training step), a `Loader` (batches and a position) and a `TrainConfig`:

    seed_all(config.seed)                       # before building the module: weights depend on torch's global seed
    figures = train(task, loader, config, Path("runs/x"), evaluate=lambda: {"dev_loss": ...})

Called again on the same folder, `train` continues from the last checkpoint; for a finished run it only loads the
weights. Files in the folder: ``metrics.jsonl`` (the same bytes for the same run, however often it was interrupted),
``timing.jsonl`` (speed, which differs between runs), ``tensorboard/``, ``checkpoints/``.

Many processes: ``torchrun --nproc-per-node=N -m vqmem ...``. The loader is built with this process's `ranks` and must
give each process different batches. Each process has its state, position and random numbers; gradients are averaged.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ...artifacts import full_tensor
from ...models.device import resolve_device
from ...models.host import to_device
from . import checkpoint
from .best import PREFIX, Best, better_of, buffers, describe_best
from .config import as_dict, autocast, flat, lasting, refuse_changes, resolve_dtype
from .distributed import UNSAVED, Interrupts, Replica, on_main_process, ranks, start_processes, wrap
from .metrics import Log, Pending, Window, add, note
from .progress import Bar
from .run_dir import too_few_steps
from .task import Loader, Task, TrainConfig


class NonFiniteError(ValueError):
    """The loss or its gradient became infinite or not a number."""


@dataclass
class _Run:
    """The variables of a training, besides the module, the optimiser, the loader and the random generators."""

    step: int
    state: Any
    window: Window = field(default_factory=dict)
    pending: Pending = field(default_factory=Pending)
    """The metrics of the last steps, which are not in ``window`` yet."""
    figures: dict[str, float] = field(default_factory=dict)
    """The newest value of each logged metric."""
    seconds: float = 0.0
    """Time spent in steps since the last line of the log."""
    best: Best | None = None
    """The best evaluation so far, if the training is evaluated several times."""
    planned: int | None = None
    """The ``steps`` of its config when it was last saved."""


@dataclass
class _Session:
    """The constants of a training."""

    config: TrainConfig
    folder: Path
    device: torch.device
    loader: Loader
    replica: Replica
    optimizer: torch.optim.AdamW
    identity: dict[str, Any]
    describe: str
    evaluate: Callable[[], dict[str, float]] | None
    best_by: str

    @property
    def compares(self) -> bool:
        """Whether the weights of the best of several evaluations are kept."""
        return self.evaluate is not None and self.config.eval_every > 0 and self.best_by != ""


def train(
    task: Task,
    loader: Loader,
    config: TrainConfig,
    folder: Path,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    best_by: str = "",
    describe: str = "training",
    identity: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train ``task.module`` until step ``config.steps`` and return the last logged figures.

    After Ctrl-C, SIGTERM or SIGHUP a checkpoint is saved and ``SystemExit`` raised.

    Args:
        task: the module and its training step.
        loader: its batches.
        config: the settings of the training.
        folder: for checkpoints and logs; created if missing.
        evaluate: computes figures of the dev split; runs in eval mode without gradients, in the
            first process while the others wait.
        best_by: the figure of ``evaluate`` to minimise. With ``eval_every`` the module ends with the weights of the
            step where it was lowest (the latest such step); otherwise, or without this name, with the last weights.
        describe: the name of the training in messages.
        identity: JSON-able values that identify the run besides ``config``: model, data.

    Returns:
        The last logged figures, by name.

    Raises:
        NonFiniteError: when training diverges.
        ValueError: for a folder that contains another run, or only damaged checkpoints.
        OSError: if a checkpoint cannot be written.
    """
    device = resolve_device(config.device)
    rank, _ = start_processes(config.parallel, device)
    seed_all(config.seed + rank)  # dropout differs between processes
    replica = wrap(task, device, config.parallel)
    optimizer = _optimizer(replica.module, config, device)
    known = _identity(config, identity)
    session = _Session(config, folder, device, loader, replica, optimizer, known, describe, evaluate, best_by)
    run = _restore(session) or _Run(0, task.initial_state())
    if run.step > config.steps:
        raise too_few_steps(config.steps, run.step, folder)
    with Bar(describe, config.steps, start=run.step, quiet=rank > 0) as bar:
        if run.planned not in (None, config.steps):
            schedule = f"the learning rate follows the schedule of {config.steps} steps from here"
            bar.say(f"{describe}: continuing from step {run.step} to {config.steps}, not {run.planned}; {schedule}")
        if run.step == config.steps:
            bar.say(f"{describe}: finished earlier ({config.steps} steps); delete {folder} to train again")
        else:
            on_main_process(_mark_unsaved)(folder)
            with Interrupts(bar.say) as interrupts, Log(folder, run.step, config.tensorboard, main=rank == 0) as log:
                _loop(session, run, bar, interrupts, log)
        if session.compares:
            bar.say(f"{describe}: {describe_best(run.best, best_by, run.step)}")
    if run.best is not None:
        run.best.copy_to(replica.module)
    replica.finish()
    return run.figures


def _mark_unsaved(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNSAVED).touch()


def seed_all(seed: int) -> None:
    """Seed torch, numpy and Python."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of update ``step`` (from 0): linear warm-up, then a cosine down to ``min_lr_ratio * lr``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


# --- the loop ------------------------------------------------------------------------------------------------------


def _loop(session: _Session, run: _Run, bar: Bar, interrupts: Interrupts, log: Log) -> None:
    config = session.config
    while run.step < config.steps:
        _update(session, run)
        last = run.step == config.steps
        if last or run.step % config.log_every == 0:
            _read_pending_metrics(session, run)
            figures = log.train(run.step, run.window, run.seconds)
            run.window, run.seconds, run.figures = {}, 0.0, run.figures | figures
            bar.update(run.step, note(figures, getattr(session.replica.task, "token_unit", "tokens")))
        if session.evaluate and (last or _due(run.step, config.eval_every)):
            _read_pending_metrics(session, run)
            with session.replica.evaluating(), autocast(session.device, resolve_dtype(config.dtype, session.device)):
                figures = on_main_process(session.evaluate)()
            log.evaluation(run.step, figures)
            run.figures |= figures
            if session.compares:
                figure = figures.get(session.best_by, math.nan)
                run.best = better_of(run.best, run.step, figure, session.replica.module)
                if last and run.best is not None:
                    log.best(run.step, {"best_step": float(run.best.step), session.best_by: run.best.figure})
        stop = interrupts.requested_signal()
        if last or stop or _due(run.step, config.save_every):
            _read_pending_metrics(session, run)
            _save(session, run)
        if stop:
            bar.say(
                f"{session.describe}: stopped at step {run.step} of {config.steps}, saved in {session.folder}; "
                "run the same command again to continue"
            )
            raise SystemExit(128 + stop)


def _update(session: _Session, run: _Run) -> None:
    """One optimiser update: ``accumulate`` batches, clipping, AdamW. It reads nothing from the device."""
    config, replica, optimizer = session.config, session.replica, session.optimizer
    dtype = resolve_dtype(config.dtype, session.device)
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    learns = False
    for part in range(config.accumulate):
        batch = tree_map_only(Tensor, lambda tensor: to_device(tensor, session.device), session.loader.next())
        with replica.synced(last=part == config.accumulate - 1):
            with autocast(session.device, dtype):
                value, metrics, run.state = replica.step(batch, run.state)
            if value.requires_grad:
                (value / config.accumulate).backward()
                learns = True
        run.pending.add(run.step + 1, {"loss": value.detach(), **metrics})
    if learns:
        norm = nn.utils.clip_grad_norm_(replica.module.parameters(), config.clip)
        run.pending.add(run.step + 1, {"gradient_norm": full_tensor(norm)})
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.step, config)
        optimizer.step()
    run.seconds += time.perf_counter() - began
    run.step += 1


def _read_pending_metrics(session: _Session, run: _Run) -> None:
    """Read the metrics of the last steps, before they are logged or what these steps made is evaluated or saved."""
    began = time.perf_counter()
    for step, metrics in run.pending.read():
        for what in ("loss", "gradient norm"):
            if not math.isfinite(number := metrics.get(what.replace(" ", "_"), 0.0)):
                last = next(iter(checkpoint.newest_first(session.folder / checkpoint.FOLDER)), None)
                raise NonFiniteError(
                    f"{session.describe}: the {what} is {number} at step {step}; lower train.lr (now "
                    f"{session.config.lr:g}) or raise warmup; nothing of this step is saved, the last checkpoint is "
                    f"{last}"
                )
        add(run.window, metrics)
    run.seconds += time.perf_counter() - began  # the device has worked until now


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _optimizer(module: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) do not decay."""
    params = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


# --- resuming ------------------------------------------------------------------------------------------------------


def _save(session: _Session, run: _Run) -> None:
    module, best = session.replica.module, run.best
    per_process = {
        "state": run.state,
        # A buffer may differ between processes (running statistics), so each saves its copy.
        "buffers": buffers(module),
        "best": best and {"step": best.step, "figure": best.figure, "buffers": best.buffers},
        "rng": checkpoint.rng_state(session.device),
        "loader": session.loader.state_dict(),
        "log": {"window": run.window, "figures": run.figures, "seconds": run.seconds},
    }
    shared = _shared(module, session.optimizer) | (best.named() if best else {})
    checkpoint.save(session.folder / checkpoint.FOLDER, run.step, shared, per_process, {"identity": session.identity})


def _restore(session: _Session) -> _Run | None:
    """Restore the session from the newest undamaged checkpoint, if there is one."""
    path = checkpoint.newest_undamaged(session.folder / checkpoint.FOLDER)
    if path is None:
        return None
    about = checkpoint.read_about(path)
    _compare(about, session, path)
    module, optimizer, stored = session.replica.module, session.optimizer, checkpoint.shapes(path)
    for name, parameter in module.named_parameters():
        if f"optimizer.{name}.step" in stored:  # AdamW creates it at its first update, so it must be created here
            on = parameter.device if optimizer.defaults["fused"] else "cpu"
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=on), **moments}
    best = Best.of(module) if any(name.startswith(PREFIX) for name in stored) else None
    shared = _shared(module, optimizer) | (best.named() if best else {})
    wrong = [name for name in {**shared, **stored} if name not in shared or shared[name].shape != stored.get(name)]
    if wrong:
        raise ValueError(
            f"checkpoint {path} is of another model: {', '.join(sorted(wrong)[:4])} differ; use another folder"
        )
    per_process = checkpoint.load(path, shared, session.device)
    module.load_state_dict(per_process["buffers"], strict=False)
    session.loader.load_state_dict(per_process["loader"])
    checkpoint.set_rng_state(per_process["rng"], session.device)
    if best is not None:
        best = replace(best, **per_process["best"])
    planned = about["identity"].get("train.steps")
    return _Run(about["step"], per_process["state"], best=best, planned=planned, **per_process["log"])


def _shared(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and their moments by name: views, to save or to fill in place."""
    shared = {f"model.{name}": parameter.detach() for name, parameter in module.named_parameters()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            shared[f"optimizer.{name}.{key}"] = value
    return shared


def _identity(config: TrainConfig, identity: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of a training as its checkpoints save them: dotted key to value."""
    return json.loads(json.dumps(flat({"train": as_dict(config), **(identity or {})})))


def _compare(about: Mapping[str, Any], session: _Session, path: Path) -> None:
    _, world = ranks()
    if about["world"] != world:
        raise ValueError(
            f"checkpoint {path} is of {about['world']} processes, not {world}; use as many, or another folder"
        )
    old = session.identity | about["identity"]  # a key missing there is newer than the checkpoint
    refuse_changes(session.folder, lasting(old), lasting(session.identity))
