"""A few of many: who was picked is named, and the others read why they can't vote."""

from __future__ import annotations

import html
import re
from typing import Any

from approvals_bot.approvals.picks import Picks
from approvals_bot.approvals.policy import pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from approvals_bot.service.picks import StoredPicks
from tests.web.test_decisions import deploy, open_request, press

NAMES = {"ann@acme.eu": "Ann Ode", "bo@acme.eu": "Bo Lund", "cy@acme.eu": "Cy Rus"}


async def test_only_who_was_picked_votes_on_the_page(service: Any) -> None:
    service.engine.resources[Picks] = StoredPicks(service.engine)
    definition = deploy(stage=[{"id": "go", "from": ["@release-managers"], "pick": 1}])
    service.workflows["deploy"] = Listed(approval.under("deploy", pinned(definition)), definition)
    run_id = await open_request(service, requester="di@acme.eu")
    (seat,) = (await service.view(run_id))["stages"][0]["seats"]
    (picked,) = seat["eligible"]
    others = [one for one in NAMES if one != picked]
    path = await service.link(run_id, picked)
    page = html.unescape(re.sub("<[^>]*>", "", (await service.web.get(path)).text))
    assert "You're an approver because you're in Release managers, and picked for this request." in page
    assert f"Waiting for {NAMES[picked]}." in page
    answer = await service.api.post(f"/api/runs/{run_id}/votes", json={"by": others[0], "choice": "approve"})
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "Others were picked to decide this request. Nothing was changed.",
    )
    await press(service, path, "approve")
    assert (await service.run(run_id))["result"]["by"] == picked
