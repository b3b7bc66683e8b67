"""What is wrong with a configuration, said so that it can be mended without a search."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from approvals_bot.config.places import Path
from approvals_bot.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a key. `path` may name a key that is missing; it is then looked up where its table begins."""

    path: Path
    message: str
    suggestion: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding with its place. `key` is "file" or "syntax" for what has no key."""

    file: str
    line: int
    key: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        meant = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.file}:{self.line}: {self.key}: {self.message}{meant}"


class ConfigErrors(ConfigError):
    """The configuration can't be loaded. The operator's to mend; `problems` has every one, with file, line and key."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.file, each.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def written(path: Path) -> str:
    """A path as people write it: `stage[0].from`, `people."ann@acme.eu".manager`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.fullmatch(part) else '"' + part.encode("unicode_escape").decode()[:80] + '"'
            text += f".{shown}" if text else shown
    return text


def nearest(word: object, names: Iterable[str]) -> str:
    """The name that was probably meant; "" if none is near."""
    return next(iter(difflib.get_close_matches(str(word)[:100], list(names), n=1)), "")


def one_of(names: Sequence[str]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'"{name}"' for name in names]
    return " or ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else "".join(quoted)
