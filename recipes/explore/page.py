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
from .consequences import consequences, following, quality, read_fully
from .explored import Explored
from .loading import load_reader
from .settings import Settings

HERE = Path(__file__).parent


def trace(explored: Explored) -> dict[str, Any]:
    """What the page shows, as JSON: the passage, its signals, and what each memory keeps after each segment.

    A recording also has the times of its pieces, its sound, and the sound of what each memory keeps at the end.
    """
    passage, settings, followed = explored.passage, explored.settings, explored.followed
    made: dict[str, Any] = {
        "unit": passage.unit,
        "tokens": passage.tokens,
        "signals": passage.signals,
        "memories": {
            name: {"capacity": settings.capacity, "segment": explored.reader.segment, "kept": found.kept}
            for name, found in followed.items()
        },
        "strategies": list(followed),
        "baseline": settings.strategies[0],
    }
    if passage.clip is not None:
        scores = passage.clip.scores
        made |= {
            "starts": scores.starts.tolist(),
            "ends": scores.ends.tolist(),
            "sound": sound(passage.clip.waveform, RATE),
            "kept_sounds": {name: sound(passage.clip.kept(found.kept[-1]), RATE) for name, found in followed.items()},
        }
    return made


def costs(explored: Explored) -> dict[str, Any]:
    """What a language model adds, which takes it seconds: loss by capacity, what evictions cost, how it goes on."""
    if not explored.reader.is_model:
        return {}
    full = read_fully(explored)
    made: dict[str, Any] = {
        "quality": quality(explored, full),
        "consequences": {name: consequences(explored, name) for name in explored.memories},
    }
    return made | {"following": following(explored, full)} if explored.reader.new else made


def explore_page(explored: Explored, known: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        explored: the passage, and what each memory keeps of it.
        known: its `costs`; if there are none of a language model, the page asks the app for them.

    Returns:
        The page.
    """
    passage, data, plot = explored.passage, trace(explored) | known, Markup("")
    if passage.clip is not None:
        clip = ScoredClip(passage.name, passage.clip.waveform, RATE, 0.0, passage.clip.scores)
        plot = Markup(draw(clip, passage.names))
        data["plot"] = {"left": LEFT, "width": clip.width, "seconds": clip.seconds, "bottom": SPECTRUM[1]}
    return render(
        HERE / "page.html",
        title=f"What memories keep of {passage.name}",
        data=data,
        styles=[*slider.STYLES, SOUND_STYLE, SHARED / "sound.css", HERE / "page.css"],
        scripts=[*slider.SCRIPTS, *(HERE / name for name in ("consequences.js", "following.js", "page.js"))],
        plot=plot,
        settings=explored.settings,
        reader=explored.reader,
    )


def write_page(file: str | None, path: Path | None, settings: Settings, model: Path | None, encoding: str) -> None:
    """Write the page of a text or a recording, atomically.

    Args:
        file: a recording or a text; ``-`` is text from standard input.
        path: the page.
        settings: what is shown.
        model: what `load_reader` loads; None takes the packaged scorers.
        encoding: of a text.

    Raises:
        ValueError: in one line where one of the two files is not given, and as `load_reader` and its reader do.
    """
    if file is None:
        raise ValueError("--html writes the page of a file; give FILE too")
    if path is None:
        raise ValueError(f"{one_line(file)} needs --html OUT, the page to write; `vqmem explore` alone starts the app")
    refuse_folder("--html", path)
    name = "standard input" if file == "-" else Path(file).name
    heard = is_recording(file)
    text = "" if heard else read_text(file, encoding, "--encoding")
    reader = load_reader(model)
    settings = settings.completed(reader.usual)
    passage = reader.clip(Path(file), name) if heard else reader.text(text, name)
    explored = Explored.follow(reader, passage, settings)
    atomic_write(path, to_bytes(explore_page(explored, costs(explored))))
    print(f"{len(passage.tokens):,} {passage.unit} in {one_line(str(path))}", file=sys.stderr)
