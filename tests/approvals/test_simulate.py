"""A simulation says who is asked and who isn't, what is skipped, and whom each escalation reaches."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime
from typing import Any

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.cli.show import simulated
from approvals_bot.people import Directory, People, Person
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings

ANN, BO, CY, DI, ED, FAY = (f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "ed", "fay"))
NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
FILE = """
[workflow]
id = "pay"
title = "Pay"
request = ["*"]
[fields]
amount = "integer"
author = { type = "email", label = "Author" }
[policy]
exclude = ["field:author"]
[[stage]]
id = "small"
when = "amount < 10"
from = ["@core"]
[[stage]]
id = "go"
  [[stage.seat]]
  from = ["@core"]
  need = "50%"
  [[stage.seat]]
  from = ["@board"]
  when = "amount > 1000"
  [stage.veto]
  from = ["@board"]
[deliver]
dm = true
email = "after 10m"
[clock]
deadline = "4h"
[[escalate]]
after = "1h"
to = ["oncall:desk"]
[[escalate]]
after = "2h"
to = ["manager-of:approver"]
mode = "replace"
"""


def people(**away: list[Absence]) -> People:
    return People(
        [Person(ANN, "Ann Ode"), Person(BO, "Bo Lund")],
        {"core": [ANN, BO, CY, DI], "board": [FAY]},
        Directory({"desk": [ED]}),
        away={f"{name}@acme.eu": planned for name, planned in away.items()},
        managers={CY: FAY, DI: FAY},
    )


async def play(amount: int = 50, file: str = FILE, who: People | None = None, **more: bool) -> dict[str, Any]:
    definition = Definition.model_validate(tomllib.loads(file))
    opening = Opening({"amount": amount, "author": ANN}, BO)
    return await simulate(definition, opening, who or people(), NOW, **more)


async def test_a_stage_says_what_it_needs_and_who_cannot_decide() -> None:
    small, go = (await play())["stages"]
    assert (small["state"], small["because"]) == ("skipped", "the amount is 50 (10 or more)")
    assert go["seats"] == [{"label": "Core", "need": 1, "of": 2, "share": "50%"}]
    assert go["skipped_seats"] == [{"label": "Board", "because": "the amount is 50 (1,000 or less)"}]
    assert (go["veto"]["label"], go["veto"]["need"], go["veto"]["of"]) == ("Board", 1, 1)
    assert go["left_out"] == [{"person": BO, "why": "the requester"}, {"person": ANN, "why": "excluded as Author"}]


async def test_each_escalation_says_whom_it_reaches_and_when() -> None:
    first, second = (await play())["stages"][1]["escalations"]
    assert (first["at"], first["mode"], [one["person"] for one in first["who"]]) == (
        "2026-11-30T10:00:00Z",
        "add",
        [ED],
    )
    assert first["who"][0] == {"person": ED, "why": "on call for desk", "via": "dm"}
    assert (second["mode"], [one["person"] for one in second["who"]]) == ("replace", [FAY])


async def test_an_escalation_at_the_deadline_is_shown_then() -> None:
    late = FILE.replace('deadline = "4h"', 'deadline = "90m"\non_deadline = "escalate"')
    stages = (await play(file=late))["stages"]
    assert [each["at"] for each in stages[1]["escalations"]] == ["2026-11-30T10:00:00Z", "2026-11-30T10:30:00Z"]


async def test_absences_are_shown_with_their_delegates() -> None:
    who = people(cy=[Absence(date(2026, 11, 28), date(2026, 12, 3), (ED,))])
    who.own.by_address[DI] = OwnSettings(away=(Absence(date(2026, 11, 30), date(2026, 11, 30)),))
    found = await play(who=who)
    assert found["stages"][1]["away"] == [
        {"person": CY, "back": "2026-12-04", "delegate": ED, "trouble": ""},
        {"person": DI, "back": "2026-12-01", "delegate": None, "trouble": ""},
    ]
    assert [one["person"] for one in found["who"]] == [ED, DI, FAY]


async def test_without_slack_direct_messages_are_mails() -> None:
    assert {one["via"] for one in (await play())["who"]} == {"dm, mail after 10m"}
    assert {one["via"] for one in (await play(has_slack=False))["who"]} == {"mail, mail after 10m"}


async def test_what_nobody_covers_shows_every_stage_as_skipped() -> None:
    file = FILE.replace('id = "go"\n', 'id = "go"\nwhen = "amount > 99"\n')
    found = await play(file=file)
    assert [stage["state"] for stage in found["stages"]] == ["skipped", "skipped"]
    assert found["problems"][0].startswith("no stage applies to this request")
    decided = await play(file=file.replace("[policy]", '[policy]\nwhen_nobody = "reject"'))
    assert (decided["auto"]["rule"], len(decided["stages"]), decided["problems"]) == (0, 2, [])


async def test_a_grant_without_a_length_would_be_refused() -> None:
    call = '{ http = "x" }'
    file = f'{FILE}\n[grant]\nlasts = "{{{{ amount }}}}h"\nmax = "8h"\ngive = {call}\ntake = {call}\n'
    assert (await play(8, file=file))["problems"] == []
    (problem,) = (await play(9, file=file))["problems"]
    assert problem == "amount is 9h, and a grant lasts at most 8h here"


async def test_a_stage_without_people_says_nobody() -> None:
    file = FILE.replace('from = ["@core"]\n  need = "50%"', 'from = ["manager-of:requester"]')
    text = simulated("pay", await play(file=file.replace('  [stage.veto]\n  from = ["@board"]\n', "")), NOW)
    _, _, asked = text.partition("(1 of 0, the manager of Bo Lund)")
    assert asked.splitlines()[1] == "  nobody"


async def test_the_text_of_a_simulation_has_it_all() -> None:
    text = simulated("pay", await play(), NOW)
    for line in (
        "Stage small is skipped",
        "Approvers of stage go (1 of 2 (50%), Core)",
        "Only Board can reject (1 of 1).",
        "Can't decide: bo@acme.eu, the requester.",
        "Can't decide: ann@acme.eu, excluded as Author.",
        "Not needed: Board, because the amount is 50 (1,000 or less).",
        "Asked in 1 hour, besides those before (oncall:desk)",
        "Asked in 2 hours, instead of those before (manager-of:approver)",
    ):
        assert line in text, line
