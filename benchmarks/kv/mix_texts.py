"""Make the folder of texts that the default scorer is trained on: novels, general text and code.

    python benchmarks/kv/mix_texts.py FOLDER [--data FOLDER]

FOLDER/text/ gets train/ and dev/, whose files are named after their kind. Code is a part of Python's standard library,
every twentieth file of it dev; the rest comes from text/ and text/general/ of ``--data``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sysconfig
from pathlib import Path

CODE = (
    *("", "asyncio", "collections", "concurrent", "ctypes", "email", "http", "importlib", "json", "logging"),
    *("multiprocessing", "unittest", "urllib", "xml"),
)
"""Folders of the standard library to read; the first is its own folder without what is below it."""
LEAST = 200
"""Characters of the shortest file of code."""


def main() -> None:
    """Copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where text/ is written")
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="folder that holds text/ (default $VQMEM_DATA)")
    flags = parser.parse_args()
    for split in ("train", "dev"):
        target = flags.folder / "text" / split
        target.mkdir(parents=True)
        for kind, folder in (("novels", "text"), ("general", "text/general")):
            for path in (flags.data / folder / split).glob("*.txt"):
                shutil.copy(path, target / f"{kind}-{path.name}")
    library = Path(sysconfig.get_paths()["stdlib"])
    for number, path in enumerate(code_files(library)):
        split = "dev" if number % 20 == 7 else "train"
        if len(path.read_text(encoding="utf-8")) >= LEAST:
            name = "-".join(path.relative_to(library).parts)
            shutil.copy(path, flags.folder / "text" / split / f"code-{name}.txt")


def code_files(library: Path) -> list[Path]:
    """The files to read, without tests."""
    found = sorted(library.glob("*.py"))
    for name in filter(None, CODE):
        found += sorted(
            path for path in (library / name).rglob("*.py") if "test" not in path.relative_to(library).parts
        )
    return found


if __name__ == "__main__":
    main()
