"""P10: the disk is full, fails, hangs or is slow while people click in the real service.

Meanwhile clicks are refused with an error, and afterwards work resumes automatically. CI plays each fault once,
`DISK_FAILURES=25` that many times.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.journey import Service, with_samples
from tests.support.replicas import Clicks, Fleet, Replica, eventually, fleet, heals, nothing_is_lost, people_click

PROGRAM = (str(Path(__file__).parents[1] / "support" / "failing_disk.py"),)
FAILURES = int(os.environ.get("DISK_FAILURES", "1"))
TROUBLES = {"full": 12, "write-error": 12, "sync-error": 12, "hung": 4}
"""Faults, and how many clicks each must refuse. A hung disk keeps everybody waiting for five seconds."""

pytestmark = pytest.mark.timeout(240 + 60 * FAILURES)


class Disk:
    """A disk that fails on demand, by a word in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def fail(self, how: str) -> None:
        self._file.write_text(how)

    def mend(self) -> None:
        self._file.unlink()


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[tuple[Fleet, Disk]]:
    """Run the service on a disk that can be made to fail."""
    file = folder / "trouble"
    with pytest.MonkeyPatch.context() as patch, fleet(folder, "sqlite:///runs.db", PROGRAM) as made:
        patch.setenv("FAILING_DISK", str(file))
        for name, value in environment.items():
            patch.setenv(name, value)
        made.start(1)
        yield made, Disk(file)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Disk]]:
    with served(tmp_path_factory.mktemp("disk")) as made:
        yield made


def refused(replica: Replica, clicks: Clicks, run_id: str, number: int) -> None:
    """While the disk fails, clicks and readiness checks get 503; existing data can still be read."""
    count = clicks.statuses.get("503", 0)
    eventually(lambda: clicks.statuses.get("503", 0) >= count + number)
    assert replica.http.get("/readyz").status_code == 503
    assert replica.http.get("/healthz").status_code == 200
    assert replica.run(run_id)["status"] == "running"


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.promise(10)
def test_a_broken_disk_refuses_clicks_and_work_resumes_after_it(service: tuple[Fleet, Disk], trouble: str) -> None:
    replicas, disk = service
    (one,) = replicas.replicas
    run_id = one.start_run("collects", token=trouble)
    toil = f"toil-{trouble}"
    replicas.hold(one, toil)
    toiling = one.start_run("toils", name=toil)
    eventually(lambda: replicas.effects(toil))
    with people_click([one], trouble) as clicks:
        eventually(lambda: len(clicks.acknowledged) > 20)
        for number in range(FAILURES):
            before = clicks.statuses.get("503", 0)
            disk.fail(trouble)
            eventually(lambda: clicks.statuses.get("503", 0) > before)  # noqa: B023  # it is asked at once
            if number == 0:
                replicas.let_go(one, toil)  # a step ends, and its outcome can't be written
            answered = len(clicks.acknowledged)
            refused(one, clicks, run_id, TROUBLES[trouble])
            assert len(clicks.acknowledged) == answered, "nothing is acknowledged meanwhile"
            disk.mend()
            heals(clicks)
    nothing_is_lost(one, run_id, clicks)
    eventually(lambda: one.http.get("/readyz").status_code == 200)
    eventually(lambda: one.http.post(f"/api/hooks/{toil}", json="!").status_code == 200)
    assert one.run(toiling, wait=30)["result"] == f"{toil}!"
    assert len(replicas.effects(toil)) == 1, "what the step had done is kept until it can be written"
    sys.stdout.write(f"{trouble}: {len(clicks.acknowledged)} acknowledged, {clicks.statuses['503']} refused, 0 lost\n")


@pytest.mark.promise(10)
def test_a_slow_disk_only_slows_clicks_down(service: tuple[Fleet, Disk]) -> None:
    replicas, disk = service
    (one,) = replicas.replicas
    run_id = one.start_run("collects", token="slow")
    disk.fail("slow")
    with people_click([one], "slow") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 10)
    assert one.http.get("/readyz").status_code == 200
    disk.mend()
    assert set(clicks.statuses) == {"200"}, clicks.statuses
    nothing_is_lost(one, run_id, clicks)


@pytest.mark.promise(10)
def test_people_see_an_error_while_the_disk_fails_and_can_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path / "trouble")
    monkeypatch.setenv("FAILING_DISK", str(tmp_path / "trouble"))
    monkeypatch.setenv("FAILING_DISK_OF", "/approvals.db")  # and not what the playground keeps
    service = Service(with_samples(tmp_path), PROGRAM).start()
    try:
        run_id = service.open()
        card, link = service.card(), service.link("ann@acme.eu")
        service.settled(run_id)
        disk.fail("full")
        assert service.click("U0ANN", card, "Approve")["status"] == 503
        refused = service.press(link, "approve")
        assert refused.status_code == 503
        assert "Try again" in refused.text
        assert service.vote(run_id, "ann@acme.eu", "approve").status_code == 503
        assert service.run(run_id)["request"]["votes"] == []
        disk.mend()
        assert service.press(link, "approve").status_code == 200
        assert service.eventually(lambda: [vote["by"] for vote in service.run(run_id)["request"]["votes"]]) == [
            "ann@acme.eu"
        ]
    finally:
        service.kill()
        service.http.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]).returncode:
        pytest.skip("NOT TESTED: nothing can be mounted here, so a full disk was only played")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.promise(10)
def test_a_really_full_disk_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    with fleet(tmp_path, f"sqlite:///{small_disk}/runs.db") as replicas:
        (one,) = replicas.start(1)
        run_id = one.start_run("collects", token="small")
        with people_click([one], "small") as clicks:
            eventually(lambda: len(clicks.acknowledged) > 20)
            fill(ballast)
            refused(one, clicks, run_id, TROUBLES["full"])
            ballast.unlink()
            heals(clicks)
        nothing_is_lost(one, run_id, clicks)
        eventually(lambda: one.http.get("/readyz").status_code == 200)


def fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.mark.promise(10)
def test_a_premature_acknowledgement_is_detected(tmp_path: Path) -> None:
    with served(tmp_path, FAILING_DISK_EARLY="1") as (replicas, disk):
        (one,) = replicas.replicas
        run_id = one.start_run("collects", token="early")
        with people_click([one], "early") as clicks:
            eventually(lambda: len(clicks.acknowledged) > 20)
            disk.fail("write-error")
            count = len(clicks.acknowledged)
            eventually(lambda: len(clicks.acknowledged) > count + 12)
            disk.mend()
        with pytest.raises(AssertionError, match="what was acknowledged is there"):
            nothing_is_lost(one, run_id, clicks)
