"""The payloads that Slack sends to an app, field by field."""

from __future__ import annotations

from typing import Any

from approvals_bot.playground.slack.inputs import state_of
from approvals_bot.playground.slack.shapes import Conversation, Json, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace

TOKEN = "playground-verification"  # noqa: S105 - Slack's deprecated verification token; it opens nothing


class Payloads:
    """Makes them for one workspace. `base_url` is where the response URLs lead."""

    def __init__(self, space: Workspace, base_url: str) -> None:
        self.space = space
        self.base_url = base_url

    def about(self, user: User, kind: str) -> Json:
        """The part that all interactions share."""
        app = self.space.app
        return {
            "type": kind,
            "team": {"id": app.team_id, "domain": app.team_name.lower()},
            "user": {"id": user.id, "username": user.handle, "name": user.handle, "team_id": user.team_id},
            "api_app_id": app.app_id,
            "token": TOKEN,
            "trigger_id": self.space.new_trigger(user.id),
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def command(self, user: User, place: Conversation, command: str, text: str) -> Json:
        """A slash command: plain form fields."""
        return {
            "token": TOKEN,
            "team_id": self.space.app.team_id,
            "team_domain": self.space.app.team_name.lower(),
            "channel_id": place.id,
            "channel_name": "directmessage" if place.with_user else place.name,
            "user_id": user.id,
            "user_name": user.handle,
            "command": command,
            "text": text,
            "api_app_id": self.space.app.app_id,
            "is_enterprise_install": "false",
            "response_url": self.response_url(user, place.id, None),
            "trigger_id": self.space.new_trigger(user.id),
        }

    def event(self, event: Json) -> Json:
        app = self.space.app
        return {
            "token": TOKEN,
            "team_id": app.team_id,
            "api_app_id": app.app_id,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{next(self.space.numbers):08d}",
            "event_time": int(self.space.now().timestamp()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": app.team_id,
                    "user_id": self.space.bot.id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }

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
        if message.ephemeral_to is None:  # Slack doesn't send the content of ephemeral messages along
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
