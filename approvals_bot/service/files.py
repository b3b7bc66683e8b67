"""Files that requests are about: taken in, put in the place of their ids, read, and forgotten.

A file belongs to the app that uploaded it, and only that app can attach it. It may attach it to several requests: a
repeated call, with the same id, must lead to the same request, and a corrected request may keep its files. A file that
nothing has taken within an hour is gone.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from pydantic import JsonValue

from approvals_bot.approvals.acts import Rejection
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.files import FileReader, StoredFile, read_file
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.files import PART, FileRow
from approvals_bot.errors import InvalidPayloadError, StoreUnavailableError

UNCLAIMED = timedelta(hours=1)
MOST_UNCLAIMED = 100  # files of one app: a gigabyte at most that no request has
CLEAN_EVERY = 600.0  # seconds; a file that is gone may stay on the disk for as long

_ID = re.compile("file_[0-9a-f]{32}")


class TooManyFilesError(Exception):
    """An app has uploaded many files that no request has. Nothing was kept."""


async def keep_file(engine: Engine, owner: str, name: str, parts: AsyncIterator[bytes]) -> StoredFile:
    """Keep a file part by part, and return it once it is whole.

    Raises TooManyFilesError, and whatever reading the parts raises; then nothing is kept.
    """
    now = engine.now()
    if await engine.store.unclaimed_files(owner, now) >= MOST_UNCLAIMED:
        raise TooManyFilesError
    row = FileRow(f"file_{secrets.token_hex(16)}", owner, now, now + UNCLAIMED)
    read, waiting, number = FileReader(name), bytearray(), 0
    await engine.store.begin_file(row)
    try:
        async for part in parts:
            read.take(part)
            waiting += part
            while len(waiting) >= PART:
                await engine.store.add_file_part(row.id, number, bytes(waiting[:PART]))
                del waiting[:PART]
                number += 1
        if waiting:
            await engine.store.add_file_part(row.id, number, bytes(waiting))
        file = read.described(row.id)
        await engine.store.finish_file(row.id, json.dumps(file.as_json()))
    except BaseException:
        with suppress(StoreUnavailableError):  # it is gone in an hour
            await asyncio.shield(engine.store.forget_file(now, row.id))
        raise
    return file


async def is_kept(engine: Engine, file: StoredFile) -> bool:
    """Return whether the store has this very file. A workflow in Python may describe one that it has made up."""
    row = await engine.store.file(file.id) if _ID.fullmatch(file.id) else None
    return row is not None and row.is_there(engine.now()) and read_file(json.loads(row.described)) == file


async def content_of(engine: Engine, file: StoredFile) -> AsyncIterator[bytes]:
    """Read a file's content part by part."""
    number = 0
    while (part := await engine.store.file_part(file.id, number)) is not None:
        yield part
        number += 1


@dataclass(frozen=True, slots=True)
class WithFiles:
    """The input of a request with its files in the place of their ids, and what is wrong with those."""

    fields: Mapping[str, JsonValue]
    files: tuple[tuple[str, StoredFile], ...] = ()  # by field
    rejections: tuple[Rejection, ...] = ()


async def attach(engine: Engine, names: Iterable[str], given: Mapping[str, JsonValue], owner: str) -> WithFiles:
    """Put the owner's files in the place of their ids, in the fields with these names. Nothing is claimed yet.

    Whatever isn't an id is refused: only the store describes a file.
    """
    found, files, rejections = dict(given), list[tuple[str, StoredFile]](), list[Rejection]()
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        ids, own = value if isinstance(value, list) else [value], list[JsonValue]()
        for at, id in enumerate(ids):
            file = await find_own_file(engine, id, owner)
            if file is None:
                path = (name, str(at)) if isinstance(value, list) else (name,)
                rejections.append(Rejection(path, "file_unknown" if isinstance(id, str) else "not_a_file"))
            else:
                files.append((name, file))
                own.append(file.as_json())
        if len(own) < len(ids):
            del found[name]
        else:
            found[name] = own if isinstance(value, list) else own[0]
    return WithFiles(found, tuple(files), tuple(rejections))


async def attach_or_refuse(
    engine: Engine, of: Mapping[str, FieldSpec], given: Mapping[str, JsonValue], owner: str
) -> WithFiles:
    """Do as `attach` does for the input of a new request. Raises InvalidPayloadError, each fault at its field."""
    attached = await attach(engine, [name for name, spec in of.items() if spec.holds_files], given, owner)
    _refuse_input(attached.rejections)
    return attached


async def claim_files(engine: Engine, attached: WithFiles) -> tuple[Rejection, ...]:
    """Keep the files for good. It comes before the request, or the act, that has them is written.

    After a crash in between, a file stays that nothing has. The other way round, a request could lose its file.
    Returns a rejection for each that has just gone.
    """
    gone = [name for name, file in attached.files if not await engine.store.claim_file(file.id, engine.now())]
    return tuple(Rejection((name,), "file_unknown") for name in gone)


async def claim_or_refuse(engine: Engine, attached: WithFiles) -> None:
    """Do as `claim_files` does for the input of a new request. Raises InvalidPayloadError for what has just gone."""
    _refuse_input(await claim_files(engine, attached))


def _refuse_input(rejections: tuple[Rejection, ...]) -> None:
    if rejections:
        faults = [{"loc": ["input", *each.path], "msg": each.text} for each in rejections]
        raise InvalidPayloadError(faults, "input")


async def find_own_file(engine: Engine, value: JsonValue, owner: str) -> StoredFile | None:
    """Return the file with this id, if it is there and this app or person has uploaded it."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        return None
    row = await engine.store.file(value)
    if row is None or row.owner != owner or not row.is_there(engine.now()):
        return None
    return read_file(json.loads(row.described))


async def keep_forgetting(engine: Engine) -> None:
    """Delete the files whose time is over, for as long as the service runs."""
    while True:
        await forget_files(engine)
        await asyncio.sleep(CLEAN_EVERY)


async def forget_files(engine: Engine) -> None:
    """Delete the files whose time is over, one at a time: clicks come in between."""
    with suppress(StoreUnavailableError):
        while await engine.store.forget_file(engine.now()):
            pass
