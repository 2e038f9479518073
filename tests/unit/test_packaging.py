"""What is installed is what is on disk, and nothing but `vqmem`."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = f"vqmem-{PROJECT['project']['version']}"
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


def run(command: list[str | Path], cwd: Path) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel from a folder or an sdist, without network."""
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source], folder.parent)
    (wheel,) = folder.iterdir()
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """The files in a wheel, without the list of their sums."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(("/", ".dist-info/RECORD"))]
        return {name: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is under version control, since building writes beside the sources; with a run of the user's."""
    pytest.importorskip("setuptools", reason="needs setuptools (extra 'dev') to build")
    copy = tmp_path_factory.mktemp("packaging") / "copy"
    copy.mkdir()
    metadata = ["pyproject.toml", "README.md", "LICENSE", "py.typed"]
    code = [path.name for path in (*ROOT.glob("*.py"), *ROOT.glob("*.pyi"))]
    for name in [*metadata, *code]:
        shutil.copy2(ROOT / name, copy / name)
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "runs")
    for name in [*PARTS, "tests"]:
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    (copy / "runs").mkdir()
    (copy / "runs" / "mine.yaml").write_text("a: 1")
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    """The wheel built from the checkout."""
    return build_wheel(checkout, checkout.parent / "from_checkout")


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    """The sdist, built as `python -m build --no-isolation --sdist` does."""
    folder = checkout.parent / "sdist"
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run([sys.executable, "-c", code], checkout)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel_from_sdist(sdist: Path) -> Path:
    """The wheel built from the sdist."""
    return build_wheel(sdist, sdist.parents[1] / "from_sdist")


def test_the_wheel_contains_everything_and_nothing_else(wheel):
    packed = set(contents(wheel))
    inside = {name for name in packed if name.startswith("vqmem/")}
    assert {name.split("/")[0] for name in packed - inside} == {f"{NAME}.dist-info"}
    assert inside == shipped()


def test_the_sdist_contains_the_package_and_its_metadata(sdist):
    with tarfile.open(sdist) as archive:
        packed = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    made = {name for name in packed if name.startswith("vqmem.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    metadata = {"pyproject.toml", "README.md", "LICENSE"}
    assert packed - made == {name.removeprefix("vqmem/") for name in shipped()} | metadata


def test_the_sdist_makes_the_same_wheel_as_the_checkout(wheel, wheel_from_sdist):
    assert contents(wheel_from_sdist) == contents(wheel)


@pytest.mark.parametrize("made", ["wheel", "wheel_from_sdist"])
def test_what_is_installed_works_outside_the_checkout(made, request, tmp_path):
    """In an environment that has the dependencies of this one, and nothing else of it."""
    environment, folder = tmp_path / "environment", tmp_path / "elsewhere"
    venv.create(environment, symlinks=True, with_pip=False)
    python, command = environment / "bin" / "python", environment / "bin" / "vqmem"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "--python", python, "install", *options, request.getfixturevalue(made)], tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Files .pth in these folders are not read, so that an editable vqmem stays out.
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))

    folder.mkdir()
    (folder / "text.txt").write_text("The name of a function is bound in the local namespace.")
    place = run([python, "-P", "-c", "import vqmem; print(vqmem.__file__)"], folder).strip()
    assert Path(place) == packages / "vqmem" / "__init__.py"
    assert "score every token of a text" in run([command, "--help"], folder)
    assert "fifo" in run([command, "list", "policies"], folder)
    tokens = [json.loads(line) for line in run([command, "score", "text.txt", "--json"], folder).splitlines()]
    assert "".join(token["text"] for token in tokens) == (folder / "text.txt").read_text()
    assert all(token["score"] > 0 for token in tokens)


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
    for target in ("setup", "demo", "test", "coverage", "lint", "bench", "clean"):
        assert f"\n{target}:" in text
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
