"""Make the folder of the default scorer, models/pretrained/any_tokenizer, of a run of `vqmem text_lm any_tokenizer`.

    python benchmarks/kv/pack_default_scorer.py RUN [--out FOLDER] [--pieces N]

It keeps the weights in 16 bits without the vocabulary of the run, and the commonest pieces of the training texts with
how often each occurs. GPT-2's pattern cuts the texts into pieces (a word with the space before it, digits, punctuation,
white space), because another cut gives other frequencies than tokenizers have.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import pre_tokenizers
from vqmem.artifacts import read_config, save_model
from vqmem.default_scorer import FOLDER, FREQUENCIES
from vqmem.files import atomic_write
from vqmem.memory.scorer import load_scorer
from vqmem.recipes.engine.config import load
from vqmem.recipes.engine.data_record import documents
from vqmem.recipes.text_lm.recipe import Config
from vqmem.registry import build


def main() -> None:
    """Write the folder and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished `vqmem text_lm any_tokenizer`")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: that of the package)")
    parser.add_argument("--pieces", type=int, default=60_000, help="number of pieces to keep (default 60,000)")
    flags = parser.parse_args()
    pack(flags.run, flags.out, flags.pieces)
    for path in sorted(flags.out.rglob("*.*")):
        print(f"{path}: {path.stat().st_size:,} bytes")


def pack(run: Path, out: Path, pieces: int) -> None:
    """Write the weights and frequencies of a run into ``out``."""
    config = load(Config, run / "config.yaml")
    counted = count_pieces(document.text for document in documents(config.data, "train", config.out))
    data = gzip.compress(
        json.dumps([*zip(*counted.most_common(pieces), strict=True)], ensure_ascii=False).encode(), mtime=0
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / FREQUENCIES, data)
    spec = read_config(run / "scorer")["fields"]["scorer"]
    small = build("scorers", spec).build(0)
    trained = load_scorer(run).state_dict()
    own = {name: tensor for name, tensor in small.state_dict().items() if not tensor.numel()}  # a row an id, of 0 ids
    small.load_state_dict(trained | own)
    fields = {"scorer": spec, "vocab_size": 0, "frequencies_sha256": hashlib.sha256(data).hexdigest()}
    save_model(out / "scorer", "scorers/character_reuse", fields, small.half())


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """How often each piece of GPT-2's cut occurs, the commonest first and then by character."""
    cut, counted = pre_tokenizers.ByteLevel(add_prefix_space=False), Counter[str]()
    for text in texts:
        counted.update(text[start:end] for _, (start, end) in cut.pre_tokenize_str(text))
    return Counter(dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))))


if __name__ == "__main__":
    main()
