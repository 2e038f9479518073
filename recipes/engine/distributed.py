"""Training in several processes. The training loop calls a `Replica` and needs no special cases.

``ddp`` keeps a copy of the model in each process and averages gradients; ``fsdp`` (``fully_shard``, the model as one
group: ZeRO-2) shards parameters, gradients and optimiser and gathers the parameters for each step. All of
`Task.step` runs inside the wrapper's ``forward``, so a task may call any method of its module.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ... import artifacts
from ...models.reduce import joint_step
from .task import Task

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = timedelta(days=2)
"""Timeout of waits for other processes: the first may fit units or evaluate for hours. If one dies, all end."""

_ALONE = ContextVar("alone", default=False)
"""Whether the other processes wait for this one, or have already done the same work."""


UNSAVED = "unsaved"
"""A file in the folder of a training whose model is not saved yet, or is that of fewer steps."""


class ProcessFailedError(RuntimeError):
    """The first process of the run failed while this one waited for it."""


def ranks() -> tuple[int, int]:
    """Rank and world size as set by ``torchrun``; ``(0, 1)`` without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def start_processes(parallel: str, device: torch.device) -> tuple[int, int]:
    """Join the processes that ``torchrun`` started and return `ranks`. Raises ``ValueError`` for a bad ``parallel``."""
    rank, world = ranks()
    if parallel == "none" and world > 1:
        raise ValueError(
            f"parallel = none, but torchrun started {world} processes; "
            "set train.parallel (and every other *.parallel) to ddp or fsdp"
        )
    if parallel == "fsdp" and world == 1:
        raise ValueError(
            "parallel = fsdp needs torchrun with at least two processes; "
            "set train.parallel (and every other *.parallel) to none"
        )
    if world > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Objects and barriers use the CPU, where only `PATIENCE` limits the wait.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    return rank, world


def gather(value: Any) -> list[Any]:
    """Gather ``value`` of every process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_main_process(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate ``work`` to run in the first process while the others wait. All processes call it and get its result.

    ``work`` must not wait for the other processes; the functions of this module do not, when called inside it. If it
    raises, the others raise `ProcessFailedError`.
    """

    @functools.wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not dist.is_initialized() or _ALONE.get():
            return work(*args, **kwargs)
        outcome: list[Any] = [None, None]
        if dist.get_rank() == 0:
            try:
                with _alone():
                    outcome[0] = work(*args, **kwargs)
            except BaseException as error:
                outcome[1] = f"{type(error).__name__}: {error}"
                raise
            finally:
                dist.broadcast_object_list(outcome, 0)
        else:
            dist.broadcast_object_list(outcome, 0)
        if outcome[1] is not None:
            raise ProcessFailedError(f"the first process failed: {outcome[1]}")
        return outcome[0]

    return call


@contextlib.contextmanager
def main_process_first() -> Generator[None]:
    """Run the block in the first process, then in the others, which find the work done (files fitted or downloaded).

    If it raises in the first process, the others raise `ProcessFailedError` and do not begin.
    """
    if not dist.is_initialized() or _ALONE.get():
        yield
    elif dist.get_rank() > 0:
        on_main_process(_nothing)()
        with _alone():
            yield
    else:
        failure = None
        try:
            with _alone():
                yield
        except BaseException as error:
            failure = error
        on_main_process(_raise)(failure)


@on_main_process
def save_model(folder: Path, kind: str, fields: Mapping[str, Any], module: nn.Module) -> None:
    """Do `artifacts.save_model` in the first process only; after it returns, every process can read the files.

    Args:
        folder: that of the model, which was trained in ``folder/training``.
        kind: of the model.
        fields: JSON-able values from which it is rebuilt.
        module: the model.
    """
    artifacts.save_model(folder, kind, fields, module)
    (folder / "training" / UNSAVED).unlink(missing_ok=True)


def reports(error: BaseException) -> bool:
    """Whether this process should print ``error``: it is the only one, or the first of the run that failed.

    A process that failed because the first one did (`ProcessFailedError`) waits until that has printed its error:
    torchrun ends all processes as soon as one has ended.
    """
    if ranks()[1] == 1:
        return True
    address, port = os.environ.get("MASTER_ADDR", "localhost"), int(os.environ.get("MASTER_PORT", "0"))
    key = f"vqmem/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))  # pyright: ignore[reportPrivateImportUsage]
        if not isinstance(error, ProcessFailedError):
            return store.add(key, 1) == 1
        store.wait([key], timedelta(seconds=10))
        time.sleep(1.0)  # for the line to be written
    except RuntimeError:  # nobody serves the store: its process has ended, or none started
        return not isinstance(error, ProcessFailedError)
    return False


class _Step(nn.Module):
    """Wraps the step of a `Task`, which all processes run together, as the ``forward`` of DDP and ``fully_shard``."""

    def __init__(self, task: Task, touch_all: bool) -> None:
        super().__init__()
        self.module, self.run, self.touch_all = task.module, task.step, touch_all

    def forward(self, batch: Any, state: Any) -> tuple[Tensor, Mapping[str, Tensor | float], Any]:
        with joint_step():
            loss, state = self.run(batch, state)
        value = loss.value
        if self.touch_all:
            # fully_shard reduces only existing gradients, and hangs if processes used different parameters (an
            # empty memory here, a full one there). An empty slice gives every parameter a gradient of zeros.
            value = value + sum(p.flatten()[:0].sum() for p in self.module.parameters() if p.requires_grad)
        return value, loss.metrics, state


class Replica:
    """The part of the model in training that belongs to this process. Created by `wrap`."""

    def __init__(self, task: Task, call: nn.Module, spare: nn.Module | None) -> None:
        self.task, self.call, self.spare, self.module = task, call, spare, task.module

    def step(self, batch: Any, state: Any) -> tuple[Tensor, Mapping[str, Tensor | float], Any]:
        """`Task.step`: loss in nats, metrics, state."""
        return self.call(batch, state)

    @contextlib.contextmanager
    def synced(self, last: bool) -> Generator[None]:
        """A context for forward and backward: only the last of several accumulated batches exchanges gradients."""
        if isinstance(self.call, FSDPModule):
            self.call.set_requires_gradient_sync(last)
        apart = self.call if isinstance(self.call, DistributedDataParallel) and not last else None
        with contextlib.nullcontext() if apart is None else apart.no_sync():
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Generator[None]:
        """A context for evaluation: unsharded parameters, eval mode, no gradients."""
        if isinstance(self.call, FSDPModule):
            self.call.unshard()
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train()
            if isinstance(self.call, FSDPModule):
                self.call.reshard()

    def finish(self) -> None:
        """Turn ``task.module`` into an ordinary module in eval mode, equal in all processes.

        After ``fsdp`` it is a different object.
        """
        if self.spare is not None:
            self.spare.load_state_dict(
                {name: artifacts.full_tensor(tensor) for name, tensor in self.module.state_dict().items()}
            )
            self.task.module = self.module = self.spare.to(next(self.module.parameters()).device)
        for buffer in self.module.buffers() if dist.is_initialized() else ():
            dist.broadcast(buffer, 0)  # running statistics differ between processes during training
        self.module.eval()


def wrap(task: Task, device: torch.device, parallel: str) -> Replica:
    """Put ``task.module`` on ``device``, in training mode, ready for ``parallel``."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    module = task.module.to(device).train()
    if world == 1:
        return Replica(task, _Step(task, False), None)
    for tensor in (*module.parameters(), *module.buffers()):  # start from equal weights
        dist.broadcast(tensor.detach(), 0)
    if not any(p.requires_grad for p in module.parameters()):  # it only counts, or does not train
        return Replica(task, _Step(task, False), None)
    if parallel == "fsdp":
        spare = copy.deepcopy(module).cpu()  # fully_shard cannot be undone
        # torch keeps the mesh, and so its group, to the end. The default group must end before the interpreter does: a
        # thread of gloo that drops the last tensors after it aborts the process.
        group = dist.new_group(timeout=PATIENCE)
        assert isinstance(group, dist.ProcessGroup)  # every process is in it
        mesh = DeviceMesh.from_group(group, device.type)
        step = _Step(task, True)
        fully_shard(step, mesh=mesh)
        return Replica(task, step, spare)
    # Finding unused parameters also keeps DDP from regrouping its buckets after the first step, which would change the
    # order of sums between a run and its resumption.
    with warnings.catch_warnings():  # torch 2.14 renames broadcast_buffers; 2.9 does not know the new name
        warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)
        call = DistributedDataParallel(_Step(task, False), broadcast_buffers=False, find_unused_parameters=True)
    return Replica(task, call, None)


class Interrupts:
    """A context in which Ctrl-C, SIGTERM and SIGHUP request a stop after the current step.

    ``say`` prints the announcement. A second Ctrl-C in a single process stops at once. Signals that are ignored (under
    ``nohup``) stay ignored; outside the main thread no handler is installed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.signal = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def requested_signal(self) -> int:
        """The signal that any process has received, or 0; equal in all processes."""
        if not dist.is_initialized():
            return self.signal
        flag = torch.tensor(self.signal)  # in main memory, so that no process waits for its device
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return int(flag)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and not dist.is_initialized():  # torchrun itself repeats the signal
            raise KeyboardInterrupt
        if not self.signal:
            self.say("stopping after this step" + ("; Ctrl-C again to stop at once" if ranks()[1] == 1 else ""))
        self.signal = number


@contextlib.contextmanager
def _alone() -> Generator[None]:
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure


def _nothing() -> None:
    pass
