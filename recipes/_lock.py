"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from ..artifacts import told_of
from ._parallel import ranks

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Around work that writes into ``folder`` (made if need be), which no other run may do at the same time.

    The lock is the operating system's, on the file ``.lock``: it goes with the process, however that ends, and the file
    stays behind. Of the processes of one run (`ranks`) the first takes it.

    Raises ``ValueError`` where another run has it, ``OSError`` where the folder cannot be written.
    """
    if ranks()[0] > 0:
        yield
        return
    with told_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder} is in use by another run; wait for its end, or give another `out`") from None
        yield
