"""The app of `vqmem explore`: paste a text, upload or record a clip, and see what memories keep of it."""

from __future__ import annotations

import html
import os
import socket
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ...console import one_line
from ..reporting.page import to_bytes
from .memories import memories_for, policies
from .page import explore_page
from .passage import CHARACTERS, SECONDS, hear_passage, read_passage, signals_of_model
from .settings import Settings

MEGABYTES = 20
"""The largest file that may be uploaded."""


def build(settings: Settings, model: Path | None = None) -> Any:
    """Build the app.

    Args:
        settings: what is chosen at first.
        model: run of a scorer; None takes the packaged ones.

    Returns:
        The `gradio.Blocks`, not started.
    """

    def show(text: str, clip: str | None, *chosen: Any) -> tuple[str, Any, str]:
        try:
            asked = _asked(*chosen)
            passage = (
                hear_passage(Path(clip), Path(clip).name, model) if clip else read_passage(text, "your text", model)
            )
            page = explore_page(passage, asked)
        except (ValueError, OSError) as error:
            raise gr.Error(one_line(str(error)), duration=None) from None
        return _frame(page), gr.DownloadButton(value=_saved(page, Path(folder.name)), visible=True), _link(asked)

    def restore(request: gr.Request) -> list[Any]:
        given = dict(request.query_params)
        numbers = [given.get(name, "") for name in ("capacity", "sinks", "recent")]
        kept = [int(text) if text.isdecimal() else gr.skip() for text in numbers]
        known = [name for name in given.get("strategies", "").split(",") if name in names]
        return [known or gr.skip(), *kept]

    signals = signals_of_model(model)
    memories_for(signals, settings)  # raises for settings that cannot be used
    names = list(policies(signals))
    folder = tempfile.TemporaryDirectory(prefix="vqmem-", ignore_cleanup_errors=True)  # as long as the app
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # what is uploaded goes there too
    with gr.Blocks(title="vqmem explore", analytics_enabled=False, delete_cache=(600, 3600)) as app:
        gr.Markdown(
            "# What does a memory keep?\nPaste a text, or upload or record a clip. A small model scores every token, "
            "and each memory keeps the slots that its strategy ranks highest."
        )
        with gr.Row():
            text = gr.Textbox(label=f"Text, at most {CHARACTERS:,} characters", lines=8, max_lines=8, elem_id="text")
            label = f"Or a recording, at most {SECONDS:.0f} seconds and {MEGABYTES} MB"
            clip = gr.Audio(label=label, sources=["upload", "microphone"], type="filepath", elem_id="clip")
        strategies = gr.CheckboxGroup(names, value=list(settings.strategies), label="Strategies, the baseline first")
        with gr.Row():
            capacity = gr.Number(settings.capacity, label="Slots", minimum=1, precision=0)
            sinks = gr.Number(settings.sinks, label="Guard the first", minimum=0, precision=0)
            recent = gr.Number(settings.recent, label="Guard the newest", minimum=0, precision=0)
        button = gr.Button("Show", variant="primary", elem_id="show")
        page = gr.HTML(elem_id="page")
        with gr.Row():
            saved = gr.DownloadButton("Save as one offline page", visible=False, elem_id="save")
            link = gr.Textbox(label="Add this to the address to restore the settings", elem_id="link")
        chosen = [strategies, capacity, sinks, recent]
        button.click(show, [text, clip, *chosen], [page, saved, link], concurrency_limit=2, api_name="show")
        app.load(restore, None, chosen, api_visibility="private", show_progress="hidden")
    return app


def serve(settings: Settings, model: Path | None, host: str, port: int | None) -> None:
    """Start the app and wait until it is interrupted.

    Args:
        settings: what is chosen at first.
        model: run of a scorer; None takes the packaged ones.
        host: the address at which it listens.
        port: its port; None is the first that is free.

    Raises:
        ValueError: in one line where it cannot listen there, and for settings and a model that cannot be used.
    """
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"--port {port} is no port; give one from 1 to 65535")
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise ValueError(f"--host {host} is no address of this machine ({error.strerror}); give 127.0.0.1") from error
    app = build(settings, model)
    try:
        app.queue(max_size=16).launch(
            server_name=host,
            server_port=port,
            max_file_size=f"{MEGABYTES}mb",
            share=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        where = f"{host}:{port or 7860}"
        raise ValueError(f"the app cannot listen at {where}; is it in use? give another --port") from error
    print(f"the app is at {app.local_url} (Ctrl-C ends it)", flush=True)
    app.block_thread()


def _frame(page: str) -> str:
    """The page in a frame of its own, whose content security policy forbids it to fetch or run anything else."""
    style = "width: 100%; height: 80vh; border: 1px solid #8888; border-radius: 8px"
    return f'<iframe title="What memories keep" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def _saved(page: str, folder: Path) -> str:
    path = Path(tempfile.mkdtemp(dir=folder)) / "what-memories-keep.html"
    path.write_bytes(to_bytes(page))
    return str(path)


def _asked(strategies: list[str], *numbers: int | None) -> Settings:
    if None in numbers:
        raise ValueError("a number is missing; fill in the slots and the guards, with 0 for no guard")
    return Settings(tuple(strategies), *(int(number or 0) for number in numbers))


def _link(settings: Settings) -> str:
    values = {"strategies": ",".join(settings.strategies)}
    values |= {name: str(getattr(settings, name)) for name in ("capacity", "sinks", "recent")}
    return f"?{urlencode(values, safe=',')}"
