"""Progress with an estimate of the time left: a bar on a terminal, otherwise a plain ASCII line every few seconds.

Everything is written to standard error, so that standard output contains only results.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ...console import one_line, visible
from .distributed import ranks

T = TypeVar("T")

PLAIN_EVERY = 10.0
"""Seconds between two lines where there is no terminal (a log file, a CI job)."""


class Bar:
    """A context manager that shows the progress of a job. With ``quiet``, and in all ranks but the first, it is silent.

    If writing fails, as after the terminal was closed, the bar becomes silent and the job continues.

    Args:
        description: the name of the job.
        total: the number of units; with ``None`` only the number done is shown.
        start: units that an earlier process did. The time left is estimated from the speed of this process.
        quiet: show nothing.
    """

    def __init__(self, description: str, total: int | None, *, start: int = 0, quiet: bool = False) -> None:
        self.description = one_line(description)
        self.total, self.start, self.done = total, start, start
        self.quiet = quiet or ranks()[0] > 0
        self.began = self.shown = time.monotonic()
        console = Console(stderr=True)
        self.live = None
        if console.is_terminal and not self.quiet:
            texts = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}")]
            columns = (texts[0], BarColumn(), texts[1])
            self.live = Progress(*columns, console=console, refresh_per_second=4)
            self.task = self.live.add_task(self.description, total=total, completed=start, note="")

    def __enter__(self) -> Bar:
        with self._silenced():
            if self.live is not None:
                self.live.start()
        return self

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of the ``total`` units are finished, with a ``note``."""
        self.done = done
        of = "" if self.total is None else f"/{self.total}"
        line = f"{done}{of}  {note}{'  ' if note else ''}{self._left()}"
        if self.live is not None:
            self.live.update(self.task, completed=done, note=line)
        elif not self.quiet and (time.monotonic() - self.shown >= PLAIN_EVERY or done == self.total):
            self.shown = time.monotonic()
            share = "" if self.total is None else f"{100 * done // max(1, self.total):3d}%  "
            self.say(f"{self.description}  {share}{line}")

    def say(self, message: str) -> None:
        """Print one line without disturbing the bar."""
        message = visible(message)
        with self._silenced():
            if self.live is not None:
                self.live.console.print(message, markup=False, highlight=False)
            elif not self.quiet:
                print(message, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._silenced():
            if self.live is not None:
                self.live.stop()

    @contextlib.contextmanager
    def _silenced(self) -> Iterator[None]:
        """A context for writing: if it fails, nothing is written from then on."""
        try:
            yield
        except OSError:
            self.live, self.quiet = None, True

    def _left(self) -> str:
        spent, here = time.monotonic() - self.began, self.done - self.start
        if self.total is None:
            return ""
        if self.done >= self.total:
            return f"took {duration(spent)}"
        return f"{duration(spent / here * (self.total - self.done))} left" if here > 0 else ""


def progress(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield ``items`` and show how many of ``total`` (None if unknown) are done and how long the rest will take."""
    with Bar(description, total) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(done)


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
