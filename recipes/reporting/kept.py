"""What a page needs that includes ``kept.html``, the slider over what memories keep; its data has ``strategies``."""

from __future__ import annotations

from .heatmap import SCRIPT, STYLE
from .page import HERE, REPORT_STYLE

STYLES = (STYLE, REPORT_STYLE)
SCRIPTS = (SCRIPT, HERE / "strategies.js", HERE / "kept.js")
