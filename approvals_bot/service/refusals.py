"""Why a request can't be opened, or a run can't be started: data, which each entry point renders."""

from __future__ import annotations

from typing import Any, Literal

from approvals_bot.errors import ApprovalsBotError

LONGEST_KEY = 200  # characters of an idempotency key; several times any usual id

OpeningCode = Literal[
    "workflow_unknown",
    "not_allowed",
    "values_not_allowed",
    "naming_not_allowed",
    "person_unknown",
    "group_unknown",
    "key_unusable",
    "nobody_decides",
    "requester_not_a_person",
    "behalf_not_a_person",
    "address_refused",
    "behalf_missing",
    "behalf_not_taken",
    "own_key_impossible",
    "own_key_empty",
    "input_not_taken",
    "input_not_storable",
    "call_unnamed",
    "call_asks_nobody",
    "no_stage_applies",
    "budget_spent",
    "emergency_not_allowed",
    "reason_too_short",
]

_NOTHING_STARTED = ("Invalid input", "Nothing was started.")

_TITLES: dict[OpeningCode, tuple[str, str]] = {
    "workflow_unknown": ("Workflow not found", "No workflow named {name!r} is listed here."),
    "not_allowed": (
        "Not allowed to request",
        "{who} can't open {workflow!r}. Its file lists who can, under workflow.request.",
    ),
    "values_not_allowed": (
        "Not allowed to request",
        "{who} can't request {workflow!r} with these values. Its file says who can request which, under [[request]].",
    ),
    "emergency_not_allowed": (
        "Not allowed without a vote",
        "{who} can't open {workflow!r} without a vote. Its file lists who can, under break_glass.who: people who have "
        "just signed in, on the pages; no key can.",
    ),
    "naming_not_allowed": (
        "Not allowed to request for others",
        "The key {key!r} can't name {who} as the person who requests this. The service's operator can allow it, under "
        "`requesters` of the key.",
    ),
    "person_unknown": (
        "Person unknown",
        "Nobody here knows {who}: they are in no list of people, group, directory or workflow, nor in the Slack "
        "workspace. Check the address, or ask the service's operator to add them.",
    ),
    "group_unknown": ("Group unknown", "We can't check right now whether you may request this: {error}"),
    "key_unusable": ("Invalid input", "The idempotency key can't be used."),
    "nobody_decides": ("Nobody could decide", "Nothing was opened: {reason}, in stage {stage!r}."),
    "call_asks_nobody": (
        "Nobody could decide",
        "Nothing was opened: no file says who is asked about tool calls. Write workflows/tool-call.toml; "
        "docs/configuration.md has a whole one, under “Tool calls”.",
    ),
    "no_stage_applies": ("Nobody could decide", "Nothing was opened: {reason}."),
    "budget_spent": (
        "Budget spent",
        "Nothing was opened: the session {session!r} has used its budget ({what}, {limit}). {when}",
    ),
}
"""Title and detail of each refusal; `_NOTHING_STARTED` for all others."""

_FAULTS: dict[OpeningCode, str] = {
    "key_unusable": f"1 to {LONGEST_KEY} printable characters",
    "requester_not_a_person": "not a person's address, and not the calling app",
    "address_refused": "{why}",
    "behalf_not_a_person": "not a person's address",
    "behalf_missing": "is required: name the person this is for",
    "behalf_not_taken": "this workflow can't be requested on behalf of somebody else",
    "own_key_impossible": "the workflow's key can't be made from these fields: {error}",
    "own_key_empty": "the workflow's key would be empty for these fields",
    "input_not_taken": "this workflow takes no input",
    "input_not_storable": "{error}",
    "reason_too_short": "write at least {least} characters",
    "call_unnamed": "is required, or a tool_call_id: the same call must be found again",
}
"""What is wrong at the refusal's path, for those that have one."""


class OpeningRefused(ApprovalsBotError):
    """The request can't be opened, or the run can't be started. Nothing was written.

    `code` names the rule that refused, `path` the part of the input that it is about (() for none), and `params` the
    rule's findings. `title`, `detail` and `errors` (each fault at its place) say the same in words.
    """

    def __init__(self, code: OpeningCode, path: tuple[str, ...] = (), **params: str) -> None:
        self.code = code
        self.path = path
        self.params = params
        self.title, detail = _TITLES.get(code, _NOTHING_STARTED)
        self.detail = detail.format(**params)
        fault = _FAULTS[code].format(**params) if path else ""
        self.errors: list[dict[str, Any]] = [{"loc": list(path), "msg": fault}] if path else []
        super().__init__(f"{self.title}. {self.detail}" + (f"\n  {'.'.join(path)}: {fault}" if path else ""))


def nobody_decides(stage: str, reason: str) -> OpeningRefused:
    """Return the refusal of a request that nobody could decide. `stage`: "" if none applies."""
    if not stage:
        return OpeningRefused("no_stage_applies", reason=reason)
    return OpeningRefused("nobody_decides", stage=stage, reason=reason)


def usable_key(key: str) -> str:
    """Return the caller's idempotency key. Raises OpeningRefused if it is empty, too long or unprintable."""
    if not key.strip() or len(key) > LONGEST_KEY or not key.isprintable():
        raise OpeningRefused("key_unusable", ("header", "Idempotency-Key"))
    return key
