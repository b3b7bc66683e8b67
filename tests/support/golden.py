"""What a journey saw, made comparable: volatile values become numbered placeholders, and the rest is compared exactly.

`GOLDEN=record` in the environment writes the files instead of comparing them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from approvals_bot.cli.common import this_user

FOLDER = Path(__file__).parent.parent / "journeys" / "golden"
RECORDING = os.environ.get("GOLDEN") == "record"
LONGEST_DIFF = 300  # lines; what differs in many files is seen in the first

# Each distinct value of a group gets a number, in order of first appearance, so that one can see what is the same as
# what. A signed link comes before the ids that it is made of.
NAMED: tuple[tuple[str, str], ...] = (
    ("link", r"(?<=/decisions/)[\w-]{20,}(?:\.[\w-]+)+"),
    ("webhook", r"(?<=/webhooks/)[\w-]{20,}(?:\.[\w-]+)+"),
    ("token", r'(?<="token": ")[\w-]{43}(?=")'),
    ("session", r'(?<="session": ")[0-9a-f]{64}(?=")'),
    ("form", r'(?<=_token" value=")[^"]+'),
    ("mail", r"(?<=<)[a-z2-7]{26}(?=@acme\.eu>)"),
    ("run", r"\brun_[0-9a-z]{20,}"),
    ("message", r"\b2\d{9}\.\d{6}\b"),
    ("view", r"\bV[0-9A-Z]{8,}\b"),
    # The fake Slack counts the blocks of all card updates, and how many of those there are depends on timing.
    ("block", r'(?<=_id": ")b\d{4,}(?=")'),
    ("hook", r"(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{26}(?![\w-])"),
)

# Of these no two are ever the same, or it means nothing whether they are.
BLURRED: tuple[tuple[str, str], ...] = (
    (r"(?<=127\.0\.0\.1:)\d{4,5}\b", "<port>"),
    (r"(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\d(?:\.\d+)?", r"\1:<s>"),
    (r"\b(\d\d:\d\d):\d\d(?:\.\d+)?\b", r"\1:<s>"),
    (r"(?<=Your code is )\d{6}", "<code>"),
    (r"(?<=urn:request:)[0-9a-f]{16}\b", "<request>"),
    (r"(?<=\d\.)2\d{15}(?=:)", "<µs>"),  # of the newest vote, in the mark of a shown state
    (r"\b(?:\d+ seconds?|under a second)(?=[,<]|$| so far)", "<n> seconds"),
    (r"\b\d+(?:\.\d+)? ?ms\b", "<n> ms"),
    (rf'(?<="id": "){re.escape(this_user().id)}(?=")', "<user>"),
    (r"\b120 minutes\b", "2 hours"),  # a time limit of two hours, taken a moment before or after it
)
SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
EPOCH = re.compile(r"\b22\d{8}\b")  # seconds, in the year that the journeys play in
DRAWN = re.compile(r'(?<= )(x|width)="\d+\.\d+%?"')  # the timeline's bars are as long as the steps took


class Names:
    """The placeholders of one journey."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = defaultdict(dict)

    def plain(self, text: str) -> str:
        text = SIGNATURE.sub("v1,<signature>", text.replace("\r\n", "\n"))  # it may look as if an id were in it
        for group, pattern in NAMED:
            text = re.sub(pattern, lambda found, group=group: self._name(group, found[0]), text)  # type: ignore[misc]
        for pattern, blur in BLURRED:
            text = re.sub(pattern, blur, text)
        return DRAWN.sub(r'\1="<n>"', EPOCH.sub(_minute, text))

    def _name(self, group: str, value: str) -> str:
        known = self._known[group]
        return known.setdefault(value, f"<{group}-{len(known) + 1}>")


def _minute(found: re.Match[str]) -> str:
    return f"<{int(found[0]) // 60} min>"


def anonymous(value: Any) -> str:
    """Return a sort key without random values, for what arrives in any order."""
    return Names().plain(json.dumps(value, ensure_ascii=False, sort_keys=True))


class Book:
    """Everything that one journey saw, by file."""

    def __init__(self, journey: str) -> None:
        self.journey = journey
        self.names = Names()
        self.styles: dict[str, str] = {}
        self._act = ""
        self._acts = 0
        self._pages: dict[str, list[str]] = {}

    def act(self, name: str) -> None:
        self._acts += 1
        self._act = f"{self.journey}-{self._acts:02}-{name}"

    def text(self, heading: str, text: str) -> None:
        self._write("txt", f"══ {heading} ══\n{self.names.plain(text).rstrip()}\n")

    def json(self, heading: str, value: Any) -> None:
        shown = json.dumps(value, ensure_ascii=False, indent=1)
        self._write("json", f"══ {heading} ══\n{self.names.plain(shown)}\n")

    def html(self, heading: str, html: str, kind: str = "html") -> None:
        """Mails repeat the same styles on every element, so these are in a file of their own, once."""
        html = html.replace("\r\n", "\n")
        html = re.sub(r'(?<=style=")[^"]{12,}(?=")', lambda found: self._style(found[0]), html)
        html = re.sub(r"(?<=<style>).{40,}?(?=</style>)", lambda found: self._style(found[0]), html, flags=re.DOTALL)
        lines = [line.rstrip() for line in re.sub(r"><(?!/)", ">\n<", html).splitlines()]
        shown = "\n".join(line for line in lines if line)
        self._write(kind, f"══ {heading} ══\n{self.names.plain(shown)}\n")

    def _style(self, text: str) -> str:
        name = f"<style-{hashlib.sha256(text.encode()).hexdigest()[:6]}>"
        self.styles[name] = text
        return name

    def _write(self, kind: str, text: str) -> None:
        self._pages.setdefault(f"{self._act}.{kind}", []).append(text)

    def close(self) -> None:
        """Compare with the recorded files, or record them."""
        found = {name: "\n".join(parts) for name, parts in self._pages.items()}
        found[f"{self.journey}-styles.txt"] = "\n".join(f"{k} {v}" for k, v in sorted(self.styles.items())) + "\n"
        kept = {file.name: file for file in FOLDER.glob(f"{self.journey}-*")}
        if RECORDING:
            for name in kept.keys() - found.keys():
                kept[name].unlink()
            for name, text in found.items():
                (FOLDER / name).write_text(text, "utf-8")
            return
        diff: list[str] = []
        differing = []
        for name in sorted(kept.keys() | found.keys()):
            before = kept[name].read_text("utf-8") if name in kept else ""
            if before != found.get(name, ""):
                differing.append(name)
                lines = before.splitlines(), found.get(name, "").splitlines()
                diff += difflib.unified_diff(*lines, f"golden/{name}", f"now/{name}", n=4, lineterm="")
        if differing:
            more = [f"… and {len(diff) - LONGEST_DIFF} lines more"] if len(diff) > LONGEST_DIFF else []
            summary = f"{len(differing)} files differ from what was recorded: {', '.join(differing)}"
            raise AssertionError("\n".join([summary, *diff[:LONGEST_DIFF], *more]))
