"""What a running service writes into the audit on its own: starts, stops, configurations, ends of logs, anchors.

The head of a log gets into the audit a moment after the run's end, not in its transaction: lines of the audit have one
order among all replicas, and no click waits for that. A replica that dies in between leaves it to the others. So do the
lines of acts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from approvals_bot.approvals.acts import SERVICE
from approvals_bot.approvals.policy import digest
from approvals_bot.approvals.port import Called, Targets
from approvals_bot.config.audit import AnchorPlace, AuditTable
from approvals_bot.config.load import Configuration
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.audit import AuditFilter
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.anchors import Anchor, sign_anchor
from approvals_bot.service.audit_check import RUNS_SEALED
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.owed_lines import complete_lines
from approvals_bot.service.rights import changes, rights_of
from approvals_bot.service.troubles import Troubles

EVERY = 1.0  # seconds between two looks at whether there is something to write
LOOK_AROUND = 60.0  # seconds after which a replica also looks for runs that others have left
AGAIN = 30.0  # seconds until a place that took no anchor is tried again
AT_ONCE = 200  # runs that one transaction names
WAITING = 100  # anchors that wait for a place; an hour each

ANCHORED = "anchored"
LOADED = "configuration_loaded"
FILE = "workflow_file"
RIGHTS = "rights_changed"

log = logging.getLogger(__name__)


def file_line(workflow: str, version: str, text: str) -> dict[str, str]:
    """Return what a line says about a workflow's file. `version`: what a request names that follows it."""
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"workflow": workflow, "version": version, "sha256": sha256, "text": text}


@dataclass(slots=True)
class _Place:
    """A place for anchors, and those that it hasn't taken yet."""

    place: AnchorPlace
    waiting: list[Anchor] = field(default_factory=list)
    next_try: float = 0.0

    @property
    def name(self) -> str:
        return f"http:{self.place.http}" if self.place.file is None else f"file:{self.place.file}"

    @property
    def mend(self) -> str:
        if self.place.file is None:
            return f"Check [audit] anchors, and that [http.{self.place.http}] runs"
        return "Check [audit] anchors: its folder has to be there, and the service's user to be able to write to it"


class AuditKeeper:
    """The task that keeps the audit of a service."""

    def __init__(
        self,
        engine: Engine,
        table: AuditTable,
        targets: Targets,
        *,
        version: str,
        replica: str,
        troubles: Troubles | None = None,
    ) -> None:
        self._engine = engine
        self._key = None if table.seed is None else AuditKey(table.seed)
        self._every = table.anchor_every
        self._places = [_Place(place) for place in table.anchors]
        self._targets = targets
        self._about = {"version": version, "replica": replica}
        self._troubles = troubles or Troubles(engine.now)
        self._loaded: list[Configuration] = []
        self.has_ended = True  # runs may have ended while no service ran
        self._looked_at = -LOOK_AROUND

    def load(self, configuration: Configuration) -> None:
        """Take note of a configuration that is in force from now on."""
        self._loaded.append(configuration)

    async def start(self) -> None:
        """Write that the service starts, and with which configuration."""
        await self._engine.audit("service_started", actor=SERVICE.as_json(), data=self._about)
        await complete_lines(self._engine)
        await self._write_loaded()

    async def stop(self) -> None:
        """Write what hasn't been written yet, and that the service stops. The store may be gone."""
        with suppress(StoreUnavailableError):
            await self._write_loaded()
            await complete_lines(self._engine)
            await self._seal_ended()
            await self._engine.audit("service_stopped", actor=SERVICE.as_json(), data=self._about)

    async def run(self) -> None:
        """Keep the audit until the task is cancelled. While the store is away, everything waits."""
        while True:
            with suppress(StoreUnavailableError):
                await self._write_loaded()
                if self.has_ended or time.monotonic() > self._looked_at + LOOK_AROUND:
                    self.has_ended, self._looked_at = False, time.monotonic()
                    await complete_lines(self._engine)
                    await self._seal_ended()
                if self._key is not None and self._places:
                    await self._anchor(self._key)
            await asyncio.sleep(EVERY)

    # ── logs that have ended ──

    async def _seal_ended(self) -> None:
        engine = self._engine
        while await engine.store.seal_ended(engine.now(), engine.audit_key, AT_ONCE) == AT_ONCE:
            pass

    # ── configurations ──

    async def _write_loaded(self) -> None:
        while self._loaded:
            await self._write_configuration(self._loaded[0])
            del self._loaded[0]

    async def _write_configuration(self, configuration: Configuration) -> None:
        """Write which files are in force, and what they change in who may do what, compared with the last line."""
        versions = {each.id: digest(each) for each in configuration.workflows}
        await self._keep_texts(configuration.texts, versions)
        about = {"files": dict(configuration.files), "workflows": versions, **self._about}
        await self._engine.audit(LOADED, actor=SERVICE.as_json(), data=about)
        rights = rights_of(configuration)
        last = await self._engine.audit_lines(AuditFilter(what=RIGHTS, newest_first=True, limit=1))
        before = last[0].entry.data.get("rights") if last else None
        if rights != before:
            changed = changes(before, rights) if isinstance(before, dict) else []
            data = {"changed": changed, "rights": rights}
            await self._engine.audit(RIGHTS, actor=SERVICE.as_json(), data=data)

    async def _keep_texts(self, texts: Mapping[str, str], versions: Mapping[str, str]) -> None:
        """Write the text of each workflow's file that is another one than when a configuration was loaded last."""
        last = await self._engine.audit_lines(AuditFilter(what=LOADED, newest_first=True, limit=1))
        known = last[0].entry.data.get("workflows", {}) if last else {}
        for name, version in versions.items():
            if name in texts and known.get(name) != version:
                data = file_line(name, version, texts[name])
                await self._engine.audit(FILE, actor=SERVICE.as_json(), data=data)

    # ── anchors ──

    async def _anchor(self, key: AuditKey) -> None:
        """Make an anchor if the last one, of any replica, is old enough; and pass on those that wait."""
        last = await self._engine.audit_lines(AuditFilter(what=ANCHORED, newest_first=True, limit=1))
        now = self._engine.now()
        if not last or last[0].at + self._every <= now:
            await self._make_anchor(key)
        for place in self._places:
            if place.waiting and time.monotonic() >= place.next_try:
                await self._pass_on(place)

    async def _make_anchor(self, key: AuditKey) -> None:
        """Name the heads of all logs in the audit, and sign how far it goes."""
        engine, after = self._engine, ""
        await self._seal_ended()
        while heads := await engine.store.seal_open(engine.now(), engine.audit_key, AT_ONCE, after):
            after = heads[-1].run_id
        data = {"to": [place.name for place in self._places], "key": key.public}
        line = await engine.audit(ANCHORED, actor=SERVICE.as_json(), data=data)
        naming = AuditFilter(what=RUNS_SEALED, below=line.seq, newest_first=True, limit=1)
        named = await engine.audit_lines(naming)
        anchor = sign_anchor(key, line.seq, line.hash, named[0].hash if named else "", line.at)
        for place in self._places:
            place.waiting = [*place.waiting, anchor][-WAITING:]

    async def _pass_on(self, place: _Place) -> None:
        while place.waiting:
            anchor = place.waiting[0]
            why = await self._take(place.place, anchor)
            if why:
                place.next_try = time.monotonic() + AGAIN
                text = f"the place {place.name} took no anchor of the audit ({why}); it is tried again"
                self._troubles.begin(f"anchor {place.name}", "anchor_failed", text, place.mend, target=place.name)
                return
            text = f"{place.name} takes anchors of the audit again"
            self._troubles.end(f"anchor {place.name}", "anchor_failed", text)
            del place.waiting[0]
            log.info("an anchor of the audit was made", extra={"event": "audit_anchored", "target": place.name})

    async def _take(self, place: AnchorPlace, anchor: Anchor) -> str:
        """Pass an anchor on. Returns why that failed; empty if it didn't."""
        if place.file is not None:
            try:
                await asyncio.to_thread(append_line, place.file, json.dumps(anchor.as_json(), separators=(",", ":")))
            except OSError as error:
                return error.strerror or type(error).__name__
            return ""
        assert place.http is not None
        result = await self._targets.post(place.http, f"anchor-{anchor.seq}", anchor.as_json())
        return "" if isinstance(result, Called) else result.error


def append_line(file: Path, line: str) -> None:
    """Append a line to a file, durably. The file is its owner's alone if it is new."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
