"""Personal links are made only for channels on which people decide with them."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import SecretStr

from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import Channel, Channels, Delivered, Dispatch, Receipt, Result, ToPerson, WithoutLinks
from approvals_bot.channels.slack.channel import make
from approvals_bot.config.service import Slack
from approvals_bot.people import Person

ASKED_AT = datetime(2026, 3, 2, tzinfo=UTC)
CARD = Card("run_1", "hook_1", "deploy", 1, "waiting", "Deploy", Name("", ""), ASKED_AT, "")


class Plain:
    """A channel that keeps its dispatches."""

    def __init__(self) -> None:
        self.given: list[Dispatch] = []

    async def send(self, dispatch: Dispatch) -> Result:
        self.given.append(dispatch)
        return Delivered(Receipt("there", "1"))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self.send(dispatch)


class Knowing(Plain):
    """A channel that identifies people itself."""

    without_links = True


async def test_a_channel_that_identifies_people_needs_no_link() -> None:
    made: list[str] = []

    async def link(hook_id: str, address: str) -> str:
        made.append(address)
        return f"https://approve.acme.eu/decisions/{hook_id}"

    knowing, plain = Knowing(), Plain()
    by_name: dict[str, Channel] = {"slack": knowing, "email": plain}
    channels = Channels(by_name, "https://approve.acme.eu", link)
    for name in by_name:
        dispatch = Dispatch("d1", ToPerson(name, Person(f"{name}@acme.eu", name)), CARD)
        await channels.send(dispatch, Receipt("there", "1"))
        await channels.send(dispatch)
    assert made == ["email@acme.eu"] * 2
    assert {each.link for each in knowing.given} == {""}
    assert {each.link for each in plain.given} == {"https://approve.acme.eu/decisions/hook_1"}
    assert {each.card.url for each in knowing.given} == {"https://approve.acme.eu/requests/run_1"}


def test_slack_identifies_people() -> None:
    assert isinstance(make(Slack(bot_token=SecretStr("xoxb-1"), signing_secret=SecretStr("s" * 32))), WithoutLinks)
