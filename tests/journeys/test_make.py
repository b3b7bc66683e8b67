"""What `make run` starts, as a new user meets it: ready soon, clear about where to look, and easy to end and to repeat;
with every other command beside it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from html import unescape
from pathlib import Path

import httpx2
import pytest

from tests.support.forked import run_command
from tests.support.journey import PROGRAM, READY, Service

ENDS = 10.0  # seconds from SIGTERM to the end


@pytest.fixture
def installed(installed: Service) -> Service:
    """A service that isn't started yet, and starts with an interpreter of its own."""
    installed.program = PROGRAM
    return installed


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    line = [sys.executable, "-m", "approvals_bot", *arguments]
    given = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=given, check=False, timeout=60)


def beside(service: Service, *arguments: str) -> str:
    """What a command says that runs beside the playground."""
    done = run_command(service.folder, *arguments, "--config", ".approvals/config.toml", COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_dev_is_ready_within_a_minute_and_stops_on_sigterm(installed: Service) -> None:
    began = time.monotonic()
    said = installed.start().said
    assert time.monotonic() - began < READY
    where = re.search(r"Open (http://127\.0\.0\.1:\d+) ", said)
    assert where, said
    assert "key: dev" in said
    front = installed.http.get(where[1], follow_redirects=True)
    assert (front.status_code, front.url.path) == (200, "/playground")
    run_id = installed.open()
    installed.settled(run_id)
    before = installed.run(run_id)

    began = time.monotonic()
    status, rest = installed.end()
    assert status == 0
    assert time.monotonic() - began < ENDS
    assert rest == "", "it says one line, and no more"
    assert "Traceback" not in installed.log()

    installed.start()
    assert installed.run(run_id) == before
    installed.stop()

    installed.start("--fresh")
    assert installed.api("GET", f"/runs/{run_id}").status_code == 404
    assert (installed.messages(), installed.mails()) == ([], [])


def test_a_taken_port_is_reported_and_the_other_left_alone(service: Service) -> None:
    run_id = service.open()
    for options, environment in (
        (("--port", str(service.port)), {}),
        (("--fresh",), {"PORT": str(service.port)}),
    ):
        second = command(service.folder, "dev", *options, **environment)
        assert second.returncode != 0
        assert f"Port {service.port} on 127.0.0.1 can't be used: Address already in use." in second.stderr
        assert "Traceback" not in second.stderr
        assert second.stdout == ""
    assert service.run(run_id)["status"] == "running"


def test_the_port_may_come_from_the_environment(installed: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    installed.port = port
    installed.start(by_environment=True)
    assert installed.port == port


def test_every_one_click_sample_opens_a_request(service: Service) -> None:
    front = service.http.get("/playground").text
    offered = [unescape(each) for each in re.findall(r'name="sample" value="([^"]+)"', front)]
    assert len(offered) >= 5
    for title in offered:
        pressed = {"as": "U0ANN", "back": "/playground", "sample": title}
        shown = service.http.post("/playground/samples", data=pressed, follow_redirects=True)
        assert "Started. Everything about it is below." in shown.text, shown.text
    runs = service.api("GET", "/runs").json()["runs"]
    approvals = [run for run in runs if run["workflow"] in ("deploy", "expense", "prod-access", "book-flight")]
    assert len({run["workflow"] for run in approvals}) == 4
    for run in approvals:  # "Started" is said when the run is stored; whom it waits for is found out after that
        settled = service.settled(run["id"])
        assert settled["status"] == "running"
        assert settled["request"]["waiting_for"]


def test_other_commands_work_beside_a_running_service(service: Service) -> None:
    given = '{"service": "api", "version": "2.1", "env": "prod"}'
    opened = json.loads(beside(service, "start", "deploy", "--input", given, "--requester", "bo@acme.eu", "--json"))
    run_id = opened["run_id"]
    service.settled(run_id)
    assert service.click("U0ANN", service.card(), "Approve")["status"] == 200
    service.ended(run_id)
    assert run_id in beside(service, "runs")
    shown = beside(service, "show", run_id)
    assert "Approved" in shown
    assert "Ann Ode" in shown

    cancelled = service.open(service="web", version="3", env="prod")
    service.settled(cancelled)
    beside(service, "cancel", cancelled, "--reason", "not needed")
    ended = service.eventually(lambda: (run := service.run(cancelled))["status"] != "running" and run)
    assert ended["request"]["state"] == "cancelled"
    assert beside(service, "check").startswith(".approvals/config.toml: no problems")


def test_a_command_resumes_a_hook_of_a_running_service(installed: Service) -> None:
    (installed.folder / "workflows" / "waits.py").write_text(
        "from approvals_bot import create_hook, workflow\n\n\n"
        "@workflow\n"
        "async def waits() -> str:\n"
        '    return str(await create_hook("the-token"))\n'
    )
    installed.start("--config", "config.example.toml")
    run_id = json.loads(beside(installed, "start", "waits", "--json"))["run_id"]
    installed.eventually(lambda: installed.api("GET", "/hooks/the-token").status_code == 200)
    beside(installed, "resume", "the-token", "--payload", '"go on"')
    assert installed.ended(run_id)["result"] == "go on"


def test_an_empty_folder_leads_to_a_request_in_four_commands(tmp_path: Path) -> None:
    made = command(tmp_path, "init")
    assert made.returncode == 0, made.stderr
    checked = command(tmp_path, "check")
    assert checked.returncode == 0, checked.stdout
    again = command(tmp_path, "init")
    assert again.returncode == 1
    assert "Nothing was changed" in again.stderr

    key = (tmp_path / "secrets" / "ci.key").read_text()
    body = {"workflow": "first", "input": {"what": "Tidy up"}, "requester": "you@example.com"}
    service = Service(tmp_path, PROGRAM)
    try:
        service.start(command="serve")  # no relay listens there; the request is open all the same
        opened = service.http.post("/api/runs", json=body, headers={"authorization": f"Bearer {key}"})
        assert opened.status_code == 202, opened.text
        assert service.end() == (0, "")
        service.start("--config", "config.toml")
        run_id = service.open("first", "you@example.com", what="Tidy up")
        assert service.press(service.link("colleague@example.com"), "approve").status_code == 200
        service.ended(run_id)
    finally:
        if service.process is not None:
            service.kill()
        service.http.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server\n", "config.toml:1: syntax:"),
        ("server = 3\n", "config.toml:1: server:"),
        (None, "config.toml:1: file: can't be read"),
    ],
)
def test_a_broken_file_is_reported_with_its_place(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    for name in ("dev", "serve"):
        done = run_command(tmp_path, name, "--config", "config.toml", "--port", "0")
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_mistake_names_the_file_its_author_wrote(folder: Path) -> None:
    config = folder / "config.example.toml"
    config.write_text(config.read_text().replace("[groups]", "[gruops]"))
    done = run_command(folder, "dev", "--config", "config.example.toml", "--port", "0")
    assert done.returncode == 1
    line = config.read_text()[: config.read_text().index("[gruops]")].count("\n") + 1
    assert f"config.example.toml:{line}: gruops:" in done.stderr
    assert ".approvals" not in done.stderr


def test_a_call_before_it_is_ready_is_answered_once_it_is(installed: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        installed.port = free.getsockname()[1]
    installed.launch()

    def healthy() -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{installed.port}/healthz", timeout=READY).status_code == 200
        except httpx2.ConnectError:
            return False  # not even listening yet

    installed.eventually(healthy, READY)
