"""Forms that callers of a webhook send, URL-encoded or multipart, and the charsets of their texts.

A stranger writes these bodies. So the parser is strict, takes time in proportion to the body, and gives the same
fields on every replay.

That is why it is our own: a form is parsed again whenever its run is replayed, for months and with each dependency's
newer releases. From python-multipart 0.0.33 to 0.0.34, a blank after a boundary made two fields of one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from encodings.aliases import aliases
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote

from approvals_bot.errors import MalformedBodyError

MAX_FIELDS = 1_000
"""Fields of one form. No form that people fill in has nearly as many."""

MAX_JSON_LEVELS = 100
_TOO_DEEP = f"it is nested more than {MAX_JSON_LEVELS} deep"
"""Levels of a JSON body. The log keeps values of twice as many, so a body may pass it on inside others."""

URL_ENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"

_CHARSETS = frozenset(
    {
        "ascii", "utf_8", "utf_16", "utf_16_be", "utf_16_le", "latin_1", "koi8_r", "koi8_u", "mac_roman", "shift_jis",
        "cp932", "euc_jp", "iso2022_jp", "euc_kr", "cp949", "gb2312", "gbk", "gb18030", "big5", "big5hkscs", "cp874",
        *(f"iso8859_{n}" for n in range(2, 17)), *(f"cp125{n}" for n in range(9)),
    }
)  # fmt: skip
"""Python's names of charsets. Its other codecs (zip, punycode, unicode_escape) are not for what strangers send."""

_PARAMETER = re.compile(r""";[ \t]*([!#$%&'*+.^_`|~\w-]+)=("(?:[^"\\]|\\.)*"|[^;\s"]*)[ \t]*""", re.ASCII)
_QUOTED = re.compile(r'\\([\\"])')


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file in a form: its name as the sender has it, its content type, and its bytes.

    The name is data. Don't use it as a path.
    """

    name: str
    content_type: str
    content: bytes


class FormFields(dict[str, "str | FormFile | list[str | FormFile]"]):
    """A form's fields by name: a text, a FormFile, or a list of those if the field is repeated.

    A sender can repeat any field. `getlist` and `text` give the same type in any case.

    form = await request.form()
    comment, colours = form.text("comment"), form.getlist("colour")
    """

    def __init__(self, fields: Iterable[tuple[str, str | FormFile]] = ()) -> None:
        super().__init__()
        for name, value in fields:
            match self.get(name):
                case None:
                    self[name] = value
                case list() as values:
                    values.append(value)
                case first:
                    self[name] = [first, value]

    def getlist(self, name: str) -> list[str | FormFile]:
        """Return all values of this field, in their order."""
        match self.get(name):
            case None:
                return []
            case list() as values:
                return [*values]
            case only:
                return [only]

    def text(self, name: str, default: str = "") -> str:
        """Return the last text of this field, or the default if there is none."""
        return next((value for value in reversed(self.getlist(name)) if isinstance(value, str)), default)


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body, which the log can keep. Raises MalformedBodyError, also for NaN and Infinity."""
    try:
        value = json.loads(body, parse_constant=_no_number, parse_float=_finite)
    except MalformedBodyError:
        raise
    except RecursionError:
        raise MalformedBodyError("JSON", _TOO_DEEP) from None
    except ValueError as error:
        raise MalformedBodyError("JSON", str(error)) from None
    level, levels = [value], 0
    while level:
        if levels > MAX_JSON_LEVELS:
            raise MalformedBodyError("JSON", _TOO_DEEP)
        level = [item for each in level if isinstance(each, dict | list) for item in _items(each)]
        levels += 1
    return value


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _no_number(name: str) -> NoReturn:
    raise MalformedBodyError("JSON", f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise MalformedBodyError("JSON", "a number is too large")
    return number


def parse_header(value: str) -> tuple[str, dict[str, str]]:
    """Return a header's value in lower case, and its parameters. What can't be read is left out."""
    kind, _, rest = value.partition(";")
    found = {}
    for name, text in _PARAMETER.findall(f";{rest}"):
        found[name.lower()] = _QUOTED.sub(r"\1", text[1:-1]) if text.startswith('"') else text
    return kind.strip().lower(), found


def known_charset(name: str | None) -> str | None:
    """Return Python's name of this charset. None if we don't know it as one of texts."""
    spelled = re.sub(r"[^a-z0-9]+", "_", (name or "").lower()).strip("_")
    found = aliases.get(spelled, spelled)
    return found if found in _CHARSETS else None


def parse_form(content_type: str, body: bytes) -> FormFields:
    """Return the fields of a form. A body without a content type counts as URL-encoded.

    Raises MalformedBodyError if the body isn't a form, or isn't the one that its content type announces.
    """
    kind, parameters = parse_header(content_type)
    declared = parameters.get("charset")
    if declared is not None and known_charset(declared) is None:
        raise MalformedBodyError("form", f"unknown charset {declared[:40]!r}")
    match kind:
        case "multipart/form-data":
            fields = _multipart(body, parameters.get("boundary", ""), known_charset(declared))
        case "application/x-www-form-urlencoded" | "":
            fields = _url_encoded(body, known_charset(declared))
        case _:
            raise MalformedBodyError("form", f"the content type is {kind[:60]!r}")
    return FormFields(fields)


def _url_encoded(body: bytes, charset: str | None) -> list[tuple[str, str | FormFile]]:
    if body.count(b"&") >= MAX_FIELDS:
        raise MalformedBodyError("form", f"more than {MAX_FIELDS:,} fields")
    text = body.decode(charset or "utf-8", errors="replace")
    encoding = charset or _named_charset(text) or "utf-8"
    return [*parse_qsl(text, keep_blank_values=True, encoding=encoding, errors="replace")]


def _named_charset(text: str) -> str | None:
    """Return the charset that a form's field `_charset_` names. Most forms have none, and are read only once."""
    return known_charset(dict(parse_qsl(text)).get("_charset_")) if "_charset_" in text else None


def _multipart(body: bytes, boundary: str, charset: str | None) -> list[tuple[str, str | FormFile]]:
    if not boundary or len(boundary) > 70 or not boundary.isascii():
        raise MalformedBodyError("form", "it has no usable boundary")
    # Of a body with more parts than a form has, the rest needn't be cut: it would take ten times its own memory.
    preamble, *sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(), MAX_FIELDS + 2)
    parts: list[tuple[dict[str, str], bytes]] = []
    for section in sections:
        if section.startswith(b"--"):
            break  # the rest is an epilogue, which has no meaning
        padding, line_end, part = section.partition(b"\r\n")
        head, blank, content = part.partition(b"\r\n\r\n")
        if padding.strip(b" \t") or not line_end or not blank:
            raise MalformedBodyError("form", f"part {len(parts) + 1} has no header")
        if len(parts) == MAX_FIELDS:
            raise MalformedBodyError("form", f"more than {MAX_FIELDS:,} fields")
        parts.append((_part_headers(head, len(parts) + 1), content))
    else:
        raise MalformedBodyError("form", "its last boundary is missing")
    if preamble.strip(b"\r\n"):  # no client writes one: it is a first part whose boundary is damaged
        raise MalformedBodyError("form", "it doesn't begin with its boundary")
    return _fields(parts, charset)


def _part_headers(head: bytes, number: int) -> dict[str, str]:
    headers = {}
    for line in head.decode("utf-8", errors="replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise MalformedBodyError("form", f"part {number} has a line that is no header")
        headers[name.lower()] = value.strip()
    return headers


def _fields(parts: list[tuple[dict[str, str], bytes]], charset: str | None) -> list[tuple[str, str | FormFile]]:
    """Return each part's name, and its text or file. `_charset_` is the field that names the charset of the others."""
    named: list[tuple[dict[str, str], str, str, bytes]] = []
    for number, (headers, content) in enumerate(parts, 1):
        kind, parameters = parse_header(headers.get("content-disposition", ""))
        if kind != "form-data" or "name" not in parameters:
            raise MalformedBodyError("form", f"part {number} has no name")
        if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "7bit", "8bit"):
            raise MalformedBodyError("form", f"part {number} has a transfer encoding")
        if "filename*" in parameters:  # RFC 7578 forbids it, and some clients send it for names that aren't ASCII
            charset_of_name, _, quoted = parameters["filename*"].partition("'")
            name = quoted.partition("'")[2]
            parameters["filename"] = unquote(name, known_charset(charset_of_name) or "utf-8", errors="replace")
        if parameters["name"] == "_charset_" and "filename" not in parameters:
            charset = charset or known_charset(content.decode("ascii", errors="replace"))
        named.append((parameters, parameters["name"], headers.get("content-type", ""), content))
    fields: list[tuple[str, str | FormFile]] = []
    for parameters, name, content_type, content in named:
        if "filename" in parameters:
            fields.append((name, FormFile(parameters["filename"], content_type, content)))
        else:
            own = known_charset(parse_header(content_type)[1].get("charset"))
            fields.append((name, content.decode(own or charset or "utf-8", errors="replace")))
    return fields
