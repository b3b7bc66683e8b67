"""A function's parameters and result, as the log keeps them: by name, validated by their types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from approvals_bot.core.values import decode, encode

_MISSING = inspect.Parameter.empty


class Needed:
    """The default of a step's parameter that the engine fills with a resource of this type."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


class Signature:
    """Encodes calls to a function and decodes them again.

    `settings` is bound apart from the input, if it is asked for.
    """

    def __init__(self, function: Callable[..., Any], local_names: dict[str, Any], *, bound: str | None = None) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        self._hints = _hints(function, local_names)
        self.takes_bound = bound is not None and bound in self._signature.parameters
        self._skip = {bound} if self.takes_bound else set()
        self.needs = {
            name: parameter.default.kind
            for name, parameter in self._signature.parameters.items()
            if isinstance(parameter.default, Needed)
        }

    def annotation(self, name: str) -> Any:
        return self._hints.get(name, Any)

    def first_parameter(self) -> str | None:
        """The name of the parameter that takes a run's input object."""
        return next((n for n in self._signature.parameters if n not in self._skip), None)

    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call as JSON by parameter name. TypeError for a call that doesn't fit, as for any function."""
        parameters = [p for n, p in self._signature.parameters.items() if n not in self._skip and n not in self.needs]
        bound = self._signature.replace(parameters=parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        encoded: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            match self._signature.parameters[name].kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    encoded[name] = [encode(v, self.annotation(name), f"{name}[{i}]") for i, v in enumerate(value)]
                case inspect.Parameter.VAR_KEYWORD:
                    encoded[name] = {k: encode(v, self.annotation(name), f"{name}.{k}") for k, v in value.items()}
                case _:
                    encoded[name] = encode(value, self.annotation(name), name)
        return encoded

    def decode_call(self, encoded: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments for the function. Parameters that the log doesn't know yet take their defaults."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name not in encoded:
                continue
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(decode(v, self.annotation(name)) for v in encoded[name])
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs.update({k: decode(v, self.annotation(name)) for k, v in encoded[name].items()})
                case inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD if not kwargs:
                    args.append(decode(encoded[name], self.annotation(name)))
                case _:
                    kwargs[name] = decode(encoded[name], self.annotation(name))
        return args, kwargs

    def encode_result(self, value: Any) -> Any:
        return encode(value, self.annotation("return"), "result")

    def decode_result(self, encoded: Any) -> Any:
        return decode(encoded, self.annotation("return"))


def _hints(function: Callable[..., Any], local_names: dict[str, Any]) -> dict[str, Any]:
    """Resolved annotations; one that can't be resolved leaves its function untyped rather than unusable."""
    try:
        return get_type_hints(function, localns=local_names, include_extras=True)
    except (NameError, TypeError):
        return {
            name: annotation
            for name, annotation in getattr(function, "__annotations__", {}).items()
            if not isinstance(annotation, str)
        }
