"""What `vqmem asr` prints at its end."""

from __future__ import annotations

from typing import Any

from ...registry import build
from ..speech.text_normalisation import told
from .recipe import Config

SHOWN = 5
"""Of the worst utterances."""
WIDTH = 100


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json``, the worst utterances, and what to do with the run."""
    ways = figures["ways"]
    width = max(map(len, ways))
    lines = [f"on the {figures['split']} split ({ways[figures['way']]['utterances']} utterances):"]
    lines += [
        f"  {name:{width}}  WER {own['wer']:6.1%}  CER {own['cer']:6.1%}  without error {own['right']:6.1%}"
        for name, own in ways.items()
    ]
    if figures["worst"]:
        lines.append(f"worst ({figures['way']}):")
    for own in figures["worst"][:SHOWN]:
        lines.append(f"  {own['name']}  CER {own['cer']:.0%}")
        lines += [f"    {what} {_short(own[key])}" for what, key in (("said ", "reference"), ("heard", "hypothesis"))]
    if figures["outside_alphabet"]:
        lines.append(f"said, but outside the alphabet, and so always wrong: {told(figures['outside_alphabet'])}")
    if figures["skipped"]:
        lines.append(f"{len(figures['skipped'])} recordings left out; evaluation.json says which")
    lines.append(f"saved in {config.out}")
    if build("recognisers", config.recogniser).reads == "audio":  # units are in no file to transcribe
        lines[-1] += f"; vqmem transcribe FILE --run {config.out} uses it"
    return "\n".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
