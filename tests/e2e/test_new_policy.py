"""The policy of docs/add-a-variant.md, one new file in a copy of the package, appears wherever policies do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vqmem.registry import ROOT
from vqmem.tests.e2e.tiny_comparison import TINY

PARTS = ("data", "memory", "models", "recipes", "tokenizers_", "tests", "docs")
MINE = ["seeds=[0]", "strategies={fifo: {policy: fifo}, mine: {policy: oldest}}"]
MINE += ["trained=[]", "baseline=fifo", "out=run"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A folder with a copy of the package, which has the policy of the page as well."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "vqmem"
    package.mkdir()
    for file in (*ROOT.glob("*.py"), *ROOT.glob("*.pyi"), ROOT / "pyproject.toml"):
        shutil.copy(file, package)
    for part in PARTS:
        shutil.copytree(ROOT / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs" / "add-a-variant.md").read_text(encoding="utf-8")
    code = re.search(r"(?ms)^```python\n# memory/policies/oldest\.py\n(.*?)^```", page)
    assert code
    assert len(code[1].splitlines()) <= 30
    (package / "memory" / "policies" / "oldest.py").write_text(code[1])
    return folder


def run(folder: Path, *command: str) -> str:
    """What a Python command prints that finds the copy in place of the package."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_and_explained(copied):
    assert "oldest       Keep the oldest tokens, forget the newest." in run(copied, "-m", "vqmem", "list", "policies")
    assert "weight" in run(copied, "-m", "vqmem", "list", "policies", "oldest")


def test_it_passes_the_contract_tests(copied):
    found = run(
        copied, "-m", "pytest", "-q", "-p", "no:cacheprovider", "vqmem/tests/contract/test_policies.py", "-k", "oldest"
    )
    assert int(re.search(r"(\d+) passed", found)[1]) >= 4


def test_it_is_in_the_table_of_the_documentation(copied):
    pytest.importorskip("sphinx", reason="needs Sphinx (extra 'dev')")
    code = "import sys; sys.path.insert(0, 'vqmem/docs'); import extensions; print(extensions.markdown('policies'))"
    assert "| [`oldest`](#oldest) | Keep the oldest tokens, forget the newest. | nothing |" in run(copied, "-c", code)


def test_it_is_compared(copied):
    assert "mine" in run(copied, "-m", "vqmem", "compare", "demo", *TINY, *MINE)


def test_it_is_explored(copied):
    (copied / "story.txt").write_text("Call me Ishmael. " * 40)
    run(copied, "-m", "vqmem", "explore", "story.txt", "--html", "story.html", "--strategies", "fifo,oldest")
    assert '"oldest":{"capacity":128' in (copied / "story.html").read_text()
