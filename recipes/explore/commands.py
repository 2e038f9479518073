"""The command `vqmem explore`."""

from __future__ import annotations

import argparse
import os

from ...cli_base import Command, file_name, file_path, output_file
from .settings import Settings

_GUARDS = {"sinks": "guard the first N tokens", "recent": "guard the newest N tokens"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    given = "a text or a recording; needs --html. Without it, an app starts in which one pastes, uploads or records"
    parser.add_argument("file", nargs="?", type=file_name, metavar="FILE", help=given)
    parser.add_argument("--html", type=output_file, metavar="OUT", help="write the page of FILE, one offline file")
    parser.add_argument("--encoding", default="utf-8", help="of a text, as Python names it (default utf-8)")
    trained = (
        "a model of `transformers`, whose continuation is shown beside that of the full cache, or a run of `vqmem "
        "text_lm`: both show what evictions cost; or a run of frame_scorer (default: the packaged scorers)"
    )
    parser.add_argument("--model", type=file_path, metavar="DIR", help=trained)
    default = Settings()
    chosen = "names, the baseline first, as in fifo,h2o,auto (default fifo,surprise,gain, or what suits the model)"
    parser.add_argument("--strategies", metavar="A,B,...", default="", help=chosen)
    for name, what in (("capacity", "slots of each memory"), *_GUARDS.items()):
        number = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=number, metavar="N", help=f"{what} (default {number})")
    where = "address of the app; 0.0.0.0 shows it to the whole network (default 127.0.0.1, this machine)"
    parser.add_argument("--host", default="127.0.0.1", help=where)
    parser.add_argument("--port", type=int, metavar="N", help="port of the app (default: the first free from 7860)")


def _run(args: argparse.Namespace) -> None:
    strategies = tuple(filter(None, map(str.strip, args.strategies.split(","))))
    settings = Settings(strategies, args.capacity, args.sinks, args.recent)
    if args.file is None and args.html is None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio would report to its makers
        try:
            from .app import serve
        except ImportError as error:
            raise ValueError(
                "the app needs Gradio; run `pip install 'vqmem[explore]'`, or give FILE --html OUT for a page"
            ) from error
        serve(settings, args.model, args.host, args.port)
        return
    from .page import write_page

    write_page(args.file, args.html, settings, args.model, args.encoding)


COMMANDS = {
    "explore": Command(
        "see what memories keep of your own text or recording, moment by moment: a page, or an app in the browser",
        _arguments,
        _run,
        """\
examples:
  vqmem explore book.txt --html book.html                 # then open the page
  vqmem explore clip.wav --html clip.html --strategies fifo,surprise,rarity --capacity 64
  vqmem explore book.txt --html book.html --model runs/demo/seed-0   # also how well it reads, and what evictions cost
  vqmem explore book.txt --html book.html --model MODEL   # a model of transformers: also what it says next
  vqmem explore                                           # the app: pip install 'vqmem[explore]'
Without a language model only policies that need no attention can be shown. Surprise, rarity, gain and, where the scorer
gives it, reuse rank tokens by that signal against their age.""",
    ),
}
