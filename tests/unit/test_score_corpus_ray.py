"""`vqmem score_corpus` on Ray: the same bytes as in one process, also where workers are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from vqmem.data.reading.files import UnreadableError
from vqmem.recipes.score_corpus import on_ray, shards
from vqmem.recipes.score_corpus.run import Summary
from vqmem.tests.unit.scored_corpus import files, names, score, write_recordings, write_texts


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "recordings")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine, however many cores it has."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else workers stand still on a machine that is busy
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
        yield
        ray.shutdown()


def test_ray_writes_the_same_bytes(texts, tmp_path, cluster, monkeypatch):
    score(texts, tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    summary = score(Path("texts"), Path("many"), executor="ray", workers=2)
    assert summary == Summary(7, sum(len(pq.read_table(path)) for path in Path("one").glob("*.parquet")), 4, 0)
    assert files(Path("many")) == files(Path("one"))
    before = files(Path("many"))
    (tmp_path / "many" / "shard-00002.parquet").unlink()
    assert score(Path("texts"), Path("many"), executor="ray").kept == 3
    assert files(Path("many")) == before


def test_a_worker_that_is_killed_loses_and_doubles_nothing(texts, tmp_path, cluster, monkeypatch):
    score(texts, tmp_path / "one")
    marks = tmp_path / "marks"
    marks.mkdir()

    class Dying(shards.ShardScorer):
        """Dies in the first attempt at shard 1, within a document, and after shard 2 was written."""

        def __call__(self, shard, on_document=lambda: None):
            attempt = marks / str(shard.index)
            is_first = not attempt.exists()
            attempt.touch()

            def die() -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            outcome = super().__call__(shard, die if is_first and shard.index == 1 else on_document)
            if is_first and shard.index == 2:
                die()
            return outcome

    monkeypatch.setattr(on_ray, "ShardScorer", Dying)
    summary = score(texts, tmp_path / "many", executor="ray", workers=2)
    assert summary.documents == 7
    finished = {name: data for name, data in files(tmp_path / "many").items() if name.startswith("shard")}
    assert finished == files(tmp_path / "one")
    assert score(texts, tmp_path / "many").kept == 4
    assert files(tmp_path / "many") == files(tmp_path / "one")  # what the dead worker left is removed


def test_what_fails_on_ray_fails_as_in_one_process(recordings, texts, tmp_path, cluster):
    (recordings / "1.wav").write_bytes(b"no sound")
    with pytest.raises(UnreadableError, match=r"1\.wav' is not audio"):
        score(recordings, tmp_path / "out", executor="ray")
    assert names(tmp_path / "out") == [["2.wav", "3.wav"], ["4.wav"]]
    with pytest.raises(ValueError, match=r"workers=3 do not fit the cluster: it has 2 cores"):
        score(texts, tmp_path / "other", executor="ray", workers=3)
    with pytest.raises(ValueError, match=r"device 'cuda:7' is not on this machine|do not fit the cluster"):
        score(texts, tmp_path / "other", executor="ray", device="cuda:7")
