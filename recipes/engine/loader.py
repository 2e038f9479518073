"""The loader of all training batches: a sampler chooses what comes next, a function loads it.

The sampler runs in the main process and is cheap. Where recordings are decoded, worker processes load batches ahead of
the training. Batches and saved positions are the same for any number of workers.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

PATIENCE = 5.0
"""Seconds that the main process loads batches before it starts workers, which takes about as long."""
MAX_WORKERS = 8
"""Maximum number of workers unless another is given."""
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals that only the main process handles; it still needs the workers for the current step."""


@runtime_checkable
class Sampler(Protocol):
    """Endless requests, from each of which a batch is loaded, and a position that is a JSON-able value."""

    def next(self) -> Any:
        """The next request."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position of the next request."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the position at which ``state`` was taken."""
        ...


class BatchIndex(NamedTuple):
    """Identifies a batch: process ``rank`` of ``world`` has drawn ``drawn`` batches before it."""

    drawn: int
    rank: int
    world: int

    @property
    def number(self) -> int:
        """Its number among the batches of all processes."""
        return self.drawn * self.world + self.rank

    def random(self, seed: int) -> random.Random:
        """A generator of random numbers for this batch."""
        return random.Random(f"{seed}:{self.rank}:{self.drawn}")


class IndexSampler:
    """A sampler whose request depends only on the `BatchIndex`, so that its state is one number.

    Args:
        choose: makes the request.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(self, choose: Callable[[BatchIndex], Any], rank: int = 0, world: int = 1) -> None:
        self.choose, self.index = choose, BatchIndex(0, rank, world)

    def next(self) -> Any:
        """The next request."""
        request = self.choose(self.index)
        self.index = self.index._replace(drawn=self.index.drawn + 1)
        return request

    def state_dict(self) -> dict[str, Any]:
        """The number of batches drawn so far."""
        return {"drawn": self.index.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.index = self.index._replace(drawn=state["drawn"])


def shuffled(count: int, seed: int, number: int) -> int:
    """Element ``number`` of an endless sequence: the indices below ``count``, shuffled differently each epoch."""
    epoch, index = divmod(number, count)
    return epoch_order(count, seed, epoch)[index]


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The shuffled indices of an epoch; cached, since a sampler asks for every item."""
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def crop_sampler(
    lengths: Sequence[int], batch_size: int, size: int, seed: int, rank: int = 0, world: int = 1
) -> IndexSampler:
    """Sample random crops, every position equally likely; a request is a list of (recording, start).

    Args:
        lengths: length of each recording.
        batch_size: crops in a batch.
        size: length of a crop; a shorter recording has one position.
        seed: seed of the positions.
        rank: number of this process.
        world: number of processes.

    Returns:
        The sampler; each of its items asks for the ``batch_size`` crops of one batch.
    """
    places = [max(1, length - size + 1) for length in lengths]
    ends = list(accumulate(places))

    def choose(index: BatchIndex) -> list[tuple[int, int]]:
        draw = index.random(seed)
        chosen = draw.choices(range(len(places)), cum_weights=ends, k=batch_size)
        return [(recording, draw.randrange(places[recording])) for recording in chosen]

    return IndexSampler(choose, rank, world)


class BatchLoader:
    """Endless batches, loaded by worker processes or by the main process; a context that ends the workers.

    Args:
        sampler: chooses what the next batch contains.
        load: makes a batch from a request. For workers, it and the requests must be picklable; they get no other data.
        workers: number of worker processes. None starts them, in a number that suits the CPUs, once loading has taken
            ``PATIENCE`` seconds. 0 suits data that is in memory.
    """

    def __init__(self, sampler: Sampler, load: Callable[[Any], Any], workers: int | None = 0) -> None:
        self.sampler, self.load, self.workers = sampler, load, workers
        self._delivered = sampler.state_dict()
        self._ahead: deque[dict[str, Any]] = deque()
        """The positions after each batch that is requested but not delivered."""
        self._batches: Any = None
        self._patience = PATIENCE if workers is None else 0.0
        self._printed: set[str] = set()

    def next(self) -> Any:
        """The next batch. Raises what ``load`` raises, and `ChildProcessError` if a worker died."""
        if self._patience > 0 or self.workers == 0:
            began = time.perf_counter()
            batch = self.load(self.sampler.next())
            self._delivered = self.sampler.state_dict()
            self._patience -= time.perf_counter() - began
            return batch
        if self._batches is None:
            self._batches = self._start_workers(self.workers or suitable_workers())
        try:
            outcome, printed = next(self._batches)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise ChildProcessError(
                f"a process that loads batches died ({error}); it may lack memory or shared memory (/dev/shm): set "
                "workers=0, or a smaller number"
            ) from error
        for line in printed.splitlines():
            if line not in self._printed:
                print(line, file=sys.stderr)
            self._printed.add(line)
        if isinstance(outcome, _Failure):
            raise pickle.loads(outcome.error)
        self._delivered = self._ahead.popleft()
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that `next` returned."""
        return self._delivered

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the position at which ``state`` was taken."""
        self._end_workers()
        self.sampler.load_state_dict(state)
        self._delivered = self.sampler.state_dict()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_workers()

    def _start_workers(self, workers: int) -> Any:
        loader = DataLoader(
            _Loading(self.load),
            sampler=self._requests(),  # pyright: ignore[reportArgumentType]  # it needs no length
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=workers,
            multiprocessing_context=_context(self.load.__module__),
            worker_init_fn=_end_with_parent,
            generator=torch.Generator(),  # the default one would change the random numbers of the training
        )
        atexit.register(self._end_workers)  # else Python would wait for them
        with _clean_start():
            return iter(loader)

    def _end_workers(self) -> None:
        if self._batches is not None:
            self._batches._shutdown_workers()  # without it they would last as long as any traceback
            atexit.unregister(self._end_workers)
        self._batches = None
        self._ahead.clear()

    def _requests(self) -> Iterator[bytes]:
        """The pickled requests. As objects, every tensor in them would need a file descriptor."""
        while True:
            request = self.sampler.next()
            self._ahead.append(self.sampler.state_dict())
            yield pickle.dumps(request)


def available_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suitable_workers() -> int:
    """The CPUs of this process but one, at most `MAX_WORKERS`, at least 1."""
    return max(1, min(MAX_WORKERS, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


@dataclass(frozen=True)
class _Failure:
    error: bytes


class _Loading(Dataset[Any]):
    """Loads batches in a worker."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self.load = load

    def __getitem__(self, request: bytes) -> tuple[Any, str]:
        """The batch, or the error that it raised for the user, and the lines that were printed."""
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            try:
                outcome = self.load(pickle.loads(request))
            except (ValueError, OSError) as error:  # `DataLoader` would put a traceback into its message
                error.add_note(traceback.format_exc())
                outcome = _Failure(pickle.dumps(error))
        return outcome, printed.getvalue()


def _end_with_parent(worker: int) -> None:
    """End this worker when the main process is killed; torch watches the server that forked it instead."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _unchanged(batch: Any) -> Any:
    return batch


def _context(module: str) -> Any:
    """Start workers from a server that has imported ``module``: a fork is unsafe beside threads and CUDA."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, module])
    return context


@contextlib.contextmanager
def _clean_start() -> Generator[None]:
    """Start processes that neither handle signals of the terminal, run the user's script, nor print on their end."""
    # After a kill -9, the tracker of semaphores would warn that it removed some.
    sys.warnoptions.append(quiet := "ignore:resource_tracker:UserWarning")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    resource_tracker.ensure_running()  # it unblocks some of them
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.warnoptions.remove(quiet)
