"""P9: PostgreSQL is restarted, goes silent, and gets slow, while people click at two replicas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.replicas import Fleet, eventually, fleet, heals, nothing_is_lost, people_click
from tests.support.tcp_proxy import Proxy, proxy

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def network(postgres: PostgresServer) -> Iterator[Proxy]:
    with proxy(postgres.dial) as made:
        yield made


@pytest.fixture(scope="module")
def replicas(postgres: PostgresServer, network: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with fleet(folder, postgres.url_by(network.port, postgres.new_database())) as made:
        made.start(2)
        yield made


@pytest.mark.promise(9)
def test_restarting_postgres_loses_nothing(replicas: Fleet, postgres: PostgresServer) -> None:
    if not postgres.can_restart:
        pytest.skip("NOT TESTED: this PostgreSQL is somebody else's, so it can't be restarted")
    one, two = replicas.replicas
    run_id = one.start_run("collects", token="restarted")
    with people_click([one, two], "restarted") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 20)
        for _ in range(2):
            postgres.restart()
            heals(clicks)
    nothing_is_lost(one, run_id, clicks)


@pytest.mark.promise(9)
def test_a_silent_postgres_leaves_nobody_hanging(replicas: Fleet, network: Proxy) -> None:
    one, two = replicas.replicas
    run_id = one.start_run("collects", token="silent")
    with people_click([one, two], "silent") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 20)
        network.silent = True
        eventually(lambda: clicks.statuses.get("503", 0) >= 6)
        assert one.http.get("/readyz").status_code == 503
        assert one.http.get("/healthz").status_code == 200
        network.silent = False
        heals(clicks)
    nothing_is_lost(one, run_id, clicks)
    eventually(lambda: one.http.get("/readyz").status_code == 200)


@pytest.mark.promise(9)
def test_a_slow_network_only_slows_clicks_down(replicas: Fleet, network: Proxy) -> None:
    one, two = replicas.replicas
    run_id = one.start_run("collects", token="slow")
    network.delay = 0.1
    with people_click([one, two], "slow") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 10)
    network.delay = 0.0
    assert set(clicks.statuses) == {"200"}, clicks.statuses
    nothing_is_lost(one, run_id, clicks)
