"""The pages build as a site without a warning, and its tables name every variant."""

import importlib.util
import re
import subprocess
import sys

import pytest
from vqmem import registry

PAGES = {"policies": "policies", "compressions": "compressions", "scorers": "scorers"}
PAGES |= {"front-ends": "front-ends", "data-sources": "data"}


@pytest.mark.skipif(importlib.util.find_spec("myst_nb") is None, reason="needs Sphinx and MyST-NB (extra 'dev')")
def test_the_site_builds_without_a_warning_and_names_every_variant(tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(tmp_path / "cache"),
        "-c",
        "docs",
        ".",
    ]
    done = subprocess.run([*command, str(tmp_path / "site")], cwd=registry.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for page, kind in PAGES.items():
        html = (tmp_path / "site" / "docs" / f"{page}.html").read_text(encoding="utf-8")
        shown = re.findall(r'<h2>(\S+?)<a class="headerlink"', html)
        assert shown == registry.names(kind)
    policies = (tmp_path / "site" / "docs" / "policies.html").read_text(encoding="utf-8")
    assert "https://arxiv.org/abs/2306.14048" in policies
    notebook = (tmp_path / "site" / "docs" / "notebooks" / "kv_cache.html").read_text(encoding="utf-8")
    assert "tokens read" in notebook  # a stored output
    assert "VQMemCache" in (tmp_path / "site" / "docs" / "api.html").read_text(encoding="utf-8")
