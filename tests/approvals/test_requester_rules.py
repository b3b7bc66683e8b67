"""Rules about the requester: who they are decides what is asked, and what they may request."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals.conditions import Condition, ConditionError
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import with_groups
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.open import open_run
from approvals_bot.service.refusals import OpeningRefused
from tests.approvals.conftest import ANN, BO, CY, DI, OpenedRequest

ACCESS = """
[workflow]
id = "access"
title = "Access"
[fields]
env = { type = "enum", values = ["dev", "prod"] }
[[request]]
from = ["@sre", "app:ci"]
[[request]]
from = ["*"]
when = 'env == "dev"'
[[auto]]
when = 'requester.in("@sre") and env == "dev"'
decision = "approve"
[[stage]]
id = "app"
when = 'requester.is_app'
from = ["ann@acme.eu"]
[[stage]]
id = "own"
when = 'requester.email == "di@acme.eu"'
from = ["bo@acme.eu"]
[[stage]]
id = "go"
when = 'not requester.in("@sre", "@finance")'
from = ["cy@acme.eu"]
[[stage]]
id = "all"
from = ["@release-managers"]
"""


def file(text: str = ACCESS) -> Definition:
    return Definition.model_validate(tomllib.loads(text), context={})


async def asked(office: Any, requester: str, env: str) -> Any:
    """Simulate it. Returns the stages, or the rule that decides, or the problem."""
    said = await simulate(file(), Opening({"env": env}, requester), office.people, office.clock.now())
    if said["problems"]:
        return said["problems"][0]
    return said["auto"]["decision"] if said["auto"] else {one["stage"] for one in said["who"]}


async def test_rules_ask_who_the_requester_is(office: Any) -> None:
    assert await asked(office, DI, "dev") == "approve"
    assert await asked(office, DI, "prod") == {"own", "all"}
    assert await asked(office, BO, "prod") == {"all"}
    assert await asked(office, ANN, "dev") == {"go", "all"}
    assert await asked(office, "app:ci", "prod") == {"app", "go", "all"}
    assert "can't request these values" in await asked(office, ANN, "prod")
    assert "can't request these values" in await asked(office, "app:other", "dev")


async def test_what_was_known_of_the_requester_stays(office: Any) -> None:
    """A group that changes afterwards doesn't change which stages a request has."""
    definition = file(ACCESS.replace("@sre", "@live"))
    opening = await with_groups(definition, Opening({"env": "dev"}, ANN), office.people)
    assert opening.groups == ("*",)
    assert (await with_groups(definition, Opening({"env": "dev"}, BO), office.people)).groups == ("@live", "*")
    async with office.open():
        run = await office.engine.start(approval.under(definition.id, pinned(definition)), opening)
        await office.settle()
        opened = OpenedRequest(office, run)
        office.live.people.append(ANN)
        view = await opened.view()
        assert view.stage is not None
        assert (view.stage.id, view.stage.because) == ("go", "“the requester is in @live or @finance” is no")
        rule = next(rule for rule in explain(view)["rules"] if rule["rule"].startswith("stage go when"))
        assert rule["values"] == {"the requester is in @live or @finance": False}
        said = await opened.act(kind="edit", by=ANN, fields={"env": "prod"})
        assert said["text"] == "Its requester can't request these values. Nothing was changed."
        assert (await opened.view()).fields == {"env": "dev"}
        assert await opened.vote(CY) == "counted"


async def test_a_request_with_values_of_others_is_refused(office: Any) -> None:
    async with office.open():
        definition = file()
        listed = Listed(approval.under(definition.id, pinned(definition)), definition)
        for requester, env, code in ((ANN, "prod", "values_not_allowed"), ("app:x", "dev", "not_allowed")):
            with pytest.raises(OpeningRefused) as refused:
                await open_run(
                    engine=office.engine,
                    workflows=Catalog({"access": listed}),
                    people=office.people,
                    name="access",
                    input={"env": env},
                    opener=requester,
                )
            assert refused.value.code == code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("requester", "write requester.in("),
        ("requester == 'ann@acme.eu'", "write requester.in("),
        ("requester.in(@sre)", "write requester.in("),
        ("requester.name == 'Ann'", "write requester.in("),
        ("requester.is_app == 'x'", "can't be equal"),
    ],
)
def test_other_words_about_the_requester_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConditionError, match=message.replace("(", r"\(")):
        Condition(text, {"requester_is": FieldSpec(type="string")})


def test_the_word_inside_a_text_means_nothing() -> None:
    condition = Condition("x == 'requester.is_app'", {"x": FieldSpec(type="string")})
    assert (condition.about, condition.judge({"x": "requester.is_app"}).holds) == ({}, True)
