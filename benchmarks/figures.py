"""What each figure means, its unit, and what was promised."""

from __future__ import annotations

from dataclasses import dataclass

OF_A_CYCLE = {
    "per_second": "cycles per second, 50 at a time, from the first start to the last end; the median of three runs for ours",
    "cpu_ms": "milliseconds of CPU, user and system, per cycle at 50 at a time, for client and engine together (they share a process)",
    "server_cpu_ms": "additional milliseconds of CPU per cycle used by the database server (or the engine's own server)",
    "busy_p50_ms": "milliseconds from resume to completed, median, at 50 at a time",
    "busy_p99_ms": "the same, 99th percentile",
    "alone_ms": "milliseconds from start to completed of a lone cycle, median",
    "p50_ms": "milliseconds from resume to completed of a lone cycle, median",
    "p99_ms": "the same, 99th percentile",
    "commits": "writing transactions per cycle, at 50 at a time",
    "commits_alone": "the same for lone cycles",
}
"""The last word of `cycle.<system>.<…>`."""


@dataclass(frozen=True, slots=True)
class System:
    """A row of the table of cycles: where its figures are, what it is called, and how it was set up."""

    key: str
    name: str
    how: str = ""


SYSTEMS = (
    System("sqlite.uvloop", "**Ours, SQLite**", "`synchronous=FULL`, uvloop"),
    System("sqlite.asyncio", "**Ours, SQLite**", "`synchronous=FULL`, asyncio's own loop"),
    System("postgres.uvloop", "**Ours, PostgreSQL**", "one replica, uvloop"),
    System("postgres.asyncio", "**Ours, PostgreSQL**", "one replica, asyncio's own loop"),
    System("dbos_sqlite", "DBOS, SQLite", "default settings"),
    System("dbos_sqlite_fast", "DBOS, SQLite", "polling every 10 ms"),
    System("dbos_postgres", "DBOS, PostgreSQL", "default settings, LISTEN/NOTIFY on"),
    System("dbos_postgres_fast", "DBOS, PostgreSQL", "polling every 10 ms"),
    System("langgraph_async", "LangGraph, SQLite", '`durability="async"`, its default'),
    System("langgraph_sync", "LangGraph, SQLite", '`durability="sync"`'),
    System("langgraph_exit", "LangGraph, SQLite", '`durability="exit"`, fewest writes'),
    System("restate", "Restate", "one server, Python SDK, awakeable"),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure that was promised: at least, or at most, so much."""

    key: str
    says: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def is_kept(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def target(self) -> float:
        return self.at_least if self.at_least is not None else self.at_most or 0.0


FLOOR_OF_THE_PROMISE = {"raw.floor.per_second": 5324.0, "raw.floor.cpu_ms": 0.17}
"""What the floor did on the machine that the promises of speed were made on, by the project's design."""

PROMISES = (
    Promise("relative.per_second", "SQLite: cycles per second, 50 at a time, relative to the floor", at_least=0.35),
    Promise("relative.cpu_ms", "SQLite: CPU per cycle, relative to the floor", at_most=3, unit="×"),
    Promise("cycle.sqlite.uvloop.per_second", "SQLite: cycles per second, 50 at a time", at_least=2000),
    Promise("cycle.sqlite.uvloop.cpu_ms", "SQLite: CPU per cycle", at_most=0.5, unit="ms"),
    Promise("cycle.sqlite.uvloop.commits_alone", "SQLite: commits of a lone cycle", at_most=5),
    Promise("cycle.sqlite.uvloop.commits", "SQLite: commits per cycle, 50 at a time", at_most=1),
    Promise("cycle.sqlite.uvloop.p50_ms", "SQLite: resume → completed, median", at_most=2, unit="ms"),
    Promise("cycle.sqlite.uvloop.p99_ms", "SQLite: resume → completed, 99th percentile", at_most=10, unit="ms"),
    Promise("cycle.postgres.uvloop.per_second", "PostgreSQL: cycles per second of one replica", at_least=500),
    Promise("replicas.gain", "PostgreSQL: two replicas, relative to one", at_least=1),
    Promise(
        "clicks.webhook.per_second", "Webhook calls per second over HTTP: verified, committed, answered", at_least=1000
    ),
    Promise("approval.cpu_ms", "CPU of one approval, three may decide", at_most=10, unit="ms"),
    Promise("approval.per_second", "Approvals per second, 20 at a time", at_least=200),
    Promise(
        "slack_approval.cpu_ms", "CPU of one approval with Slack, from the API to the last card", at_most=10, unit="ms"
    ),
    Promise("slack_approval.per_second", "Approvals with Slack per second, 20 at a time", at_least=200),
    Promise("clicks.slack.p50_ms", "Slack click → acknowledged, median, 20 at a time", at_most=60, unit="ms"),
    Promise("startup.help_ratio", "CPU of `--help`, relative to `import click`", at_most=1.3, unit="×"),
    Promise("startup.check_cpu_s", "CPU of `check`, 200 workflows and 1,000 people", at_most=1, unit="s"),
    Promise("startup.cpu_s", "`serve` → ready, CPU", at_most=0.8, unit="s"),
    Promise("startup.slack_cpu_s", "`serve` with Slack → ready, CPU", at_most=0.8, unit="s"),
    Promise("startup.restart_s", "`kill -9` → a vote is answered again", at_most=1, unit="s"),
    Promise("paused.memory_mb", "Additional memory with all runs paused", at_most=20, unit="MB"),
    Promise("paused.idle_cpu_percent", "CPU while all runs wait", at_most=0.5, unit="%"),
    Promise("paused.resume_ratio", "Resume → completed, median, relative to 1,000 runs", at_most=1.3, unit="×"),
    Promise("paused.restart_s", "Restart → first resume completed", at_most=1, unit="s"),
    Promise("chats.memory_kb", "Memory of each of a thousand paused chats", at_most=50, unit="kB"),
    Promise("chats.idle_cpu_percent", "CPU while a thousand chats wait", at_most=0.5, unit="%"),
    Promise("lists.inbox_ms", "An inbox beside 400,000 ended runs", at_most=5, unit="ms"),
    Promise("lists.click_ms", "A click behind twenty lists of 400,000 ended runs", at_most=50, unit="ms"),
    Promise("lists.click_ratio", "The same click, relative to 400 ended runs", at_most=2, unit="×"),
    Promise("lists.payload_7500_ms", "A payload for a run of 7,500 events", at_most=25, unit="ms"),
    Promise("retention.click_ratio", "p99 of a click beside retention, relative to before", at_most=2, unit="×"),
    Promise(
        "directory.open_ratio", "CPU of opening a request beside 50,000 people, relative to 50", at_most=1.2, unit="×"
    ),
    Promise("directory.vote_ratio", "CPU of a vote beside 50,000 people, relative to 50", at_most=1.2, unit="×"),
    Promise("directory.check_cpu_s", "CPU of `check`, a directory of 50,000 people", at_most=2, unit="s"),
    Promise("replay.1000_us", "Replay of 1,000 events", at_most=10_000, unit="µs"),
    Promise(
        "slack_ack.p99_ms",
        "Slack's acknowledgement, 99th percentile, Slack down and 1,000 cards waiting",
        at_most=500,
        unit="ms",
    ),
)

OTHERS = {
    "raw.sqlite.commits": "one-row commits per second by Python's sqlite3, WAL, `synchronous=FULL`",
    "raw.sqlite.rows_of_50": "rows per second by Python's sqlite3 in commits of 50 rows, WAL, `synchronous=FULL`",
    "raw.postgres.commits": "one-row commits per second by asyncpg on one connection, with fsync on the server",
    "raw.token.sign_us": "microseconds to sign one of our tokens (itsdangerous)",
    "raw.token.read_us": "microseconds to verify and read one of our tokens (itsdangerous)",
    "relative.per_second": "of the floor's cycles per second, measured in turn",
    "relative.cpu_ms": "times the floor's CPU, measured in turn",
    "raw.floor.per_second": "cycles per second of a bare SQLite event log: the same rows in the same transactions, 50 cycles per commit",
    "raw.floor.cpu_ms": "its milliseconds of CPU per cycle",
    "raw.floor.commits": "its commits per cycle",
    "raw.floor_alone.per_second": "cycles per second of that log, one cycle after the other",
    "raw.floor_alone.cpu_ms": "its milliseconds of CPU per cycle",
    "raw.floor_alone.commits": "its commits per cycle",
    "replay.10_us": "microseconds to replay a log of 10 events (a run of steps that hasn't ended)",
    "replay.100_us": "microseconds to replay a log of 100 events",
    "replay.1000_us": "microseconds to replay a log of 1,000 events",
    "replay.10000_us": "microseconds to replay a log of 10,000 events",
    "steps.10.cpu_ms": "milliseconds of CPU per step, in a run of 10 trivial steps one after the other, including the run's own overhead",
    "steps.100.cpu_ms": "the same in a run of 100 steps",
    "steps.1000.cpu_ms": "the same in a run of 1,000 steps: an active run continues its replay, so a step costs the same whatever came before it",
    "replicas.1.per_second": "cycles per second of one replica on PostgreSQL, 50 at a time (uvloop), the median of three runs",
    "replicas.2.per_second": "cycles per second of two replicas on one database, 25 at a time each, started together, the median of three runs",
    "replicas.gain": "times as many with two replicas",
    "clicks.webhook.per_second": "webhook calls per second from 50 connections of another process, each a 202 after its commit; the runs continue in the meantime",
    "clicks.webhook.p50_ms": "milliseconds a webhook call takes, median, at 50 at a time",
    "clicks.webhook.p99_ms": "the same, 99th percentile",
    "clicks.webhook.alone_p50_ms": "milliseconds a webhook call takes, median, one after the other",
    "clicks.vote.per_second": "votes per second over the API, each deciding its own request and answered with the verdict, 20 at a time",
    "clicks.vote.p50_ms": "milliseconds a vote takes, median, at 20 at a time",
    "clicks.vote.p99_ms": "the same, 99th percentile",
    "clicks.slack.per_second": "signed Slack clicks per second, each deciding its own request, 20 at a time, until acknowledged",
    "clicks.slack.p50_ms": "milliseconds until a Slack click is acknowledged, median, at 20 at a time",
    "clicks.slack.p99_ms": "the same, 99th percentile",
    "approval.cpu_ms": "milliseconds of CPU for one approval with three possible approvers: opened over the API, card posted to a fake Slack, decided by an API vote, card updated",
    "approval.per_second": "approvals per second, 20 at a time, from the first opening to the last decision",
    "approval.decide_p50_ms": "milliseconds from the vote to its response, median, one after the other",
    "approval.commits": "writing transactions per approval, one after the other",
    "approval.events": "events in the log of one approval",
    "approval.bytes": "bytes on disk per approval, its log, indexes and views included",
    "approval.many_cpu_ms": "milliseconds of CPU with fifty possible approvers",
    "approval.many_per_second": "of these per second",
    "approval.many_bytes": "bytes on disk of each of these",
    "slack_approval.cpu_ms": "milliseconds of CPU for one approval with three possible approvers, one after the other: opened over the API, card posted to a fake Slack, decided by a signed Slack click a moment later, card updated, reply to the voter",
    "slack_approval.busy_cpu_ms": "the same with 20 at a time, each clicked as soon as its card is there",
    "slack_approval.per_second": "of these per second",
    "slack_approval.ack_p50_ms": "milliseconds until one of these clicks is acknowledged, median, while 20 approvals are under way",
    "slack_approval.ack_p99_ms": "the same, 99th percentile",
    "startup.ready_s": "seconds from starting `approvals-bot serve` until it says that it is ready, median of five",
    "startup.imports_cpu_s": "seconds of CPU for importing what it runs",
    "startup.cpu_s": "seconds of CPU until it is ready",
    "startup.slack_cpu_s": "seconds of CPU until it is ready with Slack",
    "startup.help_cpu_s": "seconds of CPU of `approvals-bot --help`",
    "startup.help_ratio": "times the CPU of `import click`",
    "startup.check_cpu_s": "seconds of CPU of `approvals-bot check` with 200 workflows and 1,000 people",
    "startup.restart_s": "seconds from starting it after `kill -9`, with open requests, until a vote is answered, median of five",
    "slack_ack.p50_ms": "milliseconds until a Slack click is acknowledged while Slack's API hangs, median",
    "slack_ack.p99_ms": "the same, 99th percentile; the worse of Slack hanging and refusing",
    "directory.open_cpu_ms": "milliseconds of CPU of opening a request beside 50,000 people, a manager and a group of ten asked",
    "directory.open_ratio": "times the same beside 50 people, in turns in the same process",
    "directory.vote_cpu_ms": "milliseconds of CPU of the vote that decides it",
    "directory.vote_ratio": "times the same beside 50 people",
    "directory.read_cpu_s": "seconds of CPU of reading the directory, entry by entry in a thread",
    "directory.check_cpu_s": "seconds of CPU of `check`",
    "lists.ended": "ended runs in the store, all requested by one person, most of them completed",
    "lists.inbox_ms": "milliseconds of a page of 50 runs that wait for a person, oldest first, median",
    "lists.inbox_few_ms": "the same with a thousandth of the ended runs, in turns in the same process",
    "lists.click_ms": "milliseconds until a payload is durable that arrives right after twenty lists (all, completed, failed, of a person), median",
    "lists.click_few_ms": "the same with a thousandth of the ended runs, in turns in the same process",
    "lists.click_ratio": "the ratio of the two",
    "retention.ended": "runs that ended long ago, deleted beside fifty clicks a second",
    "retention.click_p99_ms": "milliseconds from when a click was due until it was answered, 99th percentile, before retention",
    "retention.click_beside_p99_ms": "the same while retention deletes",
    "retention.click_ratio": "the ratio of the two",
    "retention.rest_s": "seconds in which the rest was deleted without a pause",
    "lists.payload_1500_ms": "milliseconds until a run of 1,500 events has taken a payload, median",
    "lists.payload_7500_ms": "the same for a run of 7,500 events",
    "paused.runs": "paused runs in the store",
    "paused.create_s": "seconds to create them: SQL, not the engine, copies the rows of one really paused run under other ids",
    "paused.empty_mb": "MB of RAM in a process that has opened an empty store",
    "paused.memory_mb": "MB of RAM more in a process that has opened the store of paused runs",
    "paused.idle_cpu_percent": "percent of one CPU used while nothing happens, over 20 s",
    "paused.resume_ms": "milliseconds from resume to completed, median, one after the other, runs picked at random",
    "paused.resume_few_ms": "the same with 1,000 paused runs",
    "paused.resume_ratio": "the ratio of the two",
    "paused.restart_s": "seconds from starting a process on that store until its first resumed run is complete, imports included; the file is in the system's cache",
    "paused.restart_imports_s": "of those seconds, the time for starting Python and imports",
    "paused.disk_mb": "MB on disk of the store of paused runs",
    "paused.bytes_per_run": "bytes on disk of one paused run",
    "chats.open": "chats that wait for people, with two open requests each",
    "chats.cpu_ms": "milliseconds of CPU of each, until it waits",
    "chats.tasks": "tasks more than with one chat",
    "chats.memory_kb": "kB of RAM of each, in the process that has served them",
    "chats.disk_kb": "kB on disk of each",
    "chats.idle_cpu_percent": "percent of one CPU used while nothing happens, over 20 s",
    "chats.idle_cpu_alone_percent": "the same with one chat",
}
"""All other figures."""

GROWTH = {
    "cycle_ms": "milliseconds of CPU per cycle, 50 at a time",
    "resume_ms": "milliseconds from resume to completed, median, one after the other",
    "restart_s": "seconds from starting a process until its first resumed run is complete",
}
"""The last word of `growth.<runs>.<…>`."""


def said(key: str) -> str | None:
    """Return what a figure means, or None if the tables above lack it, which is a mistake."""
    if key in OTHERS:
        return OTHERS[key]
    if key.startswith("cycle.") and any(key == f"cycle.{s.key}.{key.rpartition('.')[2]}" for s in SYSTEMS):
        return OF_A_CYCLE.get(key.rpartition(".")[2])
    return GROWTH.get(key.rpartition(".")[2]) if key.startswith("growth.") else None
