"""The pages for people, beyond a mail's link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import create_hook, sleep, step, workflow
from approvals_bot.durable.core.events import Event
from approvals_bot.service.catalog import Listed
from approvals_bot.service.history import Span, history_of
from approvals_bot.web.timeline import LABELS, MOST_LANES, draw

NASTY = "<script>alert(1)</script>\u202e \"'&amp; {{ 7*7 }}"

EXPENSE = Definition.model_validate(
    {
        "workflow": {"id": "expense", "title": "{{ purpose }}", "request": ["*"]},
        "fields": {"purpose": "string", "plan": {"type": "text", "view": "diff"}, "why": "text"},
        "stage": [
            {"id": "manager", "from": ["manager-of:requester"]},
            {
                "id": "finance",
                "from": ["@finance"],
                "outcomes": ["approve", "reject", "changes"],
                "ask": {
                    "code": {"type": "string", "pattern": "[A-Z]{2}"},
                    "paid": "boolean",
                    "share": {"type": "integer", "required": False},
                    "quarter": {"type": "enum", "values": ["Q1", "Q2"]},
                },
            },
        ],
        "clock": {"deadline": "2d"},
    }
)


@step
async def shout(word: str) -> str:
    return word.upper()


@workflow
async def nap() -> str:
    said = await shout("in")
    await create_hook()
    await sleep("1h")
    return said


@workflow
async def stumble() -> None:
    raise ValueError(NASTY)


@pytest.fixture
async def open_office(open_service: Any) -> AsyncIterator[Any]:
    """A service whose pages need no session, as on a machine of its own."""
    async with open_service(open_pages=True) as service:
        service.workflows["expense"] = Listed(approval.under("expense", pinned(EXPENSE)), EXPENSE)
        service.workflows[nap.name] = Listed(nap)
        service.workflows[stumble.name] = Listed(stumble)
        yield service


async def spend(service: Any, purpose: str = "Team offsite") -> str:
    fields = {"purpose": purpose, "plan": f"-old\n+{purpose}", "why": f"Because {purpose}."}
    run_id: str = await service.start("expense", fields, requester="bo@acme.eu")
    return run_id


class _Page(HTMLParser):
    """A page's open elements, checked for balance, and all of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in ("meta", "link", "input", "br", "hr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sound(answer: Any) -> str:
    """Check that the page is whole and has no style, handler, or script but ours. Returns its text."""
    page = _Page()
    page.feed(answer.text)
    assert page.open == []
    scripts = [value for name, value in page.attributes if name == "src"]
    assert scripts in ([], ["/static/live.js"], ["/static/keys.js"], ["/static/live.js", "/static/keys.js"])
    assert page.tags.count("script") == len(scripts)
    assert not {"style", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1
    assert page.tags.count("main") == 1
    text: str = answer.text
    return text


async def test_without_a_session_pages_say_only_how_to_get_in(service: Any) -> None:
    for path in ("/runs", "/runs/x", "/requests/x", "/inbox", "/inbox?person=ann@acme.eu"):
        page = await service.web.get(path)
        assert page.status_code == 401
        assert page.text == (await service.web.get("/runs")).text
        assert "You can't sign in here" in sound(page)
    assert (await service.web.get("/login")).status_code == 200


async def test_the_list_of_runs_shows_requests_and_other_runs(open_office: Any) -> None:
    request, napping = await spend(open_office), await open_office.start("nap")
    text = sound(await open_office.web.get("/runs"))
    assert f'<a href="/requests/{request}">Team offsite</a>' in text
    assert f'<a href="/runs/{napping}">nap</a>' in text
    assert "for Ann Ode</small>" in text
    assert "Team offsite" not in sound(await open_office.web.get("/runs?status=completed"))
    assert "Nothing matches." in sound(await open_office.web.get("/runs?status=failed"))
    wrong = await open_office.web.get("/runs?status=nonsense")
    assert wrong.status_code == 422
    assert "one of: cancelled, completed" in sound(wrong)


async def test_a_run_page_has_a_timeline_and_a_history(open_office: Any) -> None:
    run_id = await open_office.start("nap")
    text = sound(await open_office.web.get(f"/runs/{run_id}"))
    for words in (
        "Run started by app:desk.",
        "Ran “shout”",
        "A payload for the hook",
        "<svg",
        "Ran “shout”: in, under a second",
    ):
        assert words in text
    failed = await open_office.start("stumble")
    text = sound(await open_office.web.get(f"/runs/{failed}"))
    assert "&lt;script&gt;alert(1)" in text
    assert (await open_office.web.get("/runs/run_no")).status_code == 404


async def test_a_request_and_the_inbox_show_its_card(open_office: Any) -> None:
    run_id = await spend(open_office)
    text = sound(await open_office.web.get(f"/requests/{run_id}"))
    for words in ("Team offsite", "Requested by Bo Lund", "Manager", "Ann Ode", "due", '<span class="added">'):
        assert words in text
    assert "<form" not in text
    for tail in (".", ")", "/", "?utm_source=mail", "&utm_source=mail"):
        assert (await open_office.web.get(f"/requests/{run_id}{tail}")).status_code == 200, tail
        assert (await open_office.web.get(f"/runs/{run_id}{tail}")).status_code == 200, tail
    assert "1 request is waiting for ann@acme.eu" in sound(await open_office.web.get("/inbox?person=ann@acme.eu"))
    assert "bo@acme.eu is all caught up." in sound(await open_office.web.get("/inbox?person=bo@acme.eu"))
    assert "Whose inbox?" in sound(await open_office.web.get("/inbox"))
    napping = await open_office.start("nap")
    assert (await open_office.web.get(f"/requests/{napping}")).status_code == 404
    failed = await open_office.start("stumble")
    open_office.workflows["stumble"] = Listed(stumble, EXPENSE)  # as an approval that failed before its request
    led = await open_office.web.get(f"/requests/{failed}")
    assert (led.status_code, led.headers["location"]) == (303, f"/runs/{failed}")


async def test_what_people_typed_is_text_on_every_page(open_office: Any) -> None:
    run_id = await spend(open_office, NASTY)
    paths = [f"/requests/{run_id}", f"/runs/{run_id}", "/runs", "/inbox?person=ann@acme.eu", f"/inbox?person={NASTY}"]
    paths.append(await open_office.link(run_id, "ann@acme.eu"))
    for path in paths:
        text = sound(await open_office.web.get(path))
        assert "<script>" not in text
        assert "49" not in text or "7*7" in text
        assert "\u202e" not in text, "nobody reverses the text of the page"


async def test_an_approvers_form_has_a_field_for_all_that_is_asked(open_office: Any) -> None:
    run_id = await spend(open_office)
    path = await open_office.link(run_id, "ann@acme.eu")
    assert "approve.code" not in sound(await open_office.web.get(path))
    answer = await open_office.api.post(f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    assert answer.json()["text"] == "Counted: 1 of 1. Next: Finance."
    await open_office.engine.settle()
    path = await open_office.link(run_id, "cfo@acme.eu")
    text = sound(await open_office.web.get(path))
    for name in ("code", "paid", "share", "quarter"):
        assert f'name="approve.{name}"' in text
    token = text.partition('name="form_token" value="')[2].partition('"')[0]
    form = {"form_token": token, "choice": "approve", "approve.code": "eu", "approve.quarter": "Q1"}
    wrong = await open_office.web.post(path, data=form)
    assert wrong.status_code == 422
    assert 'value="eu"' in sound(wrong)
    done = await open_office.web.post(path, data=form | {"approve.code": "EU", "approve.share": "3"})
    assert done.status_code == 303, done.text
    await open_office.engine.settle()
    result = (await open_office.run(run_id))["result"]
    assert result["answers"]["finance"] == {"cfo@acme.eu": {"code": "EU", "paid": False, "share": 3, "quarter": "Q1"}}


# ── histories and their drawings ──

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def log(*events: tuple[Any, float, dict[str, Any]]) -> list[Event]:
    return [
        Event(seq, type, NOON + timedelta(seconds=at), data) for seq, (type, at, data) in enumerate(events, start=1)
    ]


def test_a_history_shows_durations_and_endings() -> None:
    history = history_of(
        log(
            ("run_created", 0, {}),
            ("run_started", 0, {}),
            ("step_created", 0, {"id": 1, "name": "send"}),
            ("step_retrying", 1, {"id": 1, "attempt": 1, "error": {"type": "OSError", "message": "no route"}}),
            ("step_failed", 2, {"id": 1, "error": {"type": "OSError", "message": "no route"}}),
            ("wait_created", 2, {"id": 2, "kind": "timeout", "resume_at": 0}),
            ("hook_created", 2, {"id": 3}),
            ("run_cancelled", 9, {"reason": "Not needed."}),
        )
    )
    assert [entry.text for entry in history.entries] == [
        "Run started.",
        "Attempt 1 of send failed; it will be tried again.",
        "send failed.",
        "Time limit until 01 Jan 1970, 00:00:00 UTC.",
        "Waiting for a call to a hook.",
        "Run cancelled.",
    ]
    assert [entry.detail for entry in history.entries][1::4] == ["OSError: no route", "Not needed."]
    assert [(s.label, s.ending, (s.end - s.start).total_seconds()) for s in history.spans if s.end] == [
        ("“send” failed", "failed", 2),
        ("Time limit until 1 Jan, 00:00 UTC", "cancelled", 7),
        ("hook", "cancelled", 7),
    ]
    assert history_of([]).entries == ()


def test_a_history_trusts_no_caller_about_who_acted() -> None:
    vote = '{"kind": "vote", "by": "ann@acme.eu", "choice": "take_back", "via": "slack"}'
    edit = '{"kind": "edit", "by": "bo@acme.eu", "fields": {}, "via": "api"}'
    said = '{"verdict": "counted", "text": "Counted: 1 of 2.", "changed": true}'
    history = history_of(
        log(
            ("hook_created", 0, {"id": 1, "answer": {}}),
            ("hook_received", 1, {"id": 1, "payload": {"url": "", "text": vote}}),
            ("hook_responded", 1, {"id": 1, "to": 2, "answer": {"text": said}}),
            ("hook_received", 2, {"id": 1, "payload": {"url": "", "text": edit}}),
            ("hook_received", 3, {"id": 1, "payload": {"url": "https://approve.acme.eu/webhooks/1", "text": vote}}),
            ("hook_received", 4, {"id": 1, "payload": {"url": "", "base64": "/w=="}}),
            ("hook_responded", 4, {"id": 1, "to": 6, "answer": {"text": ""}}),
        )
    )
    assert [entry.text for entry in history.entries][1:] == [
        "ann@acme.eu undid their vote via Slack.",
        "Reply: Counted: 1 of 2.",
        "bo@acme.eu edited the request via the API.",
        "The webhook was called.",
        "The webhook was called.",
        "The caller got its response.",
    ]


def test_a_drawing_keeps_order_and_stays_in_its_frame() -> None:
    weeks = timedelta(days=21)
    spans = (
        Span("step", "find", NOON, NOON + timedelta(milliseconds=3), "done"),
        Span("hook", "webhook", NOON + timedelta(milliseconds=3), NOON + weeks, "done"),
        Span("step", "call", NOON + weeks, None, "open"),
    )
    drawing = draw(spans, start=NOON, end=NOON + weeks + timedelta(seconds=1))
    starts = [bar.x for bar in drawing.bars]
    assert starts == sorted(starts)
    assert all(bar.x >= LABELS and bar.width >= 4 for bar in drawing.bars)
    assert all(bar.x + bar.width <= drawing.width for bar in drawing.bars)
    assert drawing.bars[1].words == "webhook, 21 days"
    many = draw(spans * 20, start=NOON, end=NOON + weeks)
    assert (len(many.bars), many.left_out) == (MOST_LANES, 60 - MOST_LANES)
    assert draw((), start=NOON, end=NOON).bars == ()
