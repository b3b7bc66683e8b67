"""Random changes to an export and to the database behind it, as somebody would make them who has no key."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable

from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.store.audit import ACTOR, SALT, audit_line, line_hash
from approvals_bot.durable.store.chain import event_hash, seal
from approvals_bot.service.audit import link
from approvals_bot.service.audit_key import compact

Row = tuple[object, ...]


def mutate_file(rng: random.Random, lines: list[bytes]) -> bytes:
    """Flip a bit; delete, double, move, insert or change a line; cut the end."""
    at = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            flipped = bytearray(b"".join(lines))
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 1:
            return b"".join(lines[:at] + lines[at + 1 :])
        case 2:
            return b"".join([*lines[:at], lines[at], *lines[at:]])
        case 3:
            other = rng.randrange(len(lines))
            moved = list(lines)
            moved.insert(other, moved.pop(at))
            return b"".join(moved)
        case 4:
            foreign = compact({"n": at + 1, "kind": "event", "run_id": "run_0", "seq": 1, "chain": "0" * 64}) + b"\n"
            return b"".join([*lines[:at], rng.choice([b"\n", b"{}\n", foreign]), *lines[at:]])
        case 5:
            content = b"".join(lines)
            return content[: rng.randrange(len(content))]
        case 6:
            return b"".join(lines[:at])
        case _:
            value = json.loads(lines[at])
            key = rng.choice(sorted(value))
            value[key] = rng.choice([None, 1, "other", True])
            return b"".join([*lines[:at], compact(value) + b"\n", *lines[at + 1 :]])


def rechained(lines: list[bytes]) -> bytes:
    """Compute the chain of a changed file again, which takes no key."""
    content, head = b"", ""
    for number, line in enumerate(lines, 1):
        value = json.loads(line)
        value.pop("chain")
        value["n"] = number
        if "before" in value:
            value["before"] = head
        head = link(head, value)
        content += compact(value | {"chain": head}) + b"\n"
    return content


Mutation = Callable[[sqlite3.Connection, random.Random, str], None]
"""Changes the log of a run."""


def _events(db: sqlite3.Connection, run: str) -> list[Row]:
    return db.execute("SELECT seq, type, at, key, data FROM events WHERE run_id = ? ORDER BY seq", (run,)).fetchall()


def change_data(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    seq, *_, data = rng.choice(_events(db, run))
    at = rng.randrange(len(str(data)))
    changed = f"{str(data)[:at]}{'x' if str(data)[at] != 'x' else 'y'}{str(data)[at + 1 :]}"
    db.execute("UPDATE events SET data = ? WHERE run_id = ? AND seq = ?", (changed, run, seq))


def change_time(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    seq, *_ = rng.choice(_events(db, run))
    db.execute("UPDATE events SET at = at + ? WHERE run_id = ? AND seq = ?", (rng.randrange(1, 9), run, seq))


def swap(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    one, other = rng.sample([row[0] for row in _events(db, run)], 2)
    for was, now in ((one, -1), (other, one), (-1, other)):
        db.execute("UPDATE events SET seq = ? WHERE run_id = ? AND seq = ?", (now, run, was))


def delete(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    seq = rng.choice(_events(db, run))[0]
    db.execute("DELETE FROM events WHERE run_id = ? AND seq = ?", (run, seq))


def cut(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    log = _events(db, run)
    keep = rng.randrange(1, len(log))
    db.execute("DELETE FROM events WHERE run_id = ? AND seq > ?", (run, keep))
    db.execute("DELETE FROM chain WHERE run_id = ? AND seq > ?", (run, keep))
    db.execute("UPDATE runs SET seq = ? WHERE id = ?", (keep, run))


def append(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    last = len(_events(db, run))
    db.execute("INSERT INTO events VALUES (?, ?, 'wait_completed', 1, ?, '{}')", (run, last + 1, f"x{last}"))


def rewrite(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    """Change an event, and compute the log's whole chain again."""
    change_data(db, rng, run)
    before = run
    for seq, type, at, key, data in _events(db, run):
        (salt,) = db.execute("SELECT salt FROM chain WHERE run_id = ? AND seq = ?", (run, seq)).fetchone()
        before = event_hash(before, int(str(seq)), str(type), int(str(at)), str(key), seal(salt, str(data)))
        db.execute("UPDATE chain SET hash = ? WHERE run_id = ? AND seq = ?", (before, run, seq))


def remove(db: sqlite3.Connection, rng: random.Random, run: str) -> None:
    for table in ("events", "chain", "attributes", "hooks"):
        db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run,))  # noqa: S608  # our own names
    db.execute("DELETE FROM runs WHERE id = ?", (run,))


OF_LOGS: list[Mutation] = [change_data, change_time, swap, delete, cut, append, rewrite, remove]


def change_line(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    column = rng.choice(["what", "who", "run_id"])
    db.execute(f"UPDATE audit SET {column} = coalesce({column}, '') || 'x' WHERE seq = ?", (seq,))  # noqa: S608


def change_line_data(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    db.execute("UPDATE audit SET data = json_set(data, '$.act', 'x', '$.seq', 99) WHERE seq = ?", (seq,))


def delete_line(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    db.execute("DELETE FROM audit WHERE seq = ?", (seq,))


def swap_lines(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    for was, now in ((seq, -1), (seq + 1, seq), (-1, seq + 1)):
        db.execute("UPDATE audit SET seq = ? WHERE seq = ?", (now, was))


def insert_line(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    db.execute("UPDATE audit SET seq = -seq - 1 WHERE seq >= ?", (seq,))
    db.execute("UPDATE audit SET seq = -seq WHERE seq < 0")
    db.execute("INSERT INTO audit SELECT ?, at, what, who, run_id, data, hash FROM audit WHERE seq = ?", (seq, seq + 1))


def rechain_lines(db: sqlite3.Connection, rng: random.Random, seq: int) -> None:
    """Change a line, and compute the chain again from there, without the key."""
    change_line(db, rng, seq)
    rows = db.execute("SELECT seq, at, what, who, run_id, data, hash FROM audit ORDER BY seq").fetchall()
    before = ""
    for number, at, what, who, run_id, data, hash in rows:
        line = audit_line(number, from_micros(at), (what, who, run_id), data, hash)
        if number >= seq:
            hash = line_hash(before, number, at, line.entry, line.salt, None)  # it is the new one
            db.execute("UPDATE audit SET hash = ? WHERE seq = ?", (hash, number))
        before = hash


OF_LINES: list[Callable[[sqlite3.Connection, random.Random, int], None]] = [
    change_line, change_line_data, delete_line, swap_lines, insert_line, rechain_lines,
]  # fmt: skip

__all__ = ["ACTOR", "OF_LINES", "OF_LOGS", "SALT", "mutate_file", "rechained"]
