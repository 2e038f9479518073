"""Settings of Sphinx for `make docs`. Its source folder is the checkout, so that links hold here and on GitHub."""

from __future__ import annotations

import sys
from pathlib import Path

import vqmem

sys.path.insert(0, str(Path(__file__).parent))

project = "vqmem"
author = copyright = "the authors of vqmem"
version = release = vqmem.__version__
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/notebooks/*.ipynb",
    "docs/tutorials/*.md",
    "docs/results/*.md",
    "recipes/*/README.md",
    "models/pretrained/*/README.md",
]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "extensions"]

highlight_language = "none"  # of blocks that name none, which are commands and formulas
myst_heading_anchors = 4
nb_execution_mode = "off"  # the pages show the stored outputs
nb_merge_streams = True
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"vqmem {version}"
