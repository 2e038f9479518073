"""The command `vqmem score`."""

from __future__ import annotations

import argparse

from ...cli_base import Command, file_name, file_path, output_file


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=file_name, metavar="FILE", help="a text, or - for one from standard input; or a recording"
    )
    parser.add_argument("--encoding", default="utf-8", help="of the text, as Python names it (default utf-8)")
    trained = "run of `vqmem text_lm`, train-scorer or frame_scorer (default: the packaged scorer)"
    parser.add_argument("--model", type=file_path, metavar="DIR", help=trained)
    taken = "score this tokenizer's tokens; without --model a small scorer for it is trained, once"
    parser.add_argument("--tokenizer", type=file_name, metavar="NAME_OR_DIR", help=taken)
    parser.add_argument(
        "--signal", help="signal to colour by: surprise, rarity, gain or reuse (default: the scorer's first)"
    )
    parser.add_argument("--span", metavar="START:END", help="show these seconds of a recording only")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object per token and line, instead of colours")
    page = "write a page: a text as a heat map; a recording with a player, its scores above its spectrogram"
    output.add_argument("--html", type=output_file, metavar="OUT", help=page)
    output.add_argument(
        "--image",
        type=output_file,
        metavar="OUT",
        help="write that picture of a recording, as SVG; for both, - is standard output",
    )


def _score(args: argparse.Namespace) -> None:
    from .render_text import show

    given = (args.file, args.encoding, args.model, args.signal, args.device)
    written = {"as_json": args.json, "html": args.html, "image": args.image}
    show(*given, tokenizer=args.tokenizer, span=args.span, **written)


COMMANDS = {
    "score": Command(
        "score every token of a text or unit of a recording by surprise, rarity, gain from context and reuse",
        _score_arguments,
        _score,
        """\
examples:
  vqmem score book.txt | less -R
  vqmem score book.txt --signal gain --html book.html
  vqmem score book.txt --tokenizer HuggingFaceTB/SmolLM2-135M
  cat book.txt | vqmem score - --json | head
  vqmem score clip.flac --html clip.html
  vqmem score talk.mp3 --span 60:90 --signal gain --image talk.svg
An object of --json has the keys text, start, end (characters; a byte order mark is dropped and does not count), the
scorer's signals in nats (score, which is the surprise, rarity, gain, reuse) and code. For a recording it has unit
instead of text (frame, its number, where the run scores frames) and start and end in seconds. The content of a file
decides whether it is a recording.
surprise: how badly the token is reconstructed from its code and the preceding context; rarity: from its code alone;
gain = rarity - surprise: how much the context helps to predict it; reuse: how much likelier it is to occur again soon
than its frequency says (scorers `reuse` and `character_reuse`).""",
    ),
}
