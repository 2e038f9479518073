"""Print text safely: escape control sequences and characters that change the direction of a line."""

from __future__ import annotations

import re

_COMMANDS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1: escape sequences begin with one
_DIRECTION = "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates; marks such as U+200E stay
_SURROGATES = "\ud800-\udfff"  # bytes of a file name that are not UTF-8; no stream can encode them
_UNSAFE = re.compile(f"[{_COMMANDS}{_DIRECTION}{_SURROGATES}]")
_BREAKS = re.compile("[\t\n\u2028\u2029]")


def visible(text: str) -> str:
    r"""Escape everything in ``text`` that controls a terminal, in the notation of JSON; lines and tabs stay.

    >>> visible("a\x1b]0;title\x07")
    'a\\u001b]0;title\\u0007'
    """
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""Escape ``text`` as `visible` does, and line breaks and tabs too: for file names, fields and lines of JSON.

    A line that `json.dumps` wrote keeps its value.
    """
    return _BREAKS.sub(_escape, visible(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
