"""The real `slack_sdk` client against the fake Slack's Web API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncConnectionErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from approvals_bot.playground.slack.api import ANSWERERS
from approvals_bot.playground.slack.calls import EXTRA_ERRORS, METHODS

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig


async def refused(call: Awaitable[Any]) -> dict[str, Any]:
    """Return the response to a call that Slack refuses."""
    with pytest.raises(SlackApiError) as caught:
        await call
    answer = caught.value.response.data
    assert isinstance(answer, dict)
    return answer


def test_every_published_method_is_answered_and_extras_are_few() -> None:
    assert set(METHODS) == set(ANSWERERS) | {"apps.connections.open"}
    assert sum(len(names) for names in EXTRA_ERRORS.values()) <= 3


async def test_auth_test_names_the_bot(rig: Rig) -> None:
    answer = await rig.client.auth_test()
    assert answer["user_id"] == "U0APPROVALS"
    assert answer["team_id"] == "T0PLAY"


async def test_message_goes_to_a_channel_by_name_and_by_id(rig: Rig) -> None:
    by_name = await rig.client.chat_postMessage(channel="#deploys", text="one")
    by_id = await rig.client.chat_postMessage(channel="C0DEPLOYS", text="two")
    assert by_name["channel"] == by_id["channel"] == "C0DEPLOYS"
    assert float(by_name["ts"]) < float(by_id["ts"])
    assert [m["text"] for m in await rig.call("/slack/messages")] == ["one", "two"]


async def test_message_to_a_persons_id_opens_the_direct_message(rig: Rig) -> None:
    answer = await rig.client.chat_postMessage(channel="U0ANN", text="hello")
    opened = await rig.client.conversations_open(users="U0ANN")
    assert answer["channel"] == opened["channel"]["id"] == "D0ANN"


async def test_ts_is_unique_and_increases_within_a_channel(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.client.chat_postMessage(channel="#deploys", text=str(i)) for i in range(20)))
    assert len({answer["ts"] for answer in answers}) == 20


@pytest.mark.parametrize(
    ("channel", "error"),
    [
        ("#nowhere", "channel_not_found"),
        ("#hidden", "channel_not_found"),
        ("#old", "is_archived"),
        ("U0NOBODY", "channel_not_found"),
        ("U0GONE", "channel_not_found"),
        ("U0ROBO", "cannot_dm_bot"),
    ],
)
async def test_refused_message_says_why(rig: Rig, channel: str, error: str) -> None:
    assert (await refused(rig.client.chat_postMessage(channel=channel, text="x")))["error"] == error


async def test_channel_without_the_bot_needs_the_public_scope(start_rig: StartRig) -> None:
    with_scope = await start_rig()
    await with_scope.client.chat_postMessage(channel="#uninvited", text="x")
    without = await start_rig(scopes=("chat:write",))
    assert (await refused(without.client.chat_postMessage(channel="#uninvited", text="x")))["error"] == "not_in_channel"


async def test_missing_scope_is_named(start_rig: StartRig) -> None:
    rig = await start_rig(scopes=("chat:write",))
    answer = await refused(rig.client.users_info(user="U0ANN"))
    assert answer["error"] == "missing_scope"
    assert (answer["needed"], answer["provided"]) == ("users:read", "chat:write")


@pytest.mark.parametrize(
    ("token", "error"), [("", "not_authed"), ("xoxb-other", "invalid_auth"), ("xoxb-dead", "token_revoked")]
)
async def test_wrong_token_is_refused(rig: Rig, token: str, error: str) -> None:
    rig.playground.web_api.dead_tokens["xoxb-dead"] = "token_revoked"
    other = AsyncWebClient(token, base_url=rig.playground.api_url)
    assert (await refused(other.auth_test()))["error"] == error


async def test_unknown_method_and_missing_argument_are_refused(rig: Rig) -> None:
    assert (await refused(rig.client.api_call("chat.shout")))["error"] == "unknown_method"
    answer = await refused(rig.client.api_call("chat.postMessage", json={"text": "x"}))
    assert answer["error"] == "invalid_arguments"
    assert answer["response_metadata"]["messages"] == ["[ERROR] missing required field: channel"]


async def test_message_needs_text_or_blocks(rig: Rig) -> None:
    assert (await refused(rig.client.api_call("chat.postMessage", json={"channel": "#deploys"})))["error"] == "no_text"


async def test_invalid_blocks_are_refused_with_a_pointer(rig: Rig) -> None:
    rig.card_blocks[1]["elements"][0]["text"]["text"] = "x" * 76
    answer = await refused(rig.client.chat_postMessage(channel="#deploys", text="x", blocks=rig.card_blocks))
    assert answer["error"] == "invalid_blocks"
    assert answer["response_metadata"]["messages"] == [
        "[ERROR] must be less than 76 characters [json-pointer:/blocks/1/elements/0/text/text]"
    ]


async def test_too_many_characters_in_total_are_refused(rig: Rig) -> None:
    section = {"type": "section", "text": {"type": "plain_text", "text": "x" * 3000}}
    answer = await refused(rig.client.chat_postMessage(channel="#deploys", text="x", blocks=[section] * 5))
    assert answer["error"] == "msg_blocks_too_long"


async def test_form_fields_may_contain_json(rig: Rig) -> None:
    form = {"token": "xoxb-playground", "channel": "C0DEPLOYS", "text": "form", "blocks": '[{"type": "divider"}]'}
    async with rig.http.post(f"{rig.playground.api_url}chat.postMessage", data=form) as response:
        answer = await response.json()
    assert answer["ok"]
    assert answer["message"]["blocks"][0]["type"] == "divider"
    form["blocks"] = "[{"
    async with rig.http.post(f"{rig.playground.api_url}chat.postMessage", data=form) as response:
        assert (await response.json())["error"] == "invalid_blocks_format"


async def test_update_without_blocks_drops_them_and_keeps_metadata(rig: Rig) -> None:
    about = {"event_type": "card", "event_payload": {"delivery_id": "d1"}}
    ts = await rig.card(metadata=about)
    await rig.client.chat_update(channel="C0DEPLOYS", ts=ts, text="done")
    history = await rig.client.conversations_history(channel="C0DEPLOYS", include_all_metadata=True)
    [message] = history["messages"]
    assert message["text"] == "done"
    assert "blocks" not in message
    assert message["metadata"] == about
    assert message["edited"]["user"] == "U0APPROVALS"


async def test_metadata_is_hidden_unless_requested(rig: Rig) -> None:
    await rig.card(metadata={"event_type": "card", "event_payload": {"delivery_id": "d1"}})
    history = await rig.client.conversations_history(channel="C0DEPLOYS")
    assert "metadata" not in history["messages"][0]


async def test_updates_of_missing_or_foreign_messages_are_refused(rig: Rig) -> None:
    ts = await rig.card()
    update = rig.client.chat_update
    assert (await refused(update(channel="C0DEPLOYS", ts="1.2", text="x")))["error"] == "message_not_found"
    assert (await refused(update(channel="U0ANN", ts=ts, text="x")))["error"] == "channel_not_found"
    space = rig.playground.workspace
    theirs = space.post("C0DEPLOYS", space.users["U0ANN"], "mine").ts
    assert (await refused(update(channel="C0DEPLOYS", ts=theirs, text="x")))["error"] == "cant_update_message"
    place = space.channels["C0DEPLOYS"]
    place.channel = replace(place.channel, archived=True)
    assert (await refused(update(channel="C0DEPLOYS", ts=ts, text="x")))["error"] == "is_inactive"


async def test_deleted_message_is_gone(rig: Rig) -> None:
    ts = await rig.card()
    await rig.client.chat_delete(channel="C0DEPLOYS", ts=ts)
    assert await rig.call("/slack/messages") == []
    assert (await refused(rig.client.chat_update(channel="C0DEPLOYS", ts=ts, text="x")))["error"] == "message_not_found"


async def test_reply_is_in_its_thread(rig: Rig) -> None:
    ts = await rig.card()
    await rig.client.chat_postMessage(channel="#deploys", thread_ts=ts, text="outcome")
    shown = await rig.call("/slack/messages")
    assert [(m["text"], m["thread_ts"]) for m in shown] == [("Deploy api 2.1?", None), ("outcome", ts)]
    stray = rig.client.chat_postMessage(channel="#deploys", thread_ts="1.2", text="x")
    assert (await refused(stray))["error"] == "cannot_reply_to_message"


async def test_ephemeral_message_is_for_one_member_only(rig: Rig) -> None:
    await rig.client.chat_postEphemeral(channel="C0DEPLOYS", user="U0ANN", text="psst")
    assert [m["ephemeral_to"] for m in await rig.call("/slack/messages")] == ["U0ANN"]
    assert await rig.call("/slack/messages?user=U0BO") == []
    outside = rig.client.chat_postEphemeral(channel="C0SECRET", user="U0BO", text="psst")
    assert (await refused(outside))["error"] == "user_not_in_channel"


async def test_people_are_found_by_address_but_not_strangers(rig: Rig) -> None:
    found = await rig.client.users_lookupByEmail(email="CY@acme.eu")
    assert found["user"]["id"] == "U0CY"
    for address in ("fin@acme.eu", "stella@other.example", "dora@acme.eu"):
        assert (await refused(rig.client.users_lookupByEmail(email=address)))["error"] == "users_not_found"


async def test_users_info_distinguishes_guests_strangers_and_bots(rig: Rig) -> None:
    async def user(one: str) -> dict[str, Any]:
        answer = await rig.client.users_info(user=one)
        found = answer["user"]
        assert isinstance(found, dict)
        return found

    assert (await user("U0ANN"))["tz"] == "Europe/Berlin"
    assert (await user("U0GUEST"))["is_restricted"] is True
    assert (await user("U0STRANGER"))["is_stranger"] is True
    assert (await user("U0STRANGER"))["team_id"] != "T0PLAY"
    assert (await user("U0GONE"))["deleted"] is True
    assert (await user("U0ROBO"))["is_bot"] is True
    assert (await refused(rig.client.users_info(user="U0X")))["error"] == "user_not_found"


async def test_addresses_are_shown_only_with_their_scope(start_rig: StartRig) -> None:
    rig = await start_rig(scopes=("users:read",))
    answer = await rig.client.users_info(user="U0ANN")
    assert "email" not in answer["user"]["profile"]


async def test_user_groups_are_listed_with_their_members(rig: Rig) -> None:
    groups = await rig.client.usergroups_list()
    [group] = groups["usergroups"]
    assert (group["handle"], group["id"]) == ("sre", "S0SRE")
    assert (await rig.client.usergroups_users_list(usergroup="S0SRE"))["users"] == ["U0BO", "U0CY"]
    assert (await refused(rig.client.usergroups_users_list(usergroup="S0X")))["error"] == "no_such_subteam"
    await rig.call("/slack/groups", {"group": "@sre", "members": ["ann@acme.eu"]})
    assert (await rig.client.usergroups_users_list(usergroup="S0SRE"))["users"] == ["U0ANN"]


async def test_lists_are_paged(rig: Rig) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        answer = await rig.client.users_list(limit=2, cursor=cursor)
        seen += [user["id"] for user in answer["members"]]
        cursor = answer["response_metadata"]["next_cursor"]
        if not cursor:
            break
    assert sorted(seen) == sorted(rig.playground.workspace.users)
    assert (await refused(rig.client.users_list(cursor="nonsense")))["error"] == "invalid_cursor"


async def test_permalink_team_info_and_channel_info_answer(rig: Rig) -> None:
    ts = await rig.card()
    link = await rig.client.chat_getPermalink(channel="C0DEPLOYS", message_ts=ts)
    assert link["permalink"].startswith(f"{rig.base_url}/playground/channels/C0DEPLOYS")
    assert (await rig.client.team_info())["team"]["name"] == "Acme"
    info = await rig.client.conversations_info(channel="C0DEPLOYS")
    assert info["channel"]["is_member"] is True
    members = await rig.client.conversations_members(channel="C0SECRET")
    assert set(members["members"]) == {"U0ANN", "U0APPROVALS"}


async def test_blocks_validate_needs_no_token_and_points_at_the_fault(rig: Rig) -> None:
    url = f"{rig.playground.api_url}blocks.validate"
    async with rig.http.post(url, json={"blocks": rig.card_blocks}) as response:
        assert await response.json() == {"ok": True}
    async with rig.http.post(url, json={"blocks": [{"type": "section", "text": {"type": "invalid"}}]}) as response:
        answer = await response.json()
    assert answer["error"] == "invalid_blocks"
    [error] = answer["errors"]
    assert error["pointer"] == "/0/text/type"
    assert error["message"] == "unsupported type: invalid"
    assert error["constraint"] == {"type": "enum", "expected": ["mrkdwn", "plain_text"]}


async def test_home_tab_is_published_with_a_hash(rig: Rig) -> None:
    home = {"type": "home", "blocks": [{"type": "divider"}]}
    first = await rig.client.views_publish(user_id="U0ANN", view=home)
    second = await rig.client.views_publish(user_id="U0ANN", view=home, hash=first["view"]["hash"])
    assert first["view"]["id"] == second["view"]["id"]
    stale = rig.client.views_publish(user_id="U0ANN", view=home, hash=first["view"]["hash"])
    assert (await refused(stale))["error"] == "hash_conflict"


# ── faults and limits ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_scripted_429_has_retry_after_and_ends(rig: Rig) -> None:
    await rig.call("/slack/faults", {"kind": "rate_limited", "method": "chat.postMessage", "retry_after": 7})
    with pytest.raises(SlackApiError) as caught:
        await rig.card()
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"
    await rig.card()


async def test_fault_hits_the_nth_call_to_a_channel_as_often_as_scripted(rig: Rig) -> None:
    fault = {"kind": "error", "error": "channel_not_found", "channel": "#deploys", "nth": 2, "times": 2}
    await rig.call("/slack/faults", {"faults": [fault]})
    outcomes = []
    for _ in range(4):
        await rig.client.chat_postMessage(channel="U0ANN", text="x")
        try:
            await rig.card()
            outcomes.append("ok")
        except SlackApiError as error:
            outcomes.append(str(error.response["error"]))
    assert outcomes == ["ok", "channel_not_found", "channel_not_found", "ok"]
    assert await rig.call("/slack/faults") == []


async def test_drop_before_posts_nothing_and_drop_after_posts(rig: Rig) -> None:
    await rig.call("/slack/faults", [{"kind": "drop_before"}, {"kind": "drop_after", "nth": 2}])
    for posted in (0, 1):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await rig.card()
        assert len(await rig.call("/slack/messages")) == posted


async def test_the_sdks_own_retries_post_twice_after_a_drop(rig: Rig) -> None:
    """The SDK's retries duplicate posts, so the service mustn't use them; the fake Slack behaves like Slack here."""
    await rig.call("/slack/faults", {"kind": "drop_after", "method": "chat.postMessage"})
    client = AsyncWebClient(
        "xoxb-playground", base_url=rig.playground.api_url, retry_handlers=[AsyncConnectionErrorRetryHandler()]
    )
    await client.chat_postMessage(channel="#deploys", text="x")
    assert len(await rig.call("/slack/messages")) == 2


async def test_html_and_truncated_json_are_client_errors(rig: Rig) -> None:
    await rig.call("/slack/faults", [{"kind": "server_error"}, {"kind": "truncated", "nth": 2}])
    with pytest.raises(SlackApiError) as caught:
        await rig.card()
    assert caught.value.response.status_code == 500
    with pytest.raises((aiohttp.ClientPayloadError, SlackApiError)):
        await rig.card()
    assert len(await rig.call("/slack/messages")) == 1


async def test_unknown_fault_is_refused_with_a_sentence(rig: Rig) -> None:
    answer = await rig.call("/slack/faults", {"kind": "meteor"}, status=422)
    assert "kind" in answer["detail"]


async def test_rate_limits_are_off_until_switched_on(rig: Rig) -> None:
    for _ in range(6):
        await rig.card()
    await rig.call("/slack/limits", {"on": True})
    outcomes = [await limited(rig.card()) for _ in range(6)]
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert await limited(rig.client.chat_postMessage(channel="U0ANN", text="x")) is False


async def limited(call: Awaitable[Any]) -> bool:
    try:
        await call
    except SlackApiError as error:
        return bool(error.response.status_code == 429)
    return False


async def test_log_of_calls_has_no_tokens(rig: Rig) -> None:
    async with rig.http.post(f"{rig.playground.api_url}auth.test", data={"token": "xoxb-playground"}) as response:
        assert (await response.json())["ok"]
    calls = await rig.call("/slack/calls")
    assert [(c["method"], c["answer"]) for c in calls] == [("auth.test", "ok")]
    assert "xoxb" not in str(calls)


async def test_channels_are_listed_by_kind_and_private_ones_to_members(rig: Rig) -> None:
    public = await rig.client.conversations_list()
    assert [c["name"] for c in public["channels"]] == ["deploys", "uninvited", "old"]
    open_ones = await rig.client.conversations_list(exclude_archived=True, types="public_channel,private_channel")
    assert [c["name"] for c in open_ones["channels"]] == ["deploys", "uninvited", "secret"]
    assert (await refused(rig.client.conversations_list(types="rooms")))["error"] == "invalid_types"
    missing = await refused(rig.client.conversations_list(types="mpim"))
    assert (missing["error"], missing["needed"]) == ("missing_scope", "mpim:read")


async def test_thread_is_read_from_its_first_message(rig: Rig) -> None:
    first = await rig.card()
    await rig.card()
    replies = [
        (await rig.client.chat_postMessage(channel="C0DEPLOYS", text=text, thread_ts=first))["ts"]
        for text in ("one", "two")
    ]
    thread = await rig.client.conversations_replies(channel="C0DEPLOYS", ts=first)
    assert [m["ts"] for m in thread["messages"]] == [first, *replies]
    later = await rig.client.conversations_replies(channel="C0DEPLOYS", ts=first, oldest=replies[0])
    assert [m["ts"] for m in later["messages"]] == [first, replies[1]]
    gone = await refused(rig.client.conversations_replies(channel="C0DEPLOYS", ts="1.000001"))
    assert gone["error"] == "thread_not_found"
