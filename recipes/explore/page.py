"""The page of `vqmem explore`: one offline file that shows a trace, what memories keep of a passage over time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...console import one_line
from ...data.reading.audio import RATE, is_recording
from ...data.reading.files import read_text
from ...files import atomic_write, refuse_folder
from ..reporting import kept as slider
from ..reporting.page import HERE as SHARED
from ..reporting.page import render, to_bytes
from ..reporting.sound import sound
from ..scoring.sound_plot import LEFT, SPECTRUM, ScoredClip, draw
from ..scoring.sound_plot import STYLE as SOUND_STYLE
from .consequences import Reader, consequences, quality
from .memories import SEGMENT, follow, memories_for
from .passage import Passage, hear_passage, kept_sound, read_passage
from .settings import Settings

HERE = Path(__file__).parent


def trace(passage: Passage, settings: Settings) -> dict[str, Any]:
    """What the page shows, as JSON: the passage, its signals, and what each memory keeps after each segment.

    A recording also has the times of its pieces, its sound, and the sound of what each memory keeps at the end. Where a
    language model was given, there are also the loss by capacity, and what evictions cost.
    """
    memories = memories_for(passage.names, settings)
    segment = SEGMENT if passage.run is None else passage.run.config.segment
    kept = {name: follow(passage, memory, segment) for name, memory in memories.items()}
    made: dict[str, Any] = {
        "unit": passage.unit,
        "tokens": passage.tokens,
        "signals": passage.signals,
        "memories": {
            name: {"capacity": settings.capacity, "segment": segment, "kept": found} for name, found in kept.items()
        },
        "strategies": list(kept),
        "baseline": settings.strategies[0],
    }
    if passage.run is not None:
        reader = Reader(passage.run, passage)
        made["quality"] = quality(reader, memories)
        made["consequences"] = {name: consequences(reader, memories[name], found) for name, found in kept.items()}
    if passage.clip is not None:
        scores = passage.clip.scores
        made |= {
            "starts": scores.starts.tolist(),
            "ends": scores.ends.tolist(),
            "sound": sound(passage.clip.waveform, RATE),
            "kept_sounds": {name: sound(kept_sound(passage.clip, found[-1]), RATE) for name, found in kept.items()},
        }
    return made


def explore_page(passage: Passage, settings: Settings) -> str:
    """The page as HTML."""
    data, plot = trace(passage, settings), Markup("")
    if passage.clip is not None:
        clip = ScoredClip(passage.name, passage.clip.waveform, RATE, 0.0, passage.clip.scores)
        plot = Markup(draw(clip, passage.names))
        data["plot"] = {"left": LEFT, "width": clip.width, "seconds": clip.seconds, "bottom": SPECTRUM[1]}
    return render(
        HERE / "page.html",
        title=f"What memories keep of {passage.name}",
        data=data,
        styles=[*slider.STYLES, SOUND_STYLE, SHARED / "sound.css", HERE / "page.css"],
        scripts=[*slider.SCRIPTS, HERE / "consequences.js", HERE / "page.js"],
        plot=plot,
        settings=settings,
    )


def write_page(file: str | None, path: Path | None, settings: Settings, model: Path | None, encoding: str) -> None:
    """Write the page of a text or a recording, atomically.

    Args:
        file: a recording or a text; ``-`` is text from standard input.
        path: the page.
        settings: what is shown.
        model: run of a scorer; None takes the packaged ones.
        encoding: of a text.

    Raises:
        ValueError: in one line where one of the two files is not given, and as `read_passage` and `hear_passage` do.
    """
    if file is None:
        raise ValueError("--html writes the page of a file; give FILE too")
    if path is None:
        raise ValueError(f"{one_line(file)} needs --html OUT, the page to write; `vqmem explore` alone starts the app")
    refuse_folder("--html", path)
    name = "standard input" if file == "-" else Path(file).name
    if is_recording(file):
        passage = hear_passage(Path(file), name, model)
    else:
        passage = read_passage(read_text(file, encoding, "--encoding"), name, model)
    atomic_write(path, to_bytes(explore_page(passage, settings)))
    print(f"{len(passage.tokens):,} {passage.unit} in {one_line(str(path))}", file=sys.stderr)
