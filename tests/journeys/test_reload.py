"""The configuration changes while the service runs: new requests see it, open ones keep theirs, and a broken file
changes nothing but the log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.journey import Service

ROOT = Path(__file__).parents[2]

DONE = "the configuration was reloaded"
NOT_DONE = "the configuration was not reloaded"

Change = Callable[[Path, str, str], None]


def in_place(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def replaced(file: Path, old: str, new: str) -> None:
    """As most editors and `git checkout` do: a new file takes the old one's name."""
    beside = file.with_suffix(".new")
    beside.write_text(file.read_text())
    in_place(beside, old, new)
    os.replace(beside, file)


@pytest.fixture
def running(installed: Service) -> Service:
    return installed.start("--config", "config.example.toml")


def said(service: Service, text: str, times: int = 1) -> None:
    service.eventually(lambda: service.log().count(text) >= times)


def test_open_requests_keep_their_version_of_a_workflow(running: Service) -> None:
    file = running.folder / "workflows" / "deploy.toml"
    old = running.open()
    running.settled(old)
    for times, change in enumerate((in_place, replaced, in_place, replaced), start=1):
        change(
            file,
            "Deploy {{ service }}" if times == 1 else f"{times - 1}: deploy {{{{ service }}}}",
            f"{times}: deploy {{{{ service }}}}",
        )
        said(running, DONE, times)
        new = running.open()
        assert running.run(new)["request"]["title"] == f"{times}: deploy api 2.1 to prod"
    assert running.run(old)["request"]["title"] == "Deploy api 2.1 to prod"
    assert running.vote(old, "ann@acme.eu", "approve").status_code == 201
    assert running.ended(old)["result"]["approved"] is True


def test_new_requests_see_changed_people_and_a_new_workflow(running: Service) -> None:
    replaced(
        running.folder / "config.example.toml",
        'release-managers = ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"]',
        'release-managers = ["cfo@acme.eu"]',
    )
    said(running, DONE)
    assert running.settled(running.open())["request"]["waiting_for"] == ["cfo@acme.eu"]

    def answer() -> int:
        given = {"service": "api", "version": "2.1", "env": "prod"}
        body = {"workflow": "ship", "input": given, "requester": "bo@acme.eu"}
        return running.api("POST", "/runs", json=body).status_code

    deploy, ship = (running.folder / "workflows" / f"{name}.toml" for name in ("deploy", "ship"))
    assert answer() == 404
    ship.write_text(deploy.read_text().replace('id      = "deploy"', 'id = "ship"'))
    running.eventually(lambda: answer() == 202)
    ship.unlink()
    running.eventually(lambda: answer() == 404)


BROKEN = [
    ("workflows/deploy.toml", "deadline ", "deadine "),
    ("workflows/deploy.toml", 'risk == "high"', 'rsik == "high"'),
    ("config.example.toml", "[groups]", "[groups"),
    ("workflows/greeting.py", "from approvals_bot import", "from approvals_bot imprt"),
]


def test_broken_files_change_nothing_and_the_log_names_lines(running: Service) -> None:
    for times, (name, old, new) in enumerate(BROKEN, start=1):
        replaced(running.folder / name, old, new)
        said(running, NOT_DONE, times)
        place = f"{Path(name).name}:"
        line = [line for line in running.log().splitlines() if place in line][-1]
        assert line.partition(place)[2].partition(":")[0].isdigit(), line
        assert running.run(running.open())["request"]["title"] == "Deploy api 2.1 to prod"
        replaced(running.folder / name, new, old)
        said(running, DONE, times)
    assert "Traceback" not in running.log()


def test_sighup_reloads(running: Service) -> None:
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    said(running, DONE)
    file = running.folder / "workflows" / "deploy.toml"
    status = file.stat()
    in_place(file, "need = 1", "ned  = 1")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # looks unchanged, so only the signal triggers it
    running.process.send_signal(signal.SIGHUP)
    said(running, NOT_DONE)
    assert "deploy.toml:" in running.log()
    assert running.process.poll() is None
    assert running.settled(running.open())["request"]["waiting_for"] == ["ann@acme.eu", "cy@acme.eu"]
