"""`doctor` finds what would go wrong and says what to do. Slack and the relay are fakes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller

from approvals_bot.channels.slack.check import skew
from approvals_bot.channels.slack.manifest import SCOPES
from approvals_bot.cli.interpreter import known_holes
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.replicas import ReplicaRow
from tests.support.small_site import LEAVE, Site

CHANNELS = [
    {"id": "C0DEPLOYS", "name": "deploys", "is_member": True},
    {"id": "C0OLD", "name": "old", "is_member": True, "is_archived": True},
    {"id": "C0OTHERS", "name": "others", "is_member": False},
]
ANN = {"id": "U0ANN", "team_id": "T1", "profile": {"email": "ann@acme.eu", "real_name": "Ann"}}
GUEST = {**ANN, "id": "U0GUEST", "is_restricted": True}


class Slack:
    """A fake Slack with the methods that the doctor calls."""

    def __init__(self) -> None:
        self.url = ""
        self.error = ""
        self.app_error = ""
        self.scopes = ",".join(SCOPES)
        self.groups = {"sre": ["U0ANN"], "guests": ["U0GUEST"]}

    def answer(self, method: str, given: Any) -> dict[str, Any]:
        if self.error:
            return {"ok": False, "error": self.error}
        match method:
            case "auth.test":
                return {"ok": True, "team": "Acme", "user": "approvals", "app_id": "A0APPROVE"}
            case "apps.connections.open":
                no = {"ok": False, "error": self.app_error}
                return no if self.app_error else {"ok": True, "url": "wss://127.0.0.1/"}
            case "conversations.list":
                return {"ok": True, "channels": CHANNELS}
            case "usergroups.list":
                return {"ok": True, "usergroups": [{"id": name, "handle": name} for name in self.groups]}
            case "usergroups.users.list":
                return {"ok": True, "users": self.groups[given["usergroup"]]}
            case "users.info":
                return {"ok": True, "user": ANN if given["user"] == "U0ANN" else GUEST}
        return {"ok": False, "error": "unknown_method"}


@pytest.fixture
def slack() -> Iterator[Slack]:
    fake = Slack()

    async def answer(request: web.Request) -> web.Response:
        found = fake.answer(request.match_info["method"], dict(request.query))
        return web.json_response(found, headers={"x-oauth-scopes": fake.scopes})

    app = web.Application()
    app.router.add_route("*", "/api/{method}", answer)
    with _on_a_thread(app) as port:
        fake.url = f"http://127.0.0.1:{port}/api/"
        yield fake


@contextmanager
def _on_a_thread(app: web.Application) -> Iterator[int]:
    """Run the server in another event loop, since the commands have their own."""
    loop, began = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(app)
    ports: list[int] = []

    async def begin() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        began.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(20)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def with_slack(site: Site, slack: Slack, more: str = "") -> None:
    site.write("token", "xoxb-secret")
    table = f'[slack]\nbot_token = "file:token"\nsigning_secret = "file:token"\napi_url = "{slack.url}"\n{more}'
    site.write("config.toml", site.config.read_text().replace("[people.", f"{table}\n[people.", 1))


@pytest.fixture
def site(site: Site) -> Site:
    """The site, and its database."""
    site.type("migrate")
    return site


def findings(site: Site, *options: str, fails: bool = False) -> list[tuple[str, str, str]]:
    found = site.json("doctor", *options, fails=fails)["findings"]
    return [(each["state"], each["about"], each["what"]) for each in found]


def of(found: list[tuple[str, str, str]], about: str) -> list[tuple[str, str]]:
    return [(state, what) for state, name, what in found if name == about]


def test_doctor_reports_a_minimal_setup_with_warnings_only(site: Site) -> None:
    report = site.type("doctor").stdout
    assert "FAIL  " not in report
    assert "WARN  ⚠ base_url: http://127.0.0.1:8000 is this machine, so links open nowhere else\n         → S" in report
    assert "OK    ✅ store: SQLite is writable; the schema is current" in report
    assert "WARN  ⚠ people of leave: nobody is notified of a request" in report
    assert report.endswith("0 FAIL\n")


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_commands_that_read_create_and_change_nothing(site: Site, store: str, request: pytest.FixtureRequest) -> None:
    missing, named = f"sqlite:///{site.folder}/typo/aprovals.db", f"{site.folder}/typo/aprovals.db"
    if store == "postgres":
        missing = request.getfixturevalue("postgres").empty_database()
        named = urlsplit(missing).hostname or ""
    there = site.config.read_text()
    (site.folder / "approvals.db").chmod(0o400)
    before = kept(site.folder)
    findings(site)
    site.type("runs")
    site.type("schedules")
    assert kept(site.folder) == before
    site.write("config.toml", there.replace("sqlite:///approvals.db", missing))
    ((state, what),) = of(findings(site, fails=True), "store")
    assert (state, named in what, "There is no database" in what) == ("FAIL", True, True)
    for command in (["runs"], ["show", "run_x"], ["explain", "run_x"], ["schedules"], ["check", "--runs"]):
        assert "There is no database" in site.type(*command, fails=True).stderr
    site.write("config.toml", there)
    assert kept(site.folder) == before
    if store == "postgres":
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert request.getfixturevalue("postgres").execute(tables, missing)[0][0] == 0


def kept(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("url", "state"),
    [("https://approve.acme.eu", "OK"), ("http://approve.acme.eu", "WARN"), ("https://127.0.0.1", "WARN")],
)
def test_doctor_checks_that_links_are_reachable_and_encrypted(site: Site, url: str, state: str) -> None:
    text = site.config.read_text().replace("http://127.0.0.1:8000", url)
    site.write("config.toml", text.replace("[server]", "[server]\ninsecure_http = true"))
    assert of(findings(site), "base_url")[0][0] == state
    if url == "http://approve.acme.eu":
        site.write("config.toml", text)
        assert findings(site, fails=True)[0][:2] == ("FAIL", "configuration")


@pytest.mark.parametrize(
    ("version", "mended"),
    [((3, 11, 7), "3.11.10"), ((3, 11, 10), ""), ((3, 12, 5), "3.12.6"), ((3, 12, 6), ""), ((3, 13, 0), "")],
)
def test_releases_of_python_with_known_holes_are_named(version: tuple[int, int, int], mended: str) -> None:
    holes = known_holes(version, cookies=None)
    assert (holes is not None) == bool(mended)
    assert mended in (holes or "")
    assert known_holes(version, cookies=SimpleNamespace(_unquote_replace=...)) is None  # as in Debian's 3.11.2


def test_doctor_names_the_holes_of_this_python(site: Site) -> None:
    assert [each[0] for each in of(findings(site), "Python")] == (["WARN"] if known_holes() else [])


def test_doctor_finds_a_weak_key_and_an_unwritable_store(site: Site) -> None:
    site.write("signing.key", "password" * 8)
    site.write("approvals.db", "this is not a database")
    found = findings(site, fails=True)
    assert ("WARN", "key 1 doesn't look random") in of(found, "signing keys")
    assert of(found, "store")[0][0] == "FAIL"


def test_doctor_checks_slack_from_token_to_channels_and_groups(site: Site, slack: Slack) -> None:
    with_slack(site, slack)
    site.write(
        "workflows/leave.toml",
        LEAVE.replace("[clock]", '[deliver]\nslack = "#deploys"\n[clock]').replace(
            'from = ["@managers"]', 'from = ["slack:@sre", "@managers"]'
        ),
    )
    found = findings(site)
    assert of(found, "Slack") == [("OK", "connected to Acme as approvals")]
    assert of(found, "Slack scopes")[0][0] == "OK"
    assert of(found, "clock")[0][0] == "OK"
    assert of(found, "Slack channel") == [("OK", "#deploys (of leave)")]
    assert of(found, "Slack group") == [("OK", "@sre has 1 people")]
    assert of(found, "people of leave") == [("OK", "3 can be reached (#deploys)")]
    assert "xoxb" not in str(found)


@pytest.mark.parametrize(
    ("channel", "problem"),
    [
        ("#old", "#old (of leave) is archived"),
        ("#others", "the app isn't in #others (of leave)"),
        ("#nowhere", "#nowhere (of leave) doesn't exist, or the app can't see it"),
    ],
)
def test_doctor_finds_channels_that_cards_cannot_reach(site: Site, slack: Slack, channel: str, problem: str) -> None:
    with_slack(site, slack)
    site.write("workflows/leave.toml", LEAVE.replace("[clock]", f'[deliver]\nslack = "{channel}"\n[clock]'))
    assert of(findings(site, fails=True), "Slack channel") == [("FAIL", problem)]


@pytest.mark.parametrize("group", ["nobody", "guests"])
def test_doctor_finds_groups_in_which_nobody_could_decide(site: Site, slack: Slack, group: str) -> None:
    with_slack(site, slack)
    site.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]', f'from = ["slack:@{group}"]'))
    assert of(findings(site, fails=True), "Slack group")[0][0] == "FAIL"


def test_doctor_names_missing_scopes_and_what_needs_them(site: Site, slack: Slack) -> None:
    with_slack(site, slack)
    slack.scopes = ",".join(scope for scope in SCOPES if scope not in ("users:read.email", "channels:history"))
    found = of(findings(site, fails=True), "Slack scopes")
    assert [state for state, _ in found] == ["WARN", "FAIL"]
    assert "users.lookupByEmail" in found[1][1]


def test_doctor_distinguishes_a_refused_and_a_foreign_token(site: Site, slack: Slack) -> None:
    with_slack(site, slack, 'app_id = "A0OTHER"\n')
    assert "belongs to app A0APPROVE" in str(of(findings(site, fails=True), "Slack"))
    slack.error = "invalid_auth"
    assert of(findings(site, fails=True), "Slack") == [("FAIL", "Slack rejects the token: invalid_auth")]


def test_doctor_reports_an_unreachable_slack(site: Site, slack: Slack) -> None:
    slack.url = "http://127.0.0.1:9/"
    with_slack(site, slack)
    assert "is unreachable" in of(findings(site, fails=True), "Slack")[0][1]


@pytest.mark.parametrize(("seconds", "state"), [(3, "OK"), (90, "FAIL"), (-90, "FAIL")])
def test_doctor_finds_a_clock_that_is_off(seconds: int, state: str) -> None:
    now = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    theirs = format_datetime(datetime.fromtimestamp(now.timestamp() + seconds, UTC), usegmt=True)
    assert [finding.state for finding in skew({"Date": theirs}, now)] == [state]


# ── mail ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Mailbox:
    """An SMTP handler that keeps the mails."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        self.mails.append(envelope)
        return "250 OK"


@pytest.fixture
def relay() -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=0, ready_timeout=20)
    controller.port = _free_port()
    controller.start()
    try:
        yield mailbox, controller.port
    finally:
        controller.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def with_mail(site: Site, port: int, sender: str = "Approvals <bot@acme.eu>") -> None:
    table = f'[email]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "{sender}"\n'
    site.write("config.toml", site.config.read_text().replace("[people.", f"{table}[people.", 1))


def test_doctor_checks_the_relay_and_prints_dns_records(site: Site, relay: tuple[Mailbox, int]) -> None:
    mailbox, port = relay
    with_mail(site, port)
    site.write("workflows/leave.toml", LEAVE.replace("[clock]", "[deliver]\nemail = true\n[clock]"))
    report = site.type("doctor").stdout
    assert f"OK    ✅ mail: 127.0.0.1:{port} answers, unencrypted, on this machine, no login" in report
    for record in ('acme.eu.                     TXT  "v=spf1', "._domainkey.acme.eu.", "_dmarc.acme.eu."):
        assert record in report
    assert "people of leave: 3 can be reached (mail)" in report
    assert mailbox.mails == []


def test_doctor_sends_a_test_mail_to_the_given_address(site: Site, relay: tuple[Mailbox, int]) -> None:
    mailbox, port = relay
    with_mail(site, port)
    assert of(findings(site, "--send", "ann@acme.eu"), "test mail")[0][0] == "OK"
    (mail,) = mailbox.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("bot@acme.eu", ["ann@acme.eu"])
    assert b"Auto-Submitted: auto-generated" in mail.content
    assert of(findings(site, "--send", "ann@acme.eu\nBcc: eve@x.eu", fails=True), "test mail")[0][0] == "FAIL"
    assert len(mailbox.mails) == 1


def test_doctor_finds_an_unreachable_relay_and_a_fake_sender(site: Site) -> None:
    with_mail(site, 9, "Approvals <bot@example.com>")
    found = findings(site, "--send", "ann@acme.eu", fails=True)
    assert of(found, "mail")[0][0] == "FAIL"
    assert of(found, "sender") == [("WARN", "example.com is an example domain")]


def test_doctor_finds_a_live_group_that_is_down(site: Site) -> None:
    more = 'far = { http = "hr" }\n[http.hr]\nurl = "http://127.0.0.1:9"\n'
    site.write("config.toml", site.config.read_text() + more)
    site.write("workflows/leave.toml", LEAVE.replace('from = ["@managers"]', 'from = ["@far"]'))
    assert of(findings(site, fails=True), "people of leave")[0][0] == "FAIL"


def test_doctor_prints_everything_as_json(site: Site) -> None:
    found = json.loads(site.type("doctor", "--json").stdout)["findings"]
    assert all(set(each) == {"state", "about", "what", "todo", "text"} for each in found)


@pytest.mark.check(37)
@pytest.mark.parametrize(("refusal", "state"), [("", "OK"), ("invalid_auth", "FAIL")])
def test_doctor_checks_the_app_token_of_socket_mode(site: Site, slack: Slack, refusal: str, state: str) -> None:
    with_slack(site, slack, 'app_token = "file:token"\n')
    slack.app_error = refusal
    ((found, what),) = of(findings(site, fails=bool(refusal)), "Slack Socket Mode")
    assert found == state
    assert refusal in what
    assert "xoxb-secret" not in what


def test_doctor_finds_delegates_that_lead_nowhere(site: Site) -> None:
    away = '\n[[people."{0}@acme.eu".away]]\nfrom = "2026-01-01"\nuntil = "2099-12-31"\ndelegate = "{1}@acme.eu"\n'
    text = site.config.read_text()
    site.write("config.toml", text + away.format("ann", "bo"))
    assert of(findings(site), "absence of ann@acme.eu") == []
    site.write("config.toml", text + away.format("ann", "bo") + away.format("bo", "ann"))
    [(state, what)] = of(findings(site), "absence of ann@acme.eu")
    assert state == "WARN"
    assert "the delegates form a circle (ann@acme.eu → bo@acme.eu → ann@acme.eu)" in what


def test_doctor_names_sources_with_bad_entries_and_unknown_delegates(site: Site) -> None:
    away = '\n[[people."ann@acme.eu".away]]\nfrom = "2026-01-01"\nuntil = "2099-12-31"\ndelegate = "zoe@acme.eu"\n'
    text = site.config.read_text().replace("[groups]\n", '[groups]\nlive = { file = "live.json" }\n')
    site.write("config.toml", text + away)
    site.write("live.json", '{"people": ["Ann+x@ACME.eu", "bo@acme", 5]}')
    found = findings(site)
    assert of(found, "people of live.json") == [("WARN", "2 of its entries aren't email addresses")]
    assert ("WARN", "nobody knows zoe@acme.eu") in of(found, "absence of ann@acme.eu")


def test_doctor_names_two_services_of_one_installation(site: Site) -> None:
    async def announce() -> None:
        store = await connect(f"sqlite:///{site.config.parent / 'approvals.db'}")
        now = datetime.now(UTC)
        for name, digest in (("first", "a" * 16), ("second", "b" * 16)):
            await store.announce(ReplicaRow(name, "0.1.0", now, now, 1, ("k1",), "k1", digest))
        await store.close()

    asyncio.run(announce())
    ((state, what),) = of(findings(site), "replicas")
    assert state == "WARN"
    assert what.endswith("different configurations: first (version 0.1.0), second (version 0.1.0)")
