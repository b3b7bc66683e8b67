"""A grant of two seconds over `kill -9`, while its target is down: given once, overdue meanwhile, removed once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.journey import PROGRAM, Service

DESK = "the key of the desk, which has 32 bytes"
CONFIG = """
[server]
base_url      = "http://127.0.0.1:{port}"
database      = "sqlite:///approvals.db"
signing_keys  = ["env:SIGN_WITH"]
allow_private = ["127.0.0.1:{target}"]
[api_keys]
desk = {{ key = "env:DESK_KEY", may = ["start", "read-all", "vote"], requesters = ["*"] }}
[people."ann@acme.eu"]
[people."bo@acme.eu"]
[http.aws-grant]
url    = "http://127.0.0.1:{target}/grant"
secret = "env:HMAC"
[http.aws-revoke]
url    = "http://127.0.0.1:{target}/revoke"
secret = "env:HMAC"
"""
WORKFLOW = """
[workflow]
id      = "access"
title   = "{{ role }}"
request = ["*"]
[fields]
role = { type = "string", pinned = true }
duration = "duration"
[[stage]]
id   = "go"
from = ["ann@acme.eu"]
[clock]
deadline = "4h"
[grant]
lasts  = "{{ duration }}"
max    = "8h"
give   = { http = "aws-grant",  json = { who = "{{ requester.email }}", role = "{{ role }}" } }
take   = { http = "aws-revoke", json = { who = "{{ requester.email }}", role = "{{ role }}" } }
"""


class Target:
    """Something that gives access, and removes it: it counts what it accepts, by path and event ID."""

    def __init__(self) -> None:
        self.is_down = True  # for removals
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.refused = 0
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert body == {"who": "bo@acme.eu", "role": "admin"}
                is_down = target.is_down and self.path == "/revoke"
                if is_down:
                    target.refused += 1
                else:
                    target.accepted[self.path, self.headers["webhook-id"]] += 1
                self.send_response(503 if is_down else 200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@contextmanager
def house(folder: Path) -> Iterator[tuple[Service, Target]]:
    target = Target()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "workflows").mkdir()
    (folder / "workflows" / "access.toml").write_text(WORKFLOW)
    (folder / "config.toml").write_text(CONFIG.format(port=port, target=target.server.server_port))
    service = Service(folder, PROGRAM)
    service.port, service.environment = port, {"SIGN_WITH": "k" * 40, "DESK_KEY": DESK, "HMAC": "h" * 40}
    try:
        service.start(command="serve")
        yield service, target
    finally:
        if service.process is not None:
            service.kill()
        service.http.close()
        target.server.shutdown()
        target.server.server_close()


def call(service: Service, method: str, path: str, **more: Any) -> Any:
    answer = service.api(method, path, headers={"authorization": f"Bearer {DESK}"}, **more)
    assert answer.status_code < 300, answer.text
    return answer.json()


def until(service: Service, run_id: str, *states: str) -> set[str]:
    """Wait until the grant is in the last of these states. Returns those that were seen."""
    seen, over = set[str](), time.monotonic() + 90
    while states[-1] not in seen:
        assert time.monotonic() < over, f"{seen} instead of {states}"
        grant = call(service, "GET", f"/runs/{run_id}")["request"].get("grant")
        seen |= {grant["state"]} if grant else set()
        time.sleep(0.05)
    return seen


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [0, 1])
def test_a_grant_of_two_seconds_with_its_target_down(tmp_path: Path, kills: int) -> None:
    with house(tmp_path) as (service, target):
        body = {"workflow": "access", "input": {"role": "admin", "duration": "2s"}, "requester": "bo@acme.eu"}
        run_id = call(service, "POST", "/runs", json=body)["run_id"]
        call(service, "POST", f"/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
        for _ in range(kills):
            service.kill()
            service.start(command="serve")
        while not target.accepted:
            time.sleep(0.05)
        down_since = time.monotonic()
        until(service, run_id, "overdue")
        for _ in range(kills * 2):
            service.kill()
            service.start(command="serve")
        time.sleep(max(0.0, 10 - (time.monotonic() - down_since)))
        assert call(service, "GET", f"/runs/{run_id}")["request"]["grant"]["state"] == "overdue"
        target.is_down = False
        until(service, run_id, "ended")
        run = call(service, "GET", f"/runs/{run_id}", params={"wait": 30})
        assert run["request"]["outcome"] == "approved"
        assert target.refused >= 3
        ids = [(path, event) for path, event in target.accepted]
        assert sorted(path for path, _ in ids) == ["/grant", "/revoke"], "each has one ID, however often it is sent"
        assert len({event for _, event in ids}) == 2
        assert all(count <= 1 + kills * 3 for count in target.accepted.values())
