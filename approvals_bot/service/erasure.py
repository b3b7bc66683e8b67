"""Erasing a person from what has ended: their address, their name, and what they wrote.

Each text of each ended run is read, and whatever names the person is replaced by `erased-<id>`: in views, logs,
attributes and the audit, in counters and archives. What they wrote is the comments, reasons and answers of their acts.
The fields of a request stay, since others have decided about them, but not the person's address or name in them. Users
whom an identity provider has pushed here are deleted.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import secrets
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.core.private_files import lock, sync_folder
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.audit import SALT, audit_line, line_content
from approvals_bot.durable.store.chain import SEALED, seal
from approvals_bot.durable.store.encoding import storable
from approvals_bot.durable.store.erasure import AuditText, EventText, RunTexts
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.people import AddressError, People
from approvals_bot.people.provisioned import ProvisionedPeople
from approvals_bot.service.owed_lines import complete_lines

SHORTEST = 4  # characters; what is shorter, such as "ok", is only replaced where its author is named
FILE = "settings"  # a workflow's file, in a log: it quotes nobody
ARCHIVES = "runs-*.jsonl.gz"
AT_ONCE = 50  # runs, or ten times as many lines of the audit
ERASED = "erased"

LEFT = "config.toml, workflow files, earlier backups and exports may still name them; so may mails and Slack."
"""What `erase` doesn't reach."""

_MAIL = re.compile(r"[^\s<>()\[\]{}\"',;:|\\]+@[^\s<>()\[\]{}\"',;:|\\]+")
_ENDINGS = "csv|docx?|eml|gz|html?|ics|jpe?g|json|log|md|msg|odt|pdf|png|pptx?|rtf|toml|txt|xlsx?|xml|ya?ml|zip"
"""What a file's name ends with. Anything else after a full stop makes another address."""
_PEOPLE = (("address", "name"), ("key", "text"))
"""How a log names a person, besides their ID in Slack; nobody's fields have that by chance."""
_SLACK = re.compile("[UW][A-Z0-9]{5,20}")
_AT = datetime(1970, 1, 1, tzinfo=UTC)
_AUTHORS = ("by", "who", "author", "person", "address")
_WRITTEN = frozenset({"comment", "reason", "text", "why", "answers", "message", "note"})


@dataclass(slots=True)
class Erased:
    """What was erased. `open`: runs that haven't ended; if there are any, nothing was."""

    id: str
    runs: int = 0
    events: int = 0
    lines: int = 0
    archives: int = 0
    rows: int = 0  # sessions, settings, pushed users, counters and files
    open: list[str] = field(default_factory=list)
    left: str = ""  # what is left to do


class Eraser:
    """Replaces a person in texts."""

    def __init__(self, address: str, names: Iterable[str], canonical: Callable[[str], str], id: str) -> None:
        self.id = id
        self.address = address
        self._canonical = canonical
        self._quoted: list[re.Pattern[str]] = []  # what the person wrote in the run that is being read
        local, _, domain = address.partition("@")
        self._literal = re.compile(
            rf"(?<![\w.+%-]){re.escape(local)}(?:@|%40){re.escape(domain)}(?!-|\w|\.(?!(?:{_ENDINGS})\b)\w)",
            re.IGNORECASE,
        )
        self._names = set[str]()
        self._long: re.Pattern[str] | None = None
        self._know(names)

    def _know(self, names: Iterable[str]) -> None:
        """Replace these names, and IDs in Slack, too.

        A name of one word may be a word that means something else: only a text that is the name is replaced.
        """
        self._names.update(name for name in names if name)
        long = {form for name in self._names if " " in name for form in _forms(name)}
        long.update(name for name in self._names if _SLACK.fullmatch(name))
        if long:
            self._long = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(long, key=len, reverse=True))})(?!\w)")

    def learn(self, texts: Iterable[str | None]) -> None:
        """Learn how the person is called in a run's texts: they may have left, or have another name now."""
        for text in texts:
            if text is not None:
                self._know(name for name in self._called(json_of(text)) if name not in self._names)

    def _called(self, value: Any) -> Iterator[str]:
        match value:
            case str() if value[:1] in ("{", "["):
                yield from self._called(json_of(value))
            case list():
                for each in value:
                    yield from self._called(each)
            case dict():
                for own, name in _PEOPLE:
                    if value.keys() >= {own, name, "slack"} and self.is_person(value[own]):
                        found = map(str, (value[name], value["slack"]))
                        yield from (each for each in found if " " in each or _SLACK.fullmatch(each))
                for each in value.values():
                    yield from self._called(each)
            case _:
                pass

    def is_person(self, text: Any) -> bool:
        """Return whether this text is the person's address, in any spelling."""
        if not isinstance(text, str) or "@" not in text:
            return False
        try:
            return self._canonical(text) == self.address
        except AddressError:
            return False

    def in_text(self, text: str) -> str:
        """Return a text without the person. JSON in it is read, and written again."""
        if text[:1] in ("{", "[") and (value := json_of(text)) is not None:
            erased = self.in_value(value)
            return text if erased == value else json.dumps(erased)
        if text in self._names:
            return self.id
        if " " in text:  # the word "approved" alone is a state, also if it was somebody's comment
            for said in self._quoted:
                text = said.sub(self.id, text)
        return self._unnamed(text)

    def _unnamed(self, text: str) -> str:
        if "@" in text:
            text = _MAIL.sub(lambda found: self._instead(found[0]), text)
        if "@" in text or "%40" in text:  # in a link or a file's name, say
            text = self._literal.sub(self.id, text)
        return text if self._long is None else self._long.sub(self.id, text)

    def _instead(self, found: str) -> str:
        core = found.strip(".!?*_`")
        return found.replace(core, self.id) if self.is_person(core) else found

    def in_value(self, value: Any) -> Any:
        """Return a JSON value without the person, and without what they wrote."""
        match value:
            case str():
                return self.in_text(value)
            case list():
                return [self.in_value(each) for each in value]
            case dict():
                is_theirs = self._is_author(value)
                return {
                    self._unnamed(name): self._written(each)
                    if is_theirs and name in _WRITTEN and each
                    else self._in_file(each)
                    if name == FILE
                    else self.in_value(each)
                    for name, each in value.items()
                }
            case _:
                return value

    def _in_file(self, value: Any) -> Any:
        quoted, self._quoted = self._quoted, []
        try:
            return self.in_value(value)
        finally:
            self._quoted = quoted

    def _written(self, value: Any) -> Any:
        match value:
            case str():
                return self.id
            case dict():
                return {name: self._written(each) for name, each in value.items()}
            case list():
                return [self._written(each) for each in value]
            case _:
                return value

    def without(self, value: Any) -> Any:
        """Return a JSON value whose lists don't have the person's address."""
        match value:
            case list():
                return [self.without(each) for each in value if not self.is_person(each)]
            case dict():
                return {name: self.without(each) for name, each in value.items()}
            case _:
                return value

    def in_json(self, text: str | None) -> str | None:
        """Return stored JSON without the person. What can't be read is replaced as plain text."""
        return None if text is None else self.in_text(text)

    def in_run(self, run: RunTexts) -> RunTexts:
        """Return a run's texts without the person. What they wrote is quoted elsewhere in it, too."""
        texts = (run.view, run.parts, *(event.data for event in run.events))
        quoted = {said for text in texts if text is not None for said in self._said(json_of(text))}
        long = sorted((said for said in quoted if len(said) >= SHORTEST), key=len, reverse=True)
        self._quoted = [re.compile(rf"(?<!\w){re.escape(said)}(?!\w)") for said in long]
        erased = self._in_run(run)
        self._quoted = []
        return erased

    def _said(self, value: Any) -> Iterator[str]:
        """Yield what the person wrote, as it is in a JSON value."""
        match value:
            case str() if value[:1] in ("{", "["):
                yield from self._said(json_of(value, {}))
            case list():
                for each in value:
                    yield from self._said(each)
            case dict():
                is_theirs = self._is_author(value)
                for name, each in value.items():
                    yield from texts_in(each) if is_theirs and name in _WRITTEN else self._said(each)
            case _:
                pass

    def _is_author(self, value: dict[str, Any]) -> bool:
        for name in _AUTHORS:
            author = value.get(name)
            if self.is_person(author.get("key") or author.get("address") if isinstance(author, dict) else author):
                return True
        return False

    def _in_run(self, run: RunTexts) -> RunTexts:
        return run._replace(
            attributes=self.in_text(run.attributes),
            view=self.in_json(run.view),
            parts=self.in_json(run.parts),
            key=None if run.key is not None and self.in_text(run.key) != run.key else run.key,
            events=tuple(map(self._event, run.events)),
            hooks=tuple((id, self.in_text(metadata)) for id, metadata in run.hooks),
            found=tuple((name, storable(self.in_text(value))) for name, value in run.found),
        )

    def _event(self, event: EventText) -> EventText:
        data = self.in_text(event.data)
        return event if data == event.data else event._replace(data=data, salt=sealed(event.salt, event.data))

    def in_line(self, line: AuditText) -> AuditText:
        """Return a line of the audit without the person."""
        who = self.id if self.is_person(line.who) else line.who
        data = self.in_text(line.data)
        if (who, data) == (line.who, line.data):
            return line
        read = audit_line(line.seq, _AT, ("", line.who, None), line.data, "")
        kept = json.loads(data) | {SALT: sealed(read.salt, line_content(read.entry))}
        return line._replace(who=who, data=json.dumps(kept, sort_keys=True))

    def in_archived(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return a run's line of an archive without the person."""
        events = [self._event(EventText(each["seq"], each["data"], each["salt"])) for each in line["events"]]
        kept = [each | {"data": new.data, "salt": new.salt} for each, new in zip(line["events"], events, strict=True)]
        key = line.get("key")
        is_named = isinstance(key, str) and self.in_text(key) != key
        return line | {"events": kept, "key": None if is_named else key}


def _forms(name: str) -> set[str]:
    """Return patterns of a name of several words, as people write it."""
    *first, last = name.split()
    spelled = {name, name.upper(), f"{last}, {' '.join(first)}"}
    return {
        r"\s+".join(map(re.escape, unicodedata.normalize(form, each).split()))
        for each in spelled
        for form in ("NFC", "NFD")
    }


def json_of(text: str, otherwise: Any = None) -> Any:
    """Return the value of a JSON text; `otherwise`, if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from texts_in(each)
        case list():
            for each in value:
                yield from texts_in(each)
        case _:
            pass


def sealed(salt: str, content: str) -> str:
    """Return what replaces a salt once the content is erased."""
    return SEALED + seal(salt, content)


async def erase(
    engine: Engine,
    people: People,
    address: str,
    *,
    actor: Actor,
    archive: Path | None,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda runs: None,
    also: Iterable[str] = (),
) -> Erased:
    """Erase a person from everything that has ended. If open runs name them, these are listed and nothing changes.

    `also`: names that they had, and that neither the configuration nor a run that is still here has with their address.
    Raises AddressError, and OSError for an archive that can't be rewritten.
    """
    person = people.canonical(address)
    known = people.person(person)
    names = {*also, known.name, known.slack or ""} - {person.partition("@")[0]}
    eraser = Eraser(person, names, people.canonical, f"{ERASED}-{secrets.token_hex(4)}")
    done = Erased(eraser.id)
    await _learn_names(engine, eraser, archive)
    await _each_run(engine, eraser, done, progress, writes=False)
    if done.open or dry_run:
        return done
    done.runs = done.events = 0
    await _each_run(engine, eraser, done, progress, writes=True)
    done.rows = await engine.store.erase_person(person)
    done.rows += await _each_setting(engine, eraser) + await _each_document(engine, eraser, people)
    done.rows += await _each_other(engine, eraser, "counters") + await _each_other(engine, eraser, "files")
    if archive is not None:
        done.archives = await asyncio.to_thread(rewrite_archives, archive, eraser)
    while await complete_lines(engine):  # what is owed becomes a line, and is erased there
        pass
    after = 0
    while lines := await engine.store.audit_texts(after, AT_ONCE * 10):
        after = lines[-1].seq
        changed = [new for old in lines if (new := eraser.in_line(old)) != old]
        done.lines += len(changed)
        if changed:
            await engine.store.rewrite_audit(changed)
    done.left = await engine.store.overwrite_freed()
    about = {"id": done.id, "runs": done.runs, "events": done.events, "lines": done.lines, "archives": done.archives}
    await engine.audit(ERASED, actor=eraser.in_value(actor.as_json()), data=about)
    return done


async def _learn_names(engine: Engine, eraser: Eraser, archive: Path | None) -> None:
    """Read everything once to learn what the person was called."""
    if archive is not None:
        await asyncio.to_thread(_learn_from_archives, archive, eraser)
    after = ""
    while page := await engine.store.run_texts(after, AT_ONCE):
        after = page[-1].run_id
        for run in page:
            eraser.learn([run.view, run.parts, *(event.data for event in run.events)])


def _learn_from_archives(folder: Path, eraser: Eraser) -> None:
    for path in folder.glob(ARCHIVES):
        for line in archived_lines(path):
            eraser.learn(event["data"] for event in line.get("events", ()))


async def _each_setting(engine: Engine, eraser: Eraser) -> int:
    """Take the person out of the delegates of others."""
    rows = 0
    for row in await engine.store.personal(_AT):
        kept = eraser.without(row.settings)
        if kept != row.settings:
            await engine.store.set_personal(PersonalRow(row.person, kept, engine.now()))
            rows += 1
    return rows


async def _each_document(engine: Engine, eraser: Eraser, people: People) -> int:
    """Delete the users whom an identity provider has pushed as this person, and rewrite what else names them."""
    pushed, after, rows = ProvisionedPeople(people.rules), 0, 0
    while page := await engine.store.documents(after):
        after = page[-1].change
        for row in page:
            if row.document is None:
                continue
            erased = eraser.in_value(row.document)
            if row.kind == "User":
                pushed.put_user(row.id, row.document)
                user = pushed.user(row.id)
                if user is not None and user.person is not None and user.person.address == eraser.address:
                    erased = None
            if erased != row.document:
                name = None if erased is None or row.name is None else eraser.in_text(row.name)
                # A change in between has a greater number, so it is read again.
                rows += isinstance(await engine.store.put_document(row._replace(name=name, document=erased)), int)
    return rows


async def _each_other(engine: Engine, eraser: Eraser, table: Literal["counters", "files"]) -> int:
    after, rows = "", 0
    while page := await engine.store.other_texts(table, after, AT_ONCE * 10):
        for was in page:
            texts = tuple(map(eraser.in_text, was.texts))
            if texts == was.texts:
                after = was.id
            elif await engine.store.rewrite_other(was, was._replace(texts=(texts[0], texts[1]))):
                after, rows = was.id, rows + 1
            else:
                break  # it has changed since: read it again
    return rows


async def _each_run(
    engine: Engine, eraser: Eraser, done: Erased, progress: Callable[[int], None], *, writes: bool
) -> None:
    after, seen = "", 0
    while page := await engine.store.run_texts(after, AT_ONCE):
        after, seen = page[-1].run_id, seen + len(page)
        progress(seen)
        for run in page:
            erased = eraser.in_run(run)
            if erased == run:
                continue
            if run.is_open:
                done.open.append(run.run_id)
                continue
            done.runs += 1
            done.events += sum(a != b for a, b in zip(run.events, erased.events, strict=True))
            if writes:
                await engine.store.rewrite_run(run, erased)


def rewrite_archives(folder: Path, eraser: Eraser) -> int:
    """Rewrite the archives in a folder without a person. Returns how many named them."""
    return sum(rewrite_archive(path, eraser) for path in sorted(folder.glob(ARCHIVES)))


def archived_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of an archive. One whose process was killed has no end, but each line that it had flushed.

    Raises OSError for one that is damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as packed, suppress(EOFError):
            for line in packed:
                yield json.loads(line)
    except (zlib.error, ValueError, gzip.BadGzipFile) as error:
        raise OSError(f"{path} is damaged ({error}); take it from a backup, or move it elsewhere") from error


def rewrite_archive(path: Path, eraser: Eraser) -> int:
    """Rewrite an archive without a person, once nobody writes to it. Returns 1 if it named them."""
    with suppress(FileNotFoundError):  # a pass of the retention that has found nothing leaves no file
        while True:
            with path.open("rb") as written:
                lock(written)
                if os.path.samestat(os.fstat(written.fileno()), os.stat(path)):  # else somebody rewrote it meanwhile
                    return _rewrite_archive(path, eraser)
    return 0


def _rewrite_archive(path: Path, eraser: Eraser) -> int:
    lines = list(archived_lines(path))
    kept = [eraser.in_archived(line) if line.get("kind") == "run" else line for line in lines]
    if kept == lines:
        return 0
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile(path.name, "wb", fileobj=raw) as out:
            for line in kept:
                out.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        raw.flush()
        os.fsync(raw.fileno())
    os.replace(new, path)
    sync_folder(path)
    return 1
