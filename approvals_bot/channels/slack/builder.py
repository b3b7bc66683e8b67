"""A step of Workflow Builder: one of Slack's workflows opens a request, and goes on once that has ended.

`function_executed` starts a run of `builder_step`, which is all that has to be durable before Slack's event is
acknowledged. The run opens the request as its child, waits for its decision, however that comes about, and reports it:
Slack's workflow goes on while the request's cards are still brought up to date. Each part is a step, so days and
restarts in between don't matter; Slack may send the event any number of times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.delivery import LONGEST_TRY, attempt, wait_before
from approvals_bot.approvals.fields import form_field, label
from approvals_bot.approvals.follow_ups import AWAITED_BY, decision_made
from approvals_bot.approvals.plain_text import clean, clip
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Called, CallResult, Refused, TryAgain
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.client import LaterError, NeverError
from approvals_bot.channels.slack.desk import SlackDesk
from approvals_bot.channels.slack.identity import Unidentified
from approvals_bot.channels.slack.manifest import REQUESTER_INPUT, step_name
from approvals_bot.channels.slack.opening import NOT_OURS, SlackOpening, reason_of
from approvals_bot.durable.core.api import Hook, is_bug, now, random, resource, sleep, step, workflow
from approvals_bot.durable.core.children import run_child
from approvals_bot.durable.engine import SentKey
from approvals_bot.errors import ApprovalsBotError, IdempotencyConflictError, InvalidPayloadError, RunCancelledError
from approvals_bot.service.open import prepare_approval
from approvals_bot.service.read import request_of
from approvals_bot.service.refusals import OpeningRefused

LONGEST_ERROR, LONGEST_COMMENT = 1_000, 3_000  # characters of what Slack's workflow gets to read
WHEN_REVOKED = timedelta(minutes=5)  # until the next report after Slack refused the whole app
NOBODY = "The requester isn't a member of this Slack workspace, so no request was made."
NOT_NOW = "No request was made: it couldn't be checked who may request this. Please try again."
FAILED = "The request failed before it was decided. Please ask your Approvals admin."
STOPPED = "An operator stopped waiting for the request."

log = logging.getLogger(__name__)


class StepNotReportedError(ApprovalsBotError):
    """Slack's workflow never learnt how the request ended: it is gone, or Slack refused for two days."""


@dataclass(frozen=True, slots=True)
class StepExecution:
    """One execution of our function, as Slack's event describes it."""

    id: str
    function: str
    inputs: dict[str, JsonValue]

    @property
    def token(self) -> str:
        """Of the hook that is resumed by the decision. Also finds the execution's request."""
        return f"decision for slack function {self.id}"


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that may be opened: its workflow, with its settings, and what opens it."""

    workflow: str
    settings: dict[str, JsonValue]
    opening: Opening
    kind: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why the step has no outcome, as people read it."""

    why: str
    kind: Literal["failure"] = "failure"


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """What Slack's workflow gets: how the request ended, and where it is."""

    outcome: str
    by: str
    comment: str
    run_id: str
    url: str
    kind: Literal["outputs"] = "outputs"


class SlackSteps:
    """The step's way to Slack, to the workflows and to the people. A resource of the engine."""

    def __init__(self, desk: SlackDesk, opening: SlackOpening) -> None:
        self._desk, self._opening = desk, opening

    async def executed(self, payload: Mapping[str, Any]) -> None:
        """Begin the step, once, however often Slack sends the event."""
        event = payload["event"]
        function = str((event.get("function") or {}).get("callback_id") or "")
        execution = StepExecution(str(event["function_execution_id"]), function, dict(event.get("inputs") or {}))
        actor = Actor("slack", execution.id)
        key = SentKey(f"slack function {execution.id}", asdict(execution))
        try:
            await self._desk.engine.start_by(actor.as_json(), builder_step, execution, idempotency_key=key)
        except IdempotencyConflictError:
            log.warning("Slack sent an execution of a function twice, with different inputs. The first counts.")

    async def prepare(self, execution: StepExecution) -> PreparedRequest | StepFailure | TryAgain:
        """Check what a person's form is checked for, without opening anything."""
        workflows = self._opening.workflows
        names = [] if workflows is None else [one for one in workflows.names() if step_name(one) == execution.function]
        listed = workflows.find(names[0]) if workflows is not None and len(names) == 1 else None
        if workflows is None or listed is None or listed.definition is None or not listed.definition.deliver.builder:
            return StepFailure(NOT_OURS)
        name = names[0]
        identities = self._desk.identities
        requester = await identities.identify(str(execution.inputs.get(REQUESTER_INPUT) or ""), None)
        if isinstance(requester, Unidentified):
            return TryAgain(NOT_NOW) if requester.verdict == "group_unknown" else StepFailure(NOBODY)
        try:
            opening = await prepare_approval(
                engine=self._desk.engine,
                workflows=workflows,
                people=identities.people,
                name=name,
                input=given(listed.definition, execution.inputs),
                requester=requester.address,
                actor=Actor("slack", execution.id),
            )
        except OpeningRefused as refused:
            if refused.code == "group_unknown":
                return TryAgain(NOT_NOW)
            return StepFailure(_errors(listed.definition, refused.errors) or reason_of(refused))
        except InvalidPayloadError as unfit:
            return StepFailure(_errors(listed.definition, unfit.errors) or str(unfit))
        return PreparedRequest(name, listed.workflow.settings, opening)

    async def outcome(self, token: str) -> StepOutputs | None:
        """Return how the request of this execution was decided; None if it wasn't."""
        page = await self._desk.engine.runs(attributes={AWAITED_BY: token}, limit=1)
        request = request_of(page.records[0]) if page.records else None
        if request is None or request.outcome is None:
            return None
        return _outputs(request, self._desk.base_url)

    async def report(self, execution_id: str, ended: StepOutputs | StepFailure) -> CallResult:
        """Report to Slack once. An execution that isn't running any more has its report, or was ended in Slack."""
        ask = self._desk.client.ask
        try:
            match ended:
                case StepOutputs():
                    await ask("functions.completeSuccess", function_execution_id=execution_id, outputs=_plain(ended))
                case StepFailure(why):
                    error = clip(clean(why), LONGEST_ERROR)
                    await ask("functions.completeError", function_execution_id=execution_id, error=error)
        except NeverError as never:
            if never.code == "execution_not_in_running_state":
                return Called(200)
            return TryAgain(never.reason, WHEN_REVOKED) if never.install else Refused(never.reason)
        except LaterError as later:
            return TryAgain(later.reason, later.after)
        return Called(200)


@step(retries=0, timeout=60.0)
async def prepare_request(
    execution: StepExecution, steps: SlackSteps = resource(SlackSteps)
) -> PreparedRequest | StepFailure | TryAgain:
    """Check the requester, and the fields."""
    return await steps.prepare(execution)


@step
async def read_outcome(token: str, steps: SlackSteps = resource(SlackSteps)) -> StepOutputs | None:
    """Read how the request was decided; None if it wasn't."""
    return await steps.outcome(token)


@step(retries=0, timeout=60.0)
async def report_outcome(
    execution_id: str, ended: StepOutputs | StepFailure, steps: SlackSteps = resource(SlackSteps)
) -> CallResult:
    """Complete the step in Slack, once."""
    return await steps.report(execution_id, ended)


@workflow(name="workflow_builder_step")
async def builder_step(execution: StepExecution) -> str:
    """Open the request that a step of Slack's workflow asks for, and report its end. Returns the request's outcome.

    A run that is cancelled leaves the request to go on, and ends the step as failed.
    """
    try:
        prepared = await _prepared(execution)
        ended = prepared if isinstance(prepared, StepFailure) else await _decided(execution, prepared)
    except asyncio.CancelledError:
        await _report(execution, StepFailure(STOPPED))
        raise
    await _report(execution, ended)
    return ended.outcome if isinstance(ended, StepOutputs) else "failed"


async def _prepared(execution: StepExecution) -> PreparedRequest | StepFailure:
    """Check until it is known whether the request may be opened; for two days at most."""
    until, attempts = now() + LONGEST_TRY, 0
    while True:
        attempts += 1
        found = await attempt(prepare_request(execution))
        if not isinstance(found, TryAgain):
            return found
        wait = wait_before(attempts, None, random().random())
        if now() + wait > until:
            return StepFailure(NOT_NOW)
        await sleep(wait)


async def _decided(execution: StepExecution, prepared: PreparedRequest) -> StepOutputs | StepFailure:
    """Open the request and wait for its decision, or for the end of its run if that fails before."""
    async with decision_made.create(execution.token) as decision:
        opened = asyncio.ensure_future(_opened(execution, prepared))
        try:
            while not opened.done():
                resumed = asyncio.ensure_future(_next(decision))
                await asyncio.wait([opened, resumed], return_when=asyncio.FIRST_COMPLETED)
                resumed.cancel()
                ended = await read_outcome(execution.token)
                if ended is not None:
                    return ended
            opened.result()
        finally:
            opened.cancel()
    return StepFailure(FAILED)


async def _next(decision: Hook[None]) -> None:
    await decision


async def _opened(execution: StepExecution, prepared: PreparedRequest) -> None:
    """Open the request and wait for the end of its run. How it was decided, the request itself knows."""
    opened = run_child(
        approval.under(prepared.workflow, prepared.settings),
        prepared.opening,
        on_parent_close="abandon",
        attributes={AWAITED_BY: execution.token},
    )
    try:
        await opened
    except RunCancelledError:
        pass  # withdrawn, or cancelled by an operator
    except Exception as failure:
        if is_bug(failure):
            raise
        log.warning("A request that Workflow Builder opened failed (%s).", type(failure).__name__)


async def _report(execution: StepExecution, ended: StepOutputs | StepFailure) -> None:
    """Report it until Slack takes it. Raises StepNotReportedError."""
    until, attempts = now() + LONGEST_TRY, 0
    while True:
        attempts += 1
        match await attempt(report_outcome(execution.id, ended)):
            case Called():
                return
            case Refused(error):
                raise StepNotReportedError(error)
            case TryAgain(error, after):
                wait = wait_before(attempts, after, random().random())
                if now() + wait > until:
                    raise StepNotReportedError(error)
                await sleep(wait)


def given(definition: Definition, inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the fields as JSON for `prepare_approval`. What Slack's workflow leaves empty is left out."""
    own = {name: value for name, value in inputs.items() if name in definition.fields and value not in (None, "")}
    texts = {
        name: value if isinstance(value, str) else form_field(name, definition.fields[name], value).value
        for name, value in own.items()
    }
    typed = fields.from_texts(definition.fields, texts)
    return {name: typed[name] for name in own if name in typed}


def _errors(definition: Definition, errors: Iterable[Mapping[str, Any]]) -> str:
    said = []
    for error in errors:
        name, message = str(error["loc"][-1]), str(error["msg"])
        spec = definition.fields.get(name)
        said.append(f"{label(name, spec) if spec is not None else name}: {message}")
    return f"No request was made. {'; '.join(said)}." if said else ""


def _outputs(request: Request, base_url: str) -> StepOutputs:
    outcome = request.outcome
    assert outcome is not None, "it has ended"
    comment = clip(clean(outcome.comment), LONGEST_COMMENT)
    return StepOutputs(outcome.state, outcome.by, comment, request.id, f"{base_url}/requests/{request.id}")


def _plain(ended: StepOutputs) -> dict[str, str]:
    return {name: text for name, text in asdict(ended).items() if name != "kind"}
