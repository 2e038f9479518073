"""The loader of training batches: the same batches and positions for any number of workers, which end with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.reading.audio import Audio
from vqmem.data.reading.files import UnreadableError
from vqmem.models.speech.hubert import HubertConfig
from vqmem.recipes.asr.base import Utterance
from vqmem.recipes.asr.ctc.batches import RecordingLoading, utterance_sampler
from vqmem.recipes.engine import loader as engine
from vqmem.recipes.engine.loader import SIGNALS, BatchLoader, IndexSampler
from vqmem.recipes.speech.text_normalisation import Alphabet
from vqmem.recipes.speech_pretraining.clips import CropLoading, PretrainingClip, pretraining_sampler

MODEL = HubertConfig()
FRAMES = (9, 40, 77, 21, 33)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for number, frames in enumerate(FRAMES):
        soundfile.write(folder / f"{number}.flac", draw.uniform(-0.5, 0.5, MODEL.samples(frames)), 16000)
    return [Audio(str(folder / f"{number}.flac")) for number in range(len(FRAMES))]


def pretraining(recordings, workers, rank=0, world=1):
    clips = [PretrainingClip(audio.name, audio, torch.arange(n)) for audio, n in zip(recordings, FRAMES, strict=True)]
    return BatchLoader(pretraining_sampler(clips, 2, 3, rank, world), CropLoading(MODEL, 30), workers)


def recognition(recordings, workers, rank=0, world=1):
    utterances = [Utterance(audio.name, audio, "ab", MODEL.samples(9)) for audio in recordings]
    sampler = utterance_sampler(utterances, FRAMES, 2, 3, rank, world)
    return BatchLoader(sampler, RecordingLoading(Alphabet.of(["ab"]), MODEL, 0.1, 0.3, 4), workers)


def tensors(batch):
    return [batch] if isinstance(batch, torch.Tensor) else [tensor for part in batch for tensor in tensors(part)]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(tensors(left), tensors(right), strict=True))


@pytest.mark.parametrize("make", [pretraining, recognition])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_batches_and_positions_are_the_same_for_any_number_of_workers(make, rank, world, recordings):
    alone = make(recordings, 0, rank, world)
    expected = [(alone.next(), alone.state_dict()) for _ in range(9)]
    before = torch.random.get_rng_state()
    for workers in (1, 2):
        with make(recordings, workers, rank, world) as loader:
            for batch, state in expected:
                assert same(loader.next(), batch)
                assert loader.state_dict() == state
            loader.load_state_dict(json.loads(json.dumps(expected[3][1])))  # goes back, with batches loaded ahead
            assert loader.state_dict() == expected[3][1]
            assert all(same(loader.next(), batch) for batch, _ in expected[4:])
    assert torch.equal(torch.random.get_rng_state(), before), "workers change the random numbers of the training"


def test_workers_start_once_loading_has_taken_long(recordings):
    alone, loader = pretraining(recordings, 0), pretraining(recordings, None)
    assert same(loader.next(), alone.next())
    assert loader._batches is None
    loader._patience = 1e-9
    with loader:
        assert all(same(loader.next(), alone.next()) for _ in range(4))
        assert loader._batches is not None
        assert loader.state_dict() == alone.state_dict()
    assert loader._batches is None


def test_the_number_of_workers_suits_the_cpus(monkeypatch):
    counts = []
    for cpus, processes in ((1, 1), (2, 1), (4, 1), (64, 1), (16, 4), (2, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cpus=cpus: range(cpus), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        counts.append(engine.suitable_workers())
    assert counts == [1, 1, 3, 8, 3, 1]


@dataclass(frozen=True)
class Reading:
    """Says each number, and fails or dies at some."""

    def __call__(self, number: int) -> int:
        print("a warning", file=sys.stderr)
        if number == 3:
            raise UnreadableError("'3.wav' is damaged; make it again")
        if number == 13:
            raise KeyError("a bug")
        if number == 23:
            os._exit(1)
        return number


def numbers(start: int, workers: int) -> BatchLoader:
    return BatchLoader(IndexSampler(lambda index: start + index.number), Reading(), workers)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_unreadable_recording_is_the_same_error_with_and_without_workers(workers, capsys):
    with numbers(0, workers) as loader:
        assert [loader.next() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(UnreadableError) as raised:
            loader.next()
    assert str(raised.value) == "'3.wav' is damaged; make it again"
    assert capsys.readouterr().err.count("a warning") == (1 if workers else 4)


def test_a_bug_shows_its_traceback_and_a_dead_worker_what_to_do():
    with numbers(13, 1) as loader, pytest.raises(KeyError, match="a bug"):
        loader.next()
    with (
        numbers(23, 1) as loader,
        pytest.raises(ChildProcessError, match=r"a process that loads batches died.*workers=0"),
    ):
        loader.next()


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
def test_workers_outlive_signals_but_not_their_process(kill, tmp_path):
    script = tmp_path / "script.py"  # it has no guard for the main module, and closes no loader
    script.write_text(
        "import multiprocessing, signal, time\n"
        "from vqmem.recipes.engine.loader import SIGNALS, BatchLoader, IndexSampler, _unchanged\n"
        "caught = set()\n"
        "for number in SIGNALS:\n"
        "    signal.signal(number, lambda number, frame: caught.add(number))\n"
        "loader = BatchLoader(IndexSampler(lambda index: index.number), _unchanged, 2)\n"
        "loader.next()\n"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "while caught != SIGNALS:\n"
        "    time.sleep(0.05)\n"
        "print(*[loader.next() for _ in range(20)])\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, **pipes)
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    if kill:
        process.kill()
    else:
        for number in SIGNALS:
            os.killpg(process.pid, number)  # as a terminal does: to all processes
    out, err = process.communicate(timeout=60)  # waits until the last process has closed standard error
    assert err == ""
    assert out.split() == ([] if kill else [str(i) for i in range(1, 21)])
    deadline = time.monotonic() + 30
    while any(_is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
