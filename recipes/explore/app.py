"""The app of `vqmem explore`: paste a text, upload or record a clip, and see what memories keep of it."""

from __future__ import annotations

import html
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ...console import one_line
from ..reporting.page import to_bytes
from .consequences import effects
from .explored import Explored
from .loading import load_reader
from .memories import memories_for
from .page import costs, explore_page
from .passage import SECONDS
from .settings import Settings

MEGABYTES = 20
"""The largest file that may be uploaded."""
LISTEN = """() => window.addEventListener("message", ({ source, data }) => {
  if (source !== document.querySelector("#page iframe")?.contentWindow || !data?.vqmem) return;
  const area = document.querySelector("#asked textarea");
  area.value = JSON.stringify(data.vqmem);
  area.dispatchEvent(new Event("input", { bubbles: true }));
  document.getElementById("ask").click();
})"""
"""Passes on to the app what the page in the frame asks: what evictions cost, or one of them."""
OLD = "the page is older than the app; choose Show again"
ANSWER = (
    """(text) => document.querySelector("#page iframe").contentWindow.postMessage({ vqmem: JSON.parse(text) }, "*")"""
)


def build(settings: Settings, model: Path | None = None) -> Any:
    """Build the app.

    Args:
        settings: what is chosen at first.
        model: what `load_reader` loads; None takes the packaged scorers.

    Returns:
        The `gradio.Blocks`, not started.
    """

    def show(text: str, clip: str | None, *chosen: Any) -> tuple[str, Any, str, Explored | None]:
        try:
            asked = _asked(*chosen)
            if clip and text:
                raise ValueError("there are a text and a recording; remove one of them")
            passage = reader.clip(Path(clip), Path(clip).name) if clip else reader.text(text or "", "your text")
            explored = Explored.follow(reader, passage, asked)
            page = explore_page(explored, {})
        except (ValueError, OSError) as error:
            raise gr.Error(one_line(str(error)), duration=None) from None
        saved = gr.DownloadButton(visible=False) if reader.is_model else download(page)
        return _frame(page), saved, _link(asked), explored if reader.is_model else None

    def answer(text: str, explored: Explored | None) -> tuple[str, Any]:
        try:
            asked = json.loads(text)
            if explored is None:
                raise ValueError(OLD)
            if "costs" not in asked:
                return json.dumps(_effect(explored, asked)), gr.skip()
            known = costs(explored)
            return json.dumps({"costs": known}), download(explore_page(explored, known))
        except Exception as error:  # the page waits for an answer, whatever went wrong
            return json.dumps({"error": one_line(str(error))}), gr.skip()

    def download(page: str) -> Any:
        return gr.DownloadButton(value=_saved(page, Path(folder.name)), visible=True)

    def restore(request: gr.Request) -> list[Any]:
        given = dict(request.query_params)
        numbers = [given.get(name, "") for name in ("capacity", "sinks", "recent")]
        kept = [int(text) if text.isdecimal() else gr.skip() for text in numbers]
        known = [name for name in given.get("strategies", "").split(",") if name in names]
        return [known or gr.skip(), *kept]

    reader = load_reader(model)
    settings = settings.completed(reader.usual)
    known = reader.policies(reader.signals)
    memories_for(known, settings)  # raises for settings that cannot be used
    names = list(known)
    folder = tempfile.TemporaryDirectory(prefix="vqmem-", ignore_cleanup_errors=True)  # as long as the app
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # what is uploaded goes there too
    with gr.Blocks(title="vqmem explore", analytics_enabled=False, delete_cache=(600, 3600)) as app:
        gr.Markdown(
            "# What does a memory keep?\nPaste a text, or upload or record a clip. A scorer rates every token, "
            "and each memory keeps the slots that its strategy ranks highest."
        )
        with gr.Row():
            text = gr.Textbox(
                label=f"Text, at most {reader.characters:,} characters", lines=8, max_lines=8, elem_id="text"
            )
            label = f"Or a recording, at most {SECONDS:.0f} seconds and {MEGABYTES} MB"
            kind: dict[str, Any] = {"sources": ["upload", "microphone"], "type": "filepath"}
            clip = gr.Audio(label=label, elem_id="clip", visible=reader.hears, **kind)
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
        explored = gr.State(time_to_live=3600)
        asked = gr.Textbox(visible="hidden", elem_id="asked", lines=2)
        answered = gr.Textbox(visible="hidden")
        ask = gr.Button(visible="hidden", elem_id="ask")
        chosen = [strategies, capacity, sinks, recent]
        shared: dict[str, Any] = {"concurrency_id": "reader", "concurrency_limit": 1}  # one model reads for all
        button.click(show, [text, clip, *chosen], [page, saved, link, explored], api_name="show", **shared)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        ask.click(answer, [asked, explored], [answered, saved], trigger_mode="multiple", **shared, **private).then(
            None, answered, None, js=ANSWER
        )
        app.load(restore, None, chosen, **private)
        app.load(None, None, None, js=LISTEN)
    return app


def launch(app: Any, **options: Any) -> None:
    """Start an app with its limits; ``options`` are those of Gradio's ``launch``."""
    app.queue(max_size=16).launch(max_file_size=f"{MEGABYTES}mb", share=False, **options)


def serve(settings: Settings, model: Path | None, host: str, port: int | None) -> None:
    """Start the app and wait until it is interrupted.

    Args:
        settings: what is chosen at first.
        model: what `load_reader` loads; None takes the packaged scorers.
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
        launch(app, server_name=host, server_port=port, quiet=True, prevent_thread_lock=True)
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


def _effect(explored: Explored, asked: dict[str, Any]) -> dict[str, Any]:
    """What keeping the token would have saved that the page asks for."""
    strategy, place = asked["strategy"], asked["at"]
    if strategy not in explored.memories or place not in range(len(explored.passage.ids)):
        raise ValueError(OLD)
    found = effects(explored, strategy, [place])
    if not found:
        raise ValueError("the guards fill the memory, so that no other token can be kept; guard fewer")
    return {"strategy": strategy, "effect": found[0]}


def _asked(strategies: list[str], *numbers: int | None) -> Settings:
    if None in numbers:
        raise ValueError("a number is missing; fill in the slots and the guards, with 0 for no guard")
    return Settings(tuple(strategies), *(int(number or 0) for number in numbers))


def _link(settings: Settings) -> str:
    values = {"strategies": ",".join(settings.strategies)}
    values |= {name: str(getattr(settings, name)) for name in ("capacity", "sinks", "recent")}
    return f"?{urlencode(values, safe=',')}"
