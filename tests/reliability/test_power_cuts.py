"""P2: a power cut loses nothing acknowledged, because the store syncs before it answers (WAL, `synchronous=FULL`).

CI examines 400 disks; `POWER_CUTS=4000` examines more.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from approvals_bot import Engine
from tests.support.power_cuts import CLICKS, Image, Recording, count, images, lost
from tests.support.watched_sqlite import Operation

CUTS = int(os.environ.get("POWER_CUTS", "400"))


def recorded(folder: Path, synchronous: str) -> Recording:
    subprocess.run(
        [sys.executable, "-m", "tests.support.power_cuts", str(folder), synchronous], check=True, timeout=110
    )
    found: Recording = pickle.loads((folder / "recording").read_bytes())  # noqa: S301  # our own, of a moment ago
    return found


def after(image: Image, folder: Path) -> tuple[Path, list[str]]:
    """Write this disk's database; return it with what was acknowledged and is lost."""
    own = folder / f"after-{image.cut}"
    own.mkdir(exist_ok=True)
    for left in own.iterdir():
        left.unlink()
    database = image.write(own)
    return database, lost(database, image.acknowledged)


@pytest.mark.promise(2)
@pytest.mark.timeout(900)
def test_a_power_cut_loses_no_acknowledged_click(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "FULL")
    done = [each for each in recording if isinstance(each, Operation)]
    assert sum(each.kind == "sync" for each in done) > CLICKS
    assert sum(each.kind == "write" and each.path.endswith(".db") for each in done) > 50, "checkpoints must happen"
    promised = 0
    for number, image in enumerate(images(recording, CUTS, seed=1)):
        database, missing = after(image, tmp_path)
        assert missing == [], (image.cut, missing)
        promised += len(image.acknowledged)
        if number % (CUTS // 8) == 0 and image.acknowledged:
            asyncio.run(finish(database))
    assert promised > 20 * CUTS


async def finish(database: Path) -> None:
    """The next process continues with what the power cut left."""
    url = f"sqlite:///{database}"
    async with Engine.open(url, signing_keys=["k" * 40], base_url="https://example.test") as engine:
        (record,) = (await engine.records(workflow=count.name)).records
        await engine.settle()
        if not (found := await engine.record(record.id)) or found.has_ended:
            return
        taken = sum(event.type == "hook_received" for event in await engine.events(record.id))
        for number in range(CLICKS - taken):
            await engine.resume_hook("clicks", number)
        assert await asyncio.wait_for(engine.get_run(record.id).return_value(), 30) == CLICKS


@pytest.mark.promise(2)
@pytest.mark.timeout(300)
def test_without_full_sync_a_power_cut_loses_clicks(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "NORMAL")
    disks = [after(image, tmp_path)[1] for image in images(recording, 60, seed=1)]
    assert not any(each.startswith("integrity") for missing in disks for each in missing), "it is whole all the same"
    assert sum(bool(missing) for missing in disks) > 20
