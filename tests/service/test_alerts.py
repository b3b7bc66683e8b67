"""Alerts: sent once and once more when it is over, by one of several replicas, and not at night."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.config.monitoring import AlertsTable, QuietHours
from approvals_bot.people import People, Person
from approvals_bot.service.alerts import AlertPlan, Alerts, confirmed, plan_alerts, words_of
from approvals_bot.service.troubles import LastingTrouble, Troubles
from tests.support.posting import a_kept_port
from tests.support.staffed_house import a_staffed_house

BEGIN = datetime(2026, 3, 2, 20, 0, tzinfo=UTC)
DI, CY = Person("di@acme.eu", "Di Oz"), Person("cy@acme.eu", "Cy Ek", zone="Pacific/Auckland")
DOWN = LastingTrouble("channel email", "channel_down", "the relay takes no mail", "Mend it", BEGIN, BEGIN)
NIGHT = QuietHours(time(22), time(7))


def plan(state: Any, minutes: float, *troubles: LastingTrouble, quiet: QuietHours | None = None) -> AlertPlan:
    now = BEGIN + timedelta(minutes=minutes)
    return plan_alerts(state, troubles, [DI, CY], now, timedelta(minutes=5), quiet)


def sent(
    state: Any, minutes: float, *troubles: LastingTrouble, quiet: QuietHours | None = None
) -> tuple[Any, list[str]]:
    """Plan, and confirm all that is to be sent."""
    found = plan(state, minutes, *troubles, quiet=quiet)
    state = state if found.state is None else found.state
    for alert in found.alerts:
        state = confirmed(state, [alert])
    return state, [f"{alert.address} {'over' if alert.is_over else 'begun'}" for alert in found.alerts]


def test_what_lasts_is_sent_once_and_once_when_it_is_over() -> None:
    state: Any = {}
    messages_then = []
    for minutes in (0, 2, 4.75, 5, 5.25, 30, 60):
        state, messages = sent(state, minutes, DOWN)
        messages_then.append(messages)
    for minutes in (60.5, 61, 61.5):
        state, messages = sent(state, minutes)
        messages_then.append(messages)
    begun, over = ["di@acme.eu begun", "cy@acme.eu begun"], ["di@acme.eu over", "cy@acme.eu over"]
    assert messages_then == [[], [], [], begun, [], [], [], [], over, []]
    assert state == {}


def test_what_begins_together_is_one_message_the_most_urgent_first() -> None:
    store = LastingTrouble("store", "store_lost", "the disk is full", "Free some space", BEGIN, BEGIN)
    alerts = [alert for alert in plan({}, 5, DOWN, store).alerts if alert.address == DI.address]
    now, page = BEGIN + timedelta(minutes=5), "https://approvals.acme.eu/operations"
    title, text = words_of(alerts, now, "Europe/Berlin", page)
    assert title == "Alert: 2 things at once"
    since = "Since Mon 2 Mar 2026, 21:00 in Berlin"
    assert text.splitlines() == [
        "Begin with the first one: others may follow from it.",
        "",
        f"1. {since}: the disk is full.",
        "What to do: Free some space.",
        "",
        f"2. {since}: the relay takes no mail.",
        "What to do: Mend it.",
        "",
        f"How everything is: {page}",
    ]
    over = words_of([replace(alerts[0], is_over=True)], now, "UTC", page)
    assert over == ("Resolved: the relay takes no mail", "Resolved after 5 minutes. It was: “the relay takes no mail.”")


def test_what_is_over_before_is_never_sent() -> None:
    state, _ = sent({}, 0, DOWN)
    assert sent(state, 7) == ({}, [])


def test_another_replica_sends_what_one_did_not_confirm() -> None:
    first = plan({}, 5, DOWN)
    assert first.state is not None
    assert len(first.alerts) == 2
    assert plan(first.state, 5.5, DOWN).alerts == ()
    assert [alert.id for alert in plan(first.state, 6.1, DOWN).alerts] == [alert.id for alert in first.alerts]


def test_nobody_is_disturbed_in_their_own_night() -> None:
    state, messages = sent({}, 130, DOWN, quiet=NIGHT)  # 22:10 for Di, 11:10 for Cy
    assert messages == ["cy@acme.eu begun"]
    state, messages = sent(state, 500, DOWN, quiet=NIGHT)
    assert messages == []
    assert sent(state, 661, DOWN, quiet=NIGHT)[1] == ["di@acme.eu begun"]  # 07:01


@pytest.mark.parametrize(("at", "quiet"), [("21:59", False), ("22:00", True), ("06:59", True), ("07:00", False)])
def test_quiet_hours_go_past_midnight(at: str, quiet: bool) -> None:
    table = AlertsTable.model_validate({"quiet": "22:00-07:00"})
    assert table.quiet.has(datetime.combine(BEGIN, time.fromisoformat(at))) is quiet


async def test_one_of_two_replicas_mails_once_each_way(tmp_path: Path) -> None:
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {}, port) as house:
            engine = house.service.engine
            table = AlertsTable.model_validate({"to": ["di@acme.eu"]})
            seen = [Troubles(engine.now), Troubles(engine.now)]
            pair = [Alerts(engine, troubles, lambda: table, is_first=lambda: True) for troubles in seen]

            async def look(minutes: int) -> list[str]:
                before = len(house.mailbox.mails)
                for _ in range(2 * minutes):
                    await house.clock.advance("30s")
                    for each in pair:
                        await each.send_due()
                return [mail.subject for mail in house.mailbox.mails[before:]]

            for troubles in seen:
                troubles.begin("stalled runs", "run_stalled", "2 runs wait for a fix of the code", "Deploy it")
            assert await look(10) == ["Alert: 2 runs wait for a fix of the code"]
            text = house.mailbox.mails[-1].text
            assert "2 runs wait for a fix of the code." in text
            assert "What to do: Deploy it." in text
            for troubles in seen:
                troubles.end("stalled runs", "run_resumed", "no run waits")
            assert await look(10) == ["Resolved: 2 runs wait for a fix of the code"]


async def test_alerts_find_somebody_while_a_group_is_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = tmp_path / "sre.json"
    listed.write_text('{"people": ["di@acme.eu"]}')
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {}, port, '[groups]\nsre = { file = "sre.json" }\n') as house:
            engine = house.service.engine
            table, troubles = AlertsTable.model_validate({"to": ["@sre"], "after": "1s"}), Troubles(engine.now)
            people = engine.resources[People]

            def a_task() -> Alerts:
                return Alerts(engine, troubles, lambda: table, is_first=lambda: True)

            async def reached(alerts: Alerts, key: str) -> set[str]:
                before = len(house.mailbox.mails)
                troubles.begin(key, "source_down", f"the source of {key} can't be read", "Mend it")
                for _ in range(2):
                    await alerts.send_due()
                    await house.clock.advance("30s")
                troubles.end(key, "source_back", "it can be read")
                return {each.to for each in house.mailbox.mails[before:] if each.subject.startswith("Alert")}

            alerts = a_task()
            assert await reached(alerts, "one") == {"di@acme.eu"}
            listed.unlink()
            caplog.clear()
            assert await reached(alerts, "two") == {"di@acme.eu"}
            people.admins = ("@sre", "cy@acme.eu")
            assert await reached(a_task(), "three") == {"cy@acme.eu"}
            people.admins = ()
            assert await reached(a_task(), "four") == set()
    said = [each.message for each in caplog.records if "[alerts] to" in each.message]
    assert said == [
        "[alerts] to: @sre can't be read, so alerts go to those whom they gave last",
        "[alerts] to: @sre can't be read, so alerts go to the admins instead",
        "[alerts] to: @sre can't be read, so alerts go to nobody; name somebody by their address there, or in "
        "[server] admins",
    ]
