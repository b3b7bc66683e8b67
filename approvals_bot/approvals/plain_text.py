"""People's text on its way into a message: made harmless and cut to size, never rewritten.

Everything here is pure. Lengths are UTF-16 code units, the stricter reading of what mail clients and Slack count.
"""

from __future__ import annotations

import re
import unicodedata

import regex

_LINE_BREAK = re.compile("\r\n|[\x0b\x0c\r\x85\u2028\u2029]")
_DROPPED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters but tab and line breaks
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"  # what turns the writing direction round
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_GRAPHEME = regex.compile(r"\X")

ELLIPSIS = "…"
LONGEST_GRAPHEME = 64  # code points; a longer one is stacked accents, no letter of anybody's


def clean(text: str) -> str:
    """The text without control and bidirectional-override characters and lone surrogates; line breaks are `\\n`."""
    return _DROPPED.sub("", _LINE_BREAK.sub("\n", _SURROGATE.sub("\ufffd", text)))


def one_line(text: str, limit: int = 0) -> str:
    """The cleaned text on one line, white space collapsed, cut to `limit` if given."""
    text = " ".join(clean(text[: limit * 8] if limit else text).split())
    return clip(text, limit) if limit else text


def clip(text: str, limit: int) -> str:
    """The text if it fits into `limit`, else its beginning and "…", cut between graphemes, never inside one."""
    if len(text) <= limit and length(text) <= limit:
        return text
    room = limit - 1
    if text[: room + 1].isascii():  # every letter is one character
        return text[:room].rstrip() + ELLIPSIS if limit > 0 else ""
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
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def header(text: str, limit: int = 200) -> str:
    """Text that is fit for a mail header: NFC, one line, nothing that a decoder would take for an encoded word.

    Python 3.11's `email` decodes an encoded word in a plain subject and writes the line breaks inside it back out as
    they are, so that `=?utf-8?q?a=0D=0ABcc:…?=` became a header of its own.
    """
    text = unicodedata.normalize("NFC", one_line(text, limit * 2))
    while "=?" in text or "?=" in text:
        text = text.replace("=?", "= ").replace("?=", " =")
    return clip(text, limit)


def readable(name: str) -> str:
    """A name of the file's as people read it: `budget_code` → "Budget code", `prod-access` → "Prod access"."""
    words = name.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]
