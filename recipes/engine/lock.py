"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout

from ...files import naming_path
from .distributed import on_main_process, ranks

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Lock ``folder`` (created if missing) while a run writes into it, so that no other run does at the same time.

    The operating system locks the file ``.lock``. It releases the lock when the process ends, for whatever reason; the
    file stays. Among the processes of one run (`ranks`), the first takes the lock, and all learn whether it could.

    If the run fails before it has written more than its config, a folder that was created for it is removed.

    Raises ``ValueError`` if another run has the lock, ``OSError`` if the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(_lock(folder)))()
        yield


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[None]:
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
            with contextlib.suppress(OSError):  # the first error says more
                if made and all(path.name == "config.yaml" or path.name[0] == "." for path in folder.iterdir()):
                    shutil.rmtree(folder)
                    for parent in made[1:]:
                        parent.rmdir()
            raise
