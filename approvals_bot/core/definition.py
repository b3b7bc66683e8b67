"""A workflow as it is registered: a function, its name and version, and how its calls are kept in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, TypeVar

from approvals_bot.core.signature import Signature
from approvals_bot.errors import NotInWorkflowError

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A durable function. Start it with `engine.start(workflow, …)`; calling it directly is an error.

    `name` is what its runs are listed under, `code` the name its body is registered under; they differ only for a body
    that is listed under several names, each with its own `settings`.
    """

    def __init__(self, function: Callable[P, Awaitable[R]], name: str, version: str | None, signature: Signature):
        self.function = function
        self.name = name
        self.code = name
        self.version = version
        self.signature = signature
        self.settings: Any = None
        self.origin = f"{function.__module__}:{function.__qualname__}"
        self.__doc__ = function.__doc__
        self.__name__ = name

    def under(self, name: str, settings: Any = None) -> Workflow[P, R]:
        """The same body, listed under another name. A parameter named `settings` receives the (JSON) settings, which
        every run keeps as they were when it started."""
        listed = Workflow(self.function, name, self.version, self.signature)
        listed.code = self.code
        listed.settings = settings
        return listed

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotInWorkflowError(
            f"A workflow isn't called, it is started: await engine.start({self.__name__}, …). "
            "From inside a workflow, do that in a @step."
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name}{f' version {self.version}' if self.version else ''}>"
