"""Ask for an approval from any Python program, over HTTP; it imports nothing of the service but its errors.

Each name is imported from its module on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approvals_bot.client.approvals import Approvals, SyncApprovals
    from approvals_bot.client.decision import Decision
    from approvals_bot.client.digests import digest_of
    from approvals_bot.client.guard import requires_approval, scope
    from approvals_bot.client.tool_request import OpenRequest as Request
    from approvals_bot.errors import (
        AgentError,
        ApprovalMismatchError,
        DeniedError,
        KeyReusedError,
        NotAllowedError,
        RequestRefusedError,
        ServiceUnavailableError,
    )

__all__ = [
    "AgentError",
    "ApprovalMismatchError",
    "Approvals",
    "Decision",
    "DeniedError",
    "KeyReusedError",
    "NotAllowedError",
    "Request",
    "RequestRefusedError",
    "ServiceUnavailableError",
    "SyncApprovals",
    "digest_of",
    "requires_approval",
    "scope",
]

_MODULES = {
    **dict.fromkeys(("Approvals", "SyncApprovals"), "approvals_bot.client.approvals"),
    **dict.fromkeys(("requires_approval", "scope"), "approvals_bot.client.guard"),
    "Decision": "approvals_bot.client.decision",
    "Request": "approvals_bot.client.tool_request",
    "digest_of": "approvals_bot.client.digests",
}
"""The module of each public name. Errors aren't listed; they are all in one module."""

_NAMES = {"Request": "OpenRequest"}  # inside the package, `Request` is the service's own


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "approvals_bot.errors")), _NAMES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
