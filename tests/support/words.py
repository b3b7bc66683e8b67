"""Words that the project doesn't use, in prose and names alike: `python -m words [PATH…]` lists where they stand.

One thing has one word, the field's own. `WORDS` says what to write instead; `EXCEPTIONS` lists the few places that
mean something else, each with its reason. Recorded logs and pages, and what others wrote, are not read.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = (".py", ".md", ".html", ".toml", ".css", ".js", ".sql", ".sh", ".txt")
NOT_OURS = ("tests/journeys/golden/", "tests/histories/", "tests/data/", "requirements")
SELF = ("tests/support/words.py", "tests/structure/test_words.py")

_START = r"(?:^|[.!?:;(]\s+|\"\"\"|[#*|-]\s+|[\"'`]\b)"  # where a sentence begins, in prose or in a string

WORDS = {
    "headless who": (
        rf"{_START}Who (?:[a-z]+s|has|is|may|can|did|does|was|were|votes?|\w+ed)\b(?![^.\n]*\?)"
        r"|\b(?:to|for|with|than|unless|because|if|that|while|so|but) who\b(?!\s+(?:may|can|will)\b)",
        "a subject: they, people who …, the caller that …",
    ),
    "whoever": (r"\bwho(?:m)?ever\b", "anybody who, the person who"),
    "anew": (r"\banew\b", "again"),
    "in the same breath": (r"\bin the same breath\b", "at once, in one transaction"),
    "by itself": (r"\bby itself\b", "on its own, automatically"),
    "stands": (r"\b(?:stands|stood)\b(?! (?:for|in for)\b)", "is, is written, holds"),
    "lies": (r"\blies\b", "is"),
    "she": (r"\b(?:she|hers|her|herself|he|his|him|himself)\b", "they, them, their"),
    "told": (r"(?<![a-z])(?:told|tells|telling|teller)(?![a-z])", "notify, say, show, report"),
    "tell": (
        r"(?<![a-z])tell(?![a-z])(?!\s+(?:\w+\s+){0,4}(?:apart|from|whether|how|which|if)\b)",
        "notify, say, show",
    ),
    "decline": (r"(?<![a-z])declin(?:e|es|ed|ing)(?![a-z])", "reject"),
    "ask for changes": (r"\bask(?:s|ed|ing)? for changes\b|changes asked\b|ChangesAsked", "request changes"),
    "hand over": (r"\bhand(?:s|ed|ing)? (?:it |them )?over\b|(?<![a-z])hand_?over(?![a-z])", "reassign, pass on"),
    "take back": (r"\b(?:take|takes|took|taken|taking) (?:it |them |\w+ votes? )?back\b", "undo (a vote), withdraw"),
    "stand-in": (r"(?<![a-z])stand(?:s|ing)?[- ]in(?![a-z])(?! for\b)", "delegate (a person), fake (a server)"),
    "what follows": (r"\bwhat follows\b|(?<![a-z])what_follows(?![a-z])", "follow-up"),
    "who asked": (
        r"\bwho (?:asks|asked|is asking)\b|\bthe asking\b|people (?:who are|that are) asked",
        "requester, approvers",
    ),
    "electorate": (r"(?<![a-z])electorates?(?![a-z])", "eligibility"),
    "pace": (r"(?<![a-z])paces?(?![a-z])", "delivery, backoff"),
    "coming due": (r"\b(?:comes?|coming)[ _]due\b", "due"),
    "sentences": (r"(?<![a-z])phrases?(?![a-z])", "message text"),
    "story": (r"(?<![a-z])(?:story|stories|stretch(?:es)?)(?![a-z])|how it went", "timeline, history, span"),
    "news": (r"(?<![a-z])news(?![a-z])", "notification, change"),
    "draft": (r"(?<![a-z])drafts?(?![a-z]|/?\d{4})", "plan"),
    "pieces": (r"(?<![a-z])pieces(?![a-z])|\bshared line\b", "batch, batched connection"),
}
"""What not to write: a name, the pattern, and what to write instead."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("draft", "tests/channels/slack/test_slack_manifest.py"): "a draft of JSON Schema",
    ("tell", "tests/support/kept_workflows.py"): "a step's name in recorded histories",
    ("told", "tests/support/kept_workflows.py"): "a step's result in recorded histories",
    ("sentences", "approvals_bot/web/responses.py"): "the standard library's `HTTPStatus.phrase`",
    ("told", "tests/durable/engine/test_kept_workflows.py"): "results of the kept workflows, as in their recorded logs",
}
"""Where a word means something else, by its name and a file (or folder, ending in `/`): the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """A word at a place."""

    file: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word} → {WORDS[self.word][1]}: {self.text.strip()}"


_PATTERNS = {
    word: re.compile(pattern, 0 if word == "headless who" else re.IGNORECASE) for word, (pattern, _) in WORDS.items()
}


def words_in(file: str, text: str, *, but_exceptions: bool = True) -> Iterator[Found]:
    """Find each word of the list in a text, but where an exception says why it may be there."""
    for number, line in enumerate(text.splitlines(), 1):
        for word, pattern in _PATTERNS.items():
            if pattern.search(line) and not (but_exceptions and is_excepted(word, file)):
                yield Found(file, number, word, line)


def is_excepted(word: str, file: str) -> bool:
    return any(
        word == of and (file == where or (where.endswith("/") and file.startswith(where))) for of, where in EXCEPTIONS
    )


def our_files() -> list[str]:
    """List the tracked files that are read: text that the project's own people wrote."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        file
        for file in tracked.splitlines()
        if file.endswith(READ) and not file.startswith(NOT_OURS) and file not in SELF
    ]


def find_words(files: Iterable[str], *, but_exceptions: bool = True) -> list[Found]:
    """Find each word of the list in these files."""
    texts = [(file, (ROOT / file).read_text("utf-8")) for file in files]
    return [found for file, text in texts for found in words_in(file, text, but_exceptions=but_exceptions)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", help="files or folders, relative to the project; all of it by default")
    parser.add_argument("--count", action="store_true", help="only how many there are, by word and by folder")
    given = parser.parse_args()
    files = [file for file in our_files() if not given.paths or file.startswith(tuple(given.paths))]
    found = find_words(files)
    lines = [str(one) for one in found]
    if given.count:
        words = Counter(one.word for one in found)
        rooms = Counter("/".join(one.file.split("/")[:2]) for one in found)
        lines = [f"{count:5} {name}" for by in (words, rooms) for name, count in by.most_common()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
