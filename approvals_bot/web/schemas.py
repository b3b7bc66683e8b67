"""What goes over the wire: the bodies that programs send, as strict models, and all bodies as JSON schemas."""

from __future__ import annotations

from dataclasses import MISSING, fields
from dataclasses import Field as DataclassField
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, create_model
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError

from approvals_bot.approvals.acts import Actor, ActorKind, Comment, Extend, Reassign, Remind, TakeOn, Vote
from approvals_bot.approvals.agent_policy import CallAllowance
from approvals_bot.approvals.card_model import ChoiceName, GrantState, State
from approvals_bot.approvals.files import LARGEST_FILE
from approvals_bot.approvals.grants import LONGEST_REASON
from approvals_bot.approvals.json_values import UnfitError, check_json, check_size
from approvals_bot.approvals.request import ReviewState
from approvals_bot.approvals.standing_grants import StandingState
from approvals_bot.approvals.talk import LONGEST_COMMENT
from approvals_bot.durable.store.protocol import Status
from approvals_bot.people import AddressError, canonical
from approvals_bot.web.validation import StrictBody


def _names_somebody(value: str) -> str:
    """Refuse what is no person's address and no app's, where it comes in. Identity is established with the act."""
    try:
        return value if value.startswith("app:") else canonical(value) and value
    except AddressError as error:
        raise PydanticCustomError("address", "{why}", {"why": str(error)}) from None


Address = Annotated[str, Field(min_length=1, max_length=320)]
PersonOrApp = Annotated[Address, AfterValidator(_names_somebody)]
CommentText = Annotated[str, Field(max_length=5_000)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000)]


def _within_limits(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse lists and objects that no field takes before they are written anywhere."""
    try:
        for value in fields.values():
            if isinstance(value, dict | list):
                check_json(value)
        check_size(fields)
    except UnfitError as error:
        raise PydanticCustomError("unfit", "{why}", {"why": str(error)}) from None
    return fields


Values = Annotated[dict[str, JsonValue], AfterValidator(_within_limits)]


class RunBody(StrictBody):
    """`POST /api/runs`."""

    workflow: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, JsonValue] = Field(default_factory=dict)
    requester: Address | None = None
    on_behalf_of: Address | None = None


class Cancellation(StrictBody):
    """`POST /api/runs/{id}/cancellation`. `by`: the person who withdraws it, for keys that may vote."""

    reason: CommentText = ""
    by: PersonOrApp | None = None


class Revocation(StrictBody):
    """`POST /api/runs/{id}/revocation`. `by`: the person who ends the grant, for keys that may name them."""

    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""
    by: PersonOrApp | None = None


class NewAttempt(StrictBody):
    """`POST /api/runs/{id}/attempts`. The reason is kept in the audit."""

    reason: Reason


class NewReset(StrictBody):
    """`POST /api/runs/{id}/reset`. `to`: the last event to keep. `drop_payloads`: drop what people sent after it."""

    to: Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
    reason: Reason
    drop_payloads: Annotated[bool, Field(strict=True)] = False


class FieldChanges(StrictBody):
    """`PATCH /api/runs/{id}/fields`."""

    fields: Annotated[Values, Field(min_length=1)]
    by: PersonOrApp | None = None


def _act_body(name: str, act: type, about: str, **limits: Any) -> type[StrictBody]:
    """Return the model of a body that is an act: its own fields, but for its kind, the way it comes and its actor.

    `limits`: fields that are limited, or required, where strangers send them, as `create_model` takes them.
    """
    hints = get_type_hints(act)
    known = ("via", "kind", "actor", "thread")  # to the service, never to the caller
    own = {each.name: (hints[each.name], _default(each)) for each in fields(act) if each.name not in known}
    made: type[StrictBody] = create_model(name, __base__=StrictBody, __doc__=about, **{**own, **limits})
    return made


def _default(field: DataclassField[Any]) -> Any:
    return field.default if field.default_factory is MISSING else Field(default_factory=field.default_factory)


NEW_VOTE = _act_body(
    "NewVote",
    Vote,
    "`POST /api/runs/{id}/votes`. `digest`: of what the person was shown; a vote on something else is refused.",
    by=(PersonOrApp, ...),
    choice=(ChoiceName, ...),
    comment=(CommentText, ""),
    answers=(Values, Field(default_factory=dict)),
    fields=(Values, Field(default_factory=dict)),
)

NEW_APPROVER = _act_body(
    "NewApprover",
    Reassign,
    "`POST /api/runs/{id}/approvers`. `instead_of`: whose place the person takes; without it, they are asked as well.",
    person=(Address, ...),
    instead_of=(Address | None, None),
    by=(PersonOrApp | None, None),
    reason=(Annotated[str, Field(max_length=500)], ""),
)


NEW_COMMENT = _act_body(
    "NewComment",
    Comment,
    "`POST /api/runs/{id}/comments`. `by`: its author, for keys that may name them; without it, the app itself.",
    by=(PersonOrApp | None, None),
    text=(Annotated[str, Field(min_length=1, max_length=LONGEST_COMMENT)], ...),
)

NEW_CLAIM = _act_body(
    "NewClaim",
    TakeOn,
    "`POST /api/runs/{id}/claim`. `by`: the approver who is on it; with `ends`, no longer.",
    by=(PersonOrApp, ...),
    ends=(Annotated[bool, Field(strict=True)], False),
)

NEW_REMINDER = _act_body(
    "NewReminder",
    Remind,
    "`POST /api/runs/{id}/reminders`. `by`: the requester, for keys that may name them; without it, the app itself.",
    by=(PersonOrApp | None, None),
)


NEW_EXTENSION = _act_body(
    "NewExtension",
    Extend,
    "`POST /api/runs/{id}/extension`. `by`: the requester, for keys that may name them. `lasts`: added to the end.",
    by=(PersonOrApp | None, None),
    lasts=(Annotated[str, Field(min_length=1, max_length=64)], ...),
    reason=(Annotated[str, Field(max_length=LONGEST_REASON)], ""),
)


class NewSnooze(StrictBody):
    """`POST /api/runs/{id}/snooze`. `until`: `1h`, `tomorrow`, `now`, or a time with its offset; by default an hour."""

    by: PersonOrApp
    until: Annotated[str, Field(max_length=64)] | None = None


def vote_json(body: StrictBody) -> dict[str, Any]:
    """Return a `NEW_VOTE` body as JSON, without an allowance that it doesn't give."""
    given = body.model_dump(exclude={"allowance"})
    allowance: CallAllowance | None = getattr(body, "allowance", None)
    return given if allowance is None else given | {"allowance": allowance.model_dump(mode="json")}


def vote_of(given: dict[str, Any], actor: Actor) -> Vote:
    """Return the vote that a `NEW_VOTE` body gave, as JSON. `actor`: the key that passes it on."""
    allowance = given.get("allowance")
    own = given if allowance is None else given | {"allowance": CallAllowance.model_validate(allowance)}
    return Vote(via="api", actor=actor, **own)


def reassign_of(given: dict[str, Any], by: str, actor: Actor) -> Reassign:
    """Return the act that a `NEW_APPROVER` body gave. `by`: the person that the key, the actor, acts for."""
    return Reassign(via="api", actor=actor, **{**given, "by": by})


def schemas() -> dict[str, Any]:
    """Each by its name: what may be sent, as the models that check it say, and what is answered."""
    bodies = (
        RunBody, Cancellation, NewAttempt, NewReset, FieldChanges, NEW_VOTE, NEW_APPROVER,
        NEW_COMMENT, NEW_CLAIM, NEW_REMINDER, NewSnooze, Revocation, NEW_EXTENSION,
    )  # fmt: skip
    _, found = models_json_schema(
        [(model, "validation") for model in bodies],
        ref_template="#/components/schemas/{model}",
    )
    sent: dict[str, Any] = found["$defs"]
    return sent | RESPONSES


def ref(name: str) -> dict[str, Any]:
    """The schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: dict[str, Any] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**properties, **(optional or {})}, "required": list(properties)}


def _words(literal: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(literal.__args__)}


TEXT = {"type": "string"}
OPTIONAL_TEXT = {"type": ["string", "null"]}
TIME = {"type": "string", "format": "date-time"}
OPTIONAL_TIME = {"type": ["string", "null"], "format": "date-time"}

RESPONSES: dict[str, Any] = {
    "File": _object(
        id=TEXT,
        name=TEXT,
        size={"type": "integer", "maximum": LARGEST_FILE},
        sha256=TEXT,
        type={"type": "string", "description": "What its content is, whatever its name says."},
    ),
    "Status": _words(Status),
    "StartedRun": {
        "type": "object",
        "properties": {
            "run_id": TEXT,
            "url": TEXT,
            "note": {"type": "string", "description": "What the caller should know, such as that `to` has no effect."},
        },
        "required": ["run_id", "url"],
    },
    "Run": _object(
        id=TEXT,
        workflow=TEXT,
        status=ref("Status"),
        result={"description": "What the workflow returned."},
        error={"oneOf": [{"type": "null"}, _object(type=TEXT, message=TEXT)]},
        created_at=TIME,
        ended_at=OPTIONAL_TIME,
        stalled=OPTIONAL_TEXT,
        request={"oneOf": [{"type": "null"}, ref("Request")]},
    )
    | {
        "description": "`requests` is there where a Python workflow asks people, and where the grant of an approval "
        "was to be extended: each with its `id`, `run_0….2`. "
        "`next_run` is there after a reset, and for a run that has continued: the ID of the run in its place. "
        "`parent` is there for a run that another one has started as its child: the ID of that one. `begins_at` is "
        "there until a run begins that was started for a later time. `decision` is there once a tool call is decided, "
        "or withdrawn. `key` and `url` are there in lists by key."
    },
    "RunDetails": {
        "allOf": [
            ref("Run"),
            _object(
                view={"description": "What the workflow published last."},
                waiting={"type": "array", "items": ref("Wait")},
            ),
            {
                "properties": {
                    "near_limits": {
                        "type": "array",
                        "items": _object(limit=TEXT, used={"type": "integer"}, maximum={"type": "integer"}),
                    }
                },
            },
        ],
        "description": "`cancellation` is there while a cancelled run tidies up: `at` and `reason` of the call, and "
        "`until`, when it is ended where it is. `near_limits` is there while the run uses 40 % of a limit or more.",
    },
    "Wait": {
        "type": "object",
        "description": (
            "Something that the run waits for. `token` and `url`, which resume a hook or webhook, are there for keys "
            "that may start the run's workflow; others see `(redacted)` for them in `view` and `metadata`. `name` and "
            "`attempts` are a step's. A `limit` is a step in line for a place of its `limit`, which lets `at_once` "
            "begin at a time; `place` is its place in line: 1 comes next, null is unknown to this process. `until` is "
            "the end of a sleep or time limit; `workflow` and `run_id` are of a child."
        ),
        "properties": {
            "kind": {"enum": ["hook", "webhook", "step", "limit", "sleep", "timeout", "child"]},
            "since": TIME,
            "metadata": {"description": "What the workflow said of its hook."},
            "token": TEXT,
            "url": TEXT,
            "name": TEXT,
            "attempts": {"type": "integer"},
            "limit": TEXT,
            "at_once": {"type": ["integer", "null"]},
            "place": {"type": ["integer", "null"]},
            "until": TIME,
            "workflow": TEXT,
            "run_id": TEXT,
        },
        "required": ["kind", "since", "metadata"],
    },
    "RunPage": _object(runs={"type": "array", "items": ref("Run")}, cursor=OPTIONAL_TEXT),
    "StandingVote": {
        "type": "object",
        "properties": {
            "by": TEXT,
            "in_place_of": TEXT,
            "choice": TEXT,
            "comment": TEXT,
            "at": TIME,
            "via": TEXT,
            "answers": {"type": "object", "additionalProperties": True},
            "actor": ref("Actor"),
            "carried_from": TEXT,
        },
        "required": ["by", "choice", "comment", "at", "via"],
        "description": (
            "`in_place_of`: the absent person whose delegate `by` was, if any. `answers`: what they filled in, by "
            "name. `carried_from`: the earlier stage in which it was cast, if it counts again in another."
        ),
    },
    "Actor": {
        "type": "object",
        "properties": {
            "kind": _words(ActorKind),
            **dict.fromkeys(("id", "key", "session", "peer", "agent"), TEXT),
        },
        "required": ["kind", "id"],
        "description": (
            "The one who acted: not the person in `by` where a key passes on what they chose. `key` is the name of the "
            "API key, `peer` the client's network address, `agent` the AI agent, by its own name."
        ),
    },
    "Reassignment": _object(
        by=TEXT, person=TEXT, instead_of=OPTIONAL_TEXT, reason=TEXT, at=TIME, via=TEXT, stage=TEXT, actor=ref("Actor")
    )
    | {"description": "`by` had `person` asked in the place of `instead_of`; null: besides all who are asked."},
    "Comment": {
        "type": "object",
        "properties": {"by": TEXT, "text": TEXT, "at": TIME, "via": TEXT, "actor": ref("Actor")},
        "required": ["by", "text", "at", "via"],
    },
    "Quorum": _object(
        have={"type": "integer"},
        need={"type": "integer"},
        seats={
            "type": "array",
            "items": _object(label=TEXT, need={"type": "integer"}, by={"type": "array", "items": TEXT}),
        },
    )
    | {"description": "The votes that an alternative of the open stage has and needs. One alternative is enough."},
    "Grant": _object(
        {"revoked_by": TEXT, "reason": TEXT},
        state=_words(GrantState),
        until=OPTIONAL_TIME,
        given_at=OPTIONAL_TIME,
        taken_at=OPTIONAL_TIME,
        attempts={"type": "integer"},
        error=OPTIONAL_TEXT,
    )
    | {"description": "`attempts` and `error` are of the call that gives it, then of that which removes it."},
    "Standing": _object(
        id=TEXT,
        until=TIME,
        given_at=TIME,
        times={"type": "integer"},
        sums={"type": "object"},
        at_most={"type": "object"},
        same={"type": "object"},
        givers={"type": "array", "items": TEXT},
    )
    | {"description": "What an approval also covers: later requests, or the next calls of a tool."},
    "Review": _object(state=_words(ReviewState), by=OPTIONAL_TEXT, until=TIME, comment=OPTIONAL_TEXT, request_id=TEXT)
    | {"description": "The review of a request that was approved without a vote. Votes on it go to `request_id`."},
    "GrantOfRun": {
        "allOf": [
            ref("Grant"),
            _object(run_id=TEXT, workflow=TEXT, title=TEXT, requester=TEXT, on_behalf_of=OPTIONAL_TEXT),
        ]
    },
    "StandingOfRun": {
        "allOf": [
            ref("Standing"),
            _object(
                {"revoked_by": TEXT, "reason": TEXT},
                run_id=TEXT,
                workflow=TEXT,
                title=TEXT,
                requester=TEXT,
                on_behalf_of=OPTIONAL_TEXT,
                state=_words(StandingState),
                used={"type": "integer"},
                used_sums={"type": "object"},
                uses={"type": "array", "items": TEXT},
            ),
        ]
    },
    "GrantPage": _object(
        grants={"type": "array", "items": {"anyOf": [ref("GrantOfRun"), ref("StandingOfRun")]}}, cursor=OPTIONAL_TEXT
    ),
    "Request": _object(
        {"quorum": {"type": "array", "items": ref("Quorum")}, "grant": ref("Grant")}
        | {"standing": ref("Standing"), "review": ref("Review")},
        title=TEXT,
        fields={"type": "object"},
        digest=TEXT,
        state=_words(State),
        stage=OPTIONAL_TEXT,
        votes={"type": "array", "items": ref("StandingVote")},
        waiting_for={"type": "array", "items": TEXT},
        unresolved={"type": "array", "items": _object(source=TEXT, reason=TEXT)},
        handovers={"type": "array", "items": ref("Reassignment")},
        comments={"type": "array", "items": ref("Comment")},
        claimed_by=OPTIONAL_TEXT,
        snoozes={"type": "array", "items": _object(by=TEXT, until=TIME)},
        deadline=OPTIONAL_TIME,
        outcome=OPTIONAL_TEXT,
        deliveries={
            "type": "array",
            "items": _object(
                to=TEXT,
                channel=TEXT,
                state=TEXT,
                attempts={"type": "integer"},
                error=OPTIONAL_TEXT,
                uncertain={"type": "boolean", "description": "A confirmation was lost: it may have arrived twice."},
                retried={
                    "enum": ["update", "reply", None],
                    "description": "Of a card that has arrived, what is held or tried again.",
                },
            ),
        },
        follow_ups={
            "type": "array",
            "description": "The calls and messages that follow the decision, and how far they are.",
            "items": _object(
                what=TEXT,
                state={"enum": ["sending", "done", "retrying", "failed"]},
                attempts={"type": "integer"},
                error=OPTIONAL_TEXT,
            ),
        },
    ),
    "Events": _object(
        events={
            "type": "array",
            "items": _object(seq={"type": "integer"}, type=TEXT, at=TIME, data={"type": "object"}),
        }
    ),
    "Verdict": _object(verdict=TEXT, text=TEXT),
    "Hook": _object(
        run_id=TEXT,
        hook_id=TEXT,
        token=TEXT,
        metadata={"description": "What the workflow said of it."},
        created_at=TIME,
        is_webhook={"type": "boolean"},
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "errors": {
                "type": "array",
                "items": _object(loc={"type": "array", "items": {"type": ["string", "integer"]}}, msg=TEXT),
            },
        },
        "required": ["type", "title", "status", "detail"],
    },
}
