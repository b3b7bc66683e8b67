"""People's text on its way into a message: made harmless and cut to size, never rewritten.

Everything here is pure. Lengths are UTF-16 code units, the stricter reading of what mail clients and Slack count.
"""

from __future__ import annotations

import unicodedata

import regex

_BIDI = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_LINE_BREAKS = {0x0B: "\n", 0x0C: "\n", 0x0D: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_GRAPHEME = regex.compile(r"\X")

ELLIPSIS = "…"
LONGEST_GRAPHEME = 64  # code points; a longer one is stacked accents, no letter of anybody's


def clean(text: str) -> str:
    """The text without control and bidirectional-override characters and lone surrogates; line breaks are `\\n`."""
    text = _SURROGATE.sub("\ufffd", text).replace("\r\n", "\n")
    return text.translate(_LINE_BREAKS).translate(_CONTROLS).translate(_BIDI)


def one_line(text: str, limit: int = 0) -> str:
    """The cleaned text on one line, white space collapsed, cut to `limit` if given."""
    text = " ".join(clean(text[: limit * 8] if limit else text).split())
    return clip(text, limit) if limit else text


def clip(text: str, limit: int) -> str:
    """The text if it fits into `limit`, else its beginning and "…", cut between graphemes, never inside one."""
    if len(text) <= limit and length(text) <= limit:
        return text
    room = limit - 1
    kept = end = 0
    for grapheme in _GRAPHEME.finditer(text[: limit + LONGEST_GRAPHEME]):
        size = length(grapheme.group())
        if kept + size > room:
            break
        kept, end = kept + size, grapheme.end()
    if end == 0:  # a single "letter" larger than the limit
        end = max(room // 2, 0)
    return text[:end].rstrip() + ELLIPSIS if limit > 0 else ""


def length(text: str) -> int:
    """UTF-16 code units: an emoji counts two."""
    return len(text) + sum(1 for char in text if ord(char) > 0xFFFF)


def header(text: str, limit: int = 200) -> str:
    """Text that is fit for a mail header: NFC, one line, nothing that a decoder would take for an encoded word.

    Python 3.11's `email` decodes an encoded word in a plain subject and writes the line breaks inside it back out as
    they are, so that `=?utf-8?q?a=0D=0ABcc:…?=` became a header of its own.
    """
    text = unicodedata.normalize("NFC", one_line(text, limit * 2))
    while "=?" in text or "?=" in text:
        text = text.replace("=?", "= ").replace("?=", " =")
    return clip(text, limit)
