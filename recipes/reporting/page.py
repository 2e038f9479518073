"""Self-contained HTML pages: one file that opens from disk, asks the network for nothing and runs no text as code."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...console import one_line

HERE = Path(__file__).parent


def render(
    template: Path, *, title: str, data: Any, styles: Sequence[Path], scripts: Sequence[Path], **slots: str
) -> str:
    """Fill ``{{name}}`` marks of a template with the title, the inlined styles, scripts and data, and ready HTML slots.

    The template is the body of `page.html`. The shared `page.css` and `page.js` come first. The content security
    policy allows these very scripts and styles by their hashes and nothing else, so that even a mistake in escaping
    could neither run nor fetch anything.
    """
    style = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "page.css", *styles))
    script = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "page.js", *scripts))
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    fields = {
        "title": html.escape(one_line(title)),
        "policy": policy,
        "style": style,
        "script": script,
        "data": script_json(data),
        **slots,
    }
    frame, body = (path.read_text(encoding="utf-8") for path in (HERE / "page.html", template))
    # One pass, so that a mark inside the data stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: fields[mark[1]], frame.replace("{{body}}", body))


def script_json(value: Any) -> str:
    """JSON that is safe inside ``<script>``: ASCII only, no ``<``, ``>`` or ``&``; what is not finite becomes null."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def to_bytes(page: str) -> bytes:
    """The page in UTF-8; lone surrogates, which UTF-8 cannot hold, become character references."""
    return page.encode("utf-8", errors="xmlcharrefreplace")


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
