"""Steps of Workflow Builder: `functions.completeSuccess` and `completeError`, and the event that runs a step.

As strict as Slack: inputs and outputs are checked by the manifest, and an execution is completed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from approvals_bot.playground.slack.calls import Call, MethodTable, SlackRefusedError
from approvals_bot.playground.slack.shapes import APP_ID, Execution, Json
from approvals_bot.playground.slack.workspace import Workspace

FUNCTIONS = MethodTable()
KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "slack#/types/user_id": (str,),
}
"""What a parameter of each type may be in JSON."""


@FUNCTIONS.answers("functions.completeSuccess")
def complete_success(space: Workspace, call: Call) -> Json:
    running = execution(space, call)
    outputs = call.value("outputs")
    declared = space.app.functions[running.function]["output_parameters"]
    wrong = faults(space, declared, outputs) if isinstance(outputs, dict) else ["outputs must be an object"]
    if wrong:
        raise SlackRefusedError("parameter_validation_failed", response_metadata={"messages": wrong})
    end(space, running, outputs=outputs)
    return {}


@FUNCTIONS.answers("functions.completeError")
def complete_error(space: Workspace, call: Call) -> Json:
    end(space, execution(space, call), error=call.text("error"))
    return {}


def execution(space: Workspace, call: Call) -> Execution:
    found = space.executions.get(call.text("function_execution_id"))
    if found is None:
        raise SlackRefusedError("function_execution_not_found")
    if found.state != "running":
        raise SlackRefusedError("execution_not_in_running_state")
    return found


def end(space: Workspace, running: Execution, *, outputs: Json | None = None, error: str = "") -> None:
    running.state = "completed" if outputs is not None else "failed"
    running.outputs, running.error = outputs or {}, error
    space.changed()


def faults(space: Workspace, declared: Json, given: Mapping[str, Any]) -> list[str]:
    """List what is wrong with these parameters."""
    known, needed = declared["properties"], declared.get("required", [])
    found = [f"missing required parameter: {name}" for name in needed if given.get(name) in (None, "")]
    found += [f"unknown parameter: {name}" for name in given if name not in known]
    for name, value in given.items():
        kind = known.get(name, {}).get("type", "")
        if name not in known or value is None:
            continue
        is_flag = isinstance(value, bool) and kind != "boolean"  # Python's True is an integer
        if is_flag or not isinstance(value, KINDS[kind]):
            found.append(f"{name} must be of type {kind}")
        elif kind == "slack#/types/user_id" and value not in space.users:
            found.append(f"{name} is no user of this workspace")
    return found


def executed(space: Workspace, running: Execution) -> Json:
    """Build the event `function_executed`."""
    declared, at = space.app.functions[running.function], f"{space.now().timestamp():.6f}"
    return {
        "type": "function_executed",
        "function": {
            "id": f"Fn{running.function.upper()}",
            "callback_id": running.function,
            "title": declared["title"],
            "description": declared["description"],
            "type": "app",
            "input_parameters": listed(declared["input_parameters"]),
            "output_parameters": listed(declared["output_parameters"]),
            "app_id": APP_ID,
            "date_created": 1700000000,
            "date_updated": 1700000000,
            "date_deleted": 0,
            "form_enabled": False,
        },
        "inputs": running.inputs,
        "function_execution_id": running.id,
        "workflow_execution_id": f"Wx{running.id[2:]}",
        "event_ts": at,
        "bot_access_token": f"xwfp-{space.secret()}",
    }


def listed(declared: Json) -> list[Json]:
    needed = declared.get("required", [])
    return [
        {"name": name, "is_required": name in needed} | about | {"type": about["type"]}
        for name, about in declared["properties"].items()
    ]
