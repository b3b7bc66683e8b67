"""`# approvals-bot: allow AB101, because …`: a line that may, and why.

The comment stands on a line of the statement it speaks for, or alone on the line above.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

_ALLOW = re.compile(r"#\s*approvals-bot:\s*allow\b(?P<codes>(?:[\s,]*AB\d{3})*)[\s,:;.–—-]*(?P<reason>.*)")


@dataclass(slots=True)
class _Exemption:
    line: int
    column: int
    codes: frozenset[str]
    reason: str
    used: bool = False


class Exemptions:
    """Those of one file."""

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
        """Whether a comment exempts this place from this rule."""
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            exemption = self._of_line.get(line)
            if exemption is not None and code in exemption.codes:
                exemption.used = True
                return bool(exemption.reason)
        return False

    def complaints(self) -> Iterator[tuple[int, int, str]]:
        """Line, column and what is wrong with an exemption: ask only after all places have been asked for."""
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
