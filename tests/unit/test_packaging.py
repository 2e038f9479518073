"""What is installed is what is on disk, and nothing but `vqmem`."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = ["data", "memory", "models", "recipes", "tokenizers_"]
"""The folders that are sub-packages."""
SHIPPED = (".py", ".pyi", ".yaml", ".html", ".css", ".js", ".md", ".json", ".safetensors", ".gz")


def shipped() -> set[str]:
    """What a wheel must hold, from the disk."""
    inside = [path for part in PARTS for path in (ROOT / part).rglob("*") if path.suffix in SHIPPED]
    return {
        f"vqmem/{path.relative_to(ROOT)}"
        for path in [*ROOT.glob("*.py"), *ROOT.glob("*.pyi"), ROOT / "py.typed", *inside]
        if path.is_file()
    }


def test_every_package_on_disk_is_listed():
    found = {path.parent.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("__init__.py")}
    on_disk = {
        "vqmem",
        "vqmem.recipes",
        *(".".join(["vqmem", *path.parts]) for path in found),
    }  # recipes: folders alone
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(on_disk)
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path} is in no package"


def test_links_for_type_checkers_are_those_of_the_disk():
    links = ROOT / ".typing" / "vqmem"
    assert sorted(link.name for link in links.iterdir()) == sorted(
        ["benchmarks", *PARTS, *(path.name for suffix in ("py", "pyi") for path in ROOT.glob(f"*.{suffix}"))]
    )
    for link in links.iterdir():
        assert os.readlink(link) == f"../../{link.name}"
        assert link.exists()


@pytest.mark.skipif(
    not importlib.util.find_spec("setuptools"), reason="needs setuptools (extra 'dev') to build a wheel"
)
def test_the_wheel_contains_everything_and_nothing_else(tmp_path):
    """Built from a copy, since building writes beside the sources; without network."""
    copy, wheels = tmp_path / "copy", tmp_path / "wheels"
    keep = {*PARTS, "pyproject.toml", "README.md", "LICENSE", "py.typed", "tests"} | {
        path.name for path in (*ROOT.glob("*.py"), *ROOT.glob("*.pyi"))
    }
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "runs")
    copy.mkdir()
    for name in keep:
        source = ROOT / name
        shutil.copytree(source, copy / name, ignore=skip) if source.is_dir() else shutil.copy2(source, copy / name)
    (copy / "runs").mkdir()
    (copy / "runs" / "mine.yaml").write_text("a: 1")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(wheels), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    inside = {name for name in packed if name.startswith("vqmem/")}
    assert {name.split("/")[0] for name in packed - inside} == {f"vqmem-{PROJECT['project']['version']}.dist-info"}
    assert inside == shipped()


def test_the_version_is_said_once_and_the_same():
    import vqmem

    assert vqmem.__version__ == PROJECT["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {vqmem.__version__}" in changes
    assert f"\nversion: {vqmem.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_upper_bounds_have_their_reason_beside_them():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line.strip().startswith('"') and ",<" in line:
            assert before.strip().startswith("#")


def test_there_is_a_makefile_target_for_each_promise():
    text = (ROOT / "Makefile").read_text()
    for target in ("setup", "demo", "test", "lint", "bench", "clean"):
        assert f"\n{target}:" in text
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
