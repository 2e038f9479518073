"""The commands `vqmem train-scorer` and `vqmem generate`."""

from __future__ import annotations

import argparse

from ... import registry
from ...cli_base import Command, file_name, file_path, output_file, output_folder
from ..engine.recipe_command import run_config


def _train_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=file_name, required=True, metavar="NAME_OR_DIR", help="as `AutoTokenizer` takes it"
    )
    texts = "text file, or folder of them (default: built-in text)"
    parser.add_argument("--data", type=file_path, metavar="PATH", help=texts)
    parser.add_argument(
        "--out", type=output_folder, metavar="DIR", help="folder of the run (default runs/scorer, or runs/scorer_quick)"
    )
    chosen = "a VQ-LM by default; `reuse` predicts which tokens come again; or a YAML file"
    parser.add_argument("--config", type=file_name, metavar="NAME_OR_FILE", help=chosen)
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="changes to the config")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and do nothing")


def _train_scorer(args: argparse.Namespace) -> None:
    from .for_tokenizer import configure

    config = configure(args.tokenizer, args.data, args.out, args.overrides, args.config)
    run_config(registry.load("recipes", "text_lm"), config, print_only=args.print_config)


# --- generate ---


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=file_path, metavar="RUN", help="the folder of a finished `vqmem text_lm`")
    prompt = "text to continue, of any length; for a run on speech, the file of a recording"
    parser.add_argument("--prompt", required=True, metavar="TEXT", help=prompt)
    parser.add_argument("-o", "--out", type=output_file, metavar="WAV", help="wav file that a run on speech writes")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="how many to add (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default 0.8)")
    parser.add_argument(
        "--top-k", type=int, default=50, metavar="K", help="draw from the K likeliest; 0 = all (default 50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same text (default 0)")
    parser.add_argument(
        "--capacity", type=int, metavar="SLOTS", help="capacity of the memory (default: the run's largest capacity)"
    )
    parser.add_argument("--strategy", metavar="NAME", help="strategy of the memory (default: the run's first)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")


def _generate(args: argparse.Namespace) -> None:
    from .generate import Sampling, show

    sampling = Sampling(args.tokens, args.temperature, args.top_k, args.seed)
    memory = {"strategy": args.strategy, "capacity": args.capacity}
    show(args.run, args.prompt, sampling, args.out, args.device, **memory)


COMMANDS = {
    "train-scorer": Command(
        "train a scorer for the tokenizer of a pretrained model, whose cache can then keep what it scores high",
        _train_scorer_arguments,
        _train_scorer,
        """\
examples:
  vqmem train-scorer --tokenizer HuggingFaceTB/SmolLM2-135M --data my_texts/ --out runs/smollm2
  vqmem train-scorer --tokenizer ./my_model --data book.txt scorer_train.steps=500
It runs `vqmem text_lm` with the config scorer: training on 10 million tokens (a short text is read repeatedly).
Give text similar to what the model will read. Without --data it uses scorer_quick: half a megabyte of built-in text,
for a first look. `vqmem text_lm --help` explains the keys. The same command continues an interrupted run where it
stopped.""",
    ),
    "generate": Command(
        "continue a text, or a recording, with a trained model and its bounded memory",
        _generate_arguments,
        _generate,
        """\
examples:
  vqmem generate runs/novels_lm --prompt "It was a dark and stormy night"
  vqmem generate runs/novels_lm --prompt "$(cat chapter.txt)" --strategy gain --capacity 64
  vqmem generate runs/codes --prompt hello.flac --tokens 500 -o longer.wav
A run on speech needs a front-end that can be decoded to sound: vqvae_codes.""",
    ),
}
