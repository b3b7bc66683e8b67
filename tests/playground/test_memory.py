"""The fakes show the same after a restart, and people continue where they were."""

from __future__ import annotations

import smtplib
import sqlite3
from asyncio import to_thread
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.playground import Playground, SeedApp
from approvals_bot.playground.memory import MemoryUnreadableError

StartRig = Callable[..., Awaitable[Any]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "playground" / "memory.db"


async def everything(rig: Any) -> tuple[Any, ...]:
    paths = ("/slack/messages", "/mail/messages", "/http/requests", "/slack/groups")
    return tuple([await rig.call(path) for path in paths])


async def test_messages_mails_calls_and_groups_survive_a_restart(start_rig: StartRig, file: Path) -> None:
    before = await start_rig(memory=file, target_secrets={"deploys": "s" * 32})
    kept = await before.card()
    gone = await before.card()
    await before.client.chat_update(channel="C0DEPLOYS", ts=kept, text="Decided, by Ann \N{WHITE HEAVY CHECK MARK}")
    await before.client.chat_delete(channel="C0DEPLOYS", ts=gone)
    await before.card("U0ANN", metadata={"event_type": "card", "event_payload": {"id": "h1"}})
    await before.client.chat_postEphemeral(channel="C0DEPLOYS", user="U0BO", text="You asked for this yourself.")
    await to_thread(mail, before.playground.smtp_port)
    await before.call("/http/deploys", {"version": "2.1"}, status=401)
    await before.call("/slack/groups", {"group": "@sre", "members": ["U0ANN"]})
    seen = await everything(before)
    assert [len(part) for part in seen] == [3, 1, 1, 1]

    after = await start_rig(memory=file, target_secrets={"deploys": "s" * 32})
    assert await everything(after) == seen


async def test_screens_survive_a_restart(start_rig: StartRig, file: Path) -> None:
    before = await start_rig(memory=file)
    ts = await before.card()
    opens_a_modal(before)
    pressed = await before.call("/slack/click", {"user": "U0ANN", "channel": "#deploys", "ts": ts, "button": "Reject"})

    after = await start_rig(memory=file)
    heard: list[Any] = []

    async def submitted(ack: Any, view: Any) -> None:
        heard.append(view["state"]["values"]["why"]["comment"]["value"])
        await ack()

    after.bolt.view("reason")(submitted)
    opens_a_modal(after)
    filled = {"user": "U0ANN", "view_id": pressed["view"]["id"], "values": {"why": {"comment": "too late"}}}
    assert (await after.call("/slack/submit", filled))["view"] is None
    assert heard == ["too late"]
    again = await after.call("/slack/click", {"user": "U0ANN", "channel": "#deploys", "ts": ts, "button": "Reject"})
    assert again["view"]["id"] != pressed["view"]["id"]


def opens_a_modal(rig: Any) -> None:
    async def reject(ack: Any, body: Any) -> None:
        await ack()
        await rig.client.views_open(trigger_id=body["trigger_id"], view=rig.modal)

    rig.bolt.action("reject")(reject)


async def test_ids_stay_unique_and_increase_across_a_restart(start_rig: StartRig, file: Path) -> None:
    times: list[str] = []
    numbers: list[int] = []
    for _ in range(3):
        rig = await start_rig(memory=file)
        times += [await rig.card() for _ in range(3)]
        numbers.append(next(rig.playground.workspace.numbers))
        times.append(await rig.card())
    assert times == sorted(set(times))
    assert numbers == sorted(set(numbers))


async def test_ids_increase_if_the_clock_goes_back(start_rig: StartRig, file: Path) -> None:
    before = await start_rig(memory=file)
    await before.call("/clock", {"advance": "60m"})
    early = await before.card()
    after = await start_rig(memory=file)
    assert early < await after.card()


async def test_answered_calls_are_written(start_rig: StartRig, file: Path) -> None:
    """A second reader sees the change at the moment of the response, while the first process is still open."""
    rig = await start_rig(memory=file)
    ts = await rig.card()
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT count(*) FROM kept WHERE kind = 'message' AND place LIKE ?", (f"% {ts}",)).fetchone()
        await to_thread(mail, rig.playground.smtp_port)
        assert db.execute("SELECT count(*) FROM kept WHERE kind = 'mail'").fetchone() == (1,)
    db.close()


async def test_channel_removed_from_the_configuration_is_forgotten(start_rig: StartRig, file: Path) -> None:
    before = await start_rig(memory=file)
    await before.card()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE kept SET value = replace(value, 'C0DEPLOYS', 'C0CLOSED') WHERE kind = 'message'")
    db.close()
    after = await start_rig(memory=file)
    assert await after.call("/slack/messages") == []


async def test_without_a_file_nothing_is_remembered(start_rig: StartRig) -> None:
    await (await start_rig()).card()
    assert await (await start_rig()).call("/slack/messages") == []


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be looked at" * 40, None])
async def test_damaged_file_is_named_with_what_to_do(start_rig: StartRig, file: Path, damage: bytes | None) -> None:
    if damage is not None:
        file.parent.mkdir()
        file.write_bytes(damage)
    else:
        await (await start_rig(memory=file)).card()
        with sqlite3.connect(file) as db:
            db.execute("""UPDATE kept SET value = '{"colour": "blue"}' WHERE kind = 'message'""")
        db.close()
    playground = Playground(app=SeedApp("", ""), people=(), base_url="", events_url="", memory=file)
    with pytest.raises(MemoryUnreadableError, match=r"--fresh") as caught:
        await playground.__aenter__()
    assert str(file) in str(caught.value)


def mail(port: int) -> None:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "approvals@acme.eu", "ann@acme.eu", "Deploy ü?"
    letter.set_content("Look here.")
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as relay:
        relay.send_message(letter)
