"""Approvals in Slack and by email, on durable workflows. This is what workflow authors import.

Importing the package costs next to nothing: each name is imported from its module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approvals_bot.approvals.clock import Clock, Escalation
    from approvals_bot.approvals.delivery_policy import Deliver, StageDeliver
    from approvals_bot.approvals.field_specs import Ask
    from approvals_bot.approvals.outcomes import (
        Answered,
        Approved,
        ChangesRequested,
        Edited,
        Expired,
        Outcome,
        Rejected,
        Withdrawn,
    )
    from approvals_bot.approvals.policy import Policy
    from approvals_bot.approvals.request_approval import request_approval
    from approvals_bot.approvals.stage_policy import Alternative, Seat, Stage, Veto
    from approvals_bot.durable.core.api import (
        Hook,
        Step,
        Webhook,
        WebhookRequest,
        Workflow,
        continue_as_new,
        create_hook,
        create_webhook,
        define_hook,
        get_step_metadata,
        get_workflow_metadata,
        now,
        publish,
        random,
        resource,
        set_attributes,
        sleep,
        step,
        uuid4,
        workflow,
    )
    from approvals_bot.durable.core.children import run_child
    from approvals_bot.durable.core.forms import FormFile
    from approvals_bot.durable.core.logger import logger
    from approvals_bot.durable.engine import (
        Engine,
        HookInfo,
        Run,
        get_hook_by_token,
        get_run,
        resume_hook,
        resume_webhook,
        start,
        start_or_resume,
    )
    from approvals_bot.errors import (
        AgentError,
        AlreadyResetError,
        AnnotationError,
        ApprovalMismatchError,
        ApprovalsBotError,
        BlockedInWorkflowError,
        CannotAnswerError,
        CannotContinueError,
        ConfigError,
        DefinitionError,
        DeniedError,
        DeserializationError,
        FatalError,
        FileReplacedError,
        HookConflictError,
        HookDisposedError,
        HookFullError,
        HookNotFoundError,
        IdempotencyConflictError,
        InvalidArgumentError,
        InvalidPayloadError,
        InvalidTokenError,
        KeyReusedError,
        LimitExceededError,
        MalformedBodyError,
        NoEngineError,
        NondeterminismError,
        NoSuchEventError,
        NotAllowedError,
        NotInStepError,
        NotInWorkflowError,
        OtherLoopError,
        RequestRefusedError,
        RetryableError,
        RunCancelledError,
        RunEndedError,
        RunFailedError,
        RunNotFoundError,
        RunNotStalledError,
        SerializationError,
        ServiceUnavailableError,
        StepFailedError,
        StoreMissingError,
        StoreReadOnlyError,
        StoreUnavailableError,
        TokenExpiredError,
        UnknownLimitError,
        WorkflowBugError,
        WorkflowNameTakenError,
        WorkflowNotFoundError,
        WorkflowSpinsError,
        WorkflowStuckError,
    )

__version__ = "0.1.0"

__all__ = [
    "AgentError",
    "AlreadyResetError",
    "Alternative",
    "AnnotationError",
    "Answered",
    "ApprovalMismatchError",
    "ApprovalsBotError",
    "Approved",
    "Ask",
    "BlockedInWorkflowError",
    "CannotAnswerError",
    "CannotContinueError",
    "ChangesRequested",
    "Clock",
    "ConfigError",
    "DefinitionError",
    "Deliver",
    "DeniedError",
    "DeserializationError",
    "Edited",
    "Engine",
    "Escalation",
    "Expired",
    "FatalError",
    "FileReplacedError",
    "FormFile",
    "Hook",
    "HookConflictError",
    "HookDisposedError",
    "HookFullError",
    "HookInfo",
    "HookNotFoundError",
    "IdempotencyConflictError",
    "InvalidArgumentError",
    "InvalidPayloadError",
    "InvalidTokenError",
    "KeyReusedError",
    "LimitExceededError",
    "MalformedBodyError",
    "NoEngineError",
    "NoSuchEventError",
    "NondeterminismError",
    "NotAllowedError",
    "NotInStepError",
    "NotInWorkflowError",
    "OtherLoopError",
    "Outcome",
    "Policy",
    "Rejected",
    "RequestRefusedError",
    "RetryableError",
    "Run",
    "RunCancelledError",
    "RunEndedError",
    "RunFailedError",
    "RunNotFoundError",
    "RunNotStalledError",
    "Seat",
    "SerializationError",
    "ServiceUnavailableError",
    "Stage",
    "StageDeliver",
    "Step",
    "StepFailedError",
    "StoreMissingError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "TokenExpiredError",
    "UnknownLimitError",
    "Veto",
    "Webhook",
    "WebhookRequest",
    "Withdrawn",
    "Workflow",
    "WorkflowBugError",
    "WorkflowNameTakenError",
    "WorkflowNotFoundError",
    "WorkflowSpinsError",
    "WorkflowStuckError",
    "continue_as_new",
    "create_hook",
    "create_webhook",
    "define_hook",
    "get_hook_by_token",
    "get_run",
    "get_step_metadata",
    "get_workflow_metadata",
    "logger",
    "now",
    "publish",
    "random",
    "request_approval",
    "resource",
    "resume_hook",
    "resume_webhook",
    "run_child",
    "set_attributes",
    "sleep",
    "start",
    "start_or_resume",
    "step",
    "uuid4",
    "workflow",
]

_API, _ENGINE = "approvals_bot.durable.core.api", "approvals_bot.durable.engine"
_OUTCOMES = "approvals_bot.approvals.outcomes"
_MODULES = {
    **dict.fromkeys(
        (
            "Answered", "Approved", "ChangesRequested", "Edited", "Expired", "Outcome", "Rejected", "Withdrawn",
        ),
        _OUTCOMES,
    ),
    **dict.fromkeys(("Clock", "Escalation"), "approvals_bot.approvals.clock"),
    **dict.fromkeys(("Deliver", "StageDeliver"), "approvals_bot.approvals.delivery_policy"),
    **dict.fromkeys(("Alternative", "Seat", "Stage", "Veto"), "approvals_bot.approvals.stage_policy"),
    "Policy": "approvals_bot.approvals.policy",
    "Ask": "approvals_bot.approvals.field_specs",
    "run_child": "approvals_bot.durable.core.children",
    "logger": "approvals_bot.durable.core.logger",
    "FormFile": "approvals_bot.durable.core.forms",
    "request_approval": "approvals_bot.approvals.request_approval",
    **dict.fromkeys(
        (
            "Hook", "Step", "Webhook", "WebhookRequest", "Workflow", "continue_as_new", "create_hook", "create_webhook",
            "define_hook", "get_step_metadata", "get_workflow_metadata", "now", "publish", "random", "resource",
            "set_attributes", "sleep", "step", "uuid4", "workflow",
        ),
        _API,
    ),
    **dict.fromkeys(
        (
            "Engine", "HookInfo", "Run", "get_hook_by_token", "get_run", "resume_hook", "resume_webhook", "start",
            "start_or_resume",
        ),
        _ENGINE,
    ),
}  # fmt: skip
"""The module of each public name. Errors aren't listed; they are all in one module."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "approvals_bot.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
