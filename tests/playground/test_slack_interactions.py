"""People click in the fake Slack, and a real Bolt app answers. Each payload is signed and verified as with Slack."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from slack_sdk.errors import SlackApiError

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig


async def click(rig: Rig, ts: str, user: str = "Ann Ode", status: int = 200, **more: Any) -> Any:
    body = {"user": user, "channel": "#deploys", "ts": ts} | ({"button": "Approve"} | more)
    return await rig.call("/slack/click", body, status=status)


async def test_click_reaches_bolt_with_slacks_fields(rig: Rig) -> None:
    seen: list[dict[str, Any]] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any]) -> None:
        seen.append(body)
        await ack()

    ts = await rig.card(metadata={"event_type": "card", "event_payload": {"delivery_id": "d1"}})
    outcome = await click(rig, ts)
    assert outcome["status"] == 200
    assert outcome["seen"] == "ok"
    assert outcome["ack_ms"] < 3000
    assert (outcome["view"], outcome["ephemeral"]) == (None, None)
    [body] = seen
    assert body["user"] == {"id": "U0ANN", "username": "ann", "name": "ann", "team_id": "T0PLAY"}
    assert body["actions"][0] | {"action_ts": ""} == {
        "type": "button",
        "action_id": "approve",
        "block_id": "choices",
        "action_ts": "",
        "text": {"type": "plain_text", "text": "Approve"},
        "value": "hook_1",
        "style": "primary",
    }
    assert body["container"] == {"type": "message", "message_ts": ts, "channel_id": "C0DEPLOYS", "is_ephemeral": False}
    assert body["message"]["metadata"]["event_payload"] == {"delivery_id": "d1"}
    assert body["api_app_id"] == "A0APPROVE"
    assert body["response_url"].startswith(rig.base_url)


async def test_refusal_by_response_url_is_an_ephemeral_message(rig: Rig) -> None:
    @rig.bolt.action("approve")
    async def approve(ack: Any, respond: Any) -> None:
        await ack()
        await respond("You asked for this yourself.", replace_original=False)

    ts = await rig.card()
    outcome = await click(rig, ts, user="bo@acme.eu")
    assert outcome["ephemeral"] == "You asked for this yourself."
    shown = await rig.call("/slack/messages")
    assert [(m["text"], m["ephemeral_to"]) for m in shown] == [
        ("Deploy api 2.1?", None),
        ("You asked for this yourself.", "U0BO"),
    ]


async def test_ephemeral_message_after_the_ack_is_still_seen(rig: Rig) -> None:
    later: list[asyncio.Task[Any]] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any) -> None:
        await ack()

        async def reply() -> None:
            await asyncio.sleep(0.05)
            await rig.client.chat_postEphemeral(channel="C0DEPLOYS", user="U0ANN", text="Counted: 1 of 2")

        later.append(asyncio.create_task(reply()))

    assert (await click(rig, await rig.card()))["ephemeral"] == "Counted: 1 of 2"
    await asyncio.gather(*later)


async def test_no_ack_within_the_limit_shows_the_warning(start_rig: StartRig) -> None:
    rig = await start_rig(ack_limit=0.1)
    release = asyncio.Event()

    @rig.bolt.action("approve")
    async def approve(ack: Any) -> None:
        await release.wait()
        await ack()

    outcome = await click(rig, await rig.card())
    assert (outcome["status"], outcome["seen"]) == (None, "warning")
    assert outcome["ack_ms"] >= 90
    release.set()


async def test_wrong_signature_is_refused_by_bolt_and_shown_as_a_warning(rig: Rig) -> None:
    rig.playground.outbound.signing_secret = "another secret"
    outcome = await click(rig, await rig.card())
    assert (outcome["status"], outcome["seen"]) == (401, "warning")


async def test_click_on_a_missing_element_says_so(rig: Rig) -> None:
    ts = await rig.card()
    gone = await click(rig, "1.2", status=404)
    assert gone["detail"] == "There is no such message: nothing in #deploys has the ts '1.2'."
    wrong = await click(rig, ts, status=409, button="Launch")
    assert wrong["detail"] == "This message has no button 'Launch'; it has: Approve, Reject."
    await click(rig, ts, status=404, user="Zoe")
    await rig.call("/slack/click", {"user": "ann", "channel": "#x", "ts": ts, "button": "Approve"}, status=404)
    secret = await rig.client.chat_postMessage(channel="C0SECRET", text="x", blocks=rig.card_blocks)
    body = {"user": "bo", "channel": "C0SECRET", "ts": secret["ts"], "button": "Approve"}
    await rig.call("/slack/click", body, status=409)


async def test_longer_label_is_found_by_its_first_word(rig: Rig) -> None:
    pressed: list[str] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any]) -> None:
        pressed.append(body["actions"][0]["text"]["text"])
        await ack()

    rig.card_blocks[1]["elements"][0]["text"]["text"] = "Approve deploy of api 2.1"
    await click(rig, await rig.card())
    assert pressed == ["Approve deploy of api 2.1"]


# ── modals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def rejecting(rig: Rig) -> list[Any]:
    """Add Bolt handlers that ask for a reason in a modal, and return the list of reasons."""
    reasons: list[Any] = []

    @rig.bolt.action("reject")
    async def reject(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        await ack()

    @rig.bolt.view("reason")
    async def reason(ack: Any, view: dict[str, Any]) -> None:
        comment = view["state"]["values"]["why"]["comment"]["value"]
        if len(comment) < 5:
            await ack(response_action="errors", errors={"why": "Say a little more."})
            return
        reasons.append((comment, view["private_metadata"]))
        await ack()

    return reasons


async def test_modal_opens_is_corrected_and_submitted(rig: Rig) -> None:
    reasons = rejecting(rig)
    outcome = await click(rig, await rig.card(), button="Reject")
    view = outcome["view"]
    assert view["title"]["text"] == "Reject"
    submit = {"user": "U0ANN", "view_id": view["id"]}

    empty = await rig.call("/slack/submit", submit | {"values": {}})
    assert empty["errors"] == {"why": "Please complete this required field."}
    short = await rig.call("/slack/submit", submit | {"values": {"why": {"comment": "no"}}})
    assert short["errors"] == {"why": "Say a little more."}
    assert short["view"]["id"] == view["id"]
    stray = await rig.call("/slack/submit", submit | {"values": {"why": {"coment": "no"}}}, status=409)
    assert "why.coment" in stray["detail"]
    done = await rig.call("/slack/submit", submit | {"values": {"why": {"comment": "too risky"}}})
    assert (done["status"], done["view"], done["errors"]) == (200, None, {})
    assert reasons == [("too risky", "hook_1")]
    await rig.call("/slack/submit", submit, status=404)


async def test_trigger_works_once_and_for_three_seconds(rig: Rig) -> None:
    errors: list[str] = []

    @rig.bolt.action("reject")
    async def reject(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        for trigger in (body["trigger_id"], "1.2.nonsense"):
            with pytest.raises(SlackApiError) as caught:
                await client.views_open(trigger_id=trigger, view=rig.modal)
            errors.append(caught.value.response["error"])
        await ack()

    @rig.bolt.action("approve")
    async def approve(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await rig.clock.advance("1m")
        with pytest.raises(SlackApiError) as caught:
            await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        errors.append(caught.value.response["error"])
        await ack()

    ts = await rig.card()
    await click(rig, ts, button="Reject")
    await click(rig, ts, button="Approve")
    assert errors == ["exchanged_trigger_id", "invalid_trigger_id", "expired_trigger_id"]


async def test_modals_stack_three_deep_and_close_one_by_one(rig: Rig) -> None:
    closed: list[bool] = []
    rig.modal["notify_on_close"] = True
    del rig.modal["submit"]
    rig.modal["blocks"] = [rig.card_blocks[1]]

    @rig.bolt.action("reject")
    async def reject(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await ack()
        opener = client.views_push if body["container"]["type"] == "view" else client.views_open
        await opener(trigger_id=body["trigger_id"], view=rig.modal)

    @rig.bolt.view_closed("reason")
    async def on_closed(ack: Any, body: dict[str, Any]) -> None:
        closed.append(body["is_cleared"])
        await ack()

    view = (await click(rig, await rig.card(), button="Reject"))["view"]
    for _ in range(2):
        below = view
        view = (await rig.call("/slack/click", press_in(view)))["view"]
        assert view["previous_view_id"] == below["id"]
        assert view["root_view_id"] == below["root_view_id"]
    fourth = await rig.call("/slack/click", press_in(view))
    assert fourth["view"]["id"] == view["id"]
    assert rig.playground.web_api.seen[-1].answer == "push_limit_reached"
    after = await rig.call("/slack/close", {"user": "U0ANN", "view_id": view["id"]})
    assert after["view"]["id"] == view["previous_view_id"]
    await rig.call("/slack/close", {"user": "U0ANN", "view_id": after["view"]["id"], "clear": True})
    assert closed == [False, True]
    assert rig.playground.workspace.top_modal("U0ANN") is None


def press_in(view: dict[str, Any]) -> dict[str, Any]:
    return {"user": "U0ANN", "view_id": view["id"], "button": "Reject"}


async def test_response_to_a_submission_may_update_push_or_clear(rig: Rig) -> None:
    rejecting(rig)
    answers: list[dict[str, Any]] = []

    @rig.bolt.view("step")
    async def step(ack: Any) -> None:
        await ack(**answers.pop(0))

    rig.modal["callback_id"] = "step"
    view = (await click(rig, await rig.card(), button="Reject"))["view"]
    other = rig.modal | {"title": {"type": "plain_text", "text": "Other"}}
    answers += [
        {"response_action": "update", "view": other},
        {"response_action": "push", "view": rig.modal},
        {"response_action": "update", "view": {"type": "modal"}},
        {"response_action": "clear"},
    ]
    typed = {"user": "U0ANN", "values": {"why": {"comment": "because"}}}
    updated = await rig.call("/slack/submit", typed | {"view_id": view["id"]})
    assert updated["view"]["title"]["text"] == "Other"
    pushed = await rig.call("/slack/submit", typed | {"view_id": updated["view"]["id"]})
    assert pushed["view"]["previous_view_id"] == view["id"]
    broken = await rig.call("/slack/submit", typed | {"view_id": pushed["view"]["id"]})
    assert (broken["seen"], broken["ephemeral"]) == ("warning", "We had some trouble connecting. Try again?")
    cleared = await rig.call("/slack/submit", typed | {"view_id": pushed["view"]["id"]})
    assert cleared["view"] is None


async def test_stale_hash_conflicts(rig: Rig) -> None:
    rejecting(rig)
    view = (await click(rig, await rig.card(), button="Reject"))["view"]
    await rig.client.views_update(view_id=view["id"], hash=view["hash"], view=rig.modal)
    with pytest.raises(SlackApiError) as caught:
        await rig.client.views_update(view_id=view["id"], hash=view["hash"], view=rig.modal)
    assert caught.value.response["error"] == "hash_conflict"


@pytest.mark.parametrize(
    ("element", "given", "state"),
    [
        ({"type": "number_input", "is_decimal_allowed": False}, 7, {"value": "7"}),
        ({"type": "datepicker"}, "2026-03-02", {"selected_date": "2026-03-02"}),
        ({"type": "email_text_input"}, "a@b.eu", {"value": "a@b.eu"}),
        ({"type": "users_select"}, "U0BO", {"selected_user": "U0BO"}),
        ({"type": "static_select"}, "red", {"selected_option": "red"}),
        ({"type": "radio_buttons"}, "Red", {"selected_option": "red"}),
        ({"type": "checkboxes"}, ["red"], {"selected_options": ["red"]}),
    ],
)
async def test_inputs_are_reported_as_by_slack(
    rig: Rig, element: dict[str, Any], given: Any, state: dict[str, Any]
) -> None:
    rejecting(rig)
    seen: list[dict[str, Any]] = []

    @rig.bolt.view("typed")
    async def typed(ack: Any, view: dict[str, Any]) -> None:
        seen.append(view["state"]["values"]["why"]["comment"])
        await ack()

    red = {"text": {"type": "plain_text", "text": "Red"}, "value": "red"}
    if element["type"] in ("static_select", "radio_buttons", "checkboxes"):
        element = element | {"options": [red]}
        state = {name: [red] if isinstance(value, list) else red for name, value in state.items()}
    rig.modal |= {"callback_id": "typed"}
    rig.modal["blocks"][0]["element"] = element | {"action_id": "comment"}
    view = (await click(rig, await rig.card(), button="Reject"))["view"]
    values = {"why": {"comment": given}}
    await rig.call("/slack/submit", {"user": "U0ANN", "view_id": view["id"], "values": values})
    assert seen == [{"type": element["type"]} | state]


# ── commands, shortcuts, Home tab, response URLs ──────────────────────────────────────────────────────────────────


async def test_slash_command_may_answer_in_its_ack(rig: Rig) -> None:
    @rig.bolt.command("/approve")
    async def approve(ack: Any, command: dict[str, Any]) -> None:
        await ack(f"{command['user_id']} in {command['channel_name']}: {command['text']}")

    body = {"user": "U0ANN", "channel": "#deploys", "command": "/approve", "text": "deploy api"}
    outcome = await rig.call("/slack/command", body)
    assert outcome["ephemeral"] == "U0ANN in deploys: deploy api"
    await rig.call("/slack/command", body | {"command": "/nope"}, status=404)


async def test_command_and_shortcut_open_a_modal(rig: Rig) -> None:
    @rig.bolt.command("/approve")
    async def approve(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        await ack()

    @rig.bolt.shortcut("ask")
    async def ask(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        await ack()

    first = await rig.call("/slack/command", {"user": "U0ANN", "channel": "#deploys", "command": "/approve"})
    second = await rig.call("/slack/shortcut", {"user": "U0ANN", "callback_id": "ask"})
    assert first["view"]["id"] != second["view"]["id"]
    on_message = {"user": "U0ANN", "callback_id": "ask", "channel": "#deploys", "ts": await rig.card()}
    assert (await rig.call("/slack/shortcut", on_message))["view"]["title"]["text"] == "Reject"


async def test_opening_the_home_tab_sends_the_event_and_shows_the_view(rig: Rig) -> None:
    @rig.bolt.event("app_home_opened")
    async def opened(client: Any, event: dict[str, Any]) -> None:
        blocks = [{"type": "section", "text": {"type": "plain_text", "text": "You're all caught up."}}]
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": blocks})

    home = await rig.call("/slack/home?user=U0ANN")
    assert home["view"]["type"] == "home"
    assert home["text"] == "You're all caught up."


async def test_response_url_works_five_times_within_half_an_hour(rig: Rig) -> None:
    urls: list[str] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any]) -> None:
        urls.append(body["response_url"])
        await ack()

    ts = await rig.card()

    async def respond(body: dict[str, Any]) -> tuple[int, str]:
        async with rig.http.post(urls[-1], json=body) as response:
            return response.status, await response.text()

    await click(rig, ts)
    assert (await respond({"text": "Approved", "replace_original": True}))[0] == 200
    assert [m["text"] for m in await rig.call("/slack/messages")] == ["Approved"]
    assert [(await respond({"text": "x"}))[0] for _ in range(5)] == [200, 200, 200, 200, 404]
    ts = await rig.card()
    await click(rig, ts)
    await rig.clock.advance("31m")
    status, said = await respond({"delete_original": True})
    assert (status, "expired_url" in said) == (404, True)
    ts = await rig.card()
    await click(rig, ts)
    assert (await respond({"delete_original": True}))[0] == 200
    assert ts not in {m["ts"] for m in await rig.call("/slack/messages")}


# ── faults on the way to the app ──────────────────────────────────────────────────────────────────────────────────


async def test_interaction_may_arrive_twice_late_or_never(start_rig: StartRig) -> None:
    rig = await start_rig(ack_limit=0.5)
    count = 0
    arrived = asyncio.Event()

    @rig.bolt.action("approve")
    async def approve(ack: Any) -> None:
        nonlocal count
        count += 1
        arrived.set()
        await ack()

    ts = await rig.card()
    script = [
        {"kind": "duplicate", "method": "interaction"},
        {"kind": "drop_before", "method": "interaction", "nth": 2},
        {"kind": "delayed", "method": "interaction", "nth": 3, "seconds": 0.05},
    ]
    await rig.call("/slack/faults", script)
    assert (await click(rig, ts))["seen"] == "ok"
    assert count == 2
    assert (await click(rig, ts))["seen"] == "warning"
    assert count == 2
    arrived.clear()
    assert (await click(rig, ts))["seen"] == "warning"
    await asyncio.wait_for(arrived.wait(), 5)
    assert count == 3


async def test_failed_event_is_resent_with_retry_headers(rig: Rig) -> None:
    rig.playground.outbound.retries = (0.0, 0.0)
    seen: list[tuple[str, Any]] = []
    again = asyncio.Event()

    @rig.bolt.event("app_home_opened")
    async def opened(body: dict[str, Any], request: Any) -> None:
        seen.append((body["event_id"], request.headers.get("x-slack-retry-num")))
        if len(seen) == 1:
            raise RuntimeError("not now")
        again.set()

    await rig.call("/slack/home?user=U0ANN")
    await asyncio.wait_for(again.wait(), 5)
    assert [number for _, number in seen] == [None, ["1"]]
    assert len({event_id for event_id, _ in seen}) == 1
