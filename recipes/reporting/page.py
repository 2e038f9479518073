"""Self-contained HTML pages: one file that opens from disk, needs no network and never executes text as code."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...console import one_line

HERE = Path(__file__).parent
RECIPES = HERE.parent
REPORT_STYLE = HERE / "report.css"
"""Tables, cards and charts of reports."""

_ENVIRONMENT = Environment(
    keep_trailing_newline=True, loader=FileSystemLoader(RECIPES), autoescape=True, undefined=StrictUndefined
)
# Keeps the order of keys, which is the order of rows and legends; JSON has no NaN.
_ENVIRONMENT.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}


def render(
    template: Path, *, title: str, data: Any, styles: Sequence[Path], scripts: Sequence[Path | str], **context: Any
) -> str:
    """Render a Jinja template that extends `page.html`, and inline everything that it needs.

    The content security policy allows only these scripts and styles, by their hashes, so that even a mistake in
    escaping could not execute or fetch anything.

    Args:
        template: A file in a package of `recipes`.
        title: The title of the page, in one line.
        data: JSON for the scripts; non-finite numbers become null.
        styles: Style sheets, after the shared `page.css`.
        scripts: Scripts, after the shared `page.js`: files, or the text of libraries.
        **context: Variables of the template; text is escaped, `Markup` is not.

    Returns:
        The HTML of the page.
    """
    style = _read(HERE / "page.css", *styles)
    script = _read(HERE / "page.js", *scripts)
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    return _ENVIRONMENT.get_template(template.relative_to(RECIPES).as_posix()).render(
        title=one_line(title), policy=policy, style=style, script=script, data=_finite(data), **context
    )


def to_bytes(page: str) -> bytes:
    """Encode the page in UTF-8; lone surrogates, which UTF-8 cannot encode, become character references."""
    return page.encode("utf-8", errors="xmlcharrefreplace")


def _read(*parts: Path | str) -> Markup:
    return Markup("\n".join(part if isinstance(part, str) else part.read_text(encoding="utf-8") for part in parts))


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
