"""What the fakes remember across restarts: messages, screens, mails and calls, in a small SQLite file.

A call is answered only after its effects are written, so everything that the service considers delivered survives a
kill. Short-lived things are forgotten: triggers, response URLs, scripted faults, rate limits, open sockets.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from approvals_bot.durable.core.private_files import create_private
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.playground.mailbox import MailServer, ReceivedMail
from approvals_bot.playground.slack.shapes import Execution, Json, Message, Numbers, View
from approvals_bot.playground.slack.workspace import Workspace
from approvals_bot.playground.targets import FakeTargets, ReceivedCall

SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL, place TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, place)
) WITHOUT ROWID
"""
LEAP = 1000  # IDs may have been assigned after the last write, so a restart skips this many

Row = tuple[str, str, str]  # kind, place, JSON
K = TypeVar("K", ReceivedMail, ReceivedCall)


class MemoryUnreadableError(ApprovalsBotError):
    """The file is damaged, or another version wrote it. It has no data of the service, so it can be deleted."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"The playground's memory can't be read: {file}. Start with --fresh, or delete that file.")


class Memory:
    """The memory of one playground. Raises MemoryUnreadableError for a file that it can't read."""

    def __init__(self, file: Path, space: Workspace, mailbox: MailServer, targets: FakeTargets) -> None:
        self.file = file
        self.space = space
        self.mailbox = mailbox
        self.targets = targets
        self.db: sqlite3.Connection | None = None
        self.mails_kept = 0
        self.calls_kept = 0
        self.screens_kept = ""

    def open(self) -> None:
        """Restore what was remembered, except for what the configuration no longer has."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        create_private(self.file)  # it has the mails and their links
        try:
            self.db = sqlite3.connect(self.file)
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")  # survives a kill; nothing here has to survive a power cut
            self.db.execute(SCHEMA)
            self.recall(self.db)
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.close()
            raise MemoryUnreadableError(self.file) from error

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    # writing

    def keep(self) -> None:
        """Write all changes in one transaction, if there are any."""
        if self.db is None:
            return
        gone = [(key_of(place),) for place in self.space.touched if place not in self.space.messages]
        screens = written(screens_of(self.space))
        rows = list(self.changed())
        if screens != self.screens_kept:
            rows.append(("screens", "", screens))
        if rows or gone:
            with self.db:
                self.db.executemany("INSERT OR REPLACE INTO kept (kind, place, value) VALUES (?, ?, ?)", rows)
                self.db.executemany("DELETE FROM kept WHERE kind = 'message' AND place = ?", gone)
        self.space.touched.clear()
        self.screens_kept = screens
        self.mails_kept, self.calls_kept = len(self.mailbox.mails), len(self.targets.received)

    def changed(self) -> Iterator[Row]:
        for place in self.space.touched & self.space.messages.keys():
            yield "message", key_of(place), written(asdict(self.space.messages[place]))
        for index, mail in enumerate(self.mailbox.mails[self.mails_kept :], self.mails_kept):
            yield "mail", str(index), written(asdict(mail))
        for index, call in enumerate(self.targets.received[self.calls_kept :], self.calls_kept):
            yield "call", str(index), written(asdict(call))

    # reading

    def recall(self, db: sqlite3.Connection) -> None:
        for text in rows_of(db, "screens"):
            show_again(self.space, json.loads(text))
        for text in rows_of(db, "message"):
            stored = json.loads(text)
            message = Message(**stored | {name: tuple(stored[name]) for name in ("blocks", "notified")})
            if message.channel in self.space.channels:
                self.space.messages[message.channel, message.ts] = message
        self.mailbox.mails += [arrived(ReceivedMail, text) for text in rows_of(db, "mail")]
        self.targets.received += [arrived(ReceivedCall, text) for text in rows_of(db, "call")]
        self.mailbox.numbers = Numbers(len(self.mailbox.mails) + 1)
        self.mails_kept, self.calls_kept = len(self.mailbox.mails), len(self.targets.received)


def screens_of(space: Workspace) -> Json:
    return {
        "views": [asdict(view) for view in space.views.values()],
        "modals": space.modals,
        "homes": space.homes,
        "direct_messages": [place.with_user for place in space.channels.values() if place.with_user],
        "groups": {handle: list(space.groups[handle].members) for handle in sorted(space.groups_set)},
        "last_ts": space.last_ts,
        "executions": [asdict(one) for one in space.executions.values()],
        "number": space.numbers.following,
    }


def show_again(space: Workspace, screens: Json) -> None:
    for view in screens["views"]:
        if view["user"] in space.users:
            space.views[view["id"]] = View(**view)
    space.modals |= {user: ids for user, ids in screens["modals"].items() if user in space.users}
    space.homes |= {user: view_id for user, view_id in screens["homes"].items() if user in space.users}
    for user in screens["direct_messages"]:
        if user in space.users:
            space.direct_message(space.users[user])
    for group, members in screens["groups"].items():
        if group in space.groups:
            known = tuple(member for member in members if member in space.users)
            space.groups[group] = replace(space.groups[group], members=known)
            space.groups_set.add(group)
    space.last_ts |= screens["last_ts"]
    space.executions |= {one["id"]: Execution(**one) for one in screens["executions"]}
    space.numbers = Numbers(screens["number"] + LEAP)


def key_of(place: tuple[str, str]) -> str:
    return " ".join(place)


def written(value: Any) -> str:
    return json.dumps(value, default=datetime.isoformat)


def arrived(kind: type[K], text: str) -> K:
    found = json.loads(text)
    return kind(**found | {"at": datetime.fromisoformat(found["at"])})


def rows_of(db: sqlite3.Connection, kind: str) -> list[str]:
    """Return the rows in the order in which they were first written; places begin with a number."""
    found = db.execute(
        "SELECT value FROM kept WHERE kind = ? ORDER BY CAST(place AS INTEGER), place", (kind,)
    ).fetchall()
    return [value for (value,) in found]
