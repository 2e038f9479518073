"""Run a grid of cells, which may need each other, in this process or on Ray. One that fails does not stop the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from ...console import one_line
from ...schema import NonNegativeFloat, PositiveInt, Validated
from .progress import Bar
from .ray_cluster import picklable, ray_cluster

RETRIES = 3
"""How often Ray gives a cell to another worker after one died."""


@dataclass(frozen=True)
class GridConfig(Validated):
    """Where the cells of a grid run."""

    executor: Literal["in_process", "ray"] = "in_process"
    """Where cells run: one after the other in this process, or in parallel on Ray (extra ``ray``), whose machines
    share the folder ``out``."""
    address: str = "auto"
    """The Ray cluster, as in 10.0.0.1:6379; auto is the one that runs here, or else one for this command, local always
    the latter."""
    threads: PositiveInt | None = None
    """Threads, and on Ray cores, of a cell; null is torch's choice in this process and 1 on Ray. Results are equal to
    the bit only where threads are."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of a cell on Ray; a fraction lets cells share one."""


def _is_never_done() -> bool:
    return False


def _ignore(result: Any) -> None:
    pass


@dataclass(frozen=True)
class Cell:
    """A unit of work.

    Args:
        name: its name in the grid, for progress and errors.
        work: what it does; on Ray it is pickled, with its arguments, and its result as well.
        needs: names of cells that have to be done before it.
        is_done: whether an earlier run did it; asked when the cells that it needs are done.
        save: keeps the result, in the process that runs the grid.
    """

    name: str
    work: Callable[[], Any]
    needs: tuple[str, ...] = ()
    is_done: Callable[[], bool] = _is_never_done
    save: Callable[[Any], None] = _ignore

    def within(self, domain: str) -> Cell:
        """The same cell, with names that begin with ``domain``."""
        return replace(self, name=f"{domain}: {self.name}", needs=tuple(f"{domain}: {need}" for need in self.needs))


class Result(NamedTuple):
    """What the work of a cell returned, or the error that it raised."""

    value: Any = None
    error: Exception | None = None


@runtime_checkable
class Executor(Protocol):
    """Runs cells."""

    @property
    def slots(self) -> int:
        """Cells that it can run at once."""
        ...

    def start(self, cell: Cell) -> None:
        """Begin a cell."""
        ...

    def wait(self) -> tuple[Cell, Result]:
        """The next cell that ended, and its result."""
        ...


class InProcess:
    """Runs one cell at a time in this process."""

    slots = 1

    def __init__(self) -> None:
        self.cell: Cell | None = None

    def start(self, cell: Cell) -> None:
        """Remember the cell, which `wait` will run."""
        self.cell = cell

    def wait(self) -> tuple[Cell, Result]:
        """Run the cell."""
        assert self.cell is not None
        return self.cell, attempt(self.cell.work)


class OnRay:
    """Runs cells as tasks of Ray, as many at once as the cluster has room for."""

    def __init__(self, ray: Any, threads: int, gpus: float) -> None:
        self.ray, self.threads, self.gpus = ray, threads, gpus
        self.running: dict[Any, Cell] = {}

    def refuse_too_large(self) -> None:
        """Raise `ValueError` for cells that need more than the cluster has, for which Ray would wait for ever."""
        found = self.ray.cluster_resources()
        cores, gpus = int(found.get("CPU", 0)), found.get("GPU", 0)
        if cores < self.threads or gpus < self.gpus:
            asked, there = f"threads={self.threads} and gpus={self.gpus:g}", f"{cores} cores and {gpus:g} GPUs"
            raise ValueError(f"a cell with {asked} does not fit the cluster, which has {there}; give less")

    @property
    def slots(self) -> int:
        """What the cores and GPUs of the cluster have room for at this moment."""
        found = self.ray.cluster_resources()
        room = int(found.get("CPU", 0) / self.threads)
        return max(1, min(room, int(found.get("GPU", 0) / self.gpus)) if self.gpus else room)

    def start(self, cell: Cell) -> None:
        """Give the cell to Ray."""
        task = self.ray.remote(_attempt_in_worker)
        task = task.options(num_cpus=self.threads, num_gpus=self.gpus, max_retries=RETRIES, name=cell.name)
        self.running[task.remote(cell.work, os.getcwd(), self.threads)] = cell

    def wait(self) -> tuple[Cell, Result]:
        """Wait for one of the tasks. An error of Ray, such as a worker that died too often, is one of the cell."""
        [ended], _ = self.ray.wait(list(self.running), num_returns=1)
        cell = self.running.pop(ended)
        try:
            return cell, self.ray.get(ended)
        except self.ray.exceptions.RayError as error:
            return cell, Result(error=error)


def attempt(work: Callable[[], Any]) -> Result:
    """Do ``work``, and return what it returns or raises."""
    try:
        return Result(work())
    except Exception as error:
        return Result(error=error)


def _attempt_in_worker(work: Callable[[], Any], folder: str, threads: int) -> Result:
    """Do ``work`` as if in the folder of the process that asked for it."""
    os.chdir(folder)
    torch.set_num_threads(threads)
    result = attempt(work)
    return result if result.error is None else Result(error=picklable(result.error))


def run_grid(cells: Sequence[Cell], config: GridConfig) -> dict[str, Exception]:
    """Do every cell that is not done, and show how many are done, running and failed, and the time left.

    Args:
        cells: in the order in which they begin, as far as their needs allow.
        config: where they run.

    Returns:
        Cell -> why it failed. A cell that needs one of them is left out, and not among them.

    Raises:
        ValueError: in one line, if Ray cannot be used.
    """
    with Bar("cells", len(cells), transient=True) as bar:
        run = _Run(cells, bar)
        if run.is_finished():  # Ray takes seconds to start
            return {}
        with _executor(config) as executor:
            return run.finish(executor)


@contextmanager
def _executor(config: GridConfig) -> Generator[Executor]:
    if config.executor == "ray":
        with ray_cluster(config.address) as ray:
            executor = OnRay(ray, config.threads or 1, config.gpus)
            if config.address in ("auto", "local"):  # any other may grow when it is asked for more
                executor.refuse_too_large()
            yield executor
        return
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or before)
    try:
        yield InProcess()
    finally:
        torch.set_num_threads(before)


class _Run:
    """The state of a grid that runs."""

    def __init__(self, cells: Sequence[Cell], bar: Bar) -> None:
        self.waiting, self.bar = list(cells), bar
        self.done: set[str] = set()
        self.running: list[str] = []
        self.failures: dict[str, Exception] = {}

    def is_finished(self) -> bool:
        """Whether earlier runs did all cells."""
        if cell := self._next():
            self.waiting.insert(0, cell)
        return not self.waiting

    def finish(self, executor: Executor) -> dict[str, Exception]:
        """Do all cells that can be done."""
        while self._start(executor) or self.running:
            cell, result = executor.wait()
            self.running.remove(cell.name)
            if result.error is None:
                cell.save(result.value)
                self.done.add(cell.name)
            else:
                self.failures[cell.name] = result.error
                self.bar.say(f"failed: {cell.name}: {reason(result.error)}")
            self._show()
        return self.failures

    def _start(self, executor: Executor) -> bool:
        """Start cells while there is room; returns whether any began."""
        began = False
        while len(self.running) < executor.slots and (cell := self._next()):
            self.running.append(cell.name)
            self._show()
            executor.start(cell)
            began = True
        return began

    def _next(self) -> Cell | None:
        """The first cell that can begin and is not done; those that are done are counted on the way."""
        while ready := [cell for cell in self.waiting if self.done.issuperset(cell.needs)]:
            self.waiting.remove(ready[0])
            if not ready[0].is_done():
                return ready[0]
            self.done.add(ready[0].name)
        return None

    def _show(self) -> None:
        states = [f"running {', '.join(self.running)}" if self.running else ""]
        states.append(f"{len(self.failures)} failed" if self.failures else "")
        self.bar.update(len(self.done), "; ".join(filter(None, states)))


def reason(error: Exception) -> str:
    """Why a cell failed, in one line. A `ValueError` says it by itself."""
    text = one_line(str(error).strip().partition("\n")[0])
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
