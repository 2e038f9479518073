"""The packaged scorer on tokenizers that it was not trained on, beside one that was trained for the tokenizer.

    python benchmarks/kv/any_tokenizer.py [--quick] [--json] [--save] [--data FOLDER] [--run FOLDER] [--passages N]

The scorer ``reuse`` is trained for SmolLM2's tokens on the texts of which the packaged scorer was made (``--data`` is
the folder of `mix_texts.py`), for as many tokens. Compared are their signals on dev texts, what each keeps in a bounded
cache (share of the long-gap loss that is closed), and the packaged scorer with itself on other tokenizers, by word: a
byte-level BPE (Whisper's where ``--whisper`` names its ``tokenizer.json``), a SentencePiece-like BPE and a WordPiece
trained on the novels. A word is as likely to come again as the least likely of its tokens. Everything is trained and
read once and kept in ``--run``. Needs the packages that `smollm2.py` names. ``--passages 0`` leaves out the cache.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from vqmem.benchmarks._results import data_option, figure, options, present
from vqmem.benchmarks.kv._bench import BATCH_SIZE, NEWEST, RARE, REUSE, SINKS
from vqmem.benchmarks.kv.smollm2 import load_smollm2
from vqmem.benchmarks.text.train_scorer import save_tokenizer
from vqmem.default_scorer import FOLDER, make_scorer
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.figures import sum_losses
from vqmem.recipes.kv_cache.settings import Setting
from vqmem.recipes.kv_cache.streams import Streams, sample
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.text_lm.for_tokenizer import configure
from vqmem.recipes.text_lm.recipe import Config, fit_front_end, read_split, train_scorer
from vqmem.tokenizers_.pretrained import PretrainedTokenizer

KINDS = ("novels", "general", "code")
CAPACITY, LENGTH = 128, 2048
SIZE = 16_000
"""Ids of the tokenizers that are trained here."""
CHARACTERS = 40_000
"""How much of each dev text is read for the agreement by word."""
AGAIN = "comes again"
NATIVE, ANY = "trained for the tokenizer", "for any tokenizer"


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    data_option(parser)
    parser.add_argument("--run", type=Path, default="runs/any_tokenizer_benchmark", help="folder where all is kept")
    parser.add_argument("--passages", type=int, default=12, help="dev passages of each kind for the cache (default 12)")
    parser.add_argument("--whisper", type=Path, help="tokenizer.json of Whisper")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = flags.run / "tokenizer"
    name = str(tokenizer) if tokenizer.is_dir() else save_tokenizer(tokenizer)
    steps = ["scorer_train.steps=3"] if flags.quick else []
    config = configure(name, flags.data / "text", flags.run / "native", ["device=cpu", *steps], "reuse")
    front_end = fit_front_end(config)
    assert isinstance(front_end, PretrainedTokenizer)
    figures, ours = make(front_end)
    done = (flags.run / "native" / "scorer" / "config.json").is_file()
    native = train_scorer(config, front_end, [] if done else read_split(config, front_end, "train"))
    items = read_split(config, front_end, "dev")
    tables = {"Rank correlation with the scorer trained for the tokenizer": agreement(ours, native, items)}
    everywhere = tables[next(iter(tables))]["all"]
    figures["signal, rank correlation"] = figure(everywhere[AGAIN], "", 0.93)
    figures["rarity, rank correlation"] = figure(everywhere["rarity"], "", 0.95)
    figures |= by_word(flags, {"SmolLM2": (front_end, ours)})
    if flags.passages:
        figures |= closed(flags, config, front_end, {NATIVE: native, ANY: ours})
    present(
        "any_tokenizer",
        figures,
        flags,
        title="One scorer for every tokenizer",
        question="Does one scorer for every tokenizer keep what a scorer trained for the tokenizer keeps?",
        measured=(
            f"SmolLM2's 49,152 ids, and {SIZE:,} each of two tokenizers trained here; dev texts, float32, one thread. "
            "Seconds are of the processor. Both scorers have read novels, general text and code, 11.8 million tokens."
        ),
        split="dev: novels, general text and code",
        seeds=[0],
        tables=tables,
    )


def make(front_end: PretrainedTokenizer) -> tuple[dict[str, Any], Any]:
    """The time to make the packaged scorer, and the scorer."""
    began, processor = time.perf_counter(), time.process_time()
    made = make_scorer(FOLDER, front_end)
    wall, seconds = time.perf_counter() - began, time.process_time() - processor
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) / 1e6
    figures = {
        "time to make it": figure(round(seconds, 2), "s", 5.0, least=False, wall_s=round(wall, 2)),
        "size in the package": figure(round(size, 2), "MB", 5.0, least=False),
    }
    return figures, made


def agreement(ours: Any, native: Any, items: Sequence[Passage]) -> dict[str, dict[str, Any]]:
    """Spearman's rank correlation of what two scorers know of tokens, by kind of text and over all."""
    scored: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for item in items:
        both = [torch.stack(list(columns_of(model, item.ids).values()), -1) for model in (ours, native)]
        scored[kind_of(item)].append(torch.stack(both))
    scored["all"] = [part for parts in scored.values() for part in parts]
    rows = {}
    for kind, parts in scored.items():
        joined = torch.cat(parts, 1)
        rows[kind] = {name: correlation(*joined[..., place]) for place, name in enumerate((AGAIN, "rarity", "reuse"))}
        rows[kind]["tokens"] = joined.shape[1]
    return rows


def columns_of(scorer: Any, ids: Int[Tensor, " time"]) -> dict[str, Float[Tensor, " time"]]:
    """-log P(comes again), the rarity, and the signal reuse, which is their difference."""
    reuse = scorer.score(ids[None], scorer.initial_state(1))[0][0, :, 0]
    rarity = scorer.unigram.rarity(ids)
    return {AGAIN: rarity - reuse, "rarity": rarity, "reuse": reuse}


def by_word(flags: Any, reference: Mapping[str, tuple[PretrainedTokenizer, Any]]) -> dict[str, Any]:
    """The agreement by word of the packaged scorer on other tokenizers with itself on the first."""
    texts = [(path.name, path.read_text()[:CHARACTERS]) for path in sorted((flags.data / "text/dev").glob("*.txt"))]
    ((_, first),) = reference.items()
    wanted = [word_signals(*first, text) for _, text in texts]
    figures = {}
    for name, tokenizer in other_tokenizers(flags):
        front_end = PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
        scorer = make_scorer(FOLDER, front_end)
        found = [word_signals(front_end, scorer, text) for _, text in texts]
        more: dict[str, Any] = {"ids": front_end.vocab_size}
        for kind in KINDS:
            mine = [i for i, (file, _) in enumerate(texts) if file.startswith(kind)]
            both = (np.concatenate([rows[i] for i in mine]) for rows in (wanted, found))
            more[kind] = correlation(*both)
        value = correlation(np.concatenate(wanted), np.concatenate(found))
        figures[f"agreement by word, {name}"] = figure(value, "", 0.8, **more)
    return figures


def word_signals(front_end: PretrainedTokenizer, scorer: Any, text: str) -> Float[np.ndarray, " word"]:
    """-log P(comes again) of each run of letters: the most of the tokens that end in it; NaN where none does."""
    stream = front_end.encode(text)
    again = columns_of(scorer, stream.ids)[AGAIN].numpy()
    starts, ends = np.array([match.span() for match in re.finditer(r"[^\W\d_]+", text)]).reshape(-1, 2).T
    word = np.searchsorted(starts, stream.ends.numpy(), side="left") - 1
    inside = stream.ends.numpy() <= np.append(ends, -1)[word]  # -1 before the first word
    found = np.full(len(starts), np.nan)
    np.fmax.at(found, word[inside], again[inside])
    return found


def other_tokenizers(flags: Any) -> Iterator[tuple[str, Tokenizer]]:
    """Whisper's, and a SentencePiece-like BPE and a WordPiece trained on the novels, kept in the run's folder."""
    if flags.whisper:
        yield "Whisper", Tokenizer.from_file(str(flags.whisper))
    for name, train in (("SentencePiece", _sentencepiece), ("WordPiece", _wordpiece)):
        path = flags.run / f"{name}.json"
        if not path.is_file():
            tokenizer, trainer = train()
            files = [str(path) for path in sorted((flags.data / "text/train").glob("*.txt"))]
            tokenizer.train(files[:: 20 if flags.quick else 1], trainer)
            tokenizer.save(str(path))
        yield name, Tokenizer.from_file(str(path))


def _sentencepiece() -> tuple[Tokenizer, Any]:
    """BPE with SentencePiece's mark of spaces, `▁`; a line end and punctuation are pieces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    parts = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    return tokenizer, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)


def _wordpiece() -> tuple[Tokenizer, Any]:
    """WordPiece as BERT's, in lower case."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return tokenizer, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)


def closed(
    flags: Any, config: Config, front_end: PretrainedTokenizer, scorers: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The share of the long-gap loss that each scorer closes in SmolLM2's cache, and their difference in points.

    Args:
        flags: the options of the command line.
        config: the config of the scorer that was trained for the tokenizer.
        front_end: the tokenizer of SmolLM2.
        scorers: the scorers to compare, by name.

    Returns:
        The figure of each kind of text, by name; its value is the difference, in points.
    """
    settings = [Setting(NEWEST, {"name": NEWEST})]
    settings += [Setting(name, REUSE, name) for name in scorers]
    streams = Streams(Caches(load_smollm2().host, scorers, SINKS), flags.run / "streams", BATCH_SIZE)
    items = read_split(replace(config, passage=LENGTH), front_end, "dev")
    rarity, figures = scorers[NATIVE].unigram.rarity().double().numpy(), {}
    for kind in KINDS:
        chosen = sample([item for item in items if kind_of(item) == kind], LENGTH, flags.passages)
        found = streams.read(settings, [CAPACITY], chosen)[CAPACITY]
        read = sum_losses(found, chosen, rarity, rare=RARE, capacity=CAPACITY, baseline=NEWEST)
        share = {name: round(100 * read.closed(name)[0], 1) for name in scorers}
        behind = round(share[NATIVE] - share[ANY], 1)
        name = f"gap closed at {CAPACITY} slots, {kind}: points behind"
        figures[name] = figure(behind, "points", 3.0, least=False, **share)
    return figures


def kind_of(item: Passage) -> str:
    """Novels, general or code, by the name of the file; see `mix_texts.py`."""
    return item.name.removeprefix("dev/").partition("-")[0]


def correlation(one: Any, other: Any) -> float:
    """Spearman's, of the pairs without NaN."""
    found: Any = spearmanr(one, other, nan_policy="omit")
    return round(float(found.statistic), 3)


if __name__ == "__main__":
    main()
