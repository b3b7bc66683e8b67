"""The manifest of the Slack app, made from what the code calls. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `slack manifest` reads no workflow unless one is a step
    from approvals_bot.approvals.policy import Definition

METHODS: dict[str, tuple[str, ...]] = {
    "auth.teams.list": (),
    "auth.test": (),
    "chat.postEphemeral": ("chat:write",),
    "chat.postMessage": ("chat:write",),
    "chat.update": ("chat:write",),
    "conversations.history": ("channels:history", "groups:history", "im:history"),
    "conversations.list": ("channels:read", "groups:read"),
    "conversations.members": ("channels:read", "groups:read"),
    "conversations.open": ("im:write",),
    "conversations.replies": ("channels:history", "groups:history", "im:history"),
    "functions.completeError": (),
    "functions.completeSuccess": (),
    "usergroups.list": ("usergroups:read",),
    "usergroups.users.list": ("usergroups:read",),
    "users.info": ("users:read", "users:read.email"),  # without the second, there's no address
    "users.lookupByEmail": ("users:read.email",),
    "views.open": (),
    "views.publish": (),
    "views.update": (),
}
"""Every Web API method that we call with the bot token, and the scopes that it needs for our calls."""

FEATURE_SCOPES = ("commands",)  # for the slash command and the shortcut
SCOPES = tuple(sorted({scope for scopes in METHODS.values() for scope in scopes} | set(FEATURE_SCOPES)))
"""The scopes that the installation needs."""

EVENTS = ("app_home_opened", "message.channels", "message.groups", "message.im", "subteam_members_changed")
"""`message.…`: replies in a card's thread are comments. Their scopes are those of `conversations.replies`."""
COMMAND = "/approve"
SHORTCUT = "ask_for_approval"  # the global shortcut's callback id
PATH = "/slack/events"  # for everything from Slack

FUNCTION_EXECUTED = "function_executed"  # the event of a step of Workflow Builder
FUNCTION = "ask_"  # begins the names of steps: `ask_deploy`, `ask_team-a__pay`
REQUESTER_INPUT = "requester"
LONGEST_TITLE = 60  # characters of a workflow's name in its step's title
OUTPUTS = {
    "outcome": "approved, rejected, answered, expired, withdrawn or cancelled",
    "by": "The address of the person who decided, or the rule",
    "comment": "What they wrote",
    "run_id": "The request's ID",
    "url": "The request's page",
}
"""A step's outputs, each with its description."""

NAME = "Approvals"
COLOR = "#1f6f4a"
DESCRIPTION = "Request approval, decide with one click, and see who decided what and when."
LONG_DESCRIPTION = (
    "Approvals brings each request to the people who can decide it: as a card in a channel or direct message, and by "
    "email for people without Slack. One click decides; the card then shows who decided, when and why. Your own "
    "workflow files say who can decide. That is checked at every click, no matter who can see the card. Approvals runs "
    "on your own servers, and your decisions stay there."
)


def step_name(workflow: str) -> str:
    """Return the name of the step that opens requests of this workflow."""
    return FUNCTION + workflow.replace("/", "__")


def manifest(base_url: str, *, socket: bool, steps: Iterable[Definition] = ()) -> dict[str, Any]:
    """Return the manifest for HTTP, or for Socket Mode, which needs no public URL.

    `base_url` is the service's own; for HTTP, Slack must reach it by https. `steps`: the workflows that are steps of
    Workflow Builder.
    """
    functions = {step_name(definition.id): function(definition) for definition in steps}
    events = [*EVENTS, *([FUNCTION_EXECUTED] if functions else [])]
    url = base_url.rstrip("/") + PATH
    reached = {} if socket else {"request_url": url}
    return {
        "_metadata": {"major_version": 2, "minor_version": 1},
        "display_information": {
            "name": NAME,
            "description": DESCRIPTION,
            "long_description": LONG_DESCRIPTION,
            "background_color": COLOR,
        },
        "features": {
            "app_home": {
                "home_tab_enabled": True,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": NAME, "always_online": True},
            "shortcuts": [
                {
                    "name": "Request approval",
                    "type": "global",
                    "callback_id": SHORTCUT,
                    "description": "Fill in the form of a workflow",
                }
            ],
            "slash_commands": [
                {
                    "command": COMMAND,
                    "description": "Request approval",
                    "usage_hint": "[workflow]",
                    "should_escape": False,
                    **({} if socket else {"url": url}),
                }
            ],
        },
        **({"functions": functions} if functions else {}),
        "oauth_config": {"scopes": {"bot": list(SCOPES)}},
        "settings": {
            "event_subscriptions": {"bot_events": events, **reached},
            "interactivity": {"is_enabled": True, **reached},
            "org_deploy_enabled": bool(functions),  # Slack wants it of apps with steps
            **({"function_runtime": "remote"} if functions else {}),
            "socket_mode_enabled": socket,
            "token_rotation_enabled": False,
        },
    }


def function(definition: Definition) -> dict[str, Any]:
    """Describe the step of Workflow Builder that opens a request of this workflow."""
    from approvals_bot.approvals.fields import label
    from approvals_bot.approvals.plain_text import one_line, readable

    about = definition.workflow
    inputs: dict[str, Any] = {
        REQUESTER_INPUT: {
            "type": "slack#/types/user_id",
            "title": "Requester",
            "description": "The person who requests it; they can't approve it themselves unless the workflow says so",
        }
    }
    for name, spec in definition.fields.items():
        kind = spec.type if spec.type in ("integer", "boolean") else "string"
        inputs[name] = {"type": kind, "title": label(name, spec), "description": spec.hint or label(name, spec)}
    needed = [name for name, spec in definition.fields.items() if spec.required and spec.default is None]
    title = one_line(readable(definition.id), LONGEST_TITLE)
    return {
        "title": f"Ask for approval: {title}",
        "description": one_line(about.description or f"Open a request of {title}, and wait until it is decided.", 200),
        "input_parameters": {"properties": inputs, "required": [REQUESTER_INPUT, *needed]},
        "output_parameters": {
            "properties": {
                name: {"type": "string", "title": readable(name), "description": text} for name, text in OUTPUTS.items()
            },
            "required": ["outcome", "run_id", "url"],
        },
    }
