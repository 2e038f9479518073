"""Progress with an estimate of the time left: bars on a terminal, otherwise a plain ASCII line every few seconds.

Everything is written to standard error, so that standard output contains only results. A bar inside another one, such
as that of an evaluation in a training, appears below it and disappears at its end.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...console import one_line, visible
from .distributed import ranks

T = TypeVar("T")

PLAIN_EVERY = 10.0
"""Seconds between two lines where there is no terminal (a log file, a CI job)."""

_model = ContextVar("model", default="")
"""Which of how many models is trained; a prefix of descriptions."""
_display: Progress | None = None
"""The display of the outermost bar. Inner bars are rows of it, because a terminal has room for one display."""


class Bar:
    """A context manager that shows the progress of a job. With ``quiet``, and in all ranks but the first, it is silent.

    If writing fails, as after the terminal was closed, the bar becomes silent and the job continues.

    Args:
        description: the name of the job.
        total: the number of units; with ``None`` only the number done is shown.
        start: units that an earlier process did. The time left is estimated from the speed of this process.
        quiet: show nothing.
        transient: do not report the end of the job. Without a terminal, a job of less than `PLAIN_EVERY` seconds then
            prints nothing.
    """

    def __init__(
        self, description: str, total: int | None, *, start: int = 0, quiet: bool = False, transient: bool = False
    ) -> None:
        self.total, self.transient, self.quiet = total, transient, quiet or ranks()[0] > 0
        self.is_outermost = _display is None and not self.quiet
        self.display = _new_display(self.quiet, transient) if _display is None or self.quiet else _display
        self.task = self.display.add_task(one_line(_model.get() + description), total=total, completed=start, note="")
        self.done, self.printed = start, time.monotonic()

    def __enter__(self) -> Bar:
        global _display
        if self.is_outermost:
            _display = self.display
            with self._silenced():
                self.display.start()
        return self

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of the ``total`` units are finished, with a ``note``."""
        self.done = done
        self.display.update(self.task, completed=done, note=note)
        ends = done == self.total and not self.transient
        if self.display.disable and (ends or time.monotonic() - self.printed >= PLAIN_EVERY):
            self.printed = time.monotonic()
            self.say(self._line(note))

    def advance(self, units: int) -> None:
        """Show that ``units`` more are finished."""
        self.update(self.done + units)

    def say(self, message: str) -> None:
        """Print one line without disturbing the bars."""
        message = visible(message)
        with self._silenced():
            if not self.display.disable:
                self.display.console.print(message, markup=False, highlight=False)
            elif not self.quiet:
                print(message, file=sys.stderr, flush=True)

    def write(self, text: str) -> None:
        """Write results to standard output; the bar, which must be a transient one, makes room for them."""
        with self._silenced():
            self.display.stop()
        sys.stdout.write(text)
        sys.stdout.flush()
        with self._silenced():
            self.display.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _display
        if not self.is_outermost:
            self.display.remove_task(self.task)
            return
        _display = None
        with self._silenced():
            self.display.stop()

    @contextlib.contextmanager
    def _silenced(self) -> Generator[None]:
        """A context for writing: if it fails, nothing is written from then on."""
        try:
            yield
        except OSError:
            self.display.disable = self.quiet = True

    def _line(self, note: str) -> str:
        """The state as a line of text."""
        task = next(task for task in self.display.tasks if task.id == self.task)
        parts = [task.description]
        if self.total is not None:
            parts.append(f"{100 * self.done // max(1, self.total):3d}%")
        parts += [str(self.done) if self.total is None else f"{self.done}/{self.total}", note]
        if task.finished_time is not None:
            parts.append(f"took {duration(task.finished_time)}")
        elif task.time_remaining is not None:
            parts.append(f"{duration(float(task.time_remaining))} left")
        return "  ".join(filter(None, parts))


def progress(
    items: Iterable[T], total: int | None, description: str, *, transient: bool = False, quiet: bool = False
) -> Iterator[T]:
    """Yield ``items`` and show how many are done, and how long the rest will take; see `Bar`.

    Args:
        items: what is done, one after the other.
        total: their number; None where it is not known.
        description: what is being done.
        transient: whether the bar goes at its end.
        quiet: show nothing.

    Yields:
        The items, unchanged.
    """
    with Bar(description, total, transient=transient, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance(1)


@contextlib.contextmanager
def model_of(number: int, total: int) -> Generator[None]:
    """Begin descriptions with "model NUMBER of TOTAL"; not if there is one model, or an outer context numbers them."""
    token = _model.set(_model.get() or (f"model {number} of {total}: " if total > 1 else ""))
    try:
        yield
    finally:
        _model.reset(token)


def _new_display(quiet: bool, transient: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        refresh_per_second=4,
        speed_estimate_period=3600,  # steps between two updates may take minutes
        transient=transient,
        redirect_stdout=False,  # else results would go to the console: to standard error
        disable=quiet or not console.is_terminal,
    )


def duration(seconds: float) -> str:
    """Format seconds for people.

    >>> duration(7), duration(130), duration(8000)
    ('7s', '2m10s', '2h13m')
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    if rounded < 3600:
        return f"{rounded // 60}m{rounded % 60:02d}s"
    return f"{rounded // 3600}h{rounded % 3600 // 60:02d}m"
