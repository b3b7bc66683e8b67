"""Workflows: a function with its name, version and signature; and which of them a name means."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from approvals_bot.durable.core.signature import Signature
from approvals_bot.errors import NotInWorkflowError, WorkflowNameTakenError, WorkflowNotFoundError

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A durable function. Start it with `engine.start(workflow, …)`; calling it directly is an error.

    `name` is what its runs are listed under, `code` the name its body is registered under; they differ only for a body
    that is listed under several names, each with its own `settings`. `kind` is what the rows of its runs say they are.
    """

    def __init__(
        self,
        function: Callable[P, Awaitable[R]],
        name: str,
        version: str | None,
        signature: Signature,
        *,
        kind: str = "workflow",
    ) -> None:
        self.function = function
        self.name = name
        self.code = name
        self.version = version
        self.signature = signature
        self.kind = kind
        self.settings: Any = None
        self.origin = f"{function.__module__}:{function.__qualname__}"
        self.__doc__ = function.__doc__
        self.__name__ = name

    def under(self, name: str, settings: Any = None) -> Workflow[..., R]:
        """The same body, listed under another name.

        A parameter named `settings` receives the (JSON) settings, and callers don't pass it; each run keeps them as
        they were when it started.
        """
        listed: Workflow[..., R] = copy.copy(self)
        listed.name = listed.__name__ = name
        listed.settings = settings
        return listed

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotInWorkflowError(
            f"A workflow isn't called, it is started: await engine.start({self.__name__}, …). "
            "From inside a workflow, do that in a @step."
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name}{f' version {self.version}' if self.version else ''}>"


class Registry:
    """Workflows by name and version. Those defined inside functions are forgotten with them."""

    def __init__(self) -> None:
        self.additions = 0  # whoever waits for code to appear looks whether this has grown
        self._kept: dict[tuple[str, str | None], Workflow[Any, Any]] = {}
        self._trial: _Trial | None = None
        self._local: weakref.WeakValueDictionary[tuple[str, str | None], Workflow[Any, Any]] = (
            weakref.WeakValueDictionary()
        )

    def add(self, workflow: Workflow[Any, Any]) -> None:
        """WorkflowNameTakenError if another function has this name and version. The same function again replaces it."""
        key = (workflow.code, workflow.version)
        if (
            self._trial is not None
            and workflow.origin.startswith(self._trial.replaces)
            and "<locals>" not in workflow.origin
        ):
            self._trial.add(key, workflow, self._find(key))
            return
        if self._taken(key, workflow.origin):
            gc.collect()  # a forgotten local workflow may only be waiting for the collector
            if self._taken(key, workflow.origin):
                raise WorkflowNameTakenError(*key)
        self.additions += 1
        self._kept.pop(key, None)
        self._local.pop(key, None)
        if "<locals>" in workflow.origin:
            self._local[key] = workflow
        else:
            self._kept[key] = workflow

    @contextmanager
    def trial(self, modules: str) -> Iterator[None]:
        """While the block imports modules whose names begin so: what they define takes effect all together at its end,
        in place of what such modules defined before, or, if the block raises, not at all.
        """
        self._trial = trial = _Trial(modules)
        try:
            yield
        finally:
            self._trial = None
        for key, workflow in trial.added.items():
            self._kept.pop(key, None)
            self._kept[key] = workflow
        self.additions += len(trial.added)

    def get(self, name: str, version: str | None) -> Workflow[Any, Any]:
        """The workflow that a run was started with. WorkflowNotFoundError if it isn't here."""
        key = (name, version)
        found = self._kept.get(key) or self._local.get(key)
        if found is None:
            raise WorkflowNotFoundError(name, version)
        return found

    def newest(self, name: str) -> Workflow[Any, Any]:
        """The version that new runs of this name use: the one registered last."""
        for key, workflow in reversed([*self._kept.items(), *self._local.items()]):
            if key[0] == name:
                found: Workflow[Any, Any] = workflow
                return found
        raise WorkflowNotFoundError(name)

    def modules(self) -> list[dict[str, Any]]:
        """The global names of each module that has workflows."""
        workflows = [*self._kept.values(), *self._local.values()]
        return list(
            {id(found): found for w in workflows if (found := getattr(w.function, "__globals__", None))}.values()
        )

    def names(self) -> list[str]:
        return sorted({name for name, _ in [*self._kept, *self._local]})

    def _taken(self, key: tuple[str, str | None], origin: str) -> bool:
        existing = self._find(key)
        return existing is not None and existing.origin != origin

    def _find(self, key: tuple[str, str | None]) -> Workflow[Any, Any] | None:
        return self._kept[key] if key in self._kept else self._local.get(key)


class _Trial:
    """What modules define that may still turn out to be broken."""

    def __init__(self, replaces: str) -> None:
        self.replaces = replaces
        self.added: dict[tuple[str, str | None], Workflow[Any, Any]] = {}

    def add(self, key: tuple[str, str | None], workflow: Workflow[Any, Any], before: Workflow[Any, Any] | None) -> None:
        now = self.added.get(key)
        if (now is not None and now.origin != workflow.origin) or (
            before is not None and before.origin != workflow.origin and not before.origin.startswith(self.replaces)
        ):
            raise WorkflowNameTakenError(*key)
        self.added.pop(key, None)
        self.added[key] = workflow


registry = Registry()
"""Decorators run at import, before anything else exists, so this one table has to be the module's own."""
