"""The summary that `vqmem asr` prints at its end."""

from __future__ import annotations

from typing import Any

from ...registry import build
from ..speech.text_normalisation import format_characters
from .recipe import Config

SHOWN = 5
"""Number of worst utterances in the summary."""
WIDTH = 100
"""Characters of a transcript before it is cut."""


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json``, the worst utterances, and how to use the run."""
    modes = figures["decoding_modes"]
    width = max(map(len, modes))
    lines = [f"on the {figures['split']} split ({modes[figures['decoding_mode']]['utterances']} utterances):"]
    lines += [
        f"  {name:{width}}  WER {rates['wer']:6.1%}  CER {rates['cer']:6.1%}  without error {rates['right']:6.1%}"
        for name, rates in modes.items()
    ]
    if figures["worst_utterances"]:
        lines.append(f"worst ({figures['decoding_mode']}):")
    for utterance in figures["worst_utterances"][:SHOWN]:
        lines.append(f"  {utterance['name']}  CER {utterance['cer']:.0%}")
        lines.append(f"    reference  {_short(utterance['reference'])}")
        lines.append(f"    hypothesis {_short(utterance['hypothesis'])}")
    if figures["outside_alphabet"]:
        outside = format_characters(figures["outside_alphabet"])
        lines.append(f"characters outside the alphabet, always counted as errors: {outside}")
    if figures["skipped"]:
        lines.append(f"{len(figures['skipped'])} recordings left out; evaluation.json lists them")
    lines.append(f"saved in {config.out}")
    if build("recognisers", config.recogniser).input_kind == "audio":  # `transcribe` reads recordings, not units
        lines[-1] += f"; vqmem transcribe FILE --run {config.out} uses it"
    return "\n".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
