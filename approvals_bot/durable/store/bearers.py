"""Signed URLs at rest: the database holds a hook's id, and its URL is signed again when it is read.

Anybody who has a webhook's URL can resume its run, and a workflow passes it on: to steps, children, its result, what it
publishes. A backup or a copied file would hand out every such URL. So a store never writes one. In whatever it keeps as
JSON, a token `eyJoIjoi….…` that this installation has signed for a webhook is written as `~hook~<id>~<generation>~`,
and read as a token again, signed with the key that signs then. So old URLs outlast the retirement of their key, too.

The same text in people's input is written with one more `~`, and comes back as it was: nobody gets a URL signed by
writing down a hook's id. What code makes of a token isn't recognized: a part of it, its Base64, its hash.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from approvals_bot.durable.tokens import WEBHOOK, Tokens
from approvals_bot.errors import InvalidTokenError

_BEGINNING = "eyJoIjoi"  # the Base64 of {"h":", with which each such token begins
_TOKEN = re.compile(r"eyJoIjoi(?:(?!eyJoIjoi)[\w-])+\.[\w-]{43}", re.ASCII)
_MARK = "~hook~"
_WRITTEN = re.compile(r"~hook~(?:(?P<given>~)|(?P<id>[\w-]+)~(?P<generation>\d+)~)", re.ASCII)


def with_urls(column: str) -> str:
    """Return SQLite's SQL for a column's JSON, as it was given. Python is called only for rows that have a mark."""
    return f"CASE WHEN instr({column}, '{_MARK}') THEN with_urls({column}) ELSE {column} END"


def without_urls(db: sqlite3.Connection, json: str) -> str:
    """Return JSON as this database holds it. SQLite is asked only where there may be something to convert."""
    if _BEGINNING not in json and _MARK not in json:
        return json
    return str(db.execute("SELECT without_urls(?)", (json,)).fetchone()[0])


class Bearers:
    """The conversion of JSON between what a database holds and what the program reads.

    It changes nothing before an engine has given it the `tokens` to recognize and to sign URLs with.
    """

    def __init__(self) -> None:
        self.tokens: Tokens | None = None

    def without(self, json: str) -> str:
        """Return the text as the database holds it, without signed URLs."""
        if _MARK in json:
            json = json.replace(_MARK, _MARK + "~")
        if _BEGINNING in json and self.tokens is not None:
            return _TOKEN.sub(self._mark, json)
        return json

    def signed(self, json: str) -> str:
        """Return the text that `without` took, with URLs that are signed now."""
        return _WRITTEN.sub(self._sign, json) if _MARK in json else json

    def compared(self, given: list[Any]) -> list[Any]:
        """Return the arguments of a query, as what the database holds compares with them."""
        return [self.without(value) if isinstance(value, str) else value for value in given]

    def register(self, db: sqlite3.Connection) -> None:
        """Make both conversions known to SQLite's SQL."""
        db.create_function("without_urls", 1, lambda text: text if text is None else self.without(text))
        db.create_function("with_urls", 1, lambda text: text if text is None else self.signed(text))

    def _mark(self, found: re.Match[str]) -> str:
        assert self.tokens is not None
        try:
            match self.tokens.read(WEBHOOK, found[0]):
                case {"h": str(hook_id), "g": int(generation), **rest} if not rest:
                    return f"{_MARK}{hook_id}~{generation}~"
        except InvalidTokenError:
            pass
        return found[0]

    def _sign(self, found: re.Match[str]) -> str:
        if found["given"]:
            return _MARK
        if self.tokens is None:
            return found[0]
        return self.tokens.sign(WEBHOOK, {"h": found["id"], "g": int(found["generation"])})
