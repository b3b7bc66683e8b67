"""Files and folders that a running service may not read or write: each is shown, in words that name the mend."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.reliability.test_faults_are_shown import EMAIL
from tests.support.faulty_house import House, a_house, as_nobody

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DONE = """
from approvals_bot import workflow
@workflow(name="done")
async def done(given: dict[str, str]) -> str:
    return "done"
"""


async def test_faults_of_files() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with a_house(Path(name)) as house:
            await break_files(house)


async def break_files(house: House) -> None:
    """Take away the rights to what the service reads and writes, one after the other."""
    folder = house.folder
    anchors, archive, database = folder / "anchors", folder / "archive", folder / "approvals.db"
    people = house.write("people.json", '{"people": [{"address": "ann@acme.eu"}, {"address": "bo@acme.eu"}]}')
    house.write("audit.key", "0123456789abcdef" * 4)
    anchors.mkdir(mode=0o500)
    archive.mkdir(mode=0o500)
    house.write("mail.password", "a password")
    house.more = f"""{EMAIL.format(port=1)}
[directory]
people = {{ file = "people.json" }}
refresh = "5s"
[audit]
key = "file:audit.key"
anchors = [{{ file = "anchors/one.jsonl" }}]
[retention]
ended = "1d"
archive = "archive"
"""
    house.configure()
    house.write("workflows/jobs.py", DONE)
    house.prefix = as_nobody(folder)
    served = await house.serve()
    served.from_start()
    fault = "the place of anchors can't be written"
    await served.log_shows(fault, r"anchor_failed.*Permission denied.*user to be able to write")
    await house.doctor(fault, r"FAIL.*anchors: .*can't be written to by this user\n.*user write there")
    anchors.chmod(0o700)
    await served.log_shows(f"{fault}, and then can", "takes anchors of the audit again")

    served.mark()
    people.chmod(0)
    fault = "the directory's file can't be read"
    await served.log_shows(fault, r"directory_down.*Permission denied.*\[directory\]")
    await house.doctor(fault, r"FAIL.*people\.json: can't be read: Permission denied")
    people.chmod(0o600)
    await served.log_shows(f"{fault}, and then can", "directory_back")

    run_id = await served.opened("done")
    async with asyncio.timeout(60):
        while (await served.call("GET", f"/api/runs/{run_id}")).json()["status"] != "completed":
            await asyncio.sleep(0.2)
    await served.kill()
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute("UPDATE runs SET ended_at = ended_at - 172800000000")
        raw.execute("DELETE FROM counters")  # it may have looked for old runs already, and would again in an hour
    as_nobody(folder)
    served = await house.serve()
    fault = "the archive can't be written"
    await house.doctor(fault, r"FAIL.*retention: .*archive can't be written to.*\n.*user write there")
    await served.log_shows(fault, r"archive_failed.*Permission denied.*user write to \[retention\] archive")
    await served.kill()

    why = "can't be written to by this user"
    for fault, path in (("the SQLite file can't be written", database), ("its folder can't be written", folder)):
        path.chmod(0o500)
        await house.doctor(fault, rf"FAIL.*store.*{path} {why}.*\n.*user write")
        status, said = await house.command("serve", "--port", "0")
        assert (status, f"{path} {why}. Let the service's user write" in said.splitlines()[-1]) == (1, True), said
        house.note(fault, "serve", 0, said.splitlines()[-1])
        path.chmod(0o700)
