"""The fenced blocks of the pages, the commands in them, and a folder with everything that they name, in tiny form."""

from __future__ import annotations

import contextlib
import glob
import io
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from markdown_it import MarkdownIt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from vqmem.cli import main
from vqmem.registry import ROOT
from vqmem.tests.unit.tiny_host import tiny_model

FOLDERS = ("docs/*.md", "docs/tutorials/*.md", "docs/hub/*.md", "recipes/*/README.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for pattern in FOLDERS for page in ROOT.glob(pattern))]
RATE = 16_000
WORDS = "There was a table set out under a tree in front of the house, and the March Hare was having tea at it."
MODELS = ("MODEL", "FOLDER_OR_NAME", "HuggingFaceTB/SmolLM2-135M")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line of its opening fence, what stands behind the fence, and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class ShellCommand:
    """One command of a block, without the redirections of its input and output."""

    words: tuple[str, ...]
    stdin: str | None = None

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page; indented ones too."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [
        Block(str(page.relative_to(ROOT)), token.map[0] + 1, token.info.strip(), token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map
    ]


def shell_commands(text: str) -> list[ShellCommand]:
    """The commands of a block, one for each side of ``&&``, with comments left out and lines joined at backslashes."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(_redirected(words[:end]))
            words = words[end + 1 :]
    return found


def _redirected(words: list[str]) -> ShellCommand:
    kept, files = [], {}
    rest = iter(words)
    for word in rest:
        if word in ("<", ">"):
            files[word] = next(rest)
        else:
            kept += sorted(glob.glob(word)) if "*" in word and " " not in word else [word]
    return ShellCommand(tuple(kept), files.get("<"))


# --- what the blocks name ------------------------------------------------------------------------------------------

TRAIN = "{steps: 2, tensorboard: false}"
SCORER = "scorer={name: vq_lm, dim: 8, hidden: 8, codes: 4}"
RECORDED = ["data={name: audio_files, path: recordings}", "device=cpu"]
LM = [SCORER, f"scorer_train={TRAIN}", f"train={TRAIN}", "shape={layers: 1, dim: 16, heads: 2}", "batch_size=2"]
LM += ["passage=96", "segment=16", "capacities=[24]", "eval_passages=2"]
ENCODER = "{extractor_mode: group_norm, extractor_conv_layer_config: [[8, 40, 20], [8, 8, 4], [8, 4, 4]], "
ENCODER += "encoder_embed_dim: 16, encoder_num_layers: 1, encoder_num_heads: 2, encoder_ff_interm_features: 16, "
ENCODER += "encoder_pos_conv_kernel: 4, encoder_pos_conv_groups: 4, encoder_layer_drop: 0.0}"
FRAMES = [*RECORDED, "scorer={dim: 8, hidden: 8, codes: 4}", f"train={TRAIN}", "batch_size=2"]
VOICE = [*RECORDED, "units={name: hubert_units, clusters: 8}", "eval_clips=2", "samples=1", "crop=16", "batch_size=4"]
VOICE += ["rvq={num_quantizers: 2, codes: 4}", "vocoder={width: 8, dilations: [1], iterations: 2}"]
VOICE += [f"vocoder_train={TRAIN}", f"speaker_train={TRAIN}", "vocoder_batch_size=2"]
VOICE += ["speaker={dim: 16, layers: 1, heads: 2, reach: [1]}"]
CODEC = [*RECORDED, f"train={TRAIN}", "batch_size=2", "crop=1024", "eval_clips=1", "eval_seconds=0.3", "samples=1"]
CODEC += ["model={strides: [[4, 2], [8, 8]], width: 4, depth: 1, dim: 4, codes: 12}"]
TOKENIZER_SCORER = [SCORER, f"scorer_train={TRAIN}", "device=cpu", "passage=64", "batch_size=2", "segment=16"]
TOKENIZER_SCORER += ["train_tokens=2000", "eval_passages=2"]
LLM = ["train-scorer", "--tokenizer", "MODEL", "--data", "my_texts"]
CTC = f"recogniser={{name: ctc, model: {ENCODER}, window: 0.5}}"
TEXTS = ["device=cpu", "train_tokens=2000", "front_end={name: bpe, vocab_size: 300}", *LM]

RUNS = {
    "runs/novels_lm": ["text_lm", "novels", "data={name: text_files, path: my_texts}", *TEXTS],
    "runs/scorer": [*LLM, *TOKENIZER_SCORER],
    "runs/frame_scorer": ["frame_scorer", "demo", *FRAMES],
    "runs/my_units": ["fit_units", "demo", "clusters=8", RECORDED[0]],
    "runs/asr_demo": ["asr", "demo", *RECORDED, f"train={TRAIN}", "batch_size=2", CTC],
    "runs/tts_demo": ["tts", "demo", *VOICE],
    "runs/vqvae_demo": ["vqvae", "demo", *CODEC],
    "runs/codes": ["text_lm", "codes", *RECORDED, *LM],
}
"""Folder of a run that the pages use -> the command that makes it."""
SAME = {
    "runs/kerstin": "runs/tts_demo",
    "runs/frame_scorer_demo": "runs/frame_scorer",
    "runs/demo/seed-0": "runs/novels_lm",
}
"""Another name of a run -> the run."""


def make_files(folder: Path, tokenizer_folder: Path) -> None:
    """Write the texts, recordings and models that the pages name into a folder."""
    prose = "".join(f"{number} {WORDS}\n" for number in range(150))
    for name in ("novel.txt", "book.txt"):
        (folder / name).write_text(prose[:700])
    (folder / "text.txt").write_text("two golden lions laugh")
    for name in ("MY_FOLDER", "my_texts", "my_books"):
        (folder / name).mkdir()
        (folder / name / "a.txt").write_text(prose)
    for name in ("clip.flac", "talk.flac", "hello.wav", "FILE.wav"):
        soundfile.write(folder / name, voiced(1.5, 150), RATE)
    soundfile.write(folder / "talk.mp3", voiced(61, 120), RATE)  # a span of it begins after a minute
    rows = ["path\ttext\tspeaker\tsplit"]
    (folder / "recordings").mkdir()
    for number in range(10):
        soundfile.write(folder / "recordings" / f"{number}.wav", voiced(1 + number / 8, 90 + 20 * number), RATE)
        split = ("train", "train", "train", "dev", "test")[number % 5]
        rows.append(
            f"{number}.wav\t{'two golden lions laugh six white cows run'[: 12 + 3 * number]}\ts{number}\t{split}"
        )
    (folder / "recordings" / "manifest.tsv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "my.yaml").write_text("out: runs/of_my_yaml\n")
    shutil.copytree(ROOT / "docs" / "hub", folder / "FOLDER_OR_REPOSITORY")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")))
    for name in MODELS:
        tiny_model(300).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def voiced(seconds: float, pitch: float) -> np.ndarray:
    """A buzz with vibrato, a pause in its middle, and noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sign(np.sin(2 * np.pi * pitch * time + np.sin(9 * time))) * 0.1 * (np.abs(time - seconds / 2) > 0.1)
    return wave + 0.005 * np.random.default_rng(int(pitch)).standard_normal(len(time))


def make_run(name: str) -> None:
    """Train the run of that name, in the current folder, unless it is there."""
    if Path(name).exists():
        return
    if name in SAME:
        make_run(SAME[name])
        shutil.copytree(SAME[name], name)
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main([*RUNS[name], f"out={name}"])
    if code:
        pytest.fail(f"{name} cannot be made: {errors.getvalue()}")


def names_run(text: str, name: str) -> bool:
    """Whether a text names a run."""
    return bool(re.search(rf"{name}(?![\w-])", text))
