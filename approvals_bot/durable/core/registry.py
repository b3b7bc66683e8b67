"""Workflows, each a function with name, version and signature, and their registry."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from approvals_bot.durable.core.bugs import FailureRules
from approvals_bot.durable.core.signature import Signature
from approvals_bot.errors import NotInWorkflowError, WorkflowNameTakenError, WorkflowNotFoundError

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A durable function. Start it with `engine.start(workflow, …)`; calling it directly is an error.

    Its runs are listed under `name`; its body is registered under `code`. The two differ only for a body that is listed
    under several names, each with its own `settings`. `kind` is stored in the row of each of its runs.

    `must_finish` is asked with the parts that a run has published. While it returns True, nothing but the run's own
    body ends it: a cancellation gives that as long as it takes, and a stalled run waits for its code.
    """

    def __init__(
        self,
        function: Callable[P, Awaitable[R]],
        name: str,
        version: str | None,
        signature: Signature,
        *,
        kind: str = "workflow",
        failures: FailureRules | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.code = name
        self.version = version
        self.signature = signature
        self.kind = kind
        self.failures = failures or FailureRules()
        self.must_finish: Callable[[list[Any]], bool] = lambda parts: False
        self.settings: Any = None
        self.origin = f"{function.__module__}:{function.__qualname__}"
        self.__doc__ = function.__doc__
        self.__name__ = name

    def under(self, name: str, settings: Any = None) -> Workflow[..., R]:
        """Return a workflow with the same body, listed under another name.

        If the body has a parameter named `settings`, it receives these (JSON) settings; callers don't pass it. Each
        run keeps the settings it was started with.
        """
        listed: Workflow[..., R] = copy.copy(self)
        listed.name = listed.__name__ = name
        listed.settings = settings
        return listed

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotInWorkflowError(
            f"A workflow can't be called directly. Start it: await engine.start({self.__name__}, …). "
            "From inside a workflow, do that in a @step."
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name}{f' version {self.version}' if self.version else ''}>"


class Registry:
    """The workflows of this process, by name and version. Those defined inside a function are forgotten with it."""

    def __init__(self) -> None:
        self.additions = 0  # grows with each registration: the sign of new code for stalled runs
        self._kept: dict[tuple[str, str | None], Workflow[Any, Any]] = {}
        self._trial: _Trial | None = None
        self._local: weakref.WeakValueDictionary[tuple[str, str | None], Workflow[Any, Any]] = (
            weakref.WeakValueDictionary()
        )

    def add(self, workflow: Workflow[Any, Any]) -> None:
        """Register a workflow, replacing an earlier one that was made from the same function.

        Raises WorkflowNameTakenError if another function has this name and version.
        """
        key = (workflow.code, workflow.version)
        if (
            self._trial is not None
            and workflow.origin.startswith(self._trial.replaces)
            and "<locals>" not in workflow.origin
        ):
            self._trial.add(key, workflow, self._find(key))
            return
        if self._taken(key, workflow.origin):
            gc.collect()  # the other may be a forgotten local workflow that hasn't been collected yet
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
        """Register the workflows of modules that the block imports all at once, or not at all.

        This concerns modules whose names begin with `modules`. Their workflows take effect when the block ends and
        replace those that such modules defined before. If the block raises, nothing changes.
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
        """Return the workflow that a run was started with. Raises WorkflowNotFoundError if it isn't registered."""
        key = (name, version)
        found = self._kept.get(key) or self._local.get(key)
        if found is None:
            raise WorkflowNotFoundError(name, version)
        return found

    def newest(self, name: str) -> Workflow[Any, Any]:
        """Return the version that new runs of this name use, which is the one registered last."""
        for key, workflow in reversed([*self._kept.items(), *self._local.items()]):
            if key[0] == name:
                found: Workflow[Any, Any] = workflow
                return found
        raise WorkflowNotFoundError(name)

    def modules(self) -> list[dict[str, Any]]:
        """Return the global names of each module that has workflows."""
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
    """The workflows of modules whose import may still fail."""

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
"""The one registry of a process. Decorators fill it at import, before there is an engine to own it."""
