"""The service is stopped while somebody waits for an answer."""

from __future__ import annotations

import http.client
import json

from tests.support.journey import Service


def test_callers_waiting_during_shutdown_get_the_current_state(service: Service) -> None:
    run = service.open()
    waiting = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    waiting.request("GET", f"/api/runs/{run}?wait=60", headers={"Authorization": "Bearer dev"})
    for _ in range(3):  # connections are read in the order in which they came
        assert service.http.get("/healthz").status_code == 200
    assert service.stop() == 0
    answer = waiting.getresponse()
    assert (answer.status, json.load(answer)["status"]) == (200, "running")
    waiting.close()
    assert "Traceback" not in service.log()
