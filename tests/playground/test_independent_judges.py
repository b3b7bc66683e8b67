"""Slack's own JavaScript judges the fake Slack: a real Bolt app and web client, and the compiler with Slack's types.

A fake and a client that we both wrote would agree about anything. These tests need Node; without it they are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from approvals_bot.playground.slack.blocks import BLOCKS, check_blocks
from tests.support.slack_javascript import node_folder, refused_by_compiler

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig


@pytest.fixture(scope="module")
def node() -> Path:
    return node_folder()


# ── a real Bolt app ───────────────────────────────────────────────────────────────────────────────────────────────


class Lines:
    """Return the JSON values that the app printed, one per line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self.stream = process.stdout

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            line = await self.stream.readline()
        assert line, "the app has ended"
        said = json.loads(line)
        assert isinstance(said, dict)
        return said


@asynccontextmanager
async def bolt_for_javascript(rig: Rig, node: Path, port: int) -> AsyncIterator[Lines]:
    own = {
        "BOT_TOKEN": "xoxb-playground",
        "SIGNING_SECRET": rig.playground.outbound.signing_secret,
        "API_URL": rig.playground.api_url,
        "PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        "node", "app.mjs", cwd=node, env=os.environ | own, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Lines(process)
    finally:
        process.terminate()
        await process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        assert isinstance(port, int)
        return port


async def test_bolt_for_javascript_works_with_the_fake_slack(start_rig: StartRig, node: Path) -> None:
    port = free_port()
    rig = await start_rig(events_url=f"http://127.0.0.1:{port}/slack/events")
    async with bolt_for_javascript(rig, node, port) as lines:
        started = await lines.next()
        assert started == {
            "saw": "start",
            "ts": started["ts"],
            "metadata": {"delivery_id": "d1"},
            "user": "U0ANN",
            "members": ["U0BO", "U0CY"],
            "direct": "D0ANN",
            "refused": "channel_not_found",
        }
        click = {"user": "U0ANN", "channel": "#deploys", "ts": started["ts"]}

        opened = await rig.call("/slack/click", click | {"button": "Reject"})
        assert (await lines.next())["view"] == opened["view"]["id"]
        submit = {"user": "U0ANN", "view_id": opened["view"]["id"]}
        short = await rig.call("/slack/submit", submit | {"values": {"why": {"comment": "no"}}})
        assert short["errors"] == {"why": "Say a little more."}
        await rig.call("/slack/submit", submit | {"values": {"why": {"comment": "too risky"}}})
        assert await lines.next() == {"saw": "reason", "comment": "too risky"}

        outcome = await rig.call("/slack/click", click | {"button": "Approve"})
        assert await lines.next() == {"saw": "approve", "user": "U0ANN", "value": "hook_1", "ok": True}
        assert (outcome["seen"], outcome["ephemeral"]) == ("ok", "Counted.")
        shown = await rig.call("/slack/messages?user=U0BO")
        assert [message["text"] for message in shown] == ["Approved"]

        command = {"user": "U0ANN", "channel": "#deploys", "command": "/approve", "text": "deploy"}
        assert (await rig.call("/slack/command", command))["ephemeral"] == "You typed deploy"
        assert (await rig.call("/slack/home?user=U0ANN"))["text"] == "Waiting for you"
        assert await lines.next() == {"saw": "home", "ok": True}

        rig.playground.outbound.signing_secret = "another secret"
        refused = await rig.call("/slack/command", command)
        assert (refused["status"], refused["seen"]) == (401, "warning")


# ── Slack's types ─────────────────────────────────────────────────────────────────────────────────────────────────


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


OPTION = {"text": plain("A"), "value": "a"}
CONFIRM = {"title": plain("Sure?"), "text": plain("Really"), "confirm": plain("Yes"), "deny": plain("No")}
ELEMENTS: list[dict[str, Any]] = [
    {"type": "button", "text": plain("Go"), "action_id": "a1", "value": "v", "style": "primary", "confirm": CONFIRM},
    {"type": "static_select", "action_id": "a2", "placeholder": plain("…"), "options": [OPTION]},
    {"type": "multi_static_select", "action_id": "a3", "options": [OPTION], "initial_options": [OPTION]},
    {"type": "users_select", "action_id": "a4", "initial_user": "U0ANN"},
    {"type": "overflow", "action_id": "a5", "options": [OPTION]},
    {"type": "datepicker", "action_id": "a6", "initial_date": "2026-03-02"},
    {"type": "timepicker", "action_id": "a7", "initial_time": "10:42"},
    {"type": "checkboxes", "action_id": "a8", "options": [OPTION]},
    {"type": "radio_buttons", "action_id": "a9", "options": [OPTION], "initial_option": OPTION},
    {"type": "conversations_select", "action_id": "b1", "filter": {"include": ["public"]}},
    {"type": "datetimepicker", "action_id": "b2", "initial_date_time": 1_700_000_000},
]
INPUTS: list[dict[str, Any]] = [
    {"type": "plain_text_input", "action_id": "c1", "multiline": True, "max_length": 3000},
    {"type": "number_input", "action_id": "c2", "is_decimal_allowed": False, "min_value": "1"},
    {"type": "email_text_input", "action_id": "c3"},
    {"type": "url_text_input", "action_id": "c4"},
]
TEXT = {"type": "text", "text": "words", "style": {"bold": True}}
DATE = {"type": "date", "timestamp": 1_700_000_000, "format": "{date_short_pretty} at {time}", "fallback": "then"}
RICH = [TEXT, DATE, {"type": "link", "url": "https://a.eu", "text": "a"}, {"type": "user", "user_id": "U0ANN"}]
GOOD: list[dict[str, Any]] = [
    {"type": "header", "text": plain("Deploy"), "block_id": "h"},
    {"type": "section", "text": {"type": "mrkdwn", "text": "*x*", "verbatim": True}, "accessory": ELEMENTS[0]},
    {"type": "section", "fields": [plain("a"), plain("b")]},
    {"type": "divider"},
    {
        "type": "context",
        "elements": [plain("a"), {"type": "image", "image_url": "https://a.eu/i.png", "alt_text": "i"}],
    },
    {"type": "actions", "elements": ELEMENTS},
    *({"type": "input", "label": plain("Name"), "element": element, "optional": True} for element in INPUTS),
    {"type": "image", "image_url": "https://a.eu/i.png", "alt_text": "i"},
    {"type": "markdown", "text": "**x**"},
    {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]},
    {
        "type": "rich_text",
        "elements": [
            {"type": "rich_text_section", "elements": RICH},
            {
                "type": "rich_text_list",
                "style": "bullet",
                "elements": [{"type": "rich_text_section", "elements": RICH}],
            },
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "code"}]},
            {"type": "rich_text_quote", "elements": RICH},
        ],
    },
]
BAD: list[dict[str, Any]] = [
    {"type": "header", "text": {"type": "mrkdwn", "text": "x"}},
    {"type": "divider", "color": "red"},
    {"type": "actions", "elements": [{"type": "plain_text_input", "action_id": "x"}]},
    {"type": "actions", "elements": [{"type": "button", "text": plain("x"), "style": "huge"}]},
    {"type": "input", "label": plain("x"), "element": ELEMENTS[0]},
    {"type": "marquee"},
    {"type": "image", "image_url": "https://a.eu/i.png"},
    {
        "type": "rich_text",
        "elements": [{"type": "rich_text_section", "elements": [{"type": "broadcast", "range": "all"}]}],
    },
]


def test_slacks_types_and_our_rules_agree(node: Path) -> None:
    assert {block["type"] for block in GOOD} | {"context_actions"} == set(BLOCKS), "a block has no example here"
    assert [check_blocks([block], "message") for block in GOOD] == [[] for _ in GOOD]
    assert all(check_blocks([block], "message") for block in BAD)
    judged = {f"good {i}": ("KnownBlock[]", [block]) for i, block in enumerate(GOOD)}
    bad = {f"bad {i}": ("KnownBlock[]", [block]) for i, block in enumerate(BAD)}
    refused = refused_by_compiler(node, 'import type { KnownBlock } from "@slack/types";', judged | bad)
    assert refused.keys() == bad.keys(), refused
