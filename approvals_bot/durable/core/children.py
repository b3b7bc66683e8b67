"""Children: runs that a workflow's body starts, and whose results it awaits.

A child is a run like any other, with a log, a status and hooks of its own. The transaction that records `child_started`
in the parent's log creates it, and the one that ends it records `child_ended` there. In between, the parent waits
without a task, a timer or a slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, get_args, overload

from approvals_bot.durable.core.attributes import FOR_WHOM, Settable, attributes_of_body, with_changes
from approvals_bot.durable.core.commands import OnParentClose
from approvals_bot.durable.core.context import current_run
from approvals_bot.durable.core.open_work import OpenChild
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.core.remote_errors import decode_error
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.workflows import refuse_options
from approvals_bot.errors import InvalidArgumentError, RunCancelledError

P = ParamSpec("P")
R = TypeVar("R")


@overload
def run_child(workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]: ...
@overload
def run_child(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    on_parent_close: OnParentClose,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: P.kwargs,
) -> Coroutine[object, None, R]: ...
@overload
def run_child(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    attributes: Mapping[str, Settable] | None,
    on_parent_close: OnParentClose = "cancel",
    **kwargs: P.kwargs,
) -> Coroutine[object, None, R]: ...
def run_child(  # type: ignore[misc]  # a workflow's parameter may not be named like an option
    workflow: Workflow[..., Any],
    /,
    *args: Any,
    on_parent_close: OnParentClose = "cancel",
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: Any,
) -> Coroutine[object, None, Any]:
    """Run another workflow from the body of this one, and return its result.

        receipt = await run_child(expense, 420)
        answers = await asyncio.gather(*(run_child(ask, person) for person in people))

    The child is a run of its own, created exactly once, and waiting for it costs nothing, however long it takes. This
    raises what the child raised, with its class, arguments, notes and cause; RunCancelledError if it was cancelled. If
    the child was reset or has continued as new, this is the result of the run in its place.

    When the parent ends while the child is open, however that comes about, the child is asked to cancel. So it is when
    the body stops waiting for it, because of an `asyncio.timeout` or a cancelled task. With
    `on_parent_close="abandon"` it goes on in both cases.

    `attributes` are the child's own, as for `start`; for whom the parent was started, the child is, too. A body that is
    to begin a run without waiting for its result calls `start` in a step.
    """
    return _run_child(workflow, args, kwargs, on_parent_close, attributes or {})


async def _run_child(
    workflow: Workflow[..., Any],
    args: Any,
    kwargs: dict[str, Any],
    on_parent_close: OnParentClose,
    attributes: Mapping[str, Settable],
) -> Any:
    run = current_run("run_child()")
    if not isinstance(workflow, Workflow):
        raise InvalidArgumentError(f"run_child() takes a @workflow, not {workflow!r}")
    if on_parent_close not in get_args(OnParentClose):
        raise InvalidArgumentError(f'on_parent_close is "cancel" or "abandon", not {on_parent_close!r}')
    refuse_options("run_child()", kwargs)  # a body sleeps before it, and the log makes sure that it starts once
    inherited = {name: run.attributes[name] for name in FOR_WHOM if name in run.attributes}
    own = with_changes(inherited, attributes_of_body(attributes))
    child = run.start_child(workflow, args, kwargs, on_parent_close, own)
    try:
        ended = await child.future
    except asyncio.CancelledError:
        run.give_up_child(child.id)
        raise
    return _result(run, workflow, child, ended)


def _result(run: RunState, workflow: Workflow[..., Any], child: OpenChild, ended: dict[str, Any]) -> Any:
    """Return the child's result, or raise what it raised."""
    match ended:
        case {"status": "completed", "result": result}:
            try:
                return workflow.signature.result.decode(result)
            except Exception as error:
                run.drifts(child.id, f"a result of {workflow.name!r}", f"another type ({error})")
                raise
        case {"status": "failed", "error": error}:
            raised = decode_error(error)
            run.outcomes.append(raised)
            raise raised
        case _:
            raise RunCancelledError(ended.get("run_id", child.run_id), ended.get("reason"))
