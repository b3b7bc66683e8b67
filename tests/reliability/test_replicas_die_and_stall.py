"""P8, P12: replicas are killed, stopped in mid-step, drained under load, and started anew; on real PostgreSQL."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from replicas import Fleet, eventually, fleet, people_click, taken

from approvals_bot.engine.limits import LEASE, LOOK

ROUNDS = int(os.environ.get("APPROVALS_TEST_ROUNDS", "1"))
RUNS = 5  # on each of the two that are lost
BUSY = 10.0  # seconds that a very busy machine may add
DRAIN = 10.0  # seconds that a replica has after SIGTERM

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def replicas(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with fleet(folder, postgres.empty_database()) as made:
        yield made


@pytest.mark.timeout(300 + 120 * ROUNDS)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_p8_what_a_killed_and_a_stalled_replica_held_goes_on_elsewhere_and_zombies_write_nothing(
    replicas: Fleet, number: int
) -> None:
    replicas.close()
    killed, stalled, survivor = replicas.start(3)  # at once, on an empty database: one of them makes the schema
    replicas.hold(killed)
    replicas.hold(stalled)
    held = {
        replica.start_run("toils", name=f"{name}-{n}"): f"{name}-{n}"
        for n in range(number * RUNS, (number + 1) * RUNS)
        for name, replica in (("killed", killed), ("stalled", stalled))
    }
    lost = {killed.pid, stalled.pid}
    eventually(lambda: {name for pid, name in replicas.effects() if pid in lost} >= set(held.values()))
    killed.send(signal.SIGKILL)
    stalled.send(signal.SIGSTOP)
    began = time.monotonic()
    for run_id in held:
        eventually(lambda run_id=run_id: survivor.run(run_id, wait=20)["status"] == "completed")
    assert time.monotonic() - began < LEASE.total_seconds() + 2 * LOOK + BUSY
    before = {run_id: survivor.events(run_id) for run_id in held}
    stalled.send(signal.SIGCONT)
    replicas.let_go()  # so the zombie's steps end, and it tries to write what has come of them
    eventually(lambda: stalled.http.get("/readyz").status_code == 200)
    time.sleep(2 * LOOK)
    for run_id, name in held.items():
        events = survivor.events(run_id)
        assert events == before[run_id], "the zombie wrote nothing"
        assert [e["type"] for e in events].count("step_completed") == 1
        assert survivor.run(run_id)["result"] == name
        assert [pid for pid, done in replicas.effects() if done == name][1:] == [survivor.pid]
    assert set(held.values()) <= {name for _, name in replicas.effects()}


def test_p12_new_replicas_come_and_old_ones_go_while_people_click(replicas: Fleet) -> None:
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
