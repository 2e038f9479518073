"""Every code block of the pages is run, or checked against what it names; a block that nothing checks fails."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from vqmem import recipes, registry
from vqmem.cli import main
from vqmem.recipes.text_lm import for_tokenizer
from vqmem.registry import ROOT
from vqmem.tests.e2e import code_blocks
from vqmem.tests.e2e.code_blocks import PAGES, RUNS, SAME, Block, ShellCommand, blocks, shell_commands
from vqmem.tests.e2e.tiny_comparison import TINY as TINY_COMPARISON

ELSEWHERE = {
    ".venv/bin/python -m pytest tests/contract -k NAME": "tests/e2e/test_new_policy.py runs it",
    "ray start --head": "starts a cluster on this machine; tests/e2e/test_compare_on_ray.py runs grids on Ray",
    "vqmem explore": "opens an app and waits; tests/e2e/test_explore_browser.py uses it in a browser",
}
"""Commands that are not run here -> why, or what checks them."""
NO_CODE = {
    "Facts that are asked for late, on synthetic text": "output of minutes of training",
    "h', c' = F(e, h, c)": "formulas",
    "surprise = -log p(x | ĥ)": "formulas",
    "priority = w · f(signals) - age_weight · log(age)": "a formula",
    "u u u u u u u u": "a picture of a sequence",
    "on the dev split:": "output of a minute of training",
    "bits per byte on 12 passages": "output of a minute of training",
}
"""How a block of the language ``text`` begins -> what it is."""
UNAVAILABLE = {"kvpress": "not always installed; tests/parity/test_hf_kvpress.py does the same"}
"""A package that a Python block imports -> why the block is only compiled."""
DIRECTIVES = {"{toctree}", "{eval-rst}", "{variants}"}
"""What tests/unit/test_docs.py builds."""

FIT = ["passages=2", "stream_passages=2", "device=cpu"]
CACHES = ["presses=[]", "capacities=[40]", "streams={passages: 6, length: 96, chunk: 48, rare: 2.0}"]
CACHES += ["needles={tasks: [niah_single_1], texts: [400], quizzes: 1, shares: [0.25], threshold: 0}"]
CACHES += ["costs={prompt: 64, chunk: 32, answer: 2}"]
TINY = {
    "train-scorer": code_blocks.TOKENIZER_SCORER,
    "fit_policy MODEL": [*FIT, "length=320", "capacity=24", "dtype=float32"],
    "fit_policy HuggingFaceTB/SmolLM2-135M": [*FIT, "length=320", "capacity=24", "dtype=float32"],
    "fit_policy": FIT,
    "generate": ["--tokens", "4"],
    "text_lm": code_blocks.LM,
    "compare": [*TINY_COMPARISON, "fit={passages: 2, stream_passages: 2}"],
    "kv_cache": CACHES,
}
"""Command, with its first argument or without -> what is added to its arguments, so that it takes no time."""
CHANGED = {
    "executor=ray": "executor=in_process",
    "address=10.0.0.1:6379": "address=auto",
    "out=/shared/scores": "out=shared",
    "NAME": "fifo",
}
"""Parts of a command that name what no test has -> what stands for them."""
FOR_REAL = {"docs/training.md", *(f"docs/tutorials/{name}.md" for name in ("language-models", "speech", "kv-cache"))}
"""Pages whose recipes are run; those of others are only resolved, since each recipe has tests of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A folder with the files that the pages name; runs are added to it when a page names them."""
    folder = tmp_path_factory.mktemp("named")
    code_blocks.make_files(folder, tokenizer_folder)
    return folder


@pytest.fixture
def workplace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Enters a copy of that folder, with the runs that a text names."""
    monkeypatch.delenv("VQMEM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    configs = shutil.copytree(Path(recipes.text_lm.__file__).parent / "configs", tmp_path / "configs")
    quick = dict(override.split("=", 1) for override in code_blocks.TOKENIZER_SCORER)
    (configs / "scorer_quick.yaml").write_text("".join(f"{key}: {value}\n" for key, value in quick.items()))
    monkeypatch.setattr(for_tokenizer, "CONFIGS", configs)

    def enter(text: str) -> Path:
        monkeypatch.chdir(made)
        for name in (*RUNS, *SAME):
            if code_blocks.names_run(text, name):
                code_blocks.make_run(name)
        here = shutil.copytree(made, tmp_path / "here")
        monkeypatch.chdir(here)
        return here

    return enter


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_work(page: Path, workplace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    if not found:
        return
    here = workplace("\n".join(block.text for block in found if block.language in ("", "sh", "python")))
    if configs := sorted(page.parent.glob("configs/*.yaml")):
        shutil.copy(configs[0], here / "my.yaml")  # a config of one's own for the recipe of the page
    names: dict[str, Any] = {}
    for block in found:
        print(f"--- {block.place}", file=sys.stderr)  # pytest shows it where the block fails
        check_block(block, names, monkeypatch)


def check_block(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a block by its language; ``names`` are the variables of the page's Python blocks."""
    match block.language:
        case "python":
            run_python(block, names, monkeypatch)
        case "":
            for command in shell_commands(block.text):
                check_command(block, command, monkeypatch)
        case "sh":
            path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            subprocess.run(["bash", "-euc", block.text], check=True, env={"PATH": path})
        case "yaml":
            check_config(block)
        case "toml":
            groups = tomllib.loads(block.text)["project"]["entry-points"]
            assert {group.removeprefix("vqmem.") for group in groups} <= {*registry.KINDS}, block.place
        case "text":
            assert any(block.text.startswith(start) for start in NO_CODE), f"{block.place}: add it to NO_CODE"
        case _:
            assert block.language.split()[0] in DIRECTIVES, f"{block.place}: nothing checks {block.language!r}"


# --- Python and YAML -----------------------------------------------------------------------------------------------


def run_python(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute a block with the variables of the page; the first gets a tiny model and what a user has beside it.

    A block that opens with the name of its file is a module of the package.
    """
    code = compile(block.text, block.place, "exec")
    if any(package in block.text for package in UNAVAILABLE):
        return
    if not names:
        model = AutoModelForCausalLM.from_pretrained("MODEL")
        model.generation_config.max_time = 0.2  # seconds, whatever the number of tokens that is asked for
        tokenizer, text = AutoTokenizer.from_pretrained("MODEL"), Path("novel.txt").read_text()
        names |= {"model": model, "tokenizer": tokenizer, "text": text, "prefix": text}
        names["inputs"] = tokenizer(text[:600], return_tensors="pt", return_token_type_ids=False)
    torch.manual_seed(0)
    if file := re.match(r"# (\S+)\.py\n", block.text):
        module = types.ModuleType("vqmem." + file[1].replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(code, vars(module) | {"__package__": module.__name__.rpartition(".")[0]})
    else:
        exec(code, names)


def check_config(block: Block) -> None:
    """A YAML block is a config: of the recipe that its first line names, as that file, or of the page's recipe."""
    named = re.match(r"# (\w+\.yaml), a config of vqmem (\w+)\n", block.text)
    readme = re.match(r"recipes/(\w+)/README.md", block.page)
    assert named or readme, f"{block.place}: begin it with `# FILE.yaml, a config of vqmem RECIPE`"
    file, recipe = named.groups() if named else ("block.yaml", readme[1])
    assert isinstance(yaml.safe_load(block.text), dict), block.place
    Path(file).write_text(block.text)
    assert main([recipe, file, "--print-config"]) == 0, block.place


# --- commands ------------------------------------------------------------------------------------------------------


def check_command(block: Block, command: ShellCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in this process, or check what it names."""
    if command.line in ELSEWHERE:
        return
    program, *words = command.words
    if program == "torchrun":
        program, *words = words[words.index("-m") + 1 :]
    match program:
        case "vqmem":
            if command.stdin:
                monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(command.stdin).read_bytes())))
            run_vqmem(block, [CHANGED.get(word, re.sub(r"\bNAME\b", CHANGED["NAME"], word)) for word in words])
        case "make":
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"(?m)^{target}:", makefile) for target in words), block.place
        case "pip":
            assert words[0] == "install", block.place
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = re.findall(r"\[([\w,]+)\]", command.line)
            assert named, block.place
            assert {extra for group in named for extra in group.split(",")} <= {*extras}, block.place
        case "python" | ".ci/run":
            assert (ROOT / (words[0] if program == "python" else program)).is_file(), block.place
        case _:
            pytest.fail(f"{block.place}: nothing checks `{command.line}`; add it to ELSEWHERE, with what does")


def run_vqmem(block: Block, words: list[str]) -> None:
    """Run `vqmem` with little to do; a recipe is only resolved, except on pages of FOR_REAL."""
    name, *rest = words
    if "--help" in rest:
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code == 0, block.place
        return
    if name.replace("-", "_") in registry.names("recipes") and block.page not in FOR_REAL:
        assert main([*words, "--print-config"]) == 0, f"{block.place}: vqmem {' '.join(words)}"
        return
    added = TINY.get(" ".join(words[:2]), TINY.get(name, []))
    assert main([*words, *added]) == 0, f"{block.place}: vqmem {' '.join(words)}"


def test_the_tables_of_exceptions_name_what_is_there() -> None:
    everything = [block for page in PAGES for block in blocks(page)]
    shell = {command.line for block in everything if block.language == "" for command in shell_commands(block.text)}
    assert {*ELSEWHERE} <= shell
    texts = [block.text for block in everything if block.language == "text"]
    assert all(any(text.startswith(start) for text in texts) for start in NO_CODE)
    python = "".join(block.text for block in everything if block.language == "python")
    assert all(package in python for package in UNAVAILABLE)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("", "docker run vqmem"),
        ("", "vqmem text_lm novels no_key=1"),
        ("", "make tea"),
        ("", "pip install 'vqmem[tea]'"),
        ("ruby", "puts 1"),
        ("text", "any output"),
        ("yaml", "strategy: fifo"),
        ("python", "1 / 0"),
    ],
)
def test_a_block_that_is_wrong_or_that_nothing_checks_fails(language, text, workplace, monkeypatch) -> None:
    workplace("")
    with pytest.raises((AssertionError, pytest.fail.Exception, ZeroDivisionError)):
        check_block(Block("recipes/text_lm/README.md", 1, language, text), {}, monkeypatch)
