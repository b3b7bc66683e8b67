"""The line of each key in a TOML file, which `tomllib` doesn't report.

The scanner reads TOML's layout but not its values: headers, keys (dotted, quoted), strings, arrays and inline tables.
It runs before `tomllib` and enforces the limits that keep `tomllib` fast. It never backtracks, so it takes linear time.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
"""The way from the root to a value: names of tables and keys, indexes of array elements."""

LONGEST_LINE = 8_192  # bytes, outside of multi-line strings
MOST_KEY_PARTS = 20  # tomllib takes 41 s for a dotted key of 100 kB
DEEPEST = 20  # nested arrays and inline tables; tomllib recurses

_SPACE = re.compile(r"[ \t]*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_PAIR = re.compile(r"([A-Za-z0-9_-]+)[ \t]*=[ \t]*")  # nearly all keys, in a third of the time
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}")
_SCALAR = re.compile(r"[^,\[\]{}#\n\"'=]+")


class UnreadableError(Exception):
    """The scan stopped at a limit, which `message` names, or at invalid TOML, which tomllib explains."""

    def __init__(self, line: int, message: str = "") -> None:
        self.line = line
        self.message = message
        super().__init__(message)


@dataclass(slots=True)
class Places:
    """The lines of a file's keys, counted from 1."""

    lines: dict[Path, int] = field(default_factory=dict)

    def known(self, path: Path) -> int:
        """Return how many parts of this path the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return len(path)

    def line_of(self, path: Path) -> int:
        """Return the line of this key or, if the file doesn't have it, of the innermost table around it."""
        return self.lines.get(path[: self.known(path)], 1)


def find_places(text: str) -> Places:
    """Scan a whole file. Raises UnreadableError."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._long_lines = self._lines_that_are_too_long()
        self._places = Places()
        self._headers: set[Path] = set()
        self._lengths: dict[Path, int] = {}  # elements of each array of tables so far

    def run(self) -> Places:
        table: Path = ()
        while True:
            self._skip(_SPACE_AND_LINES)
            if self._at >= len(self._text):
                return self._places
            self._refuse_long_line()
            if self._looks_at("[["):
                table = self._header("]]")
            elif self._looks_at("["):
                table = self._header("]")
            else:
                self._pair(table, 0)
            if not (end := _REST_OF_LINE.match(self._text, self._at)):
                raise self._unreadable()
            self._at = end.end()

    def _header(self, closing: str) -> Path:
        line = self._line()
        self._at += len(closing)
        keys = self._key()
        if not self._looks_at(closing):
            raise self._unreadable()
        self._at += len(closing)
        path: Path = ()
        for key in keys[:-1]:
            path = self._enter((*path, key), line)
        path = (*path, keys[-1])
        if closing == "]]":
            self._note(path, line)
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            path = (*path, index)
        if path not in self._headers:  # a table's own header is a better place than a key that implied it
            self._headers.add(path)
            self._places.lines[path] = line
        return path

    def _enter(self, path: Path, line: int) -> Path:
        """Step into a table on the way to a header's table; in an array of tables, its last element."""
        self._note(path, line)
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _pair(self, table: Path, depth: int) -> None:
        line = self._line()
        path = table
        if plain := _PLAIN_PAIR.match(self._text, self._at):
            path = (*table, plain[1])
            self._note(path, line)
            self._at = plain.end()
        else:
            for key in self._key():
                path = (*path, key)
                self._note(path, line)
            if not self._looks_at("="):
                raise self._unreadable()
            self._at += 1
            self._skip(_SPACE)
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        if depth > DEEPEST:
            raise self._unreadable(f"arrays and tables may be at most {DEEPEST} deep")
        start = self._text[self._at : self._at + 3]
        if start.startswith("["):
            self._array(path, depth)
        elif start.startswith("{"):
            self._inline_table(path, depth)
        elif start == '"""':
            self._take(_LONG_BASIC)
        elif start == "'''":
            self._take(_LONG_LITERAL)
        elif start.startswith('"'):
            self._take(_BASIC)
        elif start.startswith("'"):
            self._take(_LITERAL)
        else:
            self._take(_SCALAR)

    def _array(self, path: Path, depth: int) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_SPACE_AND_LINES)
            self._refuse_long_line()
            if self._looks_at("]"):
                self._at += 1
                return
            self._note((*path, index), self._line())
            self._value((*path, index), depth + 1)
            index += 1
            self._skip(_SPACE_AND_LINES)
            if self._looks_at(","):
                self._at += 1
            elif not self._looks_at("]"):
                raise self._unreadable()

    def _inline_table(self, path: Path, depth: int) -> None:
        self._at += 1
        self._skip(_SPACE)
        if self._looks_at("}"):
            self._at += 1
            return
        while True:
            self._skip(_SPACE)
            self._pair(path, depth + 1)
            self._skip(_SPACE)
            if self._looks_at("}"):
                self._at += 1
                return
            if not self._looks_at(","):
                raise self._unreadable()
            self._at += 1

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            parts.append(self._key_part())
            if len(parts) > MOST_KEY_PARTS:
                raise self._unreadable(f"a key may have at most {MOST_KEY_PARTS} parts")
            self._skip(_SPACE)
            if not self._looks_at("."):
                return parts
            self._at += 1

    def _key_part(self) -> str:
        if self._looks_at('"'):
            written = self._take(_BASIC)
            if "\\" not in written and written.isprintable():
                return written[1:-1]
            try:
                return str(tomllib.loads(f"key = {written}")["key"])
            except tomllib.TOMLDecodeError:
                raise self._unreadable() from None
        if self._looks_at("'"):
            return self._take(_LITERAL)[1:-1]
        return self._take(_BARE_KEY)

    def _note(self, path: Path, line: int) -> None:
        self._places.lines.setdefault(path, line)

    def _looks_at(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._unreadable()
        self._at = match.end()
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None, "these patterns match the empty string too"
        self._at = match.end()

    def _line(self) -> int:
        return bisect_right(self._starts, self._at)

    def _unreadable(self, message: str = "") -> UnreadableError:
        return UnreadableError(self._line(), message)

    def _lines_that_are_too_long(self) -> set[int]:
        ends = [*self._starts[1:], len(self._text)]
        lengths = enumerate(zip(self._starts, ends, strict=True), 1)
        return {line for line, (start, end) in lengths if end - start > LONGEST_LINE}

    def _refuse_long_line(self) -> None:
        """Refuse a line over the limit, unless a multi-line string covers its beginning."""
        if self._long_lines and self._line() in self._long_lines:
            raise self._unreadable(f"a line may have at most {LONGEST_LINE:,} characters")
