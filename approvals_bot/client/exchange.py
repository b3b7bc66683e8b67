"""What the client says to the service, and what it makes of the answers. It does no I/O and reads no clock.

Each function is a conversation: a generator that yields what to do next, a `Sending` or a `Rest`, and is sent what came
of it. `Approvals` and `SyncApprovals` hold the same conversations, one with asyncio, one blocking.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from approvals_bot.client.decision import Decision
from approvals_bot.client.tool_request import OpenRequest, ToolRequest
from approvals_bot.errors import (
    AgentError,
    KeyReusedError,
    NotAllowedError,
    RequestRefusedError,
    ServiceUnavailableError,
)

LONGEST_POLL = 30.0  # seconds of one long poll; proxies commonly cut idle connections at 60
MARGIN = 15.0  # seconds that an answer may come later than its long poll ends
PATIENCE = 60.0  # seconds to try for what doesn't wait for people; a service restarts in less
LEAST_PATIENCE = 5.0  # seconds for one answer after the waiting time: a long poll's comes just when that is over
FIRST_BACKOFF, LONGEST_BACKOFF = 0.25, 10.0  # seconds between attempts
EARLY = 0.5  # seconds; a long poll that ends sooner and undecided was cut short, by a restart or a proxy
KEY_REUSED = "urn:approvals-bot:idempotency-conflict"
PAGE = "200"  # runs in one answer
WITHDRAWN_WITHIN = "2"  # seconds

Json: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sending:
    """A request of HTTP to send. `patience`: the seconds to wait for its answer."""

    method: str
    path: str
    body: Json | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Rest:
    """A pause of so many seconds; 0 is a look at the clock."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a step, `at` so many seconds on a clock that only goes forward. Status 0: no answer came."""

    at: float
    status: int = 0
    body: Json = field(default_factory=dict)
    detail: str = ""  # of an answer without JSON, or why none came
    retry_after: float | None = None


T = TypeVar("T")
Conversation: TypeAlias = Generator[Sending | Rest, Heard, T]


def heard_of(at: float, status: int, content: bytes, headers: Mapping[str, str]) -> Heard:
    """Return what an answer says. A good status without a JSON object is a proxy's page: it counts as no answer."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        detail = f"HTTP {status} without JSON"
        return Heard(at, 0 if status < 300 else status, detail=detail)
    retry_after = headers.get("retry-after", "")
    seconds = float(retry_after) if retry_after.isdecimal() else None
    return Heard(at, status, body, retry_after=seconds)


# ── conversations ──


def asking(call: ToolRequest, seconds: float) -> Conversation[Decision]:
    """Request this tool call, or find its request, and wait for the decision."""
    started = (yield Rest()).at
    opened = yield from _opening(call, seconds)
    now = (yield Rest()).at
    return (yield from waiting(opened, max(0.0, started + seconds - now)))


def requesting(call: ToolRequest, seconds: float = PATIENCE) -> Conversation[OpenRequest]:
    """Request this tool call, or find its request; return it with the time by which it is to be decided."""
    opened = yield from _opening(call, seconds)
    heard = yield from _reliably(Sending("GET", _path(opened.id)), seconds)
    return replace(opened, expires_at=_deadline(_success(heard)))


def _opening(call: ToolRequest, seconds: float) -> Conversation[OpenRequest]:
    sending = Sending("POST", "/api/runs", call.body, headers={"Idempotency-Key": call.key})
    answer = _success((yield from _reliably(sending, seconds)), call.key, needs=("run_id", "url"))
    return OpenRequest(str(answer["run_id"]), call.key, str(answer["url"]), call.digest, input=call.body["input"])


def waiting(request: OpenRequest, seconds: float) -> Conversation[Decision]:
    """Wait until the request is decided, or for so many seconds. Restarts of the service aren't noticed."""
    now = (yield Rest()).at
    ends, run_id, pause = now + seconds, request.id, FIRST_BACKOFF
    while True:
        left = max(0.0, ends - now)
        poll = min(LONGEST_POLL, left)
        sending = Sending("GET", _path(run_id), query={"wait": f"{poll:.3f}"}, patience=poll + MARGIN)
        heard = yield from _reliably(sending, left)
        run = _success(heard)
        decision = decision_of(run, request)
        if decision is not None:
            return decision
        if run.get("next_run"):
            run_id = str(run["next_run"])
        if heard.at >= ends:
            return _decision("pending", request)
        if heard.at - now < min(EARLY, poll):
            yield Rest(min(pause, ends - heard.at))
            pause = min(2 * pause, LONGEST_BACKOFF)
        else:
            pause = FIRST_BACKOFF
        now = (yield Rest()).at


def getting(key: str) -> Conversation[OpenRequest | Decision | None]:
    """Return the request with this key while it is open, its decision afterwards, and None if there is none."""
    for run in (yield from _listing(key)):
        if run.get("key") == key:
            return decision_of(run, None) or request_of(run)
    return None


def cancelling(key: str, reason: str) -> Conversation[bool]:
    """Withdraw the request with this key. Returns whether it was open."""
    found = yield from getting(key)
    return isinstance(found, OpenRequest) and (yield from _withdrawing(found, reason))


def listing_open(session: str | None) -> Conversation[list[OpenRequest]]:
    """Return this API key's open requests, or those of one session: the part of their keys before the first colon."""
    runs = yield from _listing(session, open="true")
    return [request_of(run) for run in runs if _is_open(run)]


def stopping(session: str, reason: str) -> Conversation[int]:
    """Withdraw all open requests of this session. Returns how many there were."""
    count = 0
    for request in (yield from listing_open(session)):
        count += yield from _withdrawing(request, reason)
    return count


def _listing(key: str | None, **filters: str) -> Conversation[list[Json]]:
    runs: list[Json] = []
    query = {"key": key or "", "limit": PAGE, **filters}
    while True:
        page = _success((yield from _reliably(Sending("GET", "/api/runs", query=query), PATIENCE)), needs=("runs",))
        runs += page["runs"]
        if not page.get("cursor"):
            return runs
        query = query | {"cursor": str(page["cursor"])}


def _withdrawing(request: OpenRequest, reason: str) -> Conversation[bool]:
    sending = Sending("POST", f"{_path(request.id)}/cancellation", {"reason": reason})
    heard = yield from _reliably(sending, PATIENCE)
    if heard.status == 409:
        return False  # it has just ended
    _success(heard)
    # The service has the withdrawal, and carries it out at once: it is none of the next list's open requests.
    yield from _reliably(Sending("GET", _path(request.id), query={"wait": WITHDRAWN_WITHIN}), PATIENCE)
    return True


def _reliably(sending: Sending, seconds: float) -> Conversation[Heard]:
    """Send until an answer comes that isn't 5xx. Raises ServiceUnavailableError after so many seconds."""
    started, backoff = (yield Rest()).at, FIRST_BACKOFF
    left = seconds
    while True:
        heard = yield replace(sending, patience=min(sending.patience, left + LEAST_PATIENCE))
        if 0 < heard.status < 500:
            return heard
        left = started + seconds - heard.at
        if left <= 0:
            why = heard.detail or f"HTTP {heard.status}"
            raise ServiceUnavailableError(f"The approval service can't be reached ({why}). The tool must not run.")
        yield Rest(min(backoff, left))
        backoff = min(2 * backoff, LONGEST_BACKOFF)


# ── what answers mean ──


def decision_of(run: Json, request: OpenRequest | None) -> Decision | None:
    """Return what came of this run; None while it is open. A run that ended otherwise is never a yes."""
    match run.get("status"):
        case "completed":
            return _result(run, request)
        case "cancelled":
            error = run.get("error")
            return _decision("withdrawn", request, run, comment=error.get("message") if error else None)
        case "failed":
            return _decision("withdrawn", request, run)
    early = run.get("decision")  # known before the run has updated every card, which a mail server may hold up
    return None if early is None else _result({**run, "result": early}, request)


def _result(run: Json, request: OpenRequest | None) -> Decision:
    result = run.get("result")
    try:
        made = Decision.model_validate(result)
    except ValidationError as error:
        found = result.get("state") if isinstance(result, dict) else result
        raise AgentError(
            f"Run {run.get('id')} has a result that is no decision ({found!r}), so the tool must not run. Its workflow "
            "has to return a Decision."
        ) from error
    if request is None:
        return made.model_copy(update={"request_id": run.get("id")})
    return made.model_copy(update=_known(request))


def _decision(state: str, request: OpenRequest | None, run: Json | None = None, **more: Any) -> Decision:
    known = _known(request) if request is not None else {"request_id": (run or {}).get("id")}
    return Decision.model_validate({"state": state, **known, **more})


def _known(request: OpenRequest) -> dict[str, Any]:
    """Return what the caller knows of a decision without the service."""
    sent = {"tool": request.input["tool"], "requested": request.input["arguments"]} if request.input else {}
    return {"request_id": request.id, **sent}


def request_of(run: Json) -> OpenRequest:
    """Return the open request that this run is."""
    shown = run.get("request") or {}
    return OpenRequest(
        str(run["id"]),
        str(run.get("key") or ""),
        str(run.get("url") or ""),
        str(shown.get("digest") or ""),
        _deadline(run),
    )


def _is_open(run: Json) -> bool:
    """Return whether people may still decide. A decided request's run goes on until all its cards say so."""
    return run.get("ended_at") is None and (run.get("request") or {}).get("outcome") is None


def _deadline(run: Json) -> datetime | None:
    text = (run.get("request") or {}).get("deadline")
    return datetime.fromisoformat(text) if text else None


def _success(heard: Heard, key: str = "", needs: Sequence[str] = ()) -> Json:
    """Return the body of a good answer. Raises what a refusal is, and AgentError for JSON of something else."""
    if 200 <= heard.status < 300:
        if missing := [name for name in needs if name not in heard.body]:
            raise AgentError(f"The answer has no {missing[0]!r}, so it isn't the service's. The tool must not run.")
        return heard.body
    detail = str(heard.body.get("detail") or heard.body.get("title") or heard.detail)
    if heard.status == 409 and heard.body.get("type") == KEY_REUSED:
        raise KeyReusedError(key, str(heard.body.get("difference") or detail), heard.body.get("run_id"))
    kind = NotAllowedError if heard.status in (401, 403) else RequestRefusedError
    raise kind(heard.status, detail, heard.body.get("errors") or (), heard.retry_after)


def _path(run_id: str) -> str:
    return f"/api/runs/{quote(run_id, safe='')}"
