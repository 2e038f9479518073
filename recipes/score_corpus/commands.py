"""The command `vqmem score_corpus`."""

from __future__ import annotations

import argparse
import json

from ...cli_base import Command, file_name


def _arguments(parser: argparse.ArgumentParser) -> None:
    given = "a file or folder of texts or recordings, or a data source: its name, or {name: ..., key: value}"
    parser.add_argument("data", type=file_name, metavar="DATA", help=given)
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="keys below; out is needed")


def _run(args: argparse.Namespace) -> None:
    from ...console import visible
    from ...registry import check_variants
    from ..engine.config import load
    from .run import Config, format_summary, run
    from .source import parse_data

    data = f"data={json.dumps(parse_data(args.data))}"
    config = load(Config, None, [data, *args.overrides])
    check_variants(config)
    print(visible(format_summary(config, run(config))))


def _keys() -> str:
    from ..engine.config_help import explain, json_schema
    from .run import Config

    return f"\n\nkeys, with their defaults and types:\n{explain(json_schema(Config))}"


COMMANDS = {
    "score_corpus": Command(
        "score every token of a corpus of texts or recordings into parquet, on one machine or many",
        _arguments,
        _run,
        """\
examples:
  vqmem score_corpus my_texts/ out=runs/scores
  vqmem score_corpus recordings/ out=runs/scores model=runs/frame_scorer   # a run of your own, not the packaged scorer
  vqmem score_corpus '{name: hub, path: wikitext, subset: wikitext-2-raw-v1}' split=test out=runs/scores
  vqmem score_corpus my_texts/ data.pattern='*.md' out=runs/scores   # any key of the data source
  vqmem score_corpus my_texts/ out=/shared/scores executor=ray address=10.0.0.1:6379
The same command continues an interrupted one: shards that are written stay as they are. A folder with any recordings is
taken for recordings; {name: text_files, path: FOLDER} reads its texts. A folder called like a data source is ./NAME.

The shards are out/shard-00000.parquet and so on; a document is in one of them. Columns: document (its name), token (its
text; for recordings the number of the unit or frame), start and end (characters of a text, else seconds), and
the signals of the scorer in nats, such as surprise, rarity and gain. out/documents.jsonl lists the documents in order,
each with its shard. From Python:
  datasets.load_dataset("parquet", data_files="runs/scores/*.parquet")

executor=ray scores with Ray Data (pip install 'vqmem[ray]'). All machines have to see the data, the model and out under
the same paths. The scores are the same to the bit, with any number of workers. What a worker did not finish when it was
killed is done by another.

The scores depend on the device and on threads in their last bits.""",
        _keys,
    )
}
