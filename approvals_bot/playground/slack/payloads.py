"""The payloads that Slack sends to the app for a person's act, with the values of the inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from approvals_bot.playground.slack.blocks import elements_of
from approvals_bot.playground.slack.shapes import APP_ID, Conversation, Json, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace

TOKEN = "playground-verification"  # noqa: S105 - Slack's deprecated verification token; it opens nothing


class Payloads:
    """Builds payloads for one workspace. `base_url` is the base of the response URLs."""

    def __init__(self, space: Workspace, base_url: str) -> None:
        self.space = space
        self.base_url = base_url

    def about(self, user: User, kind: str) -> Json:
        """Build the part that all interactions share."""
        app = self.space.app
        return {
            "type": kind,
            "team": self.team_of(user),
            "user": {"id": user.id, "username": user.handle, "name": user.handle, "team_id": user.team(app.team_id)},
            "api_app_id": APP_ID,
            "token": TOKEN,
            "trigger_id": self.space.new_trigger(user.id),
            "enterprise": {"id": app.enterprise_id, "name": app.team_name} if app.enterprise_id else None,
            "is_enterprise_install": False,
        }

    def team_of(self, user: User) -> Json:
        """Describe the workspace where they act: in a Grid it is their own."""
        app = self.space.app
        if not app.enterprise_id:
            return {"id": app.team_id, "domain": app.team_name.lower()}
        team = user.team(app.team_id) if user.kind == "sister" else app.team_id
        return {
            "id": team,
            "domain": team.lower(),
            "enterprise_id": app.enterprise_id,
            "enterprise_name": app.team_name,
        }

    def command(self, user: User, place: Conversation, command: str, text: str) -> Json:
        """Build a slash command: plain form fields."""
        return {
            "token": TOKEN,
            "team_id": self.team_of(user)["id"],
            "team_domain": self.team_of(user)["domain"],
            **self.enterprise(),
            "channel_id": place.id,
            "channel_name": "directmessage" if place.with_user else place.name,
            "user_id": user.id,
            "user_name": user.handle,
            "command": command,
            "text": text,
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self.response_url(user, place.id, None),
            "trigger_id": self.space.new_trigger(user.id),
        }

    def enterprise(self) -> Json:
        id = self.space.app.enterprise_id
        return {"enterprise_id": id, "enterprise_name": self.space.app.team_name} if id else {}

    def event(self, event: Json) -> Json:
        app = self.space.app
        return {
            "token": TOKEN,
            "team_id": app.team_id,
            **({"enterprise_id": app.enterprise_id} if app.enterprise_id else {}),
            "api_app_id": APP_ID,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{next(self.space.numbers):08d}",
            "event_time": int(self.space.now().timestamp()),
            "authorizations": [
                {
                    "enterprise_id": app.enterprise_id or None,
                    "team_id": app.team_id,
                    "user_id": self.space.bot.id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }

    def written(self, user: User, message: Message, parent: Message | None) -> Json:
        """Build the event of a message that this person has written. `parent`: the first of its thread."""
        place, team = self.space.channels[message.channel], user.team(self.space.app.team_id)
        event: Json = {
            "type": "message",
            "user": user.id,
            "team": team,
            "channel": place.id,
            "channel_type": "im" if place.with_user else "group" if place.private else "channel",
            "ts": message.ts,
            "event_ts": message.ts,
            "client_msg_id": f"playground-{message.ts}",
            "text": message.text,
        }
        if parent is not None:
            event |= {"thread_ts": parent.ts, "parent_user_id": parent.user}
        return self.event(event)

    def in_message(self, user: User, message: Message | None) -> Json:
        assert message is not None
        place = self.space.channels[message.channel]
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": place.id,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        found: Json = {
            "container": container,
            "channel": {"id": place.id, "name": "directmessage" if place.with_user else place.name},
            "response_url": self.response_url(user, place.id, message.ts),
        }
        if message.ephemeral_to is None:  # Slack doesn't include the content of ephemeral messages
            found["message"] = message.as_json(self.space.app.team_id, with_metadata=True)
        return found

    def in_view(self, view: View) -> Json:
        return {"container": {"type": "view", "view_id": view.id}, "view": self.space.view_json(view)}

    def action(self, block: Json, element: Json, value: Any) -> Json:
        at = {
            "action_id": element["action_id"],
            "block_id": block["block_id"],
            "action_ts": f"{self.space.now().timestamp():.6f}",
        }
        if element["type"] == "button":
            kept = {name: element[name] for name in ("text", "value", "style", "url") if name in element}
            return {"type": "button"} | at | kept
        return state_of(element, value) | at

    def response_url(self, user: User, channel: str, ts: str | None) -> str:
        return f"{self.base_url}/playground/slack/response/{self.space.new_response_url(user.id, channel, ts)}"


NEEDED = "Please complete this required field."


def read_inputs(blocks: list[Json], values: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Json], dict[str, str]]:
    """Return the state as Slack sends it, and the errors that Slack shows under inputs instead of sending.

    A value is what a person would type or choose, or a whole state object as Slack would send it. Inputs without a
    value keep their initial one.
    """
    state: dict[str, Json] = {}
    errors: dict[str, str] = {}
    for block, element in elements_of(blocks):
        if block["type"] != "input":
            continue
        block_id, action_id = block["block_id"], element["action_id"]
        given = values.get(block_id, {}).get(action_id, initial(element))
        one = given if is_state(given, element) else state_of(element, given)
        state.setdefault(block_id, {})[action_id] = one
        trouble = complaint(element, one, bool(block.get("optional")))
        if trouble:
            errors[block_id] = trouble
    return state, errors


def unknown_inputs(blocks: list[Json], values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the names that the view doesn't have, such as a test's typo."""
    known = {(block["block_id"], element["action_id"]) for block, element in elements_of(blocks)}
    return [f"{b}.{a}" for b, actions in values.items() for a in actions if (b, a) not in known]


def state_of(element: Json, value: Any) -> Json:
    """Build an input's state, such as `{"type": "plain_text_input", "value": "…"}`."""
    kind = element["type"]
    name = STATE_FIELD.get(kind, "value")
    match name:
        case "selected_option":
            return {"type": kind, name: option(element, value) if value not in (None, "") else None}
        case "selected_options":
            wanted = value if isinstance(value, list) else [value] if value not in (None, "") else []
            return {"type": kind, name: [found for one in wanted if (found := option(element, one))]}
        case "selected_date_time":
            return {"type": kind, name: int(value) if value not in (None, "") else None}
        case _ if name.endswith("s") and name.startswith("selected_"):
            return {"type": kind, name: value if isinstance(value, list) else [value] if value else []}
        case "rich_text_value":
            return {"type": kind, name: value if isinstance(value, dict) else rich_text(str(value)) if value else None}
        case _:
            return {"type": kind, name: str(value) if value not in (None, "") else None}


STATE_FIELD = {
    "static_select": "selected_option",
    "external_select": "selected_option",
    "radio_buttons": "selected_option",
    "overflow": "selected_option",
    "multi_static_select": "selected_options",
    "multi_external_select": "selected_options",
    "checkboxes": "selected_options",
    "users_select": "selected_user",
    "multi_users_select": "selected_users",
    "conversations_select": "selected_conversation",
    "multi_conversations_select": "selected_conversations",
    "channels_select": "selected_channel",
    "multi_channels_select": "selected_channels",
    "datepicker": "selected_date",
    "timepicker": "selected_time",
    "datetimepicker": "selected_date_time",
    "rich_text_input": "rich_text_value",
}


def initial(element: Json) -> Any:
    """Return an input's initial value."""
    for name in (
        "initial_value",
        "initial_option",
        "initial_options",
        "initial_date",
        "initial_time",
        "initial_date_time",
        "initial_user",
        "initial_users",
        "initial_conversation",
        "initial_conversations",
        "initial_channel",
        "initial_channels",
    ):
        if name in element:
            return element[name]
    return None


def options_of(element: Json) -> list[Json]:
    own: list[Json] = element.get("options") or []
    return own + [option for group in element.get("option_groups") or [] for option in group["options"]]


def option(element: Json, wanted: Any) -> Json | None:
    """Find an option by its value or its text."""
    name = wanted.get("value") if isinstance(wanted, dict) else str(wanted)
    options = options_of(element)
    by_value = next((one for one in options if one["value"] == name), None)
    return by_value or next((one for one in options if one["text"]["text"] == name), None)


def complaint(element: Json, state: Json, optional: bool) -> str | None:
    """Return Slack's own validation error for an input, or None."""
    value = next((part for name, part in state.items() if name != "type"), None)
    if value in (None, "", []):
        return None if optional else NEEDED
    text = str(value)
    match element["type"]:
        case "plain_text_input" if len(text) > element.get("max_length", 3000):
            return f"Must be at most {element.get('max_length', 3000)} characters."
        case "plain_text_input" if len(text) < element.get("min_length", 0):
            return f"Must be at least {element['min_length']} characters."
        case "email_text_input" if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text):
            return "Please enter a valid email address."
        case "url_text_input" if not re.match(r"https?://\S+$", text):
            return "Please enter a valid URL."
        case "datepicker" if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return "Please enter a valid date."
        case "number_input":
            return number_complaint(element, text)
    return None


def number_complaint(element: Json, text: str) -> str | None:
    pattern = r"-?\d+(\.\d+)?" if element["is_decimal_allowed"] else r"-?\d+"
    if not re.fullmatch(pattern, text):
        return "Please enter a valid number."
    if "min_value" in element and float(text) < float(element["min_value"]):
        return f"Must be at least {element['min_value']}."
    if "max_value" in element and float(text) > float(element["max_value"]):
        return f"Must be at most {element['max_value']}."
    return None


def is_state(given: Any, element: Json) -> bool:
    return isinstance(given, dict) and given.get("type") == element["type"]


def rich_text(text: str) -> Json:
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [section]}
