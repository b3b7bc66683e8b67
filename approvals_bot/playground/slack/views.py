"""`views.*` and `blocks.validate`. Modals stack three deep; triggers work once, for three seconds."""

from __future__ import annotations

import json
from datetime import datetime

from approvals_bot.playground.slack.blocks import VIEW_BYTES, check_blocks, check_view
from approvals_bot.playground.slack.calls import Call, MethodTable, SlackRefusedError, wrong_arguments
from approvals_bot.playground.slack.elements import BlockProblem
from approvals_bot.playground.slack.shapes import MODAL_DEPTH, TRIGGER_LIFE, Json, View
from approvals_bot.playground.slack.workspace import Workspace

VIEWS = MethodTable()


@VIEWS.answers("views.open")
def views_open(space: Workspace, call: Call) -> Json:
    given = view_of(space, call, "modal")
    user = exchange(space, call, space.now())
    space.close_modals(user)
    view = space.new_view(user, given)
    space.modals[user] = [view.id]
    return {"view": space.view_json(view)}


@VIEWS.answers("views.push")
def views_push(space: Workspace, call: Call) -> Json:
    given = view_of(space, call, "modal")
    user = exchange(space, call, space.now())
    top = space.top_modal(user)
    if top is None:
        raise SlackRefusedError("not_found")
    return {"view": space.view_json(push(space, top, given))}


@VIEWS.answers("views.update")
def views_update(space: Workspace, call: Call) -> Json:
    by_external = call.text("external_id")
    found = space.views.get(call.text("view_id")) or next(
        (v for v in space.views.values() if by_external and v.given.get("external_id") == by_external), None
    )
    if found is None or found.given["type"] != "modal":
        raise SlackRefusedError("not_found")
    given = view_of(space, call, "modal", instead_of=found)
    if call.text("hash") and call.text("hash") != found.hash:
        raise SlackRefusedError("hash_conflict")
    return {"view": space.view_json(space.change_view(found, given))}


@VIEWS.answers("views.publish")
def views_publish(space: Workspace, call: Call) -> Json:
    if not space.app.has_home:
        raise SlackRefusedError("not_enabled")
    user = space.users.get(call.text("user_id"))
    if user is None or user.kind == "bot":
        raise wrong_arguments("invalid value: user_id")
    old = space.views.get(space.homes.get(user.id, ""))
    given = view_of(space, call, "home", instead_of=old)
    if old is None:
        view = space.new_view(user.id, given)
        space.homes[user.id] = view.id
        return {"view": space.view_json(view)}
    if call.text("hash") and call.text("hash") != old.hash:
        raise SlackRefusedError("hash_conflict")
    return {"view": space.view_json(space.change_view(old, given))}


@VIEWS.answers("blocks.validate")
def blocks_validate(space: Workspace, call: Call) -> Json:
    """Report every failed constraint with a JSON pointer. Needs no token."""
    given = [name for name in ("blocks", "message", "view") if name in call.arguments]
    if len(given) != 1:
        raise SlackRefusedError(
            "invalid_arguments",
            response_metadata={"messages": ["must provide exactly one of `blocks`, `view`, or `message`"]},
        )
    value = call.value(given[0])
    problems: list[BlockProblem]
    match given[0], value:
        case "blocks", _:
            problems = check_blocks(value, "message", at="")
        case "message", {"blocks": blocks}:
            problems = check_blocks(blocks, "message")
        case "message", _:
            problems = [] if isinstance(value, dict) else [BlockProblem("", "must be an object", ("type", "object"))]
        case _:
            problems = check_view(value, at="")
    if problems:
        raise SlackRefusedError(f"invalid_{given[0]}", errors=[problem.as_json() for problem in problems])
    return {}


def push(space: Workspace, top: View, given: Json) -> View:
    """Put a view on top of another. At most three are on the stack."""
    stack = space.modals[top.user]
    if len(stack) >= MODAL_DEPTH:
        raise SlackRefusedError("push_limit_reached")
    view = space.new_view(top.user, given, previous=top)
    stack.append(view.id)
    return view


def view_of(space: Workspace, call: Call, kind: str, instead_of: View | None = None) -> Json:
    """Return the call's view, checked."""
    given = call.value("view")
    if len(json.dumps(given).encode()) > VIEW_BYTES:
        raise SlackRefusedError("view_too_large")
    problems = check_view(given)
    if not problems and given["type"] != kind:
        problems = [BlockProblem("/view/type", f"must be {kind}", ("enum", [kind]))]
    if problems:
        raise SlackRefusedError(
            "invalid_arguments", response_metadata={"messages": [problem.line() for problem in problems]}
        )
    external_id = given.get("external_id")
    taken = (v for v in space.views.values() if external_id and v.given.get("external_id") == external_id)
    if any(other is not instead_of for other in taken):
        raise SlackRefusedError("duplicate_external_id")
    return dict(given)


def exchange(space: Workspace, call: Call, now: datetime) -> str:
    """Trade a trigger for the right to open one modal on its person's screen."""
    if not call.text("trigger_id"):
        raise wrong_arguments("missing required field: trigger_id")
    trigger = space.triggers.get(call.text("trigger_id"))
    if trigger is None:
        raise SlackRefusedError("invalid_trigger_id")
    if trigger.used:
        raise SlackRefusedError("exchanged_trigger_id")
    if now - trigger.made_at > TRIGGER_LIFE:
        raise SlackRefusedError("expired_trigger_id")
    trigger.used = True
    return trigger.user
