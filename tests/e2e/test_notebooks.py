"""The notebooks run from top to bottom, and what they store is clean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from vqmem.registry import ROOT
from vqmem.tests.unit.tiny_host import tiny_model

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NOT_HERE, LARGE = "skip-execution", "large"
"""Tags of cells: nbclient skips the first as well; the second loads a model of 98 MB."""
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, each with its tags."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"tags": cell["metadata"].get("tags", [])} for cell in cells if cell["cell_type"] == "code"]


@every_notebook
def test_cells_run(
    path: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in code_cells(path):
        if LARGE in cell["tags"]:
            names |= {"model": tiny_model(300), "tokenizer": AutoTokenizer.from_pretrained(tokenizer_folder)}
        elif NOT_HERE not in cell["tags"]:
            exec(compile("".join(cell["source"]), f"{path.name}, cell {cell['id']}", "exec"), names)
    assert capsys.readouterr().out


@every_notebook
def test_outputs_are_complete_and_name_no_machine(path: Path) -> None:
    cells = code_cells(path)
    assert "".join(cells[0]["source"]).startswith("%pip install"), "it would not run on Colab"
    assert all(cell["execution_count"] for cell in cells if NOT_HERE not in cell["tags"]), "a cell was not run"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {})), "no picture"
    for output in outputs:
        assert output["output_type"] in ("stream", "execute_result")
        assert output.get("name") != "stderr", "progress bars or warnings are stored"
        shown = [output.get("text", ""), *(x for kind, x in output.get("data", {}).items() if kind != "image/png")]
        text = "".join(map("".join, shown))
        assert not re.search(r"/(home|root|tmp|work|usr|opt|var|Users|content)/|[A-Z]:\\", text), "an absolute path"


def test_there_is_one_for_text_one_for_speech_and_one_for_caches() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["kv_cache", "speech_memory", "text_memory"]
