"""What an operator does about a database that can't be used, by what it has said."""

from __future__ import annotations

MENDS = (
    ("There is no database", "Correct [server] database, or begin a new one with `approvals-bot migrate`"),
    ("still holds changes", "Put the database's file back, or move the -wal elsewhere to restore a backup"),
    ("replaced", "Restart the service to go on with the new file, or put the old one back first"),
    ("is full", "Free some space on the database's disk; nothing was lost"),
    ("disk I/O", "Free some space on the database's disk, or check it: the system's log says what is wrong with it"),
    (
        "by this user",
        "Let the service's user write to the database's file and its folder; run commands as that user",
    ),
    ("readonly", "Let the service's user write to the database's file and its folder"),
    ("unable to open", "Let the service's user write to the database's file and its folder"),
    (
        "disk has not answered",
        "Check the disk, and that no other program holds the database: `fuser` on its file names it",
    ),
    ("locked", "End the other program that holds the database: `fuser` on its file names it"),
    ("read-only", "Let [server] database name the primary, not a standby, and make it writable"),
    ("takes no writes", "Let [server] database name the primary, not a standby, and make it writable"),
    ("too many", "Raise max_connections of PostgreSQL, or close what else uses it"),
    ("remaining connection slots", "Raise max_connections of PostgreSQL, or close what else uses it"),
    ("malformed", "Stop the service, run `approvals-bot fsck`, and restore a backup"),
    ("not a database", "Stop the service, run `approvals-bot fsck`, and restore a backup"),
    ("has schema", "Run the release that the database belongs to, or `approvals-bot migrate` with this one"),
)
"""Words of SQLite, PostgreSQL or our own, and the mend. The first that is found counts."""

OTHERWISE = "Check that the database runs and can be reached, and [server] database"


def store_mend(said: str) -> str:
    """Return what to do about a store that says this."""
    return next((mend for words, mend in MENDS if words in said), OTHERWISE)
