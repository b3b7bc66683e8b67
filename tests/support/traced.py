"""Which functions of the package run while something happens, counted by the interpreter itself.

A `Tracer` has to be installed before the threads begin that it shall see. It notes functions only while `noting`, so
what is imported or built before isn't counted, nor is anything at the top of a module.
"""

from __future__ import annotations

import ast
import sys
import threading
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = Path(__file__).parents[2] / "approvals_bot"
NOT_THE_SERVICE = ("playground/", "testing/")  # what stands for the world in these tests
BY_A_CLOCK = {
    *(("durable/engine/scheduler.py", name) for name in ("settle", "next_wake")),  # a test's clock
    *(("durable/store/sqlite.py", name) for name in ("next_wake", "changed")),
    ("durable/store/sqlite_reading.py", "next_wake"),
    ("durable/engine/engine.py", "settle"),
    ("durable/engine/activation.py", "is_busy"),
    *(("durable/engine/scheduler.py", name) for name in ("_schedule", "_sleep", "_claim_due", "_keep_leases")),
    ("durable/engine/stalled.py", "is_due"),
    ("durable/store/group_commit.py", "look"),
    *(("durable/engine/replayer.py", name) for name in ("_is_idle", "is_running")),
    *((f"service/{name}.py", "keep_reading") for name in ("directory", "provisioning", "own_people")),
    *(("service/audit_keeper.py", name) for name in ("run", "_write_loaded")),
    *(("service/channel_watch.py", name) for name in ("keep_probing", "due")),
    *(("app/monitoring.py", "_keep_looking"), ("service/troubles.py", "remind"), ("service/alerts.py", "keep_sending")),
}
"""What a test's clock asks for, and what the engine and the service do every second or so whatever happens."""


@dataclass(frozen=True, order=True, slots=True)
class Function:
    """One function by where its `def` begins. Lambdas and comprehensions belong to the function around them."""

    file: str  # relative to the package
    line: int
    name: str
    end: int

    @property
    def lines(self) -> frozenset[int]:
        return _code_in(PACKAGE / self.file).intersection(range(self.line, self.end + 1))


class Traced(frozenset[Function]):
    """The functions that ran."""

    @property
    def files(self) -> frozenset[str]:
        return frozenset(function.file for function in self)

    @property
    def lines(self) -> int:
        """Lines of code of these functions; one within another is counted once.

        Docstrings, comments and blank lines aren't counted: they are what a reader would have to do without.
        """
        return len({(function.file, line) for function in self for line in function.lines})

    def table(self) -> Iterator[str]:
        """What a reader who wants to cut looks at: files and functions by lines, the longest first."""
        by_file = Counter({file: Traced(f for f in self if f.file == file).lines for file in self.files})
        for file, lines in by_file.most_common():
            of = sorted((f for f in self if f.file == file), key=lambda f: -len(f.lines))
            yield f"{lines:5} {len(of):4}  {file}"
            yield from (f"          {len(function.lines):5}  {function.name}:{function.line}" for function in of)


class Tracer:
    """Notes every function of the package that is entered while `noting`, in any thread that began after `install`."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()
        self._noting = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch threads that begin within the block. This one is watched only while `noting`: it takes time."""
        threading.setprofile(self._entered)
        try:
            yield
        finally:
            threading.setprofile(None)

    @contextmanager
    def noting(self) -> Iterator[set[Function]]:
        """The functions, once the block has ended."""
        found: set[Function] = set()
        self._codes.clear()
        self._noting = True
        before = sys.getprofile()
        sys.setprofile(self._entered)
        try:
            yield found
        finally:
            sys.setprofile(before)
            self._noting = False
            found.update(functions_of(self._codes))

    def _entered(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._noting and event == "call":
            self._codes.add(frame.f_code)


def functions_of(codes: Iterable[CodeType]) -> Iterator[Function]:
    for code in codes:
        path = Path(code.co_filename)
        if path.suffix != ".py" or not path.is_relative_to(PACKAGE) or code.co_name.startswith("<"):
            continue
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(NOT_THE_SERVICE):
            found = _functions_in(path).get((code.co_name, code.co_firstlineno))
            # A dataclass writes its own methods, and they have no source.
            if found is not None and (name, found[1]) not in BY_A_CLOCK:
                yield Function(name, *found)


NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@cache
def _code_in(path: Path) -> frozenset[int]:
    """Return the lines of a file that aren't blank, and not only a comment or a docstring."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in NOT_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                lines.difference_update(range(first, last + 1))
    return frozenset(lines)


@cache
def _functions_in(path: Path) -> dict[tuple[str, int], tuple[int, str, int]]:
    """By name and the line of the first decorator, as a code object knows them: line of the `def`, name, last line."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name, first] = (node.lineno, node.name, node.end_lineno or node.lineno)
    return found
