"""Where results go: places that cannot be written, and folders in which another run is at work."""

from __future__ import annotations

import subprocess
import sys
import time

import yaml
from vqmem.cli import main
from vqmem.recipes.engine.lock import locked


def test_places_that_cannot_be_written(refused, tiny_run, config_file, tmp_path):
    file, text = tmp_path / "file", tmp_path / "text.txt"
    file.write_text("in the way")
    text.write_text("some text")
    for place in (file / "page.html", file / "deep" / "page.html"):
        message = refused("score", text, "--model", tiny_run, "--html", place)
        assert (
            message
            == f"vqmem: cannot write '{place}': '{file}' is a file, where a folder is needed; give another place"
        )
    for place in (file, file / "run"):
        message = refused("text_lm", config_file, f"out={place}")
        assert (
            message
            == f"vqmem: cannot write '{place}': '{file}' is a file, where a folder is needed; give another place"
        )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "text.txt"]
    assert file.read_text() == "in the way"


def test_a_full_disk(tiny_run, tmp_path):
    """Stood in for by the largest size that the process may give a file."""
    (tmp_path / "text.txt").write_text("some text " * 900)
    script = f"""
import resource, sys
from vqmem.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(["score", "{tmp_path}/text.txt", "--model", "{tiny_run}", "--html", "{tmp_path}/page.html"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"vqmem: cannot write '{tmp_path}/page.html': File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_folder_in_which_a_run_is_at_work(refused, config_file, tmp_path):
    """The second run ends with a line; where the first is killed, the lock goes with it."""
    argv = ["text_lm", str(config_file), f"out={tmp_path}/run"]
    command = [sys.executable, "-m", "vqmem", *argv, "scorer_train.steps=1000000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        started = tmp_path / "run" / "scorer" / "training" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not started.is_file() or not started.read_bytes():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        message = refused(*argv, "scorer_train.steps=1000000")
        first.kill()
    assert message == f"vqmem: {tmp_path}/run is in use by another run; wait for its end, or give another `out`"
    assert "contains another run" in refused(*argv, "seed=1")


def test_seeds_of_a_comparison_may_run_at_once_but_none_twice(capsys, refused, config_file, tmp_path):
    lm = yaml.safe_load(config_file.read_text())
    for key in ("strategies", "capacities", "eval_passages"):
        del lm[key]
    strategies = {"transformer_xl": {"policy": "fifo"}, "random": {"policy": "random"}}
    config = {"out": str(tmp_path / "run"), "strategies": strategies, "capacities": [24], "passages": 2, "lm": lm}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(config))
    argv = ["compare", str(tmp_path / "compare.yaml")]
    with locked(tmp_path / "run" / "seed-1"):
        assert main([*argv, "seeds=[0]"]) == 0
        capsys.readouterr()
        message = refused(*argv, "seeds=[1]")
        assert (
            message == f"vqmem: {tmp_path}/run/seed-1 is in use by another run; wait for its end, or give another `out`"
        )
    assert main([*argv, "seeds=[1]"]) == 0
    assert main([*argv, "seeds=[0, 1]"]) == 0
    assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 4
