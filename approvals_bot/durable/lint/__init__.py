"""The linter: finds code in workflow bodies that would replay differently, or that touches the outside world.

The engine refuses real I/O in a body when it happens. But it notices a clock, a random number or the order of a set
only when a run has stalled. So the linter looks for them in the source: in every `@workflow` and in the functions of
the same file that it calls by name, but not in a `@step`. It follows names through imports, aliases and simple
assignments.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from approvals_bot.durable.lint.bodies import Bodies
from approvals_bot.durable.lint.rules import RULES, Rule

UNREADABLE = "AB000"
EXEMPTION = "AB100"


_ALLOW = re.compile(r"#\s*approvals-bot:\s*allow\b(?P<codes>(?:[\s,]*AB\d{3})*)[\s,:;.–—-]*(?P<reason>.*)")


@dataclass(slots=True)
class _Exemption:
    line: int
    column: int
    codes: frozenset[str]
    reason: str
    used: bool = False


class Exemptions:
    """The comments `# approvals-bot: allow AB101, because …` of one file.

    A comment is on a line of the statement that it exempts, or alone on the line above.
    """

    def __init__(self, source: bytes) -> None:
        self._of_line: dict[int, _Exemption] = {}
        self._all: list[_Exemption] = []
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            found = _ALLOW.match(token.string) if token.type == tokenize.COMMENT else None
            if found:
                line, column = token.start
                codes = frozenset(re.findall(r"AB\d{3}", found["codes"]))
                exemption = _Exemption(line, column + 1, codes, found["reason"].strip())
                self._all.append(exemption)
                alone = not token.line[:column].strip()
                self._of_line[line + 1 if alone else line] = exemption

    def allow(self, node: ast.expr | ast.stmt, code: str) -> bool:
        """Return whether a comment exempts this place from this rule."""
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            exemption = self._of_line.get(line)
            if exemption is not None and code in exemption.codes:
                exemption.used = True
                return bool(exemption.reason)
        return False

    def complaints(self) -> Iterator[tuple[int, int, str]]:
        """Yield the line, the column and the problem of each wrong exemption. Call it after all calls of `allow`."""
        for each in self._all:
            if not each.codes:
                yield each.line, each.column, "allows nothing by name: write `allow AB101, because …`"
            elif not each.reason:
                yield each.line, each.column, "gives no reason: write `allow AB101, because …`"
            elif not each.used:
                yield (
                    each.line,
                    each.column,
                    f"allows {', '.join(sorted(each.codes))}, which is not found here: delete it",
                )


@dataclass(frozen=True, slots=True, order=True)
class LintFinding:
    """A finding at a place in a file. `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.message}"


def lint_paths(paths: Iterable[Path]) -> list[LintFinding]:
    """Return the findings in these files and in the *.py files of these folders.

    They are in the order of the paths.
    Raises OSError if a file can't be read.
    """
    return [finding for path in paths for file in _files(path) for finding in lint_text(file.read_bytes(), str(file))]


def lint_text(text: bytes | str, name: str = "<text>") -> list[LintFinding]:
    """Return the findings in this source, by line. A file that isn't Python is one finding."""
    try:
        tree = ast.parse(text, name)
    except (SyntaxError, ValueError, RecursionError) as error:
        line, column = (error.lineno or 1, error.offset or 1) if isinstance(error, SyntaxError) else (1, 1)
        return [LintFinding(name, line, column, UNREADABLE, f"is no Python: {getattr(error, 'msg', error)}")]
    try:
        return _lint(tree, text if isinstance(text, bytes) else text.encode(), name)
    except RecursionError:
        return [LintFinding(name, 1, 1, UNREADABLE, "is nested too deeply to be read")]


def _lint(tree: ast.Module, source: bytes, name: str) -> list[LintFinding]:
    exemptions = Exemptions(source)
    found = [
        LintFinding(name, node.lineno, node.col_offset + 1, code, message)
        for node, code, message in Bodies(tree).findings()
        if not exemptions.allow(node, code)
    ]
    found += [LintFinding(name, line, column, EXEMPTION, message) for line, column, message in exemptions.complaints()]
    return sorted(set(found))


def _files(path: Path) -> Iterator[Path]:
    return iter(sorted(path.rglob("*.py"))) if path.is_dir() else iter([path])


__all__ = ["EXEMPTION", "RULES", "UNREADABLE", "LintFinding", "Rule", "lint_paths", "lint_text"]
