"""Every error this package raises, under one base.

Each error says who has to act and what to do. Its docstring is the default message. Details are attributes, so callers
never have to parse a message.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class ApprovalsBotError(Exception):
    """Something in Approvals Bot went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


# ── the caller's side ─────────────────────────────────────────────────────────────────────────────────────────────


class HookNotFoundError(ApprovalsBotError):
    """Hook not found: no live hook has this token. It never existed, was disposed, or its run has ended.

    The caller is mistaken or too late. Nothing was written, and retrying won't help.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(
            "Hook not found: no live hook has this token (it never existed, was disposed, or its run has ended)."
        )


class RunNotFoundError(ApprovalsBotError):
    """No run has this ID. Check the ID, and that this is the right database."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"No run has the ID {run_id!r}. Check the ID, and that this is the right database.")


class RunFailedError(ApprovalsBotError):
    """The run failed because its workflow raised an error.

    The workflow's author has to fix it; `cause_type`, `cause_message` and `traceback` describe the error.
    """

    def __init__(self, run_id: str, cause_type: str, cause_message: str, traceback: str = "") -> None:
        self.run_id = run_id
        self.cause_type = cause_type
        self.cause_message = cause_message
        self.traceback = traceback
        super().__init__(f"Run {run_id} failed: {cause_type}: {cause_message}")


class RunCancelledError(ApprovalsBotError):
    """The run was cancelled by a person or a program, who may have given a `reason`."""

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        self.run_id = run_id
        self.reason = reason
        super().__init__(f"Run {run_id} was cancelled" + (f": {reason}" if reason else "."))


class RunEndedError(ApprovalsBotError):
    """The run has already ended, so it can't be cancelled or retried. Its status is unchanged."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(f"Run {run_id} has already ended ({status}). Nothing was changed.")


class RunNotStalledError(ApprovalsBotError):
    """The run isn't stalled, so there is nothing to retry: it is running, or waits for what it shows."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(f"Run {run_id} is {status}, not stalled, so there is nothing to retry. Nothing was changed.")


class NoSuchEventError(ApprovalsBotError):
    """The run's log has no event with this number, so the run can't be reset to it. Nothing was changed."""

    def __init__(self, run_id: str, seq: int, length: int) -> None:
        self.run_id = run_id
        self.seq = seq
        self.length = length
        super().__init__(f"Run {run_id} has the events 1 to {length}, so it can't be reset to event {seq}.")


class AlreadyResetError(ApprovalsBotError):
    """The run was reset before, or has continued: another one is in its place. Retry or reset that one: `next_run`."""

    def __init__(self, run_id: str, next_run: str, status: str = "reset") -> None:
        self.run_id = run_id
        self.next_run = next_run
        self.status = status
        how = "has continued as a new one" if status == "continued" else "was reset"
        super().__init__(
            f"Run {run_id} {how}, and run {next_run} is in its place: retry, reset or cancel that one. "
            "Nothing was changed."
        )


class IdempotencyConflictError(ApprovalsBotError):
    """The idempotency key was already used with other input. Use a new key for a new request."""

    def __init__(self, key: str, run_id: str, difference: str) -> None:
        self.key = key
        self.run_id = run_id
        self.difference = difference
        super().__init__(f"The idempotency key was already used for run {run_id} with other input: {difference}")


class InvalidTokenError(ApprovalsBotError):
    """This signed token is invalid: forged, truncated, for another purpose, or signed with a retired key."""


class TokenExpiredError(InvalidTokenError):
    """This signed token has expired. Ask for a new link."""


class SerializationError(ApprovalsBotError):
    """A value can't be stored in the log. `path` locates it; use a type that JSON or pydantic supports."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class DeserializationError(ApprovalsBotError):
    """A value in the log doesn't fit the type that the code gives it now. Deploy code whose type takes it.

    `path` is the value, `errors` lists what is wrong where. The run stalls until then; nothing of it is lost.
    """

    def __init__(self, path: str, errors: list[dict[str, Any]]) -> None:
        self.path = path
        self.errors = errors
        lines = "; ".join(f"{'.'.join(str(p) for p in (path, *e['loc']))}: {e['msg']}" for e in errors)
        super().__init__(f"The log has a value that no longer fits its type: {lines}")


class InvalidPayloadError(ApprovalsBotError, ValueError):
    """A payload or input doesn't match its schema. Nothing was written; `errors` lists what is wrong where."""

    def __init__(self, errors: list[dict[str, Any]], what: str = "payload") -> None:
        self.errors = errors
        self.what = what
        lines = "; ".join(f"{'.'.join(str(p) for p in e['loc']) or what}: {e['msg']}" for e in errors)
        super().__init__(f"Invalid {what}: {lines}")


class MalformedBodyError(ApprovalsBotError, ValueError):
    """A request's body isn't what it is read as. Its sender has to fix it; nothing was written if it came just now.

    `what` is "form" or "JSON", `reason` says what is wrong. A webhook's callers may be strangers: a workflow that reads
    their bodies catches this, and waits for the next call.
    """

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"The body can't be read as {'a form' if what == 'form' else what}: {reason}.")


class LimitExceededError(ApprovalsBotError):
    """A limit was exceeded. Nothing was written; `limit` is its name and `maximum` its value."""

    def __init__(self, limit: str, maximum: int | float, got: int | float, unit: str) -> None:
        self.limit = limit
        self.maximum = maximum
        self.got = got
        super().__init__(f"{limit}: {got:,} {unit} is over the limit of {maximum:,} {unit}")


class HookFullError(ApprovalsBotError):
    """This hook takes no more payloads for now: its workflow hasn't taken those that are waiting. Try again later.

    Nothing was written, and the run is unchanged. `limit` is the limit's name, `maximum` its value. If the workflow
    should have taken them, its author or an operator has to look at `run_id`; it may be stalled.
    """

    def __init__(self, token: str, run_id: str, limit: str, maximum: int) -> None:
        self.token = token
        self.run_id = run_id
        self.limit = limit
        self.maximum = maximum
        super().__init__(
            f"The hook takes no more payloads for now: {limit} are limited to {maximum:,}. Nothing was written; try "
            "again later."
        )


class NoEngineError(ApprovalsBotError):
    """No engine is open in this process. Open one first, with `async with Engine.open(...)`."""


class OtherLoopError(ApprovalsBotError):
    """The engine was called from another event loop than the one it was opened on. Nothing was done.

    A step that is a plain `def` runs in a thread. Make it an `async def` instead, or use
    `asyncio.run_coroutine_threadsafe(call, loop).result()`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} was called on another event loop than the one the engine was opened on. Make the step an `async "
            "def`, or use asyncio.run_coroutine_threadsafe(…) with the engine's loop."
        )


class StoreUnavailableError(ApprovalsBotError):
    """The store can't be read or written right now. Nothing was acknowledged; try again."""


class StoreMissingError(StoreUnavailableError):
    """There is no database yet where the configuration names one. The operator mends its name, or creates it."""

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(f"There is no database {place} yet. `approvals-bot migrate` creates it.")


class StoreReadOnlyError(StoreUnavailableError):
    """The database can't be written to. Nothing was written; the operator lets this user write, or changes the user."""


class FileReplacedError(StoreUnavailableError):
    """The database's file was replaced under the running service. The operator restarts it; nothing more is written."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"The database's file was replaced: {path} was moved, deleted or replaced while it was in use. Nothing is "
            "accepted until the service has been restarted."
        )


class StoreCopyError(ApprovalsBotError):
    """One store can't be copied to another. Nothing was written; the operator has to fix the cause."""


class ConfigError(ApprovalsBotError):
    """The configuration can't be loaded. The operator has to fix it; each problem has its file, line and key."""


# ── the workflow author's side ────────────────────────────────────────────────────────────────────────────────────


class FatalError(ApprovalsBotError):
    """Raised by a step when retrying wouldn't help, so that it fails at once."""


class RetryableError(ApprovalsBotError):
    """Raised by a step to be retried after `retry_after`, a duration or time as for `sleep`.

    The default is the step's retry delay.
    """

    def __init__(self, message: str | None = None, *, retry_after: Any = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StepFailedError(FatalError):
    """Raised in a workflow when a step has failed for good. `__cause__` is the step's last error."""

    def __init__(self, step: str, attempts: int, cause_type: str, cause_message: str) -> None:
        self.step = step
        self.attempts = attempts
        self.cause_type = cause_type
        self.cause_message = cause_message
        retries = attempts - 1
        super().__init__(
            f'Step "{step}" failed after {retries} {"retry" if retries == 1 else "retries"}: {cause_message}'
        )


class InvalidArgumentError(ApprovalsBotError, ValueError):
    """A workflow gave this package's function an argument that it can't use. Its author has to change the call."""


class CannotAnswerError(ApprovalsBotError, RuntimeError):
    """A webhook's caller can't be answered by the workflow, or was answered before. Its author has to change that."""


class HookConflictError(ApprovalsBotError):
    """Another live hook has this token. Resume or cancel `run_id`, the run that owns it, or wait for it."""

    def __init__(self, token: str, run_id: str) -> None:
        self.token = token
        self.run_id = run_id
        super().__init__(f"The hook token {token!r} is already in use by run {run_id}.")


class CannotContinueError(ApprovalsBotError, RuntimeError):
    """The run can't continue as a new one here. Its author has to change the call, or wait for what can't move."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"continue_as_new(): {why}.")


class HookDisposedError(ApprovalsBotError):
    """This hook was disposed, so nothing more will arrive. Create a new hook to wait again."""


class NotInWorkflowError(ApprovalsBotError):
    """This works only inside a workflow."""


class NotInStepError(ApprovalsBotError):
    """This works only inside a step that an engine runs."""


class BlockedInWorkflowError(ApprovalsBotError):
    """Workflows can't do I/O or use the clock, randomness or threads directly. Do that in a @step."""


class AnnotationError(ApprovalsBotError):
    """A type in an annotation can't be resolved, or values can't be read back by it. The author has to fix it.

    `what` is annotated with `annotation`, in `file` at `line`.
    """

    def __init__(
        self, what: str, annotation: str, file: str, line: int, why: str, advice: str, *, resolves: bool = False
    ) -> None:
        """`resolves`: its names are defined, but no value can be read back by it."""
        self.what = what
        self.annotation = annotation
        self.file = file
        self.line = line
        fails = "can't be read back from JSON" if resolves else "can't be resolved"
        self.problem = f"the annotation {annotation!r} of {what} {fails}: {why} {advice}"
        super().__init__(f"{file}:{line}: {self.problem}")


class DefinitionError(ApprovalsBotError, ValueError):
    """A function can't be a step or a workflow, or a setting of it makes no sense. The author has to fix it.

    It is in `file` at `line`, and `problem` says what is wrong with it.
    """

    def __init__(self, file: str, line: int, problem: str) -> None:
        self.file = file
        self.line = line
        self.problem = problem
        super().__init__(f"{file}:{line}: {problem}")


class UnknownLimitError(DefinitionError):
    """A step has a limit that the engine doesn't have: `limit`. Add it, or correct the step."""

    def __init__(self, step: str, limit: str, known: Collection[str], file: str, line: int) -> None:
        self.step = step
        self.limit = limit
        there_are = f"There are: {', '.join(sorted(known))}." if known else "There is none."
        advice = "Add it to [limits] in config.toml, or to Engine.open(limits={…})."
        super().__init__(file, line, f"{step}() has the limit {limit!r}, which doesn't exist. {there_are} {advice}")


class WorkflowNameTakenError(ApprovalsBotError, ValueError):
    """Two workflows have the same name. Give one of them `@workflow(name=…)`, or a `version`."""

    def __init__(self, name: str, version: str | None) -> None:
        self.name = name
        self.version = version
        super().__init__(
            f"A workflow named {name!r}{f' (version {version!r})' if version else ''} is already registered. "
            "Give one of them another name, or a version."
        )


class WorkflowNotFoundError(ApprovalsBotError):
    """No workflow with this name is registered in this process. Import the module that defines it."""

    def __init__(self, name: str, version: str | None = None) -> None:
        self.name = name
        self.version = version
        super().__init__(
            f"No workflow named {name!r}{f' (version {version!r})' if version else ''} is registered here. "
            "Import the module that defines it."
        )


class NondeterminismError(ApprovalsBotError):
    """The code no longer does what its log recorded. The run stalls until matching code is deployed."""

    def __init__(self, seq: int, expected: str, got: str) -> None:
        self.seq = seq
        self.expected = expected
        self.got = got
        super().__init__(f"Event {seq} recorded {expected}, but the code now asks for {got}.")


class WorkflowBugError(ApprovalsBotError):
    """The workflow's code raised an error that is a bug. The run stalls until other code runs, or until it is retried.

    `__cause__` is that error, and `where` its file and line, like `workflows/refund.py:17` (empty if that is unknown).
    `schemas` has what the hooks take that were open by then, by number.
    """

    def __init__(self, cause_type: str, cause_message: str, where: str, schemas: dict[int, Any] | None = None) -> None:
        self.cause_type = cause_type
        self.cause_message = cause_message
        self.where = where
        self.schemas = schemas or {}
        super().__init__(f"{cause_type}: {cause_message}" + (f" ({where})" if where else ""))


class WorkflowStuckError(ApprovalsBotError):
    """The workflow waits for something that nothing can deliver: no step, hook or timer is open."""


class WorkflowSpinsError(ApprovalsBotError):
    """The workflow computed for too long without waiting. Move the computation into a @step."""


# ── the agent's side ──────────────────────────────────────────────────────────────────────────────────────────────


class AgentError(ApprovalsBotError):
    """An agent's tool call was not approved, or could not be requested. The tool must not run."""


class ApprovalMismatchError(AgentError):
    """The fields differ from those that were approved. Open a new request for what is to be done now.

    `expected` is the approved digest, `got` that of the current fields.
    """

    def __init__(self, request_id: str, expected: str, got: str) -> None:
        self.request_id = request_id
        self.expected = expected
        self.got = got
        super().__init__(
            f"What was approved in {request_id} is not what is about to be done: the pinned fields have changed "
            f"(approved digest {expected[:12]}, now {got[:12]}). Nothing was done. Open a new request."
        )


class RequestRefusedError(AgentError):
    """The service refuses this request as it is. Sending it again won't help; the caller has to correct it.

    `status` is HTTP's, `detail` says why, `errors` what is wrong where. `retry_after` (seconds): when a budget that is
    used up has room again.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Collection[dict[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after
        lines = "".join(
            f" {'.'.join(str(p) for p in fault.get('loc', ()))}: {fault.get('msg', '')}." for fault in self.errors
        )
        super().__init__(f"The service refused this request ({status}): {detail}{lines}")


class NotAllowedError(RequestRefusedError):
    """This API key may not request this. The service's operator has to allow it; nothing was requested."""


class KeyReusedError(AgentError):
    """This key was used before for another tool call. Use a new key for a new call; nothing was requested.

    `difference` says which value was what, and is now what.
    """

    def __init__(self, key: str, difference: str, run_id: str | None = None) -> None:
        self.key = key
        self.difference = difference
        self.run_id = run_id
        super().__init__(f"The key {key!r} was used before for another tool call: {difference}")


class DeniedError(AgentError):
    """There is no approval, so the tool must not run. `decision` is a `Decision`; its `text` is for the model."""

    def __init__(self, decision: Any) -> None:
        self.decision = decision
        super().__init__(str(decision.text))


class ServiceUnavailableError(AgentError):
    """The approval service couldn't be reached during the whole waiting time. The tool must not run.

    Whether the request was opened is unknown; asking again with the same key finds it if it was.
    """
