"""People's acts in Slack: click, submit, close, command. Each sends the real payload and reports what they saw."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from approvals_bot.errors import ApprovalsBotError
from approvals_bot.playground.slack.blocks import check_blocks, check_view, elements_of
from approvals_bot.playground.slack.delivery import Ack, Outbound
from approvals_bot.playground.slack.functions import executed, faults
from approvals_bot.playground.slack.payloads import Payloads, read_inputs, state_of, unknown_inputs
from approvals_bot.playground.slack.shapes import Conversation, Execution, Json, Message, User, View
from approvals_bot.playground.slack.views import push
from approvals_bot.playground.slack.workspace import Workspace

SETTLE = 2.0  # seconds at most to wait after the ack for a modal, an ephemeral message or an update to appear
HOME_SETTLE = 5.0  # … for the Home tab, which an app publishes each time it is opened
TROUBLE = "We had some trouble connecting. Try again?"

Glance = Literal["ok", "warning", "errors"]
"""What the person sees of the ack: nothing, Slack's warning sign, or errors under the inputs."""


Watch = tuple[frozenset[tuple[str, str, str | None]], tuple[str, str] | None]
"""The ephemeral messages and the topmost modal that a person had before their act."""


@dataclass(frozen=True, slots=True)
class ActOutcome:
    """An act's outcome as its person saw it. `status`: the ack's HTTP status; None if none came within 3 s."""

    status: int | None
    ack_ms: int
    seen: Glance
    view: Json | None = None
    ephemeral: str | None = None
    errors: dict[str, str] = field(default_factory=dict)
    url: str | None = None  # a link button's address

    def as_json(self) -> Json:
        return {
            "status": self.status,
            "ack_ms": self.ack_ms,
            "view": self.view,
            "ephemeral": self.ephemeral,
            "seen": self.seen,
            "errors": self.errors,
            "url": self.url,
        }


class SlackActor:
    """Acts as any user of the workspace."""

    def __init__(self, space: Workspace, outbound: Outbound, base_url: str, *, settle: float = SETTLE) -> None:
        self.space = space
        self.outbound = outbound
        self.screen = Screen(space)
        self.payloads = Payloads(space, base_url)
        self.settle = settle

    # acts

    async def click(
        self,
        user: User,
        *,
        channel: str = "",
        ts: str = "",
        view_id: str = "",
        button: str = "",
        action_id: str = "",
        block_id: str = "",
        value: Any = None,
        values: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> ActOutcome:
        """Press a button or choose `value` in a menu, in a message, a modal or the Home tab.

        Confirmation dialogs are confirmed.
        """
        message, view = None, None
        if view_id:
            view = self.screen.view_of(user, view_id)
            blocks = view.blocks
        else:
            place = self.screen.place(channel, user)
            message = self.screen.message_of(user, place, ts)
            blocks = list(message.blocks)
        block, element = self.screen.find_element(blocks, button, action_id, block_id, "view" if view else "message")
        state, _ = read_inputs(blocks, values or {})
        action = self.payloads.action(block, element, value)
        if element["type"] != "button":
            state.setdefault(block["block_id"], {})[element["action_id"]] = state_of(element, value)
        if view:
            view.values = state
        payload = self.payloads.about(user, "block_actions") | {"state": {"values": state}, "actions": [action]}
        payload |= self.payloads.in_view(view) if view else self.payloads.in_message(user, message)
        watch = self.watch(user)
        ack = await self.outbound.deliver("interactive", payload)
        outcome = await self.seen(user, ack, watch)
        return replace(outcome, url=element.get("url"))

    async def submit(
        self, user: User, view_id: str, values: Mapping[str, Mapping[str, Any]] | None = None
    ) -> ActOutcome:
        """Submit a modal with these values: block_id → action_id → what was typed or chosen."""
        view = self.screen.view_of(user, view_id)
        if view.given["type"] != "modal":
            raise CannotDoError("A Home tab has no submit button; click one of its buttons.")
        stray = unknown_inputs(view.blocks, values or {})
        if stray:
            known = ", ".join(f"{b['block_id']}.{e['action_id']}" for b, e in elements_of(view.blocks)) or "none"
            raise CannotDoError(f"This view has no input {', '.join(stray)}; it has: {known}.")
        view.values, view.errors = read_inputs(view.blocks, values or {})
        if view.errors:  # Slack doesn't send an incomplete form
            return ActOutcome(None, 0, "errors", self.space.view_json(view), errors=view.errors)
        payload = self.payloads.about(user, "view_submission") | {
            "view": self.space.view_json(view),
            "response_urls": [],
        }
        watch = self.watch(user)
        ack = await self.outbound.deliver("interactive", payload)
        if ack.ok and not self.obey(view, ack.body):
            return ActOutcome(ack.status, ack.ms, "warning", self.space.view_json(view), TROUBLE)
        outcome = await self.seen(user, ack, watch, closes=view)
        return replace(outcome, seen="errors", errors=view.errors) if view.errors else outcome

    async def close(self, user: User, view_id: str, *, clear: bool = False) -> ActOutcome:
        """Cancel a modal, or with `clear` the whole stack. The app is notified only if it asked for that."""
        view = self.screen.view_of(user, view_id)
        shown = self.space.view_json(view)
        if clear or view.given.get("clear_on_close"):
            self.space.close_modals(user.id)
        else:
            self.space.close_top_modal(user.id)
        if not view.given.get("notify_on_close"):
            return ActOutcome(None, 0, "ok", self.view_json(user))
        payload = self.payloads.about(user, "view_closed") | {"view": shown, "is_cleared": clear}
        del payload["trigger_id"]
        ack = await self.outbound.deliver("interactive", payload)
        return ActOutcome(ack.status, ack.ms, "ok", self.view_json(user))

    async def command(self, user: User, channel: str, command: str, text: str = "") -> ActOutcome:
        """Send a slash command in a channel."""
        place = self.screen.place(channel, user)
        if command not in self.space.app.commands:
            known = ", ".join(self.space.app.commands) or "none"
            raise NoSuchThingError(f"{command} is not a command of this app; it has: {known}.")
        payload = self.payloads.command(user, place, command, text)
        watch = self.watch(user)
        ack = await self.outbound.deliver("slash_commands", payload)
        if ack.ok and ack.body:
            self.say(user, place, ack.body)
        return await self.seen(user, ack, watch)

    async def write(self, user: User, channel: str, text: str, thread_ts: str = "") -> tuple[Message, Ack]:
        """Write a message, or with `thread_ts` a reply in that message's thread. Apps in the conversation get it."""
        place = self.screen.place(channel, user)
        parent = self.screen.message_of(user, place, thread_ts) if thread_ts else None
        message = self.space.post(place.id, user, text, [], thread_ts=thread_ts or None)
        return message, await self.outbound.deliver("events_api", self.payloads.written(user, message, parent))

    async def shortcut(self, user: User, callback_id: str, channel: str = "", ts: str = "") -> ActOutcome:
        """Start a global shortcut or, on a message, a message shortcut."""
        payload = self.payloads.about(user, "message_action" if ts else "shortcut") | {"callback_id": callback_id}
        payload["action_ts"] = f"{self.space.now().timestamp():.6f}"
        if ts:
            place = self.screen.place(channel, user)
            message = self.screen.message_of(user, place, ts)
            payload |= {
                "channel": {"id": place.id, "name": place.name},
                "message": message.as_json(self.space.app.team_id),
                "message_ts": ts,
                "response_url": self.payloads.response_url(user, place.id, ts),
            }
        watch = self.watch(user)
        return await self.seen(user, await self.outbound.deliver("interactive", payload), watch)

    async def run_step(self, function: str, inputs: Json) -> tuple[Execution, Ack]:
        """Run a step of Workflow Builder, as a workflow does that somebody has started."""
        declared = self.space.app.functions.get(function)
        if declared is None:
            known = ", ".join(self.space.app.functions) or "none"
            raise NoSuchThingError(f"This app has no step {function!r}; it has: {known}.")
        if wrong := faults(self.space, declared["input_parameters"], inputs):
            raise CannotDoError(f"Slack wouldn't run this step: {'; '.join(wrong)}.")
        running = Execution(f"Fx{next(self.space.numbers):08d}", function, inputs)
        self.space.executions[running.id] = running
        payload = self.payloads.event(executed(self.space, running))
        return running, await self.outbound.deliver("events_api", payload)

    async def open_home(self, user: User) -> View | None:
        """Open the app's Home tab. The app receives `app_home_opened` and may publish a view."""
        before = self.home_of(user)
        event: Json = {
            "type": "app_home_opened",
            "user": user.id,
            "channel": self.space.direct_message(user).id,
            "event_ts": f"{self.space.now().timestamp():.6f}",
            "tab": "home",
        }
        if before:
            event["view"] = self.space.view_json(before)
        known = before.hash if before else None
        ack = await self.outbound.deliver("events_api", self.payloads.event(event))
        if ack.ok:
            await self.until(lambda: (now := self.home_of(user)) is not None and now.hash != known, HOME_SETTLE)
        return self.home_of(user)

    def home_of(self, user: User) -> View | None:
        return self.space.views.get(self.space.homes.get(user.id, ""))

    # what the person sees

    def obey(self, view: View, body: Any) -> bool:
        """Apply the app's response to a submission. Returns False if Slack wouldn't understand it."""
        match body:
            case _ if not body:
                self.space.close_top_modal(view.user)
            case {"response_action": "clear"}:
                self.space.close_modals(view.user)
            case {"response_action": "errors", "errors": dict(errors)}:
                if not errors or not errors.keys() <= {block["block_id"] for block in view.blocks}:
                    return False
                view.errors = {block: str(text) for block, text in errors.items()}
            case {"response_action": "update", "view": given} if not check_view(given):
                self.space.change_view(view, given)
            case {"response_action": "push", "view": given} if not check_view(given):
                push(self.space, view, given)
            case _:
                return False
        return True

    def say(self, user: User, place: Conversation, body: Any) -> None:
        """Post the response to a slash command: for the person alone, or for the channel."""
        body = body if isinstance(body, dict) else {"text": str(body)}
        if not body.get("text") and not body.get("blocks"):
            return
        alone = body.get("response_type", "ephemeral") == "ephemeral"
        blocks: Any = body.get("blocks") or []
        self.space.post(
            place.id,
            self.space.bot,
            str(body.get("text", "")),
            blocks if not check_blocks(blocks, "message") else [],
            ephemeral_to=user.id if alone else None,
        )

    def watch(self, user: User) -> Watch:
        """Record what this person sees now, to compare with later."""
        mine = frozenset(self.ephemerals_of(user))
        top = self.space.top_modal(user.id)
        return mine, (top.id, top.hash) if top else None

    def ephemerals_of(self, user: User) -> dict[tuple[str, str, str | None], Message]:
        return {(m.channel, m.ts, m.edited): m for m in self.space.messages.values() if m.ephemeral_to == user.id}

    async def seen(
        self,
        user: User,
        ack: Ack,
        watch: Watch,
        closes: View | None = None,
    ) -> ActOutcome:
        before, modal = watch

        def new_ephemerals() -> list[Message]:
            return [message for key, message in self.ephemerals_of(user).items() if key not in before]

        def something_new() -> bool:
            top = self.space.top_modal(user.id)
            return bool(new_ephemerals()) or (top is not None and (top.id, top.hash) != modal)

        if ack.ok and not (closes and closes.errors):
            await self.until(something_new)
        ephemerals = new_ephemerals()
        text = "\n".join(plain_text(message) for message in ephemerals) or None
        if not ack.ok and closes:
            text = text or TROUBLE
        return ActOutcome(ack.status, ack.ms, "ok" if ack.ok else "warning", self.view_json(user), text)

    def view_json(self, user: User) -> Json | None:
        top = self.space.top_modal(user.id)
        return self.space.view_json(top) if top else None

    async def until(self, happened: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until something happens, for a limited time, since apps may do more after their ack."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settle if seconds is None else seconds):
                while not happened():
                    await self.space.next_change()


class NoSuchThingError(ApprovalsBotError):
    """There is no such person, channel, message or view. HTTP 404."""


class CannotDoError(ApprovalsBotError):
    """The thing exists, but this person can't do that with it. HTTP 409."""


class Screen:
    """What a person can see. Lookups raise `NoSuchThingError` and `CannotDoError`."""

    def __init__(self, space: Workspace) -> None:
        self.space = space

    def user(self, who: str) -> User:
        user = self.space.find_user(who)
        if user is None:
            known = ", ".join(u.id for u in self.space.users.values() if u.kind != "bot")
            raise NoSuchThingError(f"Nobody in this workspace is called {who!r}; there are: {known}.")
        return user

    def place(self, channel: str, user: User | None = None) -> Conversation:
        """Find a channel by name or ID, or a direct message by the person's ID, name or address."""
        found = self.space.find_channel(channel)
        if found is None and (other := self.space.find_user(channel)) and other.kind != "bot":
            found = self.space.direct_message(other)
        if found is None:
            known = ", ".join(c.label for c in self.space.channels.values() if not c.with_user) or "none"
            raise NoSuchThingError(f"There is no channel {channel!r}; there are: {known}.")
        if user and found.private and user.id not in found.members:
            raise CannotDoError(f"{user.name} is not a member of {found.label} and can't see it.")
        return found

    def message_of(self, user: User, place: Conversation, ts: str) -> Message:
        message = self.space.messages.get((place.id, ts))
        if message is None:
            raise NoSuchThingError(f"There is no such message: nothing in {place.label} has the ts {ts!r}.")
        if message.ephemeral_to not in (None, user.id):
            raise NoSuchThingError(f"There is no such message for {user.name}: it is visible to somebody else only.")
        return message

    def view_of(self, user: User, view_id: str) -> View:
        view = self.space.views.get(view_id)
        if view is None or view.user != user.id:
            raise NoSuchThingError(f"{user.name} has no view {view_id!r} on the screen.")
        if view.given["type"] == "modal" and self.space.top_modal(user.id) is not view:
            raise CannotDoError("Another modal is on top of this one.")
        return view

    def find_element(
        self, blocks: list[Json], button: str, action_id: str, block_id: str, what: str
    ) -> tuple[Json, Json]:
        if not (button or action_id):
            raise CannotDoError("Say which button: by its label (`button`) or its `action_id`.")
        blocks = [block for block in blocks if block_id in ("", block["block_id"])]
        labels = []
        for block, element in elements_of(blocks):
            label = str((element.get("text") or {}).get("text", "")) if element["type"] == "button" else ""
            labels.append(label or element["action_id"])
            if element["action_id"] == action_id if action_id else label.strip().lower() == button.strip().lower():
                return block, element
        if button:  # the only label with this prefix, such as "Approve deploy of api 2.1"
            close = [
                (block, element)
                for block, element in elements_of(blocks)
                if element["type"] == "button" and element["text"]["text"].lower().startswith(button.lower())
            ]
            if len(close) == 1:
                return close[0]
        wanted = f"action {action_id!r}" if action_id else f"button {button!r}"
        raise CannotDoError(f"This {what} has no {wanted}; it has: {', '.join(labels) or 'none'}.")


def plain_text(message: Message) -> str:
    """Return a message's text, or else the text of its blocks."""
    return message.text or "\n".join(words_in(list(message.blocks)))


def words_in(value: Any) -> list[str]:
    match value:
        case {"type": "divider"}:
            return []
        case dict():
            own = [value["text"]] if isinstance(value.get("text"), str) else []
            return own + [word for part in value.values() if isinstance(part, (dict, list)) for word in words_in(part)]
        case list():
            return [word for part in value for word in words_in(part)]
        case _:
            return []
