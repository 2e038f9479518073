"""What is printed for people: no text, file name or model can command the terminal or turn the direction of a line."""

from __future__ import annotations

import re

_COMMANDS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1: escape sequences begin with one
_DIRECTION = "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates; marks such as U+200E stay
_SURROGATES = "\ud800-\udfff"  # bytes of a file name that are not UTF-8; no stream can encode them
_UNSAFE = re.compile(f"[{_COMMANDS}{_DIRECTION}{_SURROGATES}]")
_BREAKS = re.compile("[\t\n\u2028\u2029]")


def visible(text: str) -> str:
    r"""``text`` with all that a terminal would obey as escapes, in the notation of JSON; lines and tabs stay.

    >>> visible("a\x1b]0;title\x07")
    'a\\u001b]0;title\\u0007'
    """
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""``text`` as `visible` shows it, with line breaks and tabs as escapes too: a file name, a field, a line of JSON.

    Of a line that `json.dumps` wrote the value stays the same.
    """
    return _BREAKS.sub(_escape, visible(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
