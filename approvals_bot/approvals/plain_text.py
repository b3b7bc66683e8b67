"""Plain text for messages: people's text, made harmless and cut to size, never rewritten.

Pure. Lengths are in UTF-16 code units, the strictest count among mail clients and Slack.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import regex

from approvals_bot.approvals.visible import drawn

_LINE_BREAK = re.compile("\r\n|[\x0b\x0c\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_GRAPHEME = regex.compile(r"\X")

ELLIPSIS = "…"
_HASHED = 32  # hex digits: nobody can make two texts that have the same
LONGEST_GRAPHEME = 64  # code points; a longer one is stacked accents, not a letter


def clean(text: str) -> str:
    """Show invisible and control characters by their numbers, `⟨U+202E⟩`; line breaks become `\\n`."""
    if text.isascii() and text.isprintable():
        return text
    return drawn(_LINE_BREAK.sub("\n", _SURROGATE.sub("\ufffd", text)))


def one_line(text: str, limit: int = 0) -> str:
    """Clean the text, put it on one line with single spaces, and cut it to `limit` if given."""
    text = " ".join(clean(text[: limit * 8] if limit else text).split())
    return clip(text, limit) if limit else text


def clip(text: str, limit: int) -> str:
    """Cut the text to `limit` UTF-16 code units, ending in "…", between graphemes and never inside one."""
    if len(text) <= limit and length(text) <= limit:
        return text
    return _cut(text, limit).rstrip() + ELLIPSIS if limit > 0 else ""


def _cut(text: str, limit: int) -> str:
    """Return the graphemes that leave room for "…". Of a single larger one, return half of the room."""
    room = limit - 1
    if text[: room + 1].isascii():  # every grapheme is one character
        return text[:room]
    kept = end = 0
    for grapheme in _GRAPHEME.finditer(text[: limit + LONGEST_GRAPHEME]):
        size = length(grapheme.group())
        if kept + size > room:
            break
        kept, end = kept + size, grapheme.end()
    if end == 0:  # a single grapheme larger than the limit
        end = max(room // 2, 0)
    return text[:end]


@dataclass(frozen=True, slots=True)
class Whole:
    """A value that was cut: how long it is, and the first digits of its hash."""

    length: int
    sha256: str

    @classmethod
    def of(cls, text: str) -> Whole:
        return cls(len(text), hashlib.sha256(text.encode()).hexdigest()[:_HASHED])

    @property
    def mark(self) -> str:
        """The end of a signed value that was cut: no other value has it."""
        return f" ({self.length:,} characters, SHA-256 {self.sha256})"


def clip_value(text: str, limit: int, *, is_signed: bool, whole: Whole | None = None) -> str:
    """Cut a field's value, as shown. If people sign it, add what no other value has.

    `whole`: what the text itself was cut from, without its mark.
    """
    return _marked(clip(text, limit), text, whole, is_signed=is_signed)


def clip_rows(text: str, rows: int, width: int, *, is_signed: bool, whole: Whole | None = None) -> str:
    """Cut a field's value to what fills so many rows of `width` characters; see `clip_value`."""
    kept, left = [], rows
    for line in text.rstrip().split("\n"):
        if left <= 0:
            break
        kept.append(clip(line, left * width))
        left -= max(1, -(-length(line) // width))
    cut = "\n".join(kept)
    if cut != text.rstrip() and not cut.endswith(ELLIPSIS):
        cut = f"{cut.rstrip()}{ELLIPSIS}"
    return _marked(text if cut == text.rstrip() else cut, text, whole, is_signed=is_signed)


def _marked(cut: str, text: str, whole: Whole | None, *, is_signed: bool) -> str:
    if not is_signed or (cut == text and whole is None):
        return cut
    return cut + (whole or Whole.of(text)).mark


def length(text: str) -> int:
    """Count UTF-16 code units: an emoji counts as two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def header(text: str, limit: int = 200) -> str:
    """Make text safe for a mail header: NFC, one line, and nothing that a decoder would take for an encoded word.

    Python 3.11's `email` decodes an encoded word in a plain subject and writes out the line breaks inside it, so
    `=?utf-8?q?a=0D=0ABcc:…?=` would add a header.
    """
    text = unicodedata.normalize("NFC", one_line(text, limit * 2))
    while "=?" in text or "?=" in text:
        text = text.replace("=?", "= ").replace("?=", " =")
    return clip(text, limit)


def readable(name: str) -> str:
    """Make a label from a name in the file: `budget_code` → "Budget code", `team-a/pay` → "Pay (team a)"."""
    folder, _, words = name.replace("-", " ").replace("_", " ").rpartition("/")
    label = words[:1].upper() + words[1:]
    return f"{label} ({folder})" if folder else label
