"""Texts that a database can't hold as they are.

PostgreSQL's text has no NUL and no lone surrogates, SQLite's (by Python) no lone surrogates. People's input is kept as
JSON in ASCII, where both are escapes; tokens, keys and names are kept as text, so they are escaped here, alike in both.
"""

from __future__ import annotations

import re

_UNHELD = re.compile(r"[\x00\\\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


def storable(text: str) -> str:
    """The text with NUL, lone surrogates and the backslash itself as `\\u….`: equal exactly if the texts are."""
    if text.isascii() and "\\" not in text and "\x00" not in text:
        return text
    return _UNHELD.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_given(stored: str) -> str:
    """The text that `storable` took."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), stored) if "\\" in stored else stored
