"""Which copies to send, and what each needs next, decided from values alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.approvals.card_model import CardDelivery
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.notifications import (
    Copy,
    fallbacks,
    has_card,
    is_pointless,
    late_mails,
    next_act,
    requester_notifications,
    stage_notifications,
    to_remind,
)
from approvals_bot.approvals.port import Delivered, Destination, Place, Receipt, ToPerson, place_name
from approvals_bot.approvals.request import Request, RequestStage
from approvals_bot.people import Person

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ANN, BO, DI = (Person(f"{address}@acme.eu", address.title()) for address in ("ann", "bo", "di"))
DEPLOYS = Place("slack", "#deploys")
DELIVER = Deliver(slack="#deploys", dm=True)


def request(**changes: Any) -> Request:
    stage = RequestStage("go", state="open", notified=(ANN.address, BO.address))
    people = {person.address: person for person in (ANN, BO, DI)}
    made = Request(run_id="run_1", workflow="deploy", definition="d", requester=DI.address, asked_at=NOON)
    return made.but(stages=(stage,), people=people, **changes)


def copy(number: int, to: Destination, *, text: str = "") -> Copy:
    delivery = CardDelivery(place_name(to), to.channel, "sending")
    return Copy(number, to, "request", NOON + timedelta(hours=4), delivery, text)


def delivered(number: int, to: Destination) -> Copy:
    return copy(number, to).arrived(Delivered(Receipt(place_name(to), f"m{number}", version=1)))


def test_a_stage_goes_to_its_place_and_its_approvers() -> None:
    sent = [(one.to, one.occasion) for one in stage_notifications(request(), DELIVER, [], "request")]
    ways = (DEPLOYS, ToPerson("slack", ANN), ToPerson("slack", BO))
    assert sent == [(way, "request") for way in ways]


def test_people_found_later_get_only_their_own_cards() -> None:
    sent = stage_notifications(request(), DELIVER, [], "request", (ANN.address,))
    assert [one.to for one in sent] == [ToPerson("slack", BO)]


def test_a_change_sends_cards_only_to_people_without_one() -> None:
    copies = [delivered(1, ToPerson("slack", ANN)), copy(2, ToPerson("slack", BO)).failed("no such user")]
    assert (has_card(copies, ANN.address), has_card(copies, BO.address)) == (True, False)
    sent = stage_notifications(request(), DELIVER, [*copies, delivered(3, DEPLOYS)], "change")
    assert [one.to for one in sent] == [ToPerson("slack", BO)]


def test_a_change_that_leads_to_another_channel_sends_a_card_there() -> None:
    copies = [delivered(1, ToPerson("slack", ANN)), delivered(2, ToPerson("slack", BO))]
    sent = stage_notifications(request(), DELIVER, [*copies, delivered(3, Place("slack", "#tests"))], "change")
    assert [one.to for one in sent] == [DEPLOYS]


def test_delayed_mails_skip_people_who_have_one() -> None:
    sent = late_mails(request(), [delivered(1, ToPerson("email", ANN))])
    assert [(one.to, one.occasion) for one in sent] == [(ToPerson("email", BO), "request")]


@pytest.mark.parametrize(("occasion", "is_sent"), [("outcome", False), ("change", True)])
def test_a_requester_with_a_card_gets_the_outcome_there(occasion: Any, is_sent: bool) -> None:
    copies = [delivered(1, ToPerson("slack", DI))]
    assert [one.to for one in requester_notifications(request(), DELIVER, copies, occasion)] == (
        [ToPerson("slack", DI)] if is_sent else []
    )
    assert [one.to for one in requester_notifications(request(), DELIVER, [], occasion)] == [ToPerson("slack", DI)]


def test_reminders_go_once_to_each_person_and_place() -> None:
    place, mail, dm = delivered(1, DEPLOYS), delivered(2, ToPerson("email", ANN)), delivered(3, ToPerson("slack", ANN))
    copies = [place, mail, dm, delivered(4, ToPerson("slack", BO)), copy(5, ToPerson("email", BO))]
    assert to_remind(copies, [ANN.address]) == [place, dm]
    assert to_remind(copies, []) == []


def test_a_card_refused_by_a_place_goes_to_its_people() -> None:
    copies = [copy(1, DEPLOYS), delivered(2, ToPerson("slack", ANN))]
    assert list(fallbacks(copies[0], request(), copies)) == [ToPerson("slack", BO)]
    assert list(fallbacks(copies[1], request(), copies)) == [ToPerson("email", ANN)]
    assert list(fallbacks(copy(3, DEPLOYS, text="done"), request(), copies)) == []


def test_messages_are_edited_and_mails_get_a_follow_up_mail() -> None:
    message, mail = delivered(1, DEPLOYS), replace(delivered(2, ToPerson("email", ANN)), due=("outcome",))
    assert next_act(message, 2, is_closed=False) == "edit"
    assert next_act(message, 1, is_closed=False) == "wait"
    assert next_act(replace(message, is_editable=False), 2, is_closed=True) == "end"
    assert next_act(mail, 2, is_closed=True) == "send"
    assert next_act(copy(3, DEPLOYS, text="done"), 2, is_closed=False) == "end"


def test_after_the_decision_only_lost_cards_are_retried() -> None:
    message = copy(1, DEPLOYS)
    tried = replace(message, delivery=replace(message.delivery, attempts=1))
    assert is_pointless(message, "request", is_closed=True)
    assert not is_pointless(tried, "request", is_closed=True)
    assert is_pointless(delivered(2, DEPLOYS), "reminder", is_closed=True)
    assert not is_pointless(delivered(2, DEPLOYS), "outcome", is_closed=True)
    assert not is_pointless(message, "request", is_closed=False)


def test_a_delivered_card_stays_delivered_if_a_reply_fails() -> None:
    assert delivered(1, DEPLOYS).failed("gone").delivery.state == "delivered"
    assert copy(1, DEPLOYS).failed("gone").delivery.state == "not_delivered"
