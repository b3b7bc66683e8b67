"""Pages say how a request ended, first and honestly."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed

ANN, BO, CY, DI, CFO = (f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "cfo"))
DEPLOY = Definition.model_validate(
    {
        "workflow": {"id": "deploy", "title": "Deploy {{ version }}", "request": ["*"]},
        "fields": {
            "version": {"type": "string", "pinned": True},
            "plan": {"type": "text", "view": "diff", "pinned": True},
            "why": "text",
        },
        "stage": [
            {"id": "managers", "from": ["@release-managers"], "need": 2},
            {"id": "finance", "from": ["@finance"]},
        ],
        "clock": {"deadline": "4h"},
        "on": {"rejected": [{"dm": "requester", "text": "It was rejected."}]},
    }
)
FIELDS = {"version": "2.1", "plan": "-a\n+b", "why": "The queue is long."}


@pytest.fixture
async def office(open_service: Any) -> AsyncIterator[Any]:
    """A service whose pages are open, with a workflow of two stages."""
    async with open_service(open_pages=True) as service:
        service.workflows["deploy"] = Listed(approval.under("deploy", pinned(DEPLOY)), DEPLOY)
        yield service


async def vote(service: Any, run_id: str, by: str, choice: str = "approve", comment: str = "") -> None:
    answer = await service.api.post(f"/api/runs/{run_id}/votes", json={"by": by, "choice": choice, "comment": comment})
    assert answer.status_code == 201, answer.text
    await service.engine.settle()


async def ended_as(service: Any, end: str) -> str:
    """A request that ended this way in its first stage, of which one of two votes was there."""
    run_id: str = await service.start("deploy", FIELDS, requester=DI)
    await vote(service, run_id, ANN)
    match end:
        case "rejected":
            await vote(service, run_id, BO, "reject", "The tests fail.")
        case "expired":
            await service.clock.advance("5h")
        case "withdrawn":
            body = {"by": DI, "reason": "Not needed."}
            assert (await service.api.post(f"/api/runs/{run_id}/cancellation", json=body)).status_code == 202
        case "cancelled":
            body = {"reason": "Cleaning up."}
            assert (await service.api.post(f"/api/runs/{run_id}/cancellation", json=body)).status_code == 202
    await service.engine.settle()
    return run_id


def main_of(page: Any) -> str:
    """The page's main part, as text with its tags taken out."""
    html = page.text.partition('<main id="main">')[2].partition("</main>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def stages_of(page: Any) -> list[str]:
    """The class of each stage in the row of steps."""
    return re.findall(r'<li class="(\w+)"', page.text.partition('<ol class="stages">')[2].partition("</ol>")[0])


@pytest.mark.parametrize(
    ("end", "state", "opening"),
    [
        ("rejected", "rejected", "⛔ Rejected by Bo Lund via the API, passed on by app desk Thu 1 Jan 2026"),
        ("expired", "expired", "⌛ Expired at the deadline Thu 1 Jan 2026"),
        ("withdrawn", "withdrawn", "✖ Withdrawn by Di Oz via the API, passed on by app desk Thu 1 Jan 2026"),
        ("cancelled", "cancelled", "✖ Cancelled by desk via the API Thu 1 Jan 2026"),
    ],
)
async def test_a_stage_that_fell_short_is_never_done(office: Any, end: str, state: str, opening: str) -> None:
    run_id = await ended_as(office, end)
    for path in (f"/requests/{run_id}", await office.link(run_id, ANN), await office.link(run_id, CY)):
        page = await office.web.get(path)
        assert stages_of(page) == [state, "ahead"]
        assert main_of(page).startswith(opening)
        assert "done" not in main_of(page)
        assert "not reached" in main_of(page)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("rejected", "The tests fail."),
        ("expired", "decided in time"),
        ("withdrawn", "Not needed."),
        ("cancelled", "Cleaning up."),
    ],
)
async def test_a_decided_page_says_why_above_the_fields(office: Any, end: str, why: str) -> None:
    run_id = await ended_as(office, end)
    text = main_of(await office.web.get(f"/requests/{run_id}"))
    assert text.count(why) == 1
    assert text.index(why) < text.index("Requested by Di Oz")


async def test_approved_is_said_once_apart_from_the_votes(office: Any) -> None:
    run_id = await office.start("deploy", FIELDS, requester=DI)
    for by in (ANN, BO):
        await vote(office, run_id, by)
    own = await office.link(run_id, CFO)
    await vote(office, run_id, CFO, comment="Within budget.")
    for path in (f"/requests/{run_id}", own, f"{own}?done=decided"):
        page = await office.web.get(path)
        text = main_of(page).partition("✅ Ann Ode approved")[0]
        assert text.removeprefix("Everyone involved has been notified. ").startswith(
            "✅ Approved by Fay Cash via the API"
        )
        assert text.lower().count("approved") == 1
        assert stages_of(page) == ["done", "done"]


async def test_follow_ups_are_named_with_their_result(office: Any) -> None:
    run_id = await ended_as(office, "rejected")
    text = main_of(await office.web.get(f"/requests/{run_id}"))
    assert "Follow-ups ⚠ Follow-up failed: message to di@acme.eu: slack is not configured here" in text


async def test_pinned_long_text_is_unfolded_and_the_rest_folded(office: Any) -> None:
    page = await office.web.get(f"/requests/{await office.start('deploy', FIELDS, requester=DI)}")
    assert re.findall(r"<details class=\"text\"( open)?>\s*<summary>(\w+)", page.text) == [
        (" open", "Plan"),
        ("", "Why"),
    ]
