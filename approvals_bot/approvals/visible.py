"""What people see of a text: everything in it, also what no font draws. Pure.

`revealed` shows each character without a picture by its number, `⟨U+200B⟩`. `exact_line` and `exact_block` go further,
for what approvers sign: two texts that differ never look the same, whatever a mail client or Slack does to blanks at
the end of a line, and whichever way an accent was typed. `clean` in `plain_text` is for all other text.

The sets are written out, not asked of `unicodedata`: what a run has shown must be the same after Python was updated.
"""

from __future__ import annotations

import re
import unicodedata

# Default_Ignorable_Code_Point, Unicode 16, and what fonts draw as nothing: separators, blank Braille, fillers, controls
# of annotations and of hieroglyphs.
_UNSEEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_BLANKS = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"  # spaces, but for the one that people type
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
_PRIVATE = "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"  # each font has another picture, or none

_SYMBOL = "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_JOINING = "\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ua840-\ua8df"  # Arabic, Indic and their kin
_NEEDED = re.compile(
    f"(?<=[{_SYMBOL}])[\ufe0e\ufe0f]|(?<=[#*0-9])\ufe0f(?=\u20e3)|(?<=[{_SYMBOL}\ufe0f])\u200d(?=[{_SYMBOL}])"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])"
)
"""Joiners and variation selectors where Unicode's rules have them: inside an emoji, between letters that join."""
EMOJI_JOINERS = re.compile(
    f"(?<=[{_SYMBOL}])\ufe0f|(?<=[#*0-9])\ufe0f(?=\u20e3)|(?<=[{_SYMBOL}\ufe0f])\u200d(?=[{_SYMBOL}])"
)
"""Joiners and variation selectors inside an emoji."""

_REFUSED = re.compile(f"[{_UNSEEN}]")
_REVEALED = re.compile(f"[{_UNSEEN}{_BLANKS}{_CONTROLS}]|⟨(?=U\\+)")
_DRAWN = re.compile(f"[{_UNSEEN}{_CONTROLS}]")
_INEXACT = re.compile(f"[{_UNSEEN}{_BLANKS}{_CONTROLS}{_PRIVATE}]|⟨(?=U\\+)")
PICTURELESS = re.compile(f"[{_UNSEEN}{_BLANKS}{_CONTROLS}{_PRIVATE}]")
"""What no font draws, or each font differently."""
_WORD = re.compile("[A-Za-z\xc0-\u024f\u0370-\u0523]+")
_LATIN, _ALIKE = re.compile("[A-Za-z]"), re.compile("[\u0370-\u0523]")  # Greek and Cyrillic: many letters look Latin
_TWINS = re.compile(
    "[\u0391\u0392\u0395-\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c5"
    "\u03c7\u03f2\u03f3\u03f9\u0405\u0406\u0408\u0410\u0412\u0415\u041a\u041c-\u041e\u0420-\u0423\u0425\u0430\u0435\u043e\u0440"
    "\u0441\u0443\u0445\u0455\u0456\u0458\u0475\u04ae\u04af\u04ba\u04bb\u04c0\u04cf\u0501\u051a-\u051d]+"
)
"""Greek and Cyrillic letters that many fonts draw like Latin ones."""
_LETTERS = re.compile("[\u0370-\u0523]+")
_EDGE = re.compile("^ +| +$|(?<= ) +")
_TRAILING = re.compile("[ ·]+$")

NOT_GIVEN = "not given"
"""What people read where there is no value."""


def marked(character: str) -> str:
    """Return the mark of a character: `⟨U+200B⟩`."""
    return f"⟨U+{ord(character):04X}⟩"


def first_unseen(text: str) -> int | None:
    """Return where the first invisible character is, counted from 0; None if all can be seen."""
    if text.isascii():
        return None
    found = _REFUSED.search(text)
    return found.start() if found else None


def revealed(text: str) -> str:
    """Show what can't be seen by its number, as `⟨U+202E⟩`. Line breaks, tabs and emoji stay as they are."""
    if text.isascii() and text.isprintable():
        return text
    return _substituted(_REVEALED, text)


def drawn(text: str) -> str:
    """Show invisible and control characters by their numbers, but for joiners where the text needs them."""
    if text.isascii() and text.isprintable():
        return text
    return _substituted(_DRAWN, text)


def exact_line(text: str) -> str:
    """Return a text on one line such that no other text is shown like it."""
    if text.isascii() and text.isprintable() and "  " not in text and text == text.strip(" "):
        return text
    text = _exact(text).replace("⏎", marked("⏎")).replace("\n", "⏎").replace("\t", marked("\t"))
    return _EDGE.sub(lambda found: marked(" ") * len(found[0]), text)


def exact_block(text: str) -> str:
    """Return a text of several lines such that no other text is shown like it.

    Blanks at the end of a line are dots, and an empty line that could get lost is `⏎`.
    """
    lines = [_TRAILING.sub(_dotted, marked("⏎") if line == "⏎" else line) for line in _exact(text).split("\n")]
    last = len(lines) - 1
    return "\n".join(
        "⏎" if not line and last and (at in (0, last) or not lines[at - 1]) else line for at, line in enumerate(lines)
    )


def exact_value(text: str, *, is_block: bool) -> str:
    """Return a pinned text as people read it, in quotation marks where it could pass for no value at all."""
    shown = exact_block(text) if is_block and "\n" in text else exact_line(text)
    return f"“{shown}”" if shown in ("", "–", NOT_GIVEN) or shown.startswith("“") else shown


def _substituted(characters: re.Pattern[str], text: str) -> str:
    kept = _needed(text)
    return characters.sub(lambda found: found[0] if found.start() in kept else marked(found[0]), text)


def _needed(text: str) -> set[int]:
    """Return where joiners and selectors are that the text needs."""
    return set() if text.isascii() else {found.start() for found in _NEEDED.finditer(text)}


def _exact(text: str) -> str:
    """Mark each character that isn't seen as it is, or could be taken for another."""
    if text.isascii():
        return _substituted(_INEXACT, text)
    is_foreign = any(not _TWINS.fullmatch(word[0]) for word in _LETTERS.finditer(text))  # nobody takes it for Latin
    mixed = {
        at
        for word in _WORD.finditer(text)
        if _LATIN.search(word[0]) or (not is_foreign and _TWINS.fullmatch(word[0]))
        for at in range(word.start(), word.end())
        if _ALIKE.match(text[at])
    }
    composed = unicodedata.is_normalized("NFC", text)
    if composed and not mixed:
        return _substituted(_INEXACT, text)
    kept = _needed(text)
    odd = {found.start() for found in _INEXACT.finditer(text) if found.start() not in kept} | mixed
    if not composed:
        pairs = zip(" " + text, text, strict=False)
        odd |= {at for at, (before, own) in enumerate(pairs) if not _is_composed(own, before)}
    return "".join(marked(own) if at in odd else own for at, own in enumerate(text))


def _is_composed(character: str, before: str) -> bool:
    """Return whether no other spelling of the same text has something else in this place."""
    return not unicodedata.combining(character) and unicodedata.is_normalized("NFC", before + character)


def _dotted(blanks: re.Match[str]) -> str:
    return "".join("·" if each == " " else marked(each) for each in blanks[0])
