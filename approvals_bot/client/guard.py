"""`@requires_approval`: a function that runs only after people have approved its arguments."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import update_wrapper
from itertools import count
from threading import Lock
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from approvals_bot.client.approvals import Approvals, SyncApprovals
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import canonical_json, digest_of, leaves_of
from approvals_bot.client.tool_request import AskOptions, is_usable_key
from approvals_bot.client.words import error_text
from approvals_bot.errors import (
    AgentError,
    ApprovalMismatchError,
    DeniedError,
    InvalidArgumentError,
    InvalidPayloadError,
    RequestRefusedError,
)

if sys.version_info >= (3, 14):
    from annotationlib import Format

P = ParamSpec("P")
R = TypeVar("R")
Key = str | Callable[..., str] | None

NO_YES = (AgentError, InvalidPayloadError)
"""The errors that are no yes. What else is raised is a mistake of the function's author."""

_scope: ContextVar[_Session | None] = ContextVar("approvals_scope", default=None)


@contextmanager
def scope(session: str) -> Iterator[None]:
    """Give the calls of guarded functions in this block a session: the same calls again find the same requests.

        with scope("task-17"):
            book_flight("LH 441", price=640)

    Within the block, one yes is for one call: once the function has run, the same call is a new request. Threads that
    the block starts don't have its session, tasks do.
    """
    if not session or ":" in session:
        raise InvalidArgumentError(f"a session is a text without a colon, unlike {session!r}")
    token = _scope.set(_Session(session))
    try:
        yield
    finally:
        _scope.reset(token)


class Returning(Protocol):
    """A decorator whose functions also return the words for the model."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R | str]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | str]: ...


class Raising(Protocol):
    """A decorator whose functions return what they always do, or raise."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def requires_approval(
    *,
    to: str | Sequence[str] | None = None,
    key: Key = None,
    when: Callable[..., bool] | None = None,
    wait: float | str | None = None,
    on_denied: Literal["return"] = "return",
    why: str | None = None,
    deadline: str | None = None,
    agent: str | None = None,
    on_behalf_of: str | None = None,
    workflow: str | None = None,
    ap: Approvals | SyncApprovals | None = None,
) -> Returning: ...
@overload
def requires_approval(
    *,
    to: str | Sequence[str] | None = None,
    key: Key = None,
    when: Callable[..., bool] | None = None,
    wait: float | str | None = None,
    on_denied: Literal["raise"],
    why: str | None = None,
    deadline: str | None = None,
    agent: str | None = None,
    on_behalf_of: str | None = None,
    workflow: str | None = None,
    ap: Approvals | SyncApprovals | None = None,
) -> Raising: ...
def requires_approval(
    *,
    key: Key = None,
    when: Callable[..., bool] | None = None,
    on_denied: Literal["return", "raise"] = "return",
    ap: Approvals | SyncApprovals | None = None,
    **options: Any,
) -> Any:
    """Let people approve each call of a function before it runs, whether it is `def` or `async def`.

        @requires_approval(to="@ops", when=lambda flight, price: price > 100)
        def book_flight(flight: str, price: float) -> str:
            ...

    Approvers see the arguments by name, and what they change is checked against the signature. Whatever isn't a yes
    keeps the function from running: the call returns the words for the model, or raises with `on_denied="raise"`.

    `when` takes the call's arguments and returns whether people are asked. `key` names a call: a template of the
    arguments ("booking-{flight}") or a function of them. Without it, the key is the function's name and the arguments'
    digest in the session of `scope`, and calls outside of a `with scope(…):` raise InvalidArgumentError. `ap` is the
    client; by default each call makes one from APPROVALS_URL and APPROVALS_KEY. The rest is as for `Approvals.ask`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        guarded = _Guarded(function, _signature_of(function), key, when, cast(AskOptions, options))
        kind = Approvals if inspect.iscoroutinefunction(function) else SyncApprovals
        if ap is not None and not isinstance(ap, kind):
            raise InvalidArgumentError(f"{function.__name__}() needs a client of the kind {kind.__name__}")
        guard: Any = _guard_async if kind is Approvals else _guard
        return update_wrapper(guard(guarded, ap, on_denied), function)

    return decorate


def _guard(guarded: _Guarded, given: SyncApprovals | None, on_denied: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = guarded.signature.bind(args, kwargs)
        if guarded.asks(bound):
            try:
                asked = guarded.signature.shown(bound)
                with guarded.key_of(bound, asked) as key:
                    with nullcontext(given) if given is not None else SyncApprovals() as ap:
                        decision = ap.ask(key, guarded.name, asked, **guarded.options)
                    guarded.take(decision, bound)
            except NO_YES as error:
                return _denied(error, on_denied)
        return guarded.function(*bound.args, **bound.kwargs)

    return call


def _guard_async(guarded: _Guarded, given: Approvals | None, on_denied: str) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        bound = guarded.signature.bind(args, kwargs)
        if guarded.asks(bound):
            try:
                asked = guarded.signature.shown(bound)
                with guarded.key_of(bound, asked) as key:
                    async with nullcontext(given) if given is not None else Approvals() as ap:
                        decision = await ap.ask(key, guarded.name, asked, **guarded.options)
                    guarded.take(decision, bound)
            except NO_YES as error:
                return _denied(error, on_denied)
        return await guarded.function(*bound.args, **bound.kwargs)

    return call


class _Session:
    """A session, and which of its calls have run or wait: the same call again is the next one of its kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._taken: set[tuple[str, int]] = set()
        self._lock = Lock()

    @contextmanager
    def key_of(self, call: str) -> Iterator[str]:
        """Give a key that no call has which runs or waits. It is free again if the block raises: nothing has run."""
        with self._lock:
            number = next(each for each in count(1) if (call, each) not in self._taken)
            self._taken.add((call, number))
        try:
            yield f"{self._name}:{call}" if number == 1 else f"{self._name}:{call}.{number}"
        except BaseException:
            self._taken.discard((call, number))
            raise


def _denied(error: Exception, on_denied: str) -> str:
    if on_denied == "raise":
        raise error
    return error_text(error)


@dataclass(frozen=True)
class _Guarded:
    """A function with what its calls are asked about."""

    function: Callable[..., Any]
    signature: _Signature
    key: Key
    when: Callable[..., bool] | None
    given: AskOptions

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def options(self) -> AskOptions:
        schema = self.signature.schema
        return cast(AskOptions, self.given if schema is None else {**self.given, "expects": schema})

    def asks(self, bound: inspect.BoundArguments) -> bool:
        """Return whether people are asked about this call."""
        return self.when is None or bool(self.when(*self.signature.positional(bound), **bound.kwargs))

    @contextmanager
    def key_of(self, bound: inspect.BoundArguments, asked: Mapping[str, Any]) -> Iterator[str]:
        """Give the call's key. If the block raises nothing, there was a yes, and the function runs.

        Raises InvalidArgumentError where there can't be a key.
        """
        match self.key:
            case None:
                session = _scope.get()
                if session is None:
                    raise InvalidArgumentError(
                        f"{self.name}() needs a session or a key: call it inside `with scope(…):`, or give "
                        "@requires_approval a key=…"
                    )
                with session.key_of(f"{self.name}:{digest_of(self.name, asked)[:32]}") as made:
                    yield made
                return
            case str(template):
                made = template.format(**bound.arguments)
            case make:
                made = make(*self.signature.positional(bound), **bound.kwargs)
        # The model chose what is in it, so it may be longer, or in another script, than a key can be.
        yield made if is_usable_key(made) else f"sha256-{hashlib.sha256(made.encode(errors='replace')).hexdigest()}"

    def take(self, decision: Decision, bound: inspect.BoundArguments) -> None:
        """Put the decided arguments in place. Raises one of `NO_YES` unless the function may run with them."""
        if not decision.approved:
            raise DeniedError(decision)
        if decision.state == "edited":
            edited = decision.arguments or {}
            decision.require(edited)
            self.signature.put(bound, edited)
            taken = self.signature.shown(bound)
            if leaves_of(taken).keys() != leaves_of(edited).keys():  # the signature's types leave something out
                raise ApprovalMismatchError(decision.request_id or self.name, decision.digest or "", "")
        else:
            decision.require(self.signature.shown(bound))  # again: other code may have changed the objects meanwhile


@dataclass(frozen=True)
class _Signature:
    """A function's parameters, and how they are shown and checked as JSON. Methods are asked without their `self`."""

    parameters: inspect.Signature
    adapter: TypeAdapter[Any]
    schema: dict[str, Any] | None  # what edits must fit; None for types that have no JSON Schema
    skipped: int  # leading parameters that nobody is shown

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Bind a call's arguments by name, with defaults. Raises TypeError as the call would."""
        bound = self.parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def positional(self, bound: inspect.BoundArguments) -> tuple[Any, ...]:
        return bound.args[self.skipped :]

    def shown(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """Return the arguments by name, as JSON. Raises RequestRefusedError for what isn't JSON."""
        values = dict(list(bound.arguments.items())[self.skipped :])
        try:
            # As what they are, not as what they are declared to be: an object of a subclass has more to show.
            made: dict[str, Any] = self.adapter.dump_python(values, mode="json", warnings=False, serialize_as_any=True)
            canonical_json(made)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise RequestRefusedError(422, f"The arguments can't be shown as JSON: {error}.") from None
        return made

    def put(self, bound: inspect.BoundArguments, edited: Mapping[str, Any]) -> None:
        """Put edited arguments in place. Raises InvalidPayloadError if they don't fit the signature."""
        try:
            made = self.adapter.validate_python(dict(edited))
        except ValidationError as error:
            faults = [{"loc": list(fault["loc"]), "msg": fault["msg"]} for fault in error.errors(include_url=False)]
            raise InvalidPayloadError(faults, "arguments") from None
        for name, value in made.items():
            is_variadic = self.parameters.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            bound.arguments[name] = tuple(value) if is_variadic else value


def _readable(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature. From Python 3.14 on, annotations may name what only type checkers import."""
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _signature_of(function: Callable[..., Any]) -> _Signature:
    signature = _readable(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:
        hints = {}  # a type that exists for type checkers alone
    names = list(signature.parameters)
    outer = function.__qualname__.rpartition(".")[0]
    is_method = outer != "" and not outer.endswith("<locals>")
    skipped = 1 if is_method and names[:1] in (["self"], ["cls"]) else 0
    fields: dict[str, Any] = {}
    for name in names[skipped:]:
        hint = hints.get(name, Any)
        match signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                fields[name] = list[hint]  # type: ignore[valid-type]  # pydantic reads it at run time
            case inspect.Parameter.VAR_KEYWORD:
                fields[name] = dict[str, hint]  # type: ignore[valid-type]  # as above
            case _:
                fields[name] = hint
    shape: Any = TypedDict(function.__name__, fields)  # type: ignore[misc]  # made from the signature
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    adapter: TypeAdapter[Any] = TypeAdapter(with_config(config)(shape))
    try:
        schema = adapter.json_schema()
    except PydanticUserError:
        schema = None
    return _Signature(signature, adapter, schema, skipped)
