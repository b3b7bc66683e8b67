"""Files as values of fields: what a file is called, what its content is, and what of it approvers sign.

A file belongs to the app that uploaded it. A field takes its id, and the service puts in its place the description that
the store made of it: nobody who opens or edits a request can describe a file themselves. The digest covers its name and
the SHA-256 of its content.
"""

from __future__ import annotations

import codecs
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.approvals.visible import exact_line, first_unseen, marked

LARGEST_FILE = 10_000_000  # bytes
LONGEST_FILE_NAME = 200  # characters; file systems take 255 bytes

PLAIN_TEXT = "text/plain"
UNKNOWN_TYPE = "application/octet-stream"
IMAGES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}
INLINE = frozenset({*IMAGES, "image/webp", PLAIN_TEXT})
"""Types that a browser may show: none of them can run anything. All others are downloaded."""

_HEAD = 512  # bytes in which a type shows
_TEXT_CONTROLS = frozenset(b"\t\n\r\f")
_NO_TEXT = bytes(byte for byte in range(32) if byte not in _TEXT_CONTROLS) + b"\x7f"
_MARKUP = (".html", ".htm", ".xhtml", ".xht", ".shtml", ".svg", ".svgz", ".xml", ".xsl", ".xslt")
_PROGRAMS = (".js", ".mjs", ".css", ".hta", ".vbs", ".wsf", ".swf", ".eml", ".mht", ".mhtml")
_ACTIVE = (*_MARKUP, *_PROGRAMS)
"""Endings of text that is a program or a document to some browser or system."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was uploaded whole. `type`: what its content is, not what its uploader called it."""

    id: str
    name: str
    size: int  # bytes
    sha256: str
    type: str

    def __str__(self) -> str:
        return self.name

    def as_json(self) -> dict[str, JsonValue]:
        return asdict(self)

    @property
    def signed(self) -> dict[str, JsonValue]:
        """What of it is in the digest that approvers sign."""
        return {"name": self.name, "sha256": self.sha256}


def read_file(given: Any) -> StoredFile:
    """Read a file as the service has described it. Raises UnfitError for anything else, such as an id."""
    match given:
        case {"id": str(id), "name": str(name), "size": int(size), "sha256": str(sha256), "type": str(type)}:
            return StoredFile(id, name, size, sha256, type)
        case _:
            raise UnfitError("not_a_file")


def shown_file(file: StoredFile) -> str:
    """Format as "plan.pdf, 12,345 bytes, SHA-256 9f86d0…", with the whole hash."""
    return f"{exact_line(file.name)}, {file.size:,} bytes, SHA-256 {file.sha256}"


def find_file(fields: Mapping[str, JsonValue], names: Iterable[str], id: str) -> StoredFile | None:
    """Return the file with this id among the values of a request's fields. `names`: the fields that hold files.

    In others, such as a tool call's arguments, whatever looks like a file is what somebody has written.
    """
    found = map(fields.get, names)
    values = (each for value in found for each in (value if isinstance(value, list) else [value]))
    for value in values:
        if isinstance(value, dict) and value.get("id") == id:
            try:
                return read_file(value)
            except UnfitError:
                continue
    return None


def file_name(given: str) -> str:
    """Return the name under which a file is kept: in Unicode's composed form, with nothing that hides or leads away.

    Raises UnfitError.
    """
    name = unicodedata.normalize("NFC", given)
    if not name.strip():
        raise UnfitError("file_name_missing")
    if len(name) > LONGEST_FILE_NAME:
        raise UnfitError("too_long", length=len(name), longest=LONGEST_FILE_NAME)
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise UnfitError("file_name_control")
    if (at := first_unseen(name)) is not None:
        raise UnfitError("invisible_character", character=marked(name[at]), at=at + 1)
    if "/" in name or "\\" in name or name.strip(". ") == "" or name != name.strip():
        raise UnfitError("file_name_path")
    return name


class FileReader:
    """What shows of a file while its parts come: size, hash and type. It keeps no more than the first bytes."""

    def __init__(self, name: str) -> None:
        self.size = 0
        self._name = name
        self._hash = hashlib.sha256()
        self._head = b""
        self._text: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()

    def take(self, part: bytes) -> None:
        self.size += len(part)
        self._hash.update(part)
        if len(self._head) < _HEAD:
            self._head += part[: _HEAD - len(self._head)]
        if self._text is not None and not self._is_text(part):
            self._text = None

    def _is_text(self, part: bytes, *, is_last: bool = False) -> bool:
        try:
            self._text.decode(part, is_last)  # type: ignore[union-attr]  # the callers check
        except UnicodeDecodeError:
            return False
        return part.translate(None, _NO_TEXT) == part

    def described(self, id: str) -> StoredFile:
        """Return what the whole file is."""
        return StoredFile(id, self._name, self.size, self._hash.hexdigest(), self._type())

    def _type(self) -> str:
        """Return the type that the content shows. Text that a browser could take for a document of its own is unknown.

        So is text whose name says that it is one: saved and opened, it would run.
        """
        for type, marks in IMAGES.items():
            if self._head.startswith(marks):
                return type
        if self._head[:4] == b"RIFF" and self._head[8:12] == b"WEBP":
            return "image/webp"
        if self._head.startswith(b"%PDF-"):
            return "application/pdf"
        if self._text is None or not self._is_text(b"", is_last=True):
            return UNKNOWN_TYPE
        begins = self._head.lstrip(b"\xef\xbb\xbf\t\n\r\f ")
        is_active = begins.startswith((b"<", b"%!")) or self._name.lower().endswith(_ACTIVE)
        return UNKNOWN_TYPE if is_active else PLAIN_TEXT
