"""The Slack app that Approvals Bot needs, as the manifest that Slack takes: made from what the code calls. Pure."""

from __future__ import annotations

from typing import Any

METHODS: dict[str, tuple[str, ...]] = {
    "auth.test": (),
    "chat.postEphemeral": ("chat:write",),
    "chat.postMessage": ("chat:write",),
    "chat.update": ("chat:write",),
    "conversations.history": ("channels:history", "groups:history", "im:history"),
    "conversations.list": ("channels:read", "groups:read"),
    "conversations.open": ("im:write",),
    "conversations.replies": ("channels:history", "groups:history", "im:history"),
    "usergroups.list": ("usergroups:read",),
    "usergroups.users.list": ("usergroups:read",),
    "users.info": ("users:read", "users:read.email"),  # without the second, no address is told
    "users.lookupByEmail": ("users:read.email",),
    "views.open": (),
    "views.publish": (),
    "views.update": (),
}
"""Every Web API method that is called with the bot token, and the bot scopes that it needs here."""

FEATURE_SCOPES = ("commands",)  # for the slash command and the shortcut
SCOPES = tuple(sorted({scope for scopes in METHODS.values() for scope in scopes} | set(FEATURE_SCOPES)))
"""What the installation must be granted."""

EVENTS = ("app_home_opened",)
COMMAND = "/approve"
SHORTCUT = "ask_for_approval"  # the global shortcut's callback id
PATH = "/slack/events"  # everything from Slack comes in here

NAME = "Approvals"
COLOR = "#1f6f4a"
DESCRIPTION = "Ask for approval, decide by one press, and see who decided what and when."
STORY = (
    "Approvals brings requests to the people who may decide them, as one card in a channel or a direct message, and by "
    "mail where somebody has no Slack. A press decides; the card then says who decided, when and why. Who may decide "
    "is set by your own workflow files and checked anew at every press, never by who happens to see the card. It runs "
    "on your own machines, and what was decided stays there."
)


def manifest(base_url: str, *, socket: bool) -> dict[str, Any]:
    """The manifest for HTTP, or for Socket Mode, which needs no public URL and then names none.

    `base_url` is the service's own; for HTTP, Slack must reach it by https.
    """
    url = base_url.rstrip("/") + PATH
    reached = {} if socket else {"request_url": url}
    return {
        "_metadata": {"major_version": 2, "minor_version": 1},
        "display_information": {
            "name": NAME,
            "description": DESCRIPTION,
            "long_description": STORY,
            "background_color": COLOR,
        },
        "features": {
            "app_home": {
                "home_tab_enabled": True,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": True,
            },
            "bot_user": {"display_name": NAME, "always_online": True},
            "shortcuts": [
                {
                    "name": "Ask for approval",
                    "type": "global",
                    "callback_id": SHORTCUT,
                    "description": "Opens the form of a workflow that you may ask for",
                }
            ],
            "slash_commands": [
                {
                    "command": COMMAND,
                    "description": "Ask for approval",
                    "usage_hint": "[workflow]",
                    "should_escape": False,
                    **({} if socket else {"url": url}),
                }
            ],
        },
        "oauth_config": {"scopes": {"bot": list(SCOPES)}},
        "settings": {
            "event_subscriptions": {"bot_events": list(EVENTS), **reached},
            "interactivity": {"is_enabled": True, **reached},
            "org_deploy_enabled": False,
            "socket_mode_enabled": socket,
            "token_rotation_enabled": False,
        },
    }
