"""The API as an OpenAPI 3.1 document: what a program may send, and every answer it may get."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from approvals_bot.approvals.files import LONGEST_FILE_NAME
from approvals_bot.service.grants import GRANT_STATES
from approvals_bot.service.lists import DELIVERIES, RUN_STATES
from approvals_bot.web.keys import NEEDS
from approvals_bot.web.run_filters import ORDERS
from approvals_bot.web.schemas import ref, schemas

PROBLEMS = {
    "400": "The body can't be read: no JSON or form, a key twice, nested too deep, or text that can't be stored.",
    "401": "No key, or not one of this service's.",
    "403": "The key, or the person, may not do this.",
    "404": "There is nothing of this name here.",
    "408": "The body did not arrive in time.",
    "409": "It conflicts with what is already so; nothing was changed.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "The body can be read, and some values don't fit.",
    "429": "Too much is waiting to be taken. Nothing was changed; try again after the time in Retry-After.",
    "503": "The store, or a source of groups, can't be reached. Nothing was acknowledged; send it again.",
}


class OpenApi:
    """`/openapi.json`. `chat`: whether this service has the chat."""

    def __init__(self, *, base_url: str, chat: bool = False) -> None:
        self._base_url = base_url
        self._chat = chat

    @cached_property
    def _document(self) -> dict[str, Any]:
        return document(self._base_url, chat=self._chat)

    async def show(self, request: HttpRequest) -> Response:
        return JSONResponse(self._document)


def document(base_url: str, *, chat: bool = False) -> dict[str, Any]:
    """The whole document. Each call says which right of its key is enough, as `web/keys.py` checks it."""
    whole = _document(base_url, chat)
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            needs = NEEDS.get((method.upper(), path.replace("{token}", "{token:path}")))
            if needs is not None:
                operation["security"] = [{"key": [right]} for right in needs.any_of]
                operation["description"] = f"{operation.get('description', '')} {needs.in_words}".strip()
                operation["responses"] |= _problems("403")
    return whole


def _document(base_url: str, chat: bool) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Approvals Bot",
            "version": "1",
            "summary": "Ask people for decisions, and wait for the answer for minutes or weeks.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_url}],
        "security": [{"key": []}],
        "tags": [
            {"name": "runs", "description": "Runs of workflows; a request is a run of an approval."},
            {"name": "hooks", "description": "Where a run waits for a payload from outside."},
            {"name": "service", "description": "The service itself."},
            *([{"name": "chat", "description": "A chat with an agent."}] if chat else []),
        ],
        "paths": {
            "/api/runs": {"get": _list_runs(), "post": _start_run()},
            "/api/runs/{id}": {"parameters": [RUN], "get": _show_run()},
            "/api/runs/{id}/events": {"parameters": [RUN], "get": _events()},
            "/api/runs/{id}/evidence": {"parameters": [RUN], "get": _evidence()},
            "/api/runs/{id}/cancellation": {"parameters": [RUN], "post": _cancel()},
            "/api/runs/{id}/revocation": {
                "parameters": [RUN],
                "post": _after("revoke", "End the grant of an approved request", "Revocation"),
            },
            "/api/runs/{id}/extension": {
                "parameters": [RUN],
                "post": _after("extend", "Ask whether a grant may last longer", "NewExtension") | {"parameters": [KEY]},
            },
            "/api/grants": {"get": _list_grants()},
            "/api/allowances": {
                "get": _list_grants("listAllowances", "Find allowances of tool calls, the newest first")
            },
            "/api/allowances/{id}": {
                "parameters": [_path("id", "The allowance: the run whose approval gave it.")],
                "delete": _revoke_allowance(),
            },
            "/api/runs/{id}/attempts": {"parameters": [RUN], "post": _attempt()},
            "/api/runs/{id}/reset": {"parameters": [RUN], "post": _reset()},
            "/api/runs/{id}/fields": {"parameters": [RUN], "patch": _edit()},
            "/api/runs/{id}/votes": {"parameters": [RUN], "post": _vote()},
            "/api/runs/{id}/approvers": {"parameters": [RUN], "post": _approvers()},
            "/api/runs/{id}/comments": {
                "parameters": [RUN],
                "post": _talk("comment", "Comment without a vote", "NewComment"),
            },
            "/api/runs/{id}/reminders": {
                "parameters": [RUN],
                "post": _talk("remind", "Remind those who owe a vote", "NewReminder"),
            },
            "/api/runs/{id}/claim": {
                "parameters": [RUN],
                "post": _talk("claim", "Say that an approver is on it", "NewClaim"),
            },
            "/api/runs/{id}/snooze": {
                "parameters": [RUN],
                "post": _talk("snooze", "Put off an approver's reminders", "NewSnooze"),
            },
            "/api/hooks/{token}": {"parameters": [TOKEN], "get": _show_hook(), "post": _resume()},
            "/api/files": {"post": _upload()},
            "/api/agent-hooks/claude": {"post": _claude_hook()},
            "/webhooks/{signed}": {"parameters": [SIGNED]} | _webhook(),
            "/openapi.json": {"get": _plain("openapi", "This document", {"type": "object"}, ())},
            "/healthz": {"get": _plain("alive", "Whether the process answers", {"type": "object"}, ())},
            "/readyz": {
                "get": _plain(
                    "ready", "Whether the store takes writes, and how connections are", {"type": "object"}, ("503",)
                )
            },
            "/metrics": {"get": _metrics()},
        }
        | (_chat_paths() if chat else {}),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key of [api_keys]."}},
            "schemas": schemas(),
        },
    }


def _upload() -> dict[str, Any]:
    name = _query("name", {"type": "string", "minLength": 1, "maxLength": LONGEST_FILE_NAME}, "The file's name.")
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "operationId": "uploadFile",
        "tags": ["runs"],
        "summary": "Upload a file, for a field of a request within the hour",
        "parameters": [name | {"required": True}],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "201": _response("The file; the field takes its id", "File"),
            **_problems("400", "401", "403", "408", "413", "415", "422", "429", "503"),
        },
    }


def _start_run() -> dict[str, Any]:
    started = _response("The run", "StartedRun", {"Location": "Where the run is."})
    return {
        "operationId": "startRun",
        "tags": ["runs"],
        "summary": "Start a run, or open a request",
        "parameters": [KEY],
        "requestBody": _body("RunBody"),
        "responses": {
            "202": started,
            "200": started | {"description": "The run that the same key started before"},
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _list_runs() -> dict[str, Any]:
    return {
        "operationId": "listRuns",
        "tags": ["runs"],
        "summary": "Find runs, newest first; by a range, the greatest value; waiting for a person, the next deadline",
        "parameters": [
            _query("workflow", {"type": "string"}, "Of this workflow."),
            _query("state", {"type": "string", "enum": list(RUN_STATES)}, "Shown in this state."),
            _query("status", ref("Status"), "With this status."),
            _query("requester", {"type": "string"}, "Requested by this person, or on their behalf, or by this app."),
            _query(
                "waiting_for", {"type": "string", "format": "email"}, "Requests that wait for this person's address."
            ),
            _query("delivery", {"type": "string", "enum": list(DELIVERIES)}, "With a copy in this state."),
            _query("opened_after", {"type": "string"}, "Begun at this time or later; a day begins at midnight, UTC."),
            _query("opened_before", {"type": "string"}, "Begun before this time."),
            _query(
                "q",
                {"type": "string", "maxLength": 200},
                "With this in the title or ID. An empty page with a cursor hasn't looked through all of them.",
            ),
            _query(
                "order",
                {"type": "string", "enum": list(ORDERS)},
                "The newest first, as without it, or the oldest; by a range, the greatest value or the smallest.",
            ),
            _query(
                "key",
                {"type": "string"},
                "Of this caller's Idempotency-Key, or of all that go on after it with a colon; by key.",
            ),
            _query(
                "open", {"type": "string", "enum": ["true", "false"]}, "Those that haven't ended, or those that have."
            ),
            _attributes(),
            _query("cursor", {"type": "string"}, "Where the page before ended."),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "Runs per page."),
        ],
        "responses": {"200": _response("A page of runs", "RunPage"), **_problems("401", "422", "503")},
    }


def _attributes() -> dict[str, Any]:
    """Return the parameter that stands for all of `attr.NAME` and `attr.NAME.OPERATOR`."""
    words = (
        "By attributes that runs were given at their start or have set: `attr.team=red`, `attr.amount.gte=100`. "
        "Operators: `eq` (or none), `in` (values with commas between), `gt`, `gte`, `lt`, `lte`. Numbers compare as "
        'numbers, other values as text, and `"100"` in quotation marks is a text. With a range, runs come by its '
        "values, the greatest first. All conditions must hold; at most ten attributes."
    )
    names = {"^attr\\..+": {"type": "string", "maxLength": 2_000}}
    values = {"type": "object", "patternProperties": names, "additionalProperties": False}
    examples = {"range": {"value": {"attr.amount.gte": "100", "attr.amount.lt": "500"}}}
    return _query("attributes", values, words) | {"style": "form", "explode": True, "examples": examples}


def _show_run() -> dict[str, Any]:
    wait = _query(
        "wait",
        {"type": "number", "minimum": 0, "maximum": 3600},
        "Seconds to wait for its end or its decision (60 at most).",
    )
    return {
        "operationId": "getRun",
        "tags": ["runs"],
        "summary": "Look at a run, or wait for its end",
        "description": "A run that has continued as a new one is a 303 to the run in its place.",
        "parameters": [wait, _query("own", {"type": "string"}, "Show the run itself, also if it has continued.")],
        "responses": {
            "200": _response("The run", "RunDetails"),
            "303": {"description": "It has continued as another run"},
            **_problems("401", "404", "422", "503"),
        },
    }


def _events() -> dict[str, Any]:
    return {
        "operationId": "listEvents",
        "tags": ["runs"],
        "summary": "Read a run's log",
        "responses": {
            "200": _response("The log, without tokens and links", "Events"),
            **_problems("401", "404", "503"),
        },
    }


def _evidence() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "getEvidence",
        "tags": ["runs"],
        "summary": "Get a run's evidence, signed with the audit key",
        "description": "`approvals-bot evidence verify` and verify_evidence.py check it. Without an audit key: 404.",
        "responses": {
            "200": {"description": "The evidence", "content": content},
            **_problems("401", "404", "503"),
        },
    }


def _cancel() -> dict[str, Any]:
    return {
        "operationId": "cancelRun",
        "tags": ["runs"],
        "summary": "Cancel a run, or withdraw a request",
        "requestBody": _body("Cancellation"),
        "responses": {
            "202": {
                "description": "It is being cancelled, and may still tidy up",
                "content": _json({"type": "object"}),
            },
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _attempt() -> dict[str, Any]:
    return {
        "operationId": "attemptAgain",
        "tags": ["runs"],
        "summary": "Retry a stalled run, or start a failed or cancelled one again",
        "description": "A stalled run goes on itself; otherwise a new run has its input.",
        "requestBody": _body("NewAttempt"),
        "responses": _repaired("The run that goes on", "The new run that an earlier attempt has made"),
    }


def _reset() -> dict[str, Any]:
    return {
        "operationId": "resetRun",
        "tags": ["runs"],
        "summary": "Let a new run go on from an event of a run, in its place",
        "description": "Open hooks move to the new run, with their links and tokens.",
        "requestBody": _body("NewReset"),
        "responses": _repaired("The new run", "The run that the same reset has made before"),
    }


def _repaired(done: str, repeated: str) -> dict[str, Any]:
    answer = _response(done, "StartedRun", {"Location": "Where the run is."})
    return {
        "202": answer,
        "200": answer | {"description": repeated},
        **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "503"),
    }


def _edit() -> dict[str, Any]:
    return {
        "operationId": "editFields",
        "tags": ["runs"],
        "summary": "Change fields of an open request",
        "parameters": [KEY],
        "requestBody": _body("FieldChanges"),
        "responses": {
            "200": _response("What became of it", "Verdict"),
            "202": _response("Saved, and being applied", "Verdict"),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _vote() -> dict[str, Any]:
    return {
        "operationId": "vote",
        "tags": ["runs"],
        "summary": "Pass on what a person chose",
        "parameters": [KEY],
        "requestBody": _body("NewVote"),
        "responses": {
            "201": _response("The vote counts", "Verdict"),
            "200": _response("It counted before, by another call", "Verdict"),
            "202": _response("Saved, and being counted", "Verdict"),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _talk(id: str, summary: str, body: str) -> dict[str, Any]:
    return {
        "operationId": id,
        "tags": ["runs"],
        "summary": summary,
        "requestBody": _body(body),
        "responses": {
            "200": _response("It is so already", "Verdict"),
            "201": _response("Done", "Verdict"),
            "202": _response("Saved, and about to be done", "Verdict"),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _after(id: str, summary: str, body: str) -> dict[str, Any]:
    """Return a call about what an approval gave."""
    return {
        "operationId": id,
        "tags": ["runs"],
        "summary": summary,
        "requestBody": _body(body),
        "responses": {
            "200": _response("It is so already", "Verdict"),
            "202": _response("Saved; the request shows when it is done", "Verdict"),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _revoke_allowance() -> dict[str, Any]:
    return {
        "operationId": "revokeAllowance",
        "tags": ["runs"],
        "summary": "End an allowance now",
        "parameters": [
            _query("by", {"type": "string", "format": "email"}, "The person who ends it, for keys that may name them."),
        ],
        "responses": {
            "200": _response("It is so already", "Verdict"),
            "202": _response("It covers no further calls", "Verdict"),
            **_problems("401", "403", "404", "422", "503"),
        },
    }


def _list_grants(
    id: str = "listGrants", summary: str = "Find what approvals gave, the newest request first"
) -> dict[str, Any]:
    return {
        "operationId": id,
        "tags": ["runs"],
        "summary": summary,
        "parameters": [
            _query("person", {"type": "string", "format": "email"}, "Of this person: requested by them, or for them."),
            _query("workflow", {"type": "string"}, "Of this workflow."),
            _query("state", {"type": "string", "enum": list(GRANT_STATES)}, "In this state."),
            _query("cursor", {"type": "string"}, "Where the page before ended."),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "Grants per page."),
        ],
        "responses": {"200": _response("A page of grants", "GrantPage"), **_problems("401", "422", "503")},
    }


def _approvers() -> dict[str, Any]:
    return {
        "operationId": "askSomebodyElse",
        "tags": ["runs"],
        "summary": "Reassign to somebody else, or add an approver",
        "parameters": [KEY],
        "requestBody": _body("NewApprover"),
        "responses": {
            "201": _response("The person is an approver now, and was notified", "Verdict"),
            "202": _response("Saved, and about to be done", "Verdict"),
            **_problems("400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _show_hook() -> dict[str, Any]:
    return {
        "operationId": "getHook",
        "tags": ["hooks"],
        "summary": "Look at a live hook",
        "responses": {"200": _response("The hook", "Hook"), **_problems("401", "404", "503")},
    }


def _resume() -> dict[str, Any]:
    return {
        "operationId": "resumeHook",
        "tags": ["hooks"],
        "summary": "Resume a run with a payload",
        "parameters": [KEY],
        "requestBody": {"required": True, "content": _json({"description": "The payload: any JSON."})},
        "responses": {
            "200": _response("The hook that was resumed", "Hook"),
            **_problems("400", "401", "404", "408", "409", "413", "415", "422", "429", "503"),
        },
    }


def _claude_hook() -> dict[str, Any]:
    return {
        "operationId": "decideToolUse",
        "tags": ["hooks"],
        "summary": "Have people decide a tool call of Claude Code, which posts it as an HTTP hook",
        "parameters": [
            _query("to", {"type": "string"}, "Addresses of those who decide, with commas between."),
            _query("deadline", {"type": "string"}, "The request's deadline, like 15m."),
            _query("agent", {"type": "string"}, "The agent's name."),
            _query("wait", {"type": "number", "minimum": 0, "maximum": 3600, "default": 50}, "Seconds to wait."),
            _query("undecided", {"enum": ["deny", "defer", "ask"], "default": "deny"}, "What happens after that."),
        ],
        "requestBody": {"required": True, "content": _json({"description": "The hook's input, of Claude Code."})},
        "responses": {
            "200": {"description": "The hook's output, in Claude Code's form", "content": _json({"type": "object"})},
            **_problems("401"),
        },
    }


def _chat_paths() -> dict[str, Any]:
    """The chat's routes, which speak the UI message stream of the AI SDK."""
    turn = _query("turn", {"type": "string"}, "Of this run only.")
    hold = _query("hold", {"const": "1"}, "Keep the stream open while others are to decide.")
    comment = {"type": "string", "maxLength": 2000}
    answer = {"approved": {"type": "boolean"}, "comment": comment, "arguments": {"type": "object"}}
    sent = {"id": {"type": "string", "maxLength": 100}, "messages": {"type": "array"}, "trigger": {"type": "string"}}
    messages = {"type": "object", "properties": sent, "required": ["id", "messages"]}
    decision = {"type": "object", "properties": answer, "required": ["approved"], "additionalProperties": False}
    problems = ("401", "403", "404")
    of_bodies = ("400", *problems, "408", "409", "413", "415", "422", "429", "503")
    return {
        "/api/chat": {
            "post": _chat("sendMessage", "Send a message, and stream the answer", messages, STREAM, of_bodies)
            | {"parameters": [hold]}
        },
        "/api/chat/{id}/stream": {
            "parameters": [CHAT],
            "get": _chat("resumeStream", "Stream the newest answer that goes on", None, STREAM | NO_ANSWER, problems)
            | {"parameters": [turn, hold]},
        },
        "/api/chat/{id}/approvals/{call}": {
            "parameters": [CHAT, CALL],
            "post": _chat("answerToolCall", "Approve or reject a tool call", decision, ANSWERED, of_bodies),
        },
    }


def _chat(
    name: str, summary: str, body: dict[str, Any] | None, answers: dict[str, Any], problems: tuple[str, ...]
) -> dict[str, Any]:
    taken = {} if body is None else {"requestBody": {"required": True, "content": _json(body)}}
    found = {"operationId": name, "tags": ["chat"], "summary": summary, "responses": answers | _problems(*problems)}
    return found | taken


def _webhook() -> dict[str, Any]:
    page = {"description": "A page that says what this address is for", "content": {"text/html": {}}}
    show = {
        "operationId": "showWebhook",
        "tags": ["hooks"],
        "security": [],
        "summary": "Look; this never resumes",
        "responses": {"200": page, **_problems("404", "503")},
    }
    answers = {"default": {"description": "As the workflow answers; 202 when it says nothing, 504 when it is late"}}
    return {"get": show} | {
        method: {
            "operationId": f"{method}Webhook",
            "tags": ["hooks"],
            "security": [],
            "summary": "Resume the run that gave this URL",
            "requestBody": {"content": {"*/*": {}}},
            "responses": answers | _problems("400", "404", "408", "413", "415", "429", "503"),
        }
        for method in ("post", "put", "patch", "delete")
    }


def _metrics() -> dict[str, Any]:
    operation = _plain("metrics", "Counters for Prometheus", {"type": "string"}, ())
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return operation


def _plain(name: str, summary: str, schema: dict[str, Any], problems: tuple[str, ...]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["service"],
        "security": [],
        "summary": summary,
        "responses": {"200": {"description": summary, "content": _json(schema)}, **_problems(*problems)},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": _json(ref(name))}


def _response(description: str, name: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    fields = {key: {"description": text, "schema": {"type": "string"}} for key, text in (headers or {}).items()}
    return {"description": description, "content": _json(ref(name)), **({"headers": fields} if fields else {})}


def _problems(*statuses: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {status: {"description": PROBLEMS[status], "content": content} for status in statuses}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}


RUN = _path("id", "The run's id.")
CHAT = _path("id", "The chat's id, which the client chooses.")
CALL = _path("call", "The tool call's id.")
STREAM = {"200": {"description": "Server-sent events: a UI message stream", "content": {"text/event-stream": {}}}}
NO_ANSWER = {"204": {"description": "No answer goes on"}}
ANSWERED = {"200": {"description": "It is counted, now or before", "content": _json({"type": "object"})}}
TOKEN = _path("token", "The hook's token.")
SIGNED = _path("signed", "The last part of the URL that `create_webhook` gave.")
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200},
    "description": "The same key again does nothing twice.",
}
