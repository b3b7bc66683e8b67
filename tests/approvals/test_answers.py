"""What several approvers fill in is kept, by stage and person."""

from __future__ import annotations

from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.service.read import api_request
from tests.approvals.conftest import ANN, BO, CY

CHANGE = """
[workflow]
id = "change"
title = "Change"
request = ["*"]
[[stage]]
id = "go"
need = 2
from = ["@release-managers"]
ask = { ticket = { type = "string", label = "Ticket" }, tested = { type = "boolean", required = false } }
[[stage]]
id = "sre"
from = ["@sre"]
[[on.approved]]
http = "target"
json = { last = "{{ answer_of('go', 'ticket') }}", none = "{{ answer_of('go', 'tested') }}" }
"""


async def test_the_answers_of_every_approver_are_kept(office: Any) -> None:
    async with office.open():
        opened = await office.ask(CHANGE, {}, by=ANN.replace("ann", "req"))
        assert await opened.vote(ANN, answers={"ticket": "CR-ONE"}) == "counted"
        assert await opened.vote(BO, answers={"ticket": "CR-TWO", "tested": False}) == "counted"
        view = await opened.view()
        assert [vote["answers"]["ticket"] for vote in api_request(view)["votes"]] == ["CR-ONE", "CR-TWO"]
        shown = [card_text.vote(vote) for vote in card_of(view, None, office.clock.now()).votes]
        assert shown[0].endswith("via the API, Ticket: CR-ONE")
        assert shown[1].endswith(", Ticket: CR-TWO, Tested: no")
        assert await opened.vote(CY) == "decided"
        given = {ANN: {"ticket": "CR-ONE", "tested": None}, BO: {"ticket": "CR-TWO", "tested": False}}
        assert (await opened.record()).result["answers"] == {"go": given}
        assert office.targets.calls[0][2] == {"last": "CR-TWO", "none": "false"}
