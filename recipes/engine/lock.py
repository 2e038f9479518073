"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ...files import naming_path
from .distributed import on_main_process, ranks

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Around work that writes into ``folder`` (made if need be), which no other run may do at the same time.

    The lock is the operating system's, on the file ``.lock``: it goes with the process, however that ends, and the file
    stays behind. Of the processes of one run (`ranks`) the first takes it, and all know whether it could.

    Where the work fails before it has written more than its config, a folder that was made for it goes again.

    Raises ``ValueError`` where another run has it, ``OSError`` where the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        on_main_process(lambda: held.enter_context(_lock(folder)))()
        yield


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    if ranks()[0] > 0:
        yield
        return
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    with naming_path(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / LOCK, timeout=0).acquire()
        except Timeout:
            raise ValueError(f"{folder} is in use by another run; wait for its end, or give another `out`") from None
    with lock:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong before says more
                if made and all(path.name == "config.yaml" or path.name[0] == "." for path in folder.iterdir()):
                    shutil.rmtree(folder)
                    for parent in made[1:]:
                        parent.rmdir()
            raise
