"""Segments: what an agent of a framework does between two pauses, as one step of a workflow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from approvals_bot.agents.model_errors import cause_of, clean
from approvals_bot.durable.core.steps import step
from approvals_bot.errors import ApprovalMismatchError, FatalError, InvalidArgumentError, StepFailedError

T = TypeVar("T")

FINAL = (ApprovalMismatchError, InvalidArgumentError)
"""Errors that the same segment would have again."""


async def run_segment(name: str, segment: Callable[[], Awaitable[T]], result: type[T], *, retries: int) -> T:
    """Run a segment as a step of this name. Its input is what it closes over, which the log has already.

    Raises ApprovalMismatchError itself, not a StepFailedError that it caused.
    """

    async def run() -> T:
        try:
            return await segment()
        except FINAL as error:
            raise FatalError(str(error)) from error
        except Exception as error:
            clean(error)
            raise

    run.__annotations__["return"] = result
    try:
        return await step(name=name, retries=retries)(run)()
    except StepFailedError as failed:
        if isinstance(cause := cause_of(failed), ApprovalMismatchError):
            raise cause from None
        raise
