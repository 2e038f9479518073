"""Shared by all tests: shape checks are on, threads are few, and real data is found or its absence named."""

import os
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).parents[1]
PARTS = ["data", "memory", "models", "recipes", "tokenizers_", *(path.stem for path in ROOT.glob("[!_]*.py"))]
jaxtyping.install_import_hook([f"vqmem.{part}" for part in PARTS], "beartype.beartype")
torch.set_num_threads(1)
# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("vqmem", deadline=None)
hypothesis.settings.load_profile("vqmem")
# Two processes that fill numba's cache at once can leave one that crashes all later processes (numba/numba#10128).
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["NUMBA_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "numba" / WORKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer of a pretrained model, as `AutoTokenizer` reads it: a BPE on bytes of about 300 ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the name of a function is bound in the local namespace of the class " * 9], trainer)
    folder = tmp_path_factory.mktemp("pretrained") / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def real_data() -> Path:
    """The folder of real data, from VQMEM_DATA or beside the checkout; skips where there is none."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("VQMEM_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VQMEM_DATA")
    return folder
