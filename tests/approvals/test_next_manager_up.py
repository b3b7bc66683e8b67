"""Managers of managers, as approvers and in escalations."""

from __future__ import annotations

from typing import Any

import pytest

from approvals_bot.people import ManagerOf, People, parse_address
from tests.approvals.conftest import ANN, BO, DI

UP = """
[workflow]
id = "up"
title = "Up"
request = ["*"]
[[stage]]
id = "next"
from = ["manager-of:manager-of:requester"]
[clock]
deadline = "4h"
[[escalate]]
after = "1h"
to = ["manager-of:manager-of:approver"]
"""


async def test_the_manager_of_the_manager_decides(office: Any) -> None:
    async with office.open():
        opened = await office.ask(UP, {}, by=DI)  # Bo manages Di, Ann manages Bo, Fay manages Ann
        view = await opened.view()
        assert view.waiting_for == (ANN,)
        assert view.stages[0].seats[0].label == "the manager of the manager of Di Ops"
        assert view.stages[0].seats[0].eligible == {ANN: "the manager of Bo Lund"}
        assert await opened.vote(BO) == "not_an_approver"
        assert await opened.vote(ANN) == "decided"


async def test_managers_in_a_circle_are_nobody() -> None:
    people = People(managers={ANN: BO, BO: ANN})
    found = await people.resolve("manager-of:manager-of:requester", requester=BO)
    assert (found.persons, found.why) == ((), "bo is below their own manager")


def test_an_address_has_at_most_ten_managers() -> None:
    assert parse_address("manager-of:" * 10 + "requester") == ManagerOf("requester", 10)
    with pytest.raises(ValueError, match="write manager-of:requester"):
        parse_address("manager-of:" * 11 + "requester")
