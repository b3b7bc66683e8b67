"""Faults of the surroundings of a running service: each is shown within a minute, in words that name the mend.

`docs/monitoring.md` has the table for operators. FAULTS_REPORT=file writes where each was shown, when, and how.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from approvals_bot.playground import SeedApp
from tests.support.browsing import a_port
from tests.support.certificates import certificate
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, run_fake_slack
from tests.support.faulty_house import Gate, House, SmtpRelay, Target, a_gate, a_house
from tests.support.postgres_server import PostgresServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

EMAIL = """
[email]
host     = "127.0.0.1"
port     = {port}
security = "none"
username = "approvals"
password = "file:mail.password"
sender   = "Approvals <approvals@acme.eu>"
"""

SLACK = """
[slack]
bot_token      = "file:bot.token"
signing_secret = "file:slack.secret"
api_url        = "{url}"
app_id         = "A0APPROVE"
"""


@pytest.fixture
async def house(tmp_path: Path, stack: AsyncExitStack) -> House:
    """A house whose relay is well."""
    relay = SmtpRelay()
    await relay.start(stack)
    made = await stack.enter_async_context(a_house(tmp_path))
    made.write("mail.password", "a password")
    made.more = EMAIL.format(port=relay.port)
    return made


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def test_faults_of_the_relay(house: House, stack: AsyncExitStack) -> None:
    relay = SmtpRelay()
    await relay.start(stack)
    gate = await stack.enter_async_context(a_gate(relay.dial))
    house.more = EMAIL.format(port=gate.port)
    house.configure()
    house.workflow("deploy")

    async def a_service() -> None:
        if house.servers:
            await house.servers[-1].kill()
        (house.folder / "approvals.db").unlink(missing_ok=True)
        await house.serve()

    await a_service()
    await gate.shut()
    served = house.servers[-1]
    served.mark()
    await served.opened("deploy")
    await served.log_shows("relay down", r"the mail relay takes no.*can't be reached.*\[email\]")
    await served.ready_shows("relay down", '"email": "down"')
    await served.metric_shows("relay down", r'approvals_channel_up\{channel="email"\} 0.0')
    await gate.open()

    for mode, fault, words in (
        ("login", "relay refuses the login", r"535.*username and password of \[email\]"),
        ("sender", "relay refuses the sender", r"550.*let this account send as the sender"),
    ):
        relay.mode = mode  # type: ignore[assignment]
        await a_service()
        served = house.servers[-1]
        await served.opened("deploy")
        await served.log_shows(fault, words)
        await served.ready_shows(fault, '"email": "down"')
    relay.mode = "well"

    await a_service()
    served = house.servers[-1]
    await gate.hang()
    served.mark()
    await served.opened("deploy")
    await served.log_shows("relay hangs", r"the mail relay.*no answer in time|doesn't answer in time")
    await house.doctor("relay hangs", r"FAIL.*mail: .*doesn't answer in time")


async def test_the_relays_certificate_is_wrong(house: House, stack: AsyncExitStack, tmp_path: Path) -> None:
    relay = SmtpRelay()
    await relay.start(stack, certificate(tmp_path, "wrong.example"))
    house.more = EMAIL.format(port=relay.port).replace('"none"', '"tls"')
    house.configure()
    house.workflow("deploy")
    served = await house.serve()
    await served.opened("deploy")
    await served.log_shows(
        "relay's certificate is self-signed", r"isn't trusted \(self.signed certificate\).*certificate"
    )
    await served.ready_shows("relay's certificate is self-signed", '"email": "down"')
    await served.kill()

    house.env = {"SSL_CERT_FILE": str(tmp_path / "wrong.example.pem")}
    served = await house.serve()
    await served.opened("deploy")
    fault = "relay's certificate is for another name"
    await served.log_shows(fault, r"mismatch, certificate is not valid for '127.0.0.1'")
    await house.doctor(fault, r"FAIL.*mail: .*not valid for")
    await served.kill()

    relay = SmtpRelay(starttls=certificate(tmp_path, "127.0.0.1", is_over=True))
    await relay.start(stack)
    house.more = EMAIL.format(port=relay.port).replace('"none"', '"starttls"')
    house.configure()
    house.env = {"SSL_CERT_FILE": str(tmp_path / "127.0.0.1.pem")}
    served = await house.serve()
    served.mark()
    await served.opened("deploy")
    fault = "relay's certificate has expired"
    await served.log_shows(fault, r"isn't trusted \(certificate has expired\).*relay's certificate")
    await served.ready_shows(fault, '"email": "down"')
    await served.metric_shows(fault, r'approvals_channel_up\{channel="email"\} 0.0')
    await house.doctor(fault, r"FAIL.*mail: .*certificate has expired")


async def test_faults_of_slack(house: House, stack: AsyncExitStack) -> None:
    fake = await stack.enter_async_context(run_fake_slack(app=SeedApp(BOT_TOKEN, SIGNING_SECRET)))
    port = int(fake.playground.api_url.split(":")[2].partition("/")[0])
    gate = await stack.enter_async_context(a_gate(lambda: asyncio.open_connection("127.0.0.1", port)))
    house.write("bot.token", BOT_TOKEN)
    house.write("slack.secret", SIGNING_SECRET)
    house.more += SLACK.format(url=fake.playground.api_url.replace(str(port), str(gate.port)))
    house.configure()
    for name in ("deploys", "hidden", "old"):
        house.workflow(name, f'slack = "#{name}"')

    async def fault(kind: str, name: str, method: str, words: str, workflow: str = "deploys", **more: object) -> None:
        fake.playground.slack_faults.clear()
        if kind:
            fake.fault(kind, method, times=None, **more)
        served.mark()
        await served.opened(workflow)
        await served.log_shows(name, words)

    served = await house.serve()
    await fault("", "bot isn't in the channel", "", r"(channel_not_found|not_in_channel).*doctor", "hidden")
    await house.doctor("bot isn't in the channel", r"FAIL.*hidden.*\n.*invite")
    await fault("", "channel is archived", "", r"is_archived.*doctor", "old")
    await house.doctor("channel is archived", r"old.*archived")
    house.workflow("grouped", 'slack = "#deploys"', approver="slack:@sre")
    await served.log_shows("the new workflow is loaded", "configuration was reloaded")
    await fault(
        "error",
        "a Slack group can't be read",
        "usergroups.list",
        r"source_down the source slack:@sre can't be read.*user group.*doctor",
        "grouped",
        error="missing_scope",
    )
    await served.metric_shows("a Slack group can't be read", r'approvals_groups_unresolved\{source="slack:@sre"\} 1.0')
    await house.doctor("a Slack group can't be read", r"FAIL.*sre")
    await fault("error", "a scope is missing", "chat.postMessage", r"missing_scope.*doctor", error="missing_scope")
    await fault("error", "token is invalid", "*", r"invalid_auth.*bot_token", error="invalid_auth")
    await served.ready_shows("token is invalid", '"slack": "down"')
    await served.kill()

    served = await house.serve()
    await fault(
        "rate_limited",
        "Slack limits the rate",
        "chat.postMessage",
        r"Slack limits chat.postMessage.*120 s",
        retry_after=120,
    )
    await served.kill()

    served = await house.serve()
    await gate.shut()
    await fault("", "Slack refuses connections", "", r"Slack takes no deliveries.*status.slack.com")
    await gate.open()
    await served.kill()

    served = await house.serve()
    await gate.hang()
    await fault("", "Slack hangs", "", r"Slack takes no deliveries.*no answer in time")
    await house.doctor("Slack hangs", r"FAIL.*Slack.*\n.*")


async def test_faults_of_sqlite(house: House, tmp_path: Path) -> None:
    house.configure()
    house.workflow("deploy")
    database = tmp_path / "approvals.db"

    served = await house.serve()
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    served.mark()
    assert (await served.ask("deploy")).status_code == 503
    await served.log_shows("database is locked by another program", r"has not answered.*no other program holds")
    await served.ready_shows("database is locked by another program", "503")
    other.execute("ROLLBACK")
    other.close()
    await served.log_shows("database is locked by another program, and then isn't", "the store answers again")

    (tmp_path / "copy.db").write_bytes(database.read_bytes())
    served.mark()
    shutil.copyfile(tmp_path / "copy.db", database)
    assert (await served.ask("deploy")).status_code == 503
    await served.log_shows("database file was replaced", r"file_replaced.*until the service has been restarted")
    await served.ready_shows("database file was replaced", r"503.*replaced")
    await served.kill()

    with sqlite3.connect(database) as newer:
        version = newer.execute("PRAGMA user_version").fetchone()[0]
        newer.execute(f"PRAGMA user_version = {version + 1}")
    newer.close()
    status, said = await house.command("serve", "--port", "0")
    assert (status != 0, "newer" in said) == (True, True), said
    house.note("schema is newer than the code", "serve", 0, said.strip().splitlines()[-1])
    await house.doctor("schema is newer than the code", r"FAIL.*store.*newer")
    database.unlink()

    # A file that may not grow beyond this is like a disk that is full.
    served = await house.serve(("sh", "-c", 'ulimit -f 1600; exec "$@"', "sh"))
    for _ in range(400):
        if (await served.ask("deploy")).status_code == 503:
            break
    await served.log_shows("disk is full", r"store_lost.*ree some space")
    await served.ready_shows("disk is full", "503")
    await served.kill()


async def test_faults_of_the_configuration(house: House) -> None:
    house.more += '[api_keys.old]\nkey = "file:old.key"\nexpires = 2026-01-01\n'
    house.write("old.key", "old-key-of-the-tests-with-32-bytes!")
    house.configure()
    house.workflow("deploy")
    served = await house.serve()

    for name, file, broken, words in (
        ("config.toml is broken", "config.toml", "[serve", r"config\.toml"),
        ("a workflow file is broken", "workflows/deploy.toml", "[workflow", r"deploy\.toml"),
    ):
        text = (house.folder / file).read_text()
        served.mark()
        house.write(file, broken)
        await served.log_shows(name, r"old one stays in force")
        await served.log_shows(name, words)
        await served.metric_shows(name, r"approvals_config_last_reload_successful 0.0")
        await house.doctor(name, rf"FAIL.*configuration[\s\S]*{words}")
        house.write(file, text)
        await served.log_shows(name + ", and then isn't", "configuration was reloaded")

    served.mark()
    (house.folder / "desk.key").unlink()
    served.process.send_signal(signal.SIGHUP)
    await served.log_shows("a secret's file is gone", r"old one stays in force")
    await served.log_shows("a secret's file is gone", r"desk\.key")
    house.write("desk.key", "another-key-of-the-tests-with-32-bytes")
    await served.log_shows("a secret's file is back", "configuration was reloaded")

    served.mark()
    assert (await served.ask("deploy")).status_code == 401
    await served.log_shows("an API key was rotated", r"key_refused .*isn't in .*keys new")
    served.mark()
    answer = await served.call("GET", "/api/runs", key="old-key-of-the-tests-with-32-bytes!")
    assert answer.status_code == 401
    await served.log_shows("an API key has expired", r"old.*expired.*keys new old")
    await house.doctor("an API key has expired", r"FAIL.*API key old: expired.*\n.*keys new old")


async def test_faults_of_sources_and_targets(house: House, stack: AsyncExitStack) -> None:
    hr, erp = Target(), Target(status=403, body="{}")
    for each in (hr, erp):
        await each.start(stack)
    listed = Target(body='{"people": [{"address": "ann@acme.eu"}, {"address": "bo@acme.eu"}]}')
    await listed.start(stack)
    gates: list[Gate] = [await stack.enter_async_context(a_gate(each.dial)) for each in (hr, erp, listed)]
    house.write("erp.secret", "e" * 40)
    house.allowed = (*(gate.port for gate in gates), erp.port)
    house.more += f"""
[groups]
sre = {{ http = "hr" }}
[http.hr]
url = "http://127.0.0.1:{gates[0].port}/"
[http.erp]
url = "http://127.0.0.1:{gates[1].port}/"
secret = "file:erp.secret"
[http.strict]
url = "http://127.0.0.1:{erp.port}/"
secret = "file:erp.secret"
[http.listed]
url = "http://127.0.0.1:{gates[2].port}/"
[directory]
people = {{ http = "listed" }}
refresh = "5s"
[login]
methods = ["oidc", "code"]
[login.oidc]
issuer = "http://127.0.0.1:{gates[1].port}"
client_id = "a"
client_secret = "file:erp.secret"
"""
    house.configure()
    house.workflow("deploy", approver="@sre")
    for name in ("erp", "strict"):
        more = f'[[on.approved]]\nhttp = "{name}"\njson = {{ version = "{{{{ version }}}}" }}\n'
        house.workflow(name, more=more)
    served = await house.serve()

    async def approve(workflow: str) -> None:
        run_id = await served.opened(workflow)
        async with asyncio.timeout(60):
            while (
                answer := await served.call(
                    "POST", f"/api/runs/{run_id}/votes", {"by": "ann@acme.eu", "choice": "approve"}
                )
            ).status_code >= 400:
                await asyncio.sleep(0.3)
        assert answer.status_code < 300, answer.text

    served.mark()
    await approve("strict")
    await served.log_shows("a target refuses calls", r"\[http\.strict\] refuses calls.*403")
    await gates[1].shut()
    served.mark()
    await approve("erp")
    await served.log_shows("a target is down", r"\[http\.erp\].*no answer.*Check that it runs")

    served.mark()
    assert (await served.call("GET", "/login/oidc")).status_code == 503
    await served.log_shows("the OpenID provider is down", r"login_refused.*doesn't answer. Check \[login\.oidc\]")
    await house.doctor("the OpenID provider is down", r"FAIL.*sign-in: .*\n.*\[login\.oidc\]")

    for fault, breaks, mends in (
        ("a group's source is down", gates[0].shut, gates[0].open),
        ("a group's source answers garbage", partial(hr.answer, "<html>"), partial(hr.answer, hr.body)),
        ("a group's source answers no list", partial(hr.answer, '{"people": 7}'), partial(hr.answer, hr.body)),
    ):
        await breaks()
        served.mark()
        await served.ask("deploy")
        await served.log_shows(fault, r"source_down the source hr can't be read.*\[groups\].*doctor")
        await served.metric_shows(fault, r'approvals_groups_unresolved\{source="hr"\} 1.0')
        await house.doctor(fault, r"FAIL.*people of deploy: .*hr.*\n.*Fix the source")
        await mends()
        await served.log_shows(f"{fault}, and then isn't", "source_back hr can be read again")

    served.mark()
    await gates[2].shut()
    await served.log_shows("the directory's target is down", r"directory_down.*listed.*\[directory\] people")
    await house.doctor("the directory's target is down", r"FAIL.*the directory listed: .*\n.*Make it readable")


async def test_faults_at_the_start(house: House) -> None:
    house.configure()
    house.workflow("deploy")
    with a_port() as taken:
        port = taken.getsockname()[1]
        status, said = await house.command("serve", "--port", str(port))
        assert (status, f"Port {port}" in said, "ss -ltnp" in said) == (1, True, True), said
        house.note("the port is in use", "serve", 0, said.strip())
        plain, house.more = house.more, f'{house.more}[metrics]\nlisten = "127.0.0.1:{port}"\n'
        house.configure()
        status, said = await house.command("serve", "--port", "0")
        assert (status, "another in [metrics] listen" in said) == (1, True), said
        house.note("the metrics' port is in use", "serve", 0, said.strip())
    house.more = plain
    house.configure()

    served = await house.serve(("sh", "-c", 'exec "$@" 2>/dev/full', "sh"))
    await served.metric_shows("the log's disk is full", r"approvals_log_lines_lost_total [1-9]\S*")
    await served.kill()
    for fault, stream in (("standard output is closed", ">&-"), ("standard output is full", ">/dev/full")):
        log = house.folder / "log.txt"
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f'exec "$@" {stream} 2>log.txt', "sh", sys.executable, "-m", "approvals_bot", "serve",
            "--port", str(port), cwd=house.folder, env=house.environment,
        )  # fmt: skip
        async with asyncio.timeout(90):
            while (await house.command("health", "--ready", "--url", f"http://127.0.0.1:{port}"))[0] != 0:
                await asyncio.sleep(0.5)
        process.terminate()
        said = log.read_text() if await process.wait() == 0 else ""
        assert "stopped" in said
        assert "closed" in fault or "standard output can't be written (No space left on device)" in said
        house.note(fault, "log", 0, said.strip().splitlines()[-3])


async def test_faults_of_runs(house: House, tmp_path: Path) -> None:
    house.configure()
    code = house.folder / "workflows" / "jobs.py"
    code.write_text(
        "from approvals_bot import create_hook, step, workflow\n"
        "@step(retries=0)\n"
        "async def breaks() -> str:\n    raise OSError('canary')\n"
        "@workflow(name='waits')\n"
        "async def waits(given: dict[str, str]) -> str:\n    return await create_hook(token='wait-for-it')\n"
        "@workflow(name='fails')\n"
        "async def fails(given: dict[str, str]) -> str:\n    return await breaks()\n"
    )
    served = await house.serve()
    served.mark()
    await served.opened("fails")
    await served.log_shows("a step fails for good", r"step breaks failed for good.*OSError at .*jobs\.py")
    await served.opened("waits")
    await asyncio.sleep(1)
    code.write_text(code.read_text().replace("return await create_hook", "1 / 0; return await create_hook"))
    await served.log_shows("the new release is loaded", "configuration was reloaded")
    served.mark()
    await served.call("POST", "/api/hooks/wait-for-it", {"a": 1})
    await served.log_shows("a run stalls by a bug", r"stalled: ZeroDivisionError at .*jobs\.py.*retry")
    await served.metric_shows("a run stalls by a bug", r'approvals_runs\{status="stalled"\} 1.0')
    await house.doctor("a run stalls by a bug", r"WARN.*stalled runs: 1 run waits.*\n.*runs --status stalled")


async def test_what_doctor_alone_can_show(house: House, stack: AsyncExitStack) -> None:
    other = Target(body='{"status": "ok", "installation": "another", "scheme": "http"}')
    await other.start(stack)
    house.base_url = f"http://127.0.0.1:{other.port}"
    house.configure()
    house.workflow("deploy")
    served = await house.serve()
    await house.doctor("base_url leads elsewhere", r"FAIL.*another installation.*\n.*base_url")
    status, said = await house.command("backup", str(house.folder / "backup.db"))
    assert status == 0, said
    await served.kill()
    with sqlite3.connect(house.folder / "approvals.db") as raw:
        old = int((datetime.now(UTC) - timedelta(days=3)).timestamp() * 1_000_000)
        raw.execute("UPDATE audit SET at = ? WHERE what = 'backed_up'", (old,))
    raw.close()
    await house.doctor("the last backup is old", r"WARN.*backup: the last one was written on.*\n.*backup FILE")
    house.prefix = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    await house.doctor("few files may be open", r"WARN.*open files: .*256.*\n.*LimitNOFILE")


async def test_faults_of_postgres(house: House, stack: AsyncExitStack, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    name = url.rpartition("?")[0].rpartition("/")[2] or url.rpartition("/")[2]

    async def sql(text: str) -> None:
        await asyncio.to_thread(postgres.execute, text)

    await sql(f'CREATE ROLE "{name}" LOGIN IN ROLE postgres')
    gate = await stack.enter_async_context(a_gate(postgres.dial))
    house.database = postgres.url_by(gate.port, url).replace("postgres@", f"{name}@")
    house.configure()
    house.workflow("deploy")
    served = await house.serve()

    async def is_refused(fault: str, words: str) -> None:
        served.mark()
        assert (await served.ask("deploy")).status_code == 503
        await served.log_shows(fault, f"store_lost.*{words}")
        await served.ready_shows(fault, "503")

    async def is_back() -> None:
        await gate.break_all()
        async with asyncio.timeout(90):
            while (await served.ask("deploy")).status_code != 202:
                await asyncio.sleep(0.5)

    await gate.shut()
    await is_refused("PostgreSQL is down", "Check that the database runs")
    await house.doctor("PostgreSQL is down", r"FAIL.*store.*\n.*Check that the database runs")
    await gate.open()
    await is_back()

    await sql(f'ALTER ROLE "{name}" SET default_transaction_read_only = on')
    await gate.break_all()
    served.mark()
    assert (await served.ask("deploy")).status_code == 503
    await served.log_shows("PostgreSQL is read-only", "read-only transaction")
    await served.ready_shows("PostgreSQL is read-only", "503")
    await sql(f'ALTER ROLE "{name}" RESET default_transaction_read_only')
    await is_back()

    await sql(f'ALTER ROLE "{name}" CONNECTION LIMIT 0')
    await gate.break_all()
    served.mark()
    assert (await served.ask("deploy")).status_code == 503
    await served.log_shows("PostgreSQL takes no more connections", "too many connections")
    await served.ready_shows("PostgreSQL takes no more connections", "503")
    await sql(f'ALTER ROLE "{name}" CONNECTION LIMIT -1')
    await is_back()

    await asyncio.to_thread(postgres.execute, "CREATE SCHEMA shifted", url)
    await sql(f'ALTER ROLE "{name}" SET search_path = shifted, pg_catalog, public')
    for seconds, fault in ((3600, "the server's clock is ahead"), (-3600, "the server's clock is behind")):
        body = f"SELECT pg_catalog.clock_timestamp() + interval '{seconds} s'"
        shifted = f"CREATE OR REPLACE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $${body}$$"
        await asyncio.to_thread(postgres.execute, shifted, url)
        await house.doctor(fault, r"WARN.*clock: .*differ by 3,\d+ seconds.*\n.*NTP")


async def test_faults_of_replicas(
    house: House, stack: AsyncExitStack, postgres: PostgresServer, tmp_path: Path
) -> None:
    house.database = postgres.new_database()
    house.configure()
    house.workflow("deploy")
    first = await house.serve()
    (tmp_path / "two").mkdir()
    other = await stack.enter_async_context(a_house(tmp_path / "two"))
    other.database, other.more = house.database, house.more
    other.write("mail.password", "a password")
    other.write("signing.key", "x" * 40)
    other.configure()
    other.workflow("deploy")
    second = await other.serve()
    second.from_start()
    lacks = r"key_not_everywhere.*Add that key to \[server\] signing_keys"
    await second.log_shows("a replica lacks the signing key", lacks)
    await second.ready_shows("a replica lacks the signing key", "503.*key_not_everywhere")
    await house.doctor("a replica lacks the signing key", r"WARN.*keys of replicas.*lacks.*\n.*Add that key")
    first.mark()
    await second.kill()
    await first.log_shows("a replica was killed", r"replica_gone.*start it again")
