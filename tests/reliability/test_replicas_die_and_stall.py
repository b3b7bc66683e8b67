"""P8, P12: replicas are killed, stalled in mid-step, drained under load and replaced, on real PostgreSQL."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from approvals_bot.durable.engine.limits import LEASE, LOOK
from tests.support.attrition import RUNS, Attrition
from tests.support.postgres_server import PostgresServer
from tests.support.replicas import Fleet, eventually, fleet, people_click, taken

LOSSES = int(os.environ.get("APPROVALS_TEST_LOSSES", "2"))  # kills and stalls, by turns
LANES = 4  # lost at the same time, at most
BUSY = 10.0  # seconds that a very busy machine may add
DRAIN = 10.0  # seconds that a replica has after SIGTERM

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def replicas(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with fleet(folder, postgres.empty_database()) as made:
        yield made


@pytest.mark.timeout(300 + 60 * LOSSES)
@pytest.mark.promise(8)
def test_other_replicas_take_over_and_zombies_write_nothing(
    replicas: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    within = LEASE.total_seconds() + 2 * LOOK
    tally = Attrition(replicas, min(LANES, LOSSES)).run(LOSSES)
    with capsys.disabled():
        sys.stdout.write(f"\n{tally.summary(within)}\n")
    assert (tally.killed, tally.stalled) == ((LOSSES + 1) // 2, LOSSES // 2)
    assert tally.asked >= LOSSES // 2  # each of them may wait for a lease to end, as every loss does
    assert tally.fenced >= tally.stalled * RUNS, "the zombies tried"
    late = [seconds for seconds in tally.takeovers if seconds > within + BUSY]
    # Now and then the replica that takes over is lost, too, before it has begun: that costs another lease.
    assert len(late) <= len(tally.takeovers) // 50, late


@pytest.mark.promise(12)
def test_replicas_can_be_replaced_while_people_click(replicas: Fleet) -> None:
    there = [replica for replica in replicas.replicas if replica.process.poll() is None]
    if len(there) < 2:
        there = replicas.start(2)
    run_id = there[0].start_run("collects", token="p12")
    with people_click(there, "p12") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 20)
        for _ in range(2):
            (new,) = replicas.start(1)
            there.append(new)
            old = there.pop(0)
            status, seconds = old.stop()
            assert status == 0, (replicas.folder / "log.txt").read_text()
            assert seconds < DRAIN + BUSY
            count = len(clicks.acknowledged)
            eventually(lambda count=count: len(clicks.acknowledged) > count + 20)
    assert set(clicks.statuses) <= {"200", "503", "no connection"}, clicks.statuses
    found = taken(there[0], run_id)
    assert len(found) == len(set(found)), "each click counts once"
    assert set(clicks.acknowledged) <= set(found), "what was acknowledged is there"
    there[0].http.post("/api/hooks/p12", json="end").raise_for_status()
    assert there[-1].run(run_id, wait=30)["result"] == len(found)
