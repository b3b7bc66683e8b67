"""Slips in TOML, in a newcomer's words: what the parser only calls an invalid value.

Each rule looks at the line where the parser stopped, and says what to write instead. None of them is sure: a file that
is none of these slips gets the parser's own message.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

LONGEST_ROW = 1_000  # characters; what people write by hand is shorter, and the rules take quadratic time

_QUOTES = "“”„‟‘’‚‛«»‹›`´"
_PAIR = re.compile(r"""\s*(?P<key>[\w."'@-]+)\s*=\s*(?P<value>.*?)\s*""")
_WORD = re.compile(r"[A-Za-z0-9@#*+.:/_%-][^\"'\[\]{}=,#]*")
_IN_LIST = re.compile(r"""[\[,]\s*(?P<word>[A-Za-z@#*][\w@.:#/-]*)\s*[,\]]""")
_IN_TABLE = re.compile(r"""[{,]\s*[\w-]+\s*=\s*(?P<word>[A-Za-z@#][\w@.:#/-]*)\s*[,}]""")
_COLON = re.compile(r"""\s*["']?(?P<key>[A-Za-z_][\w-]*)["']?\s*:(?:\s.*)?""")
_NO_SIGN = re.compile(r"""\s*(?P<key>[A-Za-z_][\w.-]*)\s+(?P<value>["'\[{\d].*|true|false)""")
_OTHER_SIGN = re.compile(r"\s*(?P<key>[A-Za-z_][\w.-]*)\s*(?:==|:=|=>|=:)")
_ODD_KEY = re.compile(r"\s*(?P<key>(?=[^=]*[^\w\s.=\"'-]|[^=]*\w\s+\w|[^=]*[^\x00-\x7f])[^=\"'\[\]{}#]*?)\s*=")
_MORE = re.compile(r"""[^=]+=\s*(?:""|true\b|false\b|[\d.]+\b)\s*(?P<rest>[^\s#].*)""")
_HEADER = re.compile(r"\s*(?P<open>\[\[?)\s*(?P<name>[^\[\]]*?)\s*(?P<close>\]{0,2})\s*(?:#.*)?")
_ADDRESS = re.compile(r"[^\s\"'.\[\]]+(?:\.[^\s\"'.\[\]]+)*@[^\s\"'\[\]]+")
_STRING = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'[^']*'""")
_BOOLEANS = {"yes": "true", "no": "false", "on": "true", "off": "false", "true": "true", "false": "false"}
_LISTS = ("auto", "escalate", "request", "schedule", "stage", "stage.any", "stage.seat")
_NOTHING = ("null", "none", "nil", "undefined")
_KINDS = {"\ufeff": "a byte order mark", "\xa0": "a no-break space", "\u200b": "a zero-width space"}


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where the parser stopped, and its own message."""

    rows: Sequence[str]
    line: int
    column: int
    message: str

    @property
    def row(self) -> str:
        return self.rows[self.line - 1] if self.line <= len(self.rows) else ""

    @property
    def character(self) -> str:
        return self.row[self.column - 1 : self.column]

    @property
    def code(self) -> str:
        """The line without its strings and comments, so that their text is no slip."""
        return _STRING.sub('""', self.row).partition("#")[0]


def slip_of(text: str, line: int, column: int, message: str) -> str:
    """Say what was probably meant where the parser stopped; "" if that isn't known."""
    stop = _Stop(text.split("\n"), max(line, 1), column, message)
    if len(stop.row) > LONGEST_ROW or '"""' in stop.row or "'''" in stop.row:
        return ""
    return next((said for rule in _RULES for said in rule(stop)), "")


def _invisible(stop: _Stop) -> Iterator[str]:
    for character in (stop.character, *stop.code):
        if character and ord(character) > 127 and unicodedata.category(character) in ("Zs", "Cf", "Zl", "Zp"):
            kind = _KINDS.get(character, unicodedata.name(character, "a special blank").lower())
            yield f"has an invisible character, U+{ord(character):04X} ({kind}); delete it, and type a plain blank"


def _typographic(stop: _Stop) -> Iterator[str]:
    for character in stop.code:
        if character in _QUOTES:
            yield f'has a typographic quotation mark, {character}; write plain quotation marks: "…"'


def _twice(stop: _Stop) -> Iterator[str]:
    header, pair = _HEADER.fullmatch(stop.row), _PAIR.fullmatch(stop.row)
    if header is not None and header["close"]:
        same = re.compile(r"\s*\[\[?\s*" + re.escape(header["name"]) + r"\s*\]\]?\s*(?:#.*)?")
        first = next((number for number, row in enumerate(stop.rows[: stop.line - 1], 1) if same.fullmatch(row)), None)
        if first is None:
            yield from _against_header(stop, header["name"])
        else:
            is_list = header["name"] in _LISTS or header["name"].startswith("on.")
            todo = f"write [[{header['name']}]] each time" if is_list else "write all its keys there"
            yield f"the table [{header['name']}] is there twice, first in line {first}; {todo}"
    elif pair is not None and "overwrite" in stop.message:
        for number in range(stop.line - 1, 0, -1):
            earlier = _PAIR.fullmatch(stop.rows[number - 1])
            if earlier is not None and earlier["key"] == pair["key"]:
                yield f"{pair['key']} is there twice, first in line {number}"
            if _HEADER.fullmatch(stop.rows[number - 1]):
                break


def _against_header(stop: _Stop, name: str) -> Iterator[str]:
    """Say what is above a table and keeps it from being there: its own key, or what belongs to it."""
    above, _, last = name.rpartition(".")
    table = ""
    for number, row in enumerate(stop.rows[: stop.line - 1], 1):
        header, pair = _HEADER.fullmatch(row), _PAIR.fullmatch(row)
        if header is not None and header["close"]:
            table = header["name"]
            if table.startswith(f"{name}."):
                yield f"[[{name}]] must come before what belongs to it: move line {number} and its keys below this line"
                return
        elif pair is not None and table == above and pair["key"] == last:
            yield f"{last} is there twice, first in line {number}; write that line or this table, not both"
            return


def _header(stop: _Stop) -> Iterator[str]:
    header = _HEADER.fullmatch(stop.row)
    if header is None:
        return
    name, closing = header["name"], "]" * len(header["open"])
    address = _ADDRESS.search(name)
    if address is not None:
        before = name[: address.start()]
        table, _, rest = address[0].partition(".") if not before else ("", "", "")
        whole = f'{table}."{rest}"' if table and "@" not in table else f'{before}"{address[0]}"'
        yield f"an address in a table's name needs quotation marks: {header['open']}{whole}{closing}"
    elif header["close"] != closing:
        yield f"close the table's name with {closing}: {header['open']}{name}{closing}"
    elif " " in name and '"' not in name:
        yield f'a table\'s name has no blanks, unless it is in quotation marks: ["{name}"]'


def _inline_table(stop: _Stop) -> Iterator[str]:
    code = stop.code.rstrip()
    if re.search(r",\s*\}", code):
        yield "an inline table can't end with a comma; delete the last one before }"
    elif code.count("{") > code.count("}"):
        yield "an inline table { … } must be on one line; for more lines write a table of its own, [name.of.it]"
    elif re.search(r"[{,]\s*(?:\"\"|[\w-]+)\s*:", code):
        yield "an inline table has = between key and value, not a colon"


def _unquoted(stop: _Stop) -> Iterator[str]:
    if _HEADER.fullmatch(stop.row):
        return
    pair = _PAIR.fullmatch(stop.code)
    word = pair["value"].strip() if pair is not None and _WORD.fullmatch(pair["value"]) else ""
    where = f"{pair['key']} = " if pair is not None and word else ""
    if not word:
        found = _IN_LIST.search(stop.code) or _IN_TABLE.search(stop.code)
        word = found["word"] if found is not None else ""
    if not word and pair is not None and re.match(r"[A-Za-z_]", pair["value"]):
        yield f"text needs quotation marks: {pair['key']} = '…'"
    if not word or word in ("true", "false"):
        return
    if re.fullmatch(r"[+-]?\d[\d_.]*", word):
        if re.match(r"[+-]?0\d", word):
            yield "a number doesn't begin with 0; text needs quotation marks"
    elif word.lower() in _BOOLEANS:
        yield f"write {_BOOLEANS[word.lower()]}, not {word}"
    elif word.lower() in _NOTHING:
        yield f"there is no {word} in TOML; leave the key out"
    else:
        yield f'text needs quotation marks: {where}"{word}"'


def _no_equals_sign(stop: _Stop) -> Iterator[str]:
    stripped = stop.row.strip()
    if stripped.startswith(("//", "--", ";", "/*")):
        yield "a comment begins with #"
    elif (found := _COLON.fullmatch(stop.code)) is not None or (found := _NO_SIGN.fullmatch(stop.row)) is not None:
        yield f"write {found['key']} = …, with an equals sign"
    elif (found := _OTHER_SIGN.match(stop.code)) is not None:
        yield f"write {found['key']} = …, with one equals sign"
    elif (found := _ODD_KEY.match(stop.row)) is not None:
        yield f'a key with blanks or special characters needs quotation marks: "{found["key"]}" = …'
    elif re.fullmatch(r"\s*[A-Za-z_][\w.-]*\s*=\s*", stop.code):
        yield f"{stop.code.partition('=')[0].strip()} has no value; write one, or delete the line"
    elif re.fullmatch(r"\s*[A-Za-z_][\w.-]*\s*", stop.code) and stop.code.strip():
        yield f"write {stop.code.strip()} = …, with an equals sign"


def _string(stop: _Stop) -> Iterator[str]:
    left = _STRING.sub("", stop.row)
    if "escape" in stop.message.lower() or re.search(r'"[^"]*\\[^btnfruU"\\]', stop.row):
        yield "a backslash in \"…\" is written twice; or put the text in single quotation marks, '…'"
    elif left.count('"') % 2 == 1:
        yield 'a closing quotation mark is missing, or " inside the text is not written as \\"'
    elif left.count("'") % 2 == 1:
        yield 'a closing quotation mark is missing; text with an apostrophe goes into double ones: "it\'s"'
    elif re.search(r"(\"\"|'')\s+(\"\"|'')", _STRING.sub('""', stop.row)):
        yield "a comma is missing between two values"


def _list(stop: _Stop) -> Iterator[str]:
    for number in range(min(stop.line, len(stop.rows)), 0, -1):
        code = _STRING.sub('""', stop.rows[number - 1]).partition("#")[0]
        if re.search(r"=\s*\[", code) and code.count("[") > code.count("]"):
            yield f"the list that begins in line {number} isn't complete: a comma or its ] is missing"
            return
        if number < stop.line and (_HEADER.fullmatch(code) or "=" in code):
            return


def _more(stop: _Stop) -> Iterator[str]:
    """Say what a line has after its value."""
    found = _MORE.fullmatch(stop.code)
    rest = found["rest"].strip() if found is not None else ""
    if rest in (",", ";"):
        yield f'a line doesn\'t end with "{rest}"; delete it'
    elif rest.startswith(","):
        yield 'several values are a list, in brackets: ["…", "…"]'
    elif rest.startswith(("//", "--", ";")):
        yield "a comment begins with #"
    elif rest and '"' in rest:
        yield 'a quotation mark inside of text is written as \\", or the text is put in single ones'
    elif rest:
        yield "nothing follows a value on its line, except a comment after #"


_RULES = (
    _invisible,
    _typographic,
    _twice,
    _header,
    _inline_table,
    _list,
    _unquoted,
    _string,
    _more,
    _no_equals_sign,
)


# ── What other programs call it ──

_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("approvers", "approver", "reviewers", "reviewer", "people", "users", "who", "group"), ("from",)),
    **dict.fromkeys(("quorum", "threshold", "minimum", "min", "count", "approvals", "required"), ("need",)),
    **dict.fromkeys(("if", "condition", "conditions", "on"), ("when",)),
    **dict.fromkeys(("timeout", "due", "expires", "expires_in", "sla"), ("deadline", "after")),
    **dict.fromkeys(("reminder", "reminders"), ("remind",)),
    **dict.fromkeys(("channel", "room"), ("slack",)),
    **dict.fromkeys(("options", "choices", "enum"), ("values",)),
    **dict.fromkeys(("help", "description", "tooltip"), ("hint", "description")),
    **dict.fromkeys(("name", "key"), ("title", "id")),
    **dict.fromkeys(("action", "then", "result", "outcome"), ("decision",)),
    **dict.fromkeys(("requester", "requesters", "requestors"), ("request",)),
    **dict.fromkeys(("rule", "rules", "auto_approve"), ("auto",)),
    **dict.fromkeys(("form", "inputs", "parameters"), ("fields",)),
    **dict.fromkeys(("notifications", "delivery", "notify"), ("deliver",)),
    **dict.fromkeys(("url", "webhook", "call", "post", "target"), ("http",)),
    **dict.fromkeys(("body", "payload", "data"), ("json",)),
    **dict.fromkeys(("message", "content"), ("text",)),
}
"""What other programs call keys, and what they may be here."""

_OF_TABLES = ("auto", "fields", "deliver")
VALUES_MEANT = {
    ("self_approval", "false"): "never",
    ("self_approval", "true"): "allow",
    ("comment", "true"): "always",
    ("comment", "required"): "always",
    ("comment", "false"): "never",
    ("on_change", "void"): "reset",
    ("on_deadline", "cancel"): "expire",
}
"""What other programs write as the value of a key, and what it is here."""

NEEDS = 'write a whole number from 1 on, "all", "majority" or a share like "50%"'
_NEEDS = {"any": "1", "one": "1", "two": "2", "three": "3", "half": '"50%"', "most": '"majority"', "everyone": '"all"'}


def key_meant(key: str, keys: Collection[str], given: object) -> str:
    """Return what a key is called here that other programs have; "" if this table has none for it.

    `keys`: of the table. `given`: the value, which has to be a table where ours is one.
    """
    if same := next((each for each in keys if each.lower() == key.lower()), ""):
        return same
    if key == "optional" and "required" in keys:
        return f"required = {'false' if given is True else 'true'}"
    found = next((each for each in _KEYS.get(key.lower(), ()) if each in keys and each != key), "")
    return "" if found in _OF_TABLES and not isinstance(given, dict | list) else found


def need_meant(given: object) -> str:
    """Return how to write how many are needed; "" if that isn't clear."""
    if isinstance(given, float) and 0 < given < 1:
        return f'"{given:.0%}"'
    if isinstance(given, float) and given.is_integer() and given > 0:
        return f"{given:.0f}"
    text = str(given).strip().lower()
    if re.fullmatch(r"(?:100|[1-9][0-9]?)\s*(?:%|percent)", text):
        return f'"{int(re.sub("[^0-9]", "", text))}%"'
    return _NEEDS.get(text, text if text.isdecimal() and int(text) > 0 else "")
