"""Pages that were opened before a restore: those on what the restored log doesn't have count for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.store.backups import back_up, restore
from approvals_bot.service.catalog import Listed
from tests.support.whole_service import Opened
from tests.web.test_batch import boxes, sign_in, token_of
from tests.web.test_decisions import OURS, deploy, form_of, open_request, press

SAID = "as you were shown it"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    return str(request.getfixturevalue("postgres_url"))


async def test_a_page_of_a_lost_state_counts_for_nothing(open_service: Opened, store_url: str, tmp_path: Path) -> None:
    definition = deploy()
    listed = Listed(approval.under("restored-deploy", pinned(definition)), definition)
    async with open_service() as service:
        service.workflows["deploy"] = listed
        run = await open_request(service, requester="di@acme.eu")
        ann, bo, cy = [await service.link(run, f"{name}@acme.eu") for name in ("ann", "bo", "cy")]
        untouched = form_of(await service.web.get(bo), "approve")
        await back_up(store_url, tmp_path / "backup.db", lambda _: None)
        assert (await press(service, ann, "approve")).status_code == 303
        later = form_of(await service.web.get(bo), "approve")
        async with await sign_in(service, "bo@acme.eu") as browser:
            row = boxes((await browser.get("/inbox")).text)[run]
        lost = await service.link(await open_request(service), "bo@acme.eu")
        lost_form = form_of(await service.web.get(lost), "approve")
    await restore(tmp_path / "backup.db", store_url, lambda _: None, at=service.clock.now(), replace=True)

    async with open_service() as service:
        service.workflows["deploy"] = listed

        async def decide(path: str, form: dict[str, str]) -> Any:
            answer = await service.web.post(path, data=form, headers=OURS)
            await service.engine.settle()
            return answer

        async def voters() -> list[str]:
            return [vote["by"] for vote in (await service.run(run))["request"]["votes"]]

        refused = await decide(bo, later)
        assert (refused.status_code, SAID in refused.text, await voters()) == (409, True, [])
        (line,) = [each.entry for each in await service.engine.audit_lines() if each.entry.what == "act_refused"]
        assert line.data["verdict"] == "request_changed"
        gone = await decide(lost, lost_form)
        assert (gone.status_code, SAID in gone.text) == (409, True)
        assert (await service.web.get(lost)).status_code == 404

        await service.clock.advance("1m")
        assert (await press(service, cy, "approve")).status_code == 303
        assert (await decide(bo, later)).status_code == 409, "the version is the same, by another vote"
        async with await sign_in(service, "bo@acme.eu") as browser:
            form = {"form_token": token_of((await browser.get("/inbox")).text), "request": row, "choice": "approve"}
            sent = await browser.post("/inbox/votes", data=form)
            assert SAID in (await browser.get(sent.headers["location"])).text
        assert await voters() == ["cy@acme.eu"]
        assert (await decide(bo, untouched)).status_code == 303, "the restored log has what this page shows"
        assert (await service.run(run))["request"]["state"] == "approved"
