"""A function's parameters and result as the log keeps them: by name, validated by their types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, partial
from types import FrameType
from typing import Any

from approvals_bot.durable.core.annotations import (
    check_later,
    codec_of,
    hints_if_defined,
    hints_of,
    is_complete,
    line_of,
    refuse_unreadable,
    signature_of,
)
from approvals_bot.durable.core.serialization import Codec


class Needed:
    """The default of a step's parameter that the engine fills with its resource of this type."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


class Signature:
    """A codec for calls to one function.

    `bound` names a parameter (`settings`) that isn't part of the input and is filled separately.
    """

    def __init__(
        self, function: Callable[..., Any], scope: FrameType | None = None, *, bound: str | None = None
    ) -> None:
        """`scope` is the call that defines a nested function. Raises AnnotationError."""
        self._function = function
        self._signature = signature_of(function)
        self.takes_bound = bound is not None and bound in self._signature.parameters
        self._skip = {bound} if self.takes_bound else set()
        self.needs = {
            name: parameter.default.kind
            for name, parameter in self._signature.parameters.items()
            if isinstance(parameter.default, Needed)
        }
        self.module = function.__module__
        self._hints = hints_if_defined(function, scope)
        self._scope = scope if self._hints is None else None
        check_later(self)

    def annotation(self, name: str) -> Any:
        """Return the annotation of a parameter, or of the result ("return"). Raises AnnotationError."""
        if self._hints is None:
            self._hints, self._scope = hints_of(self._function, self._scope), None
        return self._hints.get(name, Any)

    def check(self) -> None:
        """Raise AnnotationError if a type that values are read back by can't be resolved."""
        names = (*self._signature.parameters, "return")
        if not all(is_complete(self.annotation(name)) for name in names):
            self._codecs, self.result  # noqa: B018  # making them needs the types
        for name in names:
            refuse_unreadable(self.annotation(name), self._called(name), partial(line_of, self._function))

    @cached_property
    def _codecs(self) -> dict[str, Codec]:
        """The codec of each parameter, made at first use: a type may be defined after the function."""
        names = [name for name in self._signature.parameters if name not in self.needs]
        return {name: self._codec(name) for name in names}

    @cached_property
    def result(self) -> Codec:
        return self._codec("return")

    def _codec(self, name: str) -> Codec:
        return codec_of(self.annotation(name), self._called(name), partial(line_of, self._function))

    def _called(self, name: str) -> str:
        """Return what people call a parameter, or the result ("return")."""
        return f"{'the result' if name == 'return' else name} of {self._function.__name__}()"

    @cached_property
    def called(self) -> inspect.Signature:
        """The signature that callers see: without the parameters that are bound or filled by the engine."""
        parameters = [p for n, p in self._signature.parameters.items() if n not in self._skip and n not in self.needs]
        return self._signature.replace(parameters=parameters)

    @cached_property
    def _names(self) -> list[str] | None:
        """The parameters' names in order, or None unless all are plain ones.

        Nearly all steps have such parameters. Binding all arguments by these names takes 1.7 µs instead of the 6.9 of
        `inspect`, and reading them 2.5 instead of 4.4 (`python -m timeit`; benchmarks/cycle.py makes four such calls).
        """
        parameters = self.called.parameters.values()
        return [p.name for p in parameters] if all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) else None

    def first_parameter(self) -> str | None:
        """Return the name of the parameter that takes a run's input object. None if there are no parameters."""
        return next((n for n in self._signature.parameters if n not in self._skip), None)

    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the call as JSON by parameter name. Raises TypeError if it doesn't fit, like any function."""
        codecs = self._codecs
        if self._names is not None and not kwargs and len(args) == len(self._names):
            return {name: codecs[name].encode(value, name) for name, value in zip(self._names, args, strict=True)}
        return self._encode_any_call(args, kwargs)

    def _encode_any_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        codecs, bound = self._codecs, self.called.bind(*args, **kwargs)
        bound.apply_defaults()
        encoded: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            match self._signature.parameters[name].kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    encoded[name] = [codecs[name].encode(v, f"{name}[{i}]") for i, v in enumerate(value)]
                case inspect.Parameter.VAR_KEYWORD:
                    encoded[name] = {k: codecs[name].encode(v, f"{name}.{k}") for k, v in value.items()}
                case _:
                    encoded[name] = codecs[name].encode(value, name)
        return encoded

    def decode_call(self, encoded: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for the function. Parameters that aren't in the log take their defaults."""
        codecs = self._codecs
        if [*encoded] == self._names:
            return [codecs[name].decode(value, name) for name, value in encoded.items()], {}
        return self._decode_any_call(encoded)

    def _decode_any_call(self, encoded: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        codecs = self._codecs
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name not in encoded:
                continue
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(codecs[name].decode(v, name) for v in encoded[name])
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs.update({k: codecs[name].decode(v, f"{name}.{k}") for k, v in encoded[name].items()})
                case inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD if not kwargs:
                    args.append(codecs[name].decode(encoded[name], name))
                case _:
                    kwargs[name] = codecs[name].decode(encoded[name], name)
        return args, kwargs

    def missing(self, encoded: dict[str, Any]) -> list[str]:
        """Return the parameters that have neither a value in this call nor a default."""
        return [name for name in self._required if name not in encoded]

    @cached_property
    def _required(self) -> list[str]:
        return [
            name
            for name, parameter in self.called.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
