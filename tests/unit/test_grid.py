"""A grid of cells: order, needs, failures, and the same on Ray, where workers die."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.recipes.engine.grid import Cell, GridConfig, reason, run_grid

IN_PROCESS = GridConfig()
RAY = GridConfig(executor="ray")


@pytest.fixture(scope="module")
def ray():
    """One new cluster for all tests here, not one that runs already: starting it takes ten seconds."""
    pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    from vqmem.recipes.engine.ray_cluster import ray_cluster

    with ray_cluster("local") as found:
        yield found


@st.composite
def grids(draw) -> list[tuple[str, tuple[str, ...], bool]]:
    """Name, needs and whether it fails of cells in any order, without circles."""
    count = draw(st.integers(1, 8))
    made = []
    for number in range(count):
        needs = draw(st.sets(st.integers(0, number - 1))) if number else set()
        made.append((str(number), tuple(map(str, sorted(needs))), draw(st.booleans())))
    return draw(st.permutations(made))


@settings(max_examples=60)
@given(grids())
def test_every_cell_runs_once_after_its_needs_unless_one_of_them_failed(grid):
    ran: list[str] = []

    def work(name: str, fails: bool) -> str:
        ran.append(name)
        if fails:
            raise RuntimeError(f"{name} is broken")
        return name

    saved: list[str] = []
    failures = run_grid(
        [Cell(name, partial(work, name, fails), needs, save=saved.append) for name, needs, fails in grid], IN_PROCESS
    )
    needs = {name: set(found) for name, found, _ in grid}
    fails = {name for name, _, failing in grid if failing}

    def possible(name: str) -> bool:
        return all(need not in fails and possible(need) for need in needs[name])

    assert sorted(ran) == sorted(name for name in needs if possible(name))
    assert all(needs[name] <= set(ran[: ran.index(name)]) for name in ran)
    assert set(failures) == fails & set(ran)
    assert saved == [name for name in ran if name not in fails]


def test_cells_that_are_done_are_skipped_and_are_asked_when_their_needs_are_done():
    ran: list[str] = []
    cells = [
        Cell("measure", partial(ran.append, "measure"), ("train",), is_done=lambda: "train" in ran),
        Cell("report", partial(ran.append, "report"), ("measure",)),
        Cell("train", partial(ran.append, "train")),
    ]
    assert run_grid(cells, IN_PROCESS) == {}
    assert ran == ["train", "report"]


def test_names_within_a_domain():
    cell = Cell("measure", list, ("train", "fit")).within("novels")
    assert (cell.name, cell.needs) == ("novels: measure", ("novels: train", "novels: fit"))


def test_progress_names_what_runs_and_what_failed(capsys):
    def fail() -> None:
        raise ValueError("data='x' is empty;\ngive more")

    run_grid([Cell("first", fail), Cell("second", list)], IN_PROCESS)
    assert "failed: first: data='x' is empty;" in capsys.readouterr().err
    assert reason(KeyError("a")) == "KeyError: 'a'"


def test_threads_are_those_of_the_config_and_come_back():
    before, seen = torch.get_num_threads(), []
    run_grid([Cell("one", torch.get_num_threads, save=seen.append)], GridConfig(threads=1))
    assert (seen, torch.get_num_threads()) == ([1], before)


def product(seed: int) -> list[float]:
    """A result that depends on the order of sums."""
    torch.manual_seed(seed)
    return (torch.randn(200, 300) @ torch.randn(300, 200)).sum(0).tolist()


def test_ray_gives_the_same_to_the_bit(ray):
    found: dict[str, list] = {}
    for name, config in (("here", GridConfig(threads=1)), ("ray", RAY)):
        found[name] = []
        cells = [Cell(str(seed), partial(product, seed), save=found[name].append) for seed in range(4)]
        assert run_grid(cells, config) == {}
    assert sorted(found["here"]) == sorted(found["ray"])


def fail_as(kind: type[Exception]) -> None:
    """Fail; on the worker, errors keep their message."""
    raise kind("seeds=[] is empty")


def test_ray_lists_failures_and_leaves_out_what_needs_them(ray):
    cells = [
        Cell("user", partial(fail_as, ValueError)),
        Cell("code", partial(fail_as, KeyError)),
        Cell("after", list, ("user",)),
        Cell("other", list),
    ]
    failures = run_grid(cells, RAY)
    assert {name: reason(error) for name, error in failures.items()} == {
        "user": "seeds=[] is empty",
        "code": "RuntimeError: KeyError: 'seeds=[] is empty'",
    }
    assert "Traceback" in failures["code"].__notes__[0]


def die_once(folder: Path, number: int) -> int:
    """Kill this worker on the first try; every try leaves a file."""
    tries = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{tries}").touch()
    if not tries:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_costs_its_cell_a_retry_and_nothing_else(ray, tmp_path):
    saved: list[int] = []
    cells = [
        Cell(str(n), partial(die_once, tmp_path, n) if n in (1, 4) else partial(abs, n), save=saved.append)
        for n in range(6)
    ]
    assert run_grid(cells, RAY) == {}
    assert sorted(saved) == list(range(6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0", "1-1", "4-0", "4-1"]


def where() -> str:
    """The folder in which a cell works."""
    return os.getcwd()


def test_a_worker_works_in_the_folder_of_the_command(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved: list[str] = []
    assert run_grid([Cell("one", where, save=saved.append)], RAY) == {}
    assert saved == [str(tmp_path)]


def test_a_cluster_of_another_version_is_told_in_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(*args, **options):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.12.1")

    monkeypatch.setattr(ray, "init", refuse)
    said = r"\(Version mismatch: The cluster was started with: Ray: 2.60.0 Python: 3.12.1\)"
    with pytest.raises(ValueError, match=said):
        run_grid([Cell("one", list)], GridConfig(executor="ray"))


def test_a_finished_grid_starts_no_cluster():
    finished = [Cell("one", list, is_done=lambda: True), Cell("two", list, needs=("one",), is_done=lambda: True)]
    assert run_grid(finished, GridConfig(executor="ray", address="127.0.0.1:1")) == {}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_refused_in_one_line(address, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    said = rf"\Ano Ray cluster at address='{address}' \(.+\); give .*local for one of this command\Z"
    with pytest.raises(ValueError, match=said):
        run_grid([Cell("one", list)], GridConfig(executor="ray", address=address))


def test_cells_that_do_not_fit_are_refused_in_one_line():
    pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    config = GridConfig(executor="ray", address="local", gpus=64.0)
    with pytest.raises(ValueError, match=r"\Aa cell with threads=1 and gpus=64 does not fit the cluster"):
        run_grid([Cell("one", list)], config)
