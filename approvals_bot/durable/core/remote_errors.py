"""Errors in the log: what a step or a workflow raised, as another process sees it.

An error comes back as its own class with its arguments, attributes, notes, cause and members. Its constructor isn't
called, so a message is not formatted twice. The log imports nothing: a class whose module isn't loaded is replaced
by a RemoteError of the same name, which is a subclass of those of its bases that are here.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from approvals_bot.durable.core.bugs import where_raised
from approvals_bot.durable.core.serialization import Unkept, decode, encode, to_json
from approvals_bot.errors import StepFailedError

MAX_TEXT = 10_000  # characters of a message, a traceback or one attribute; the rest is cut off
MAX_ERRORS = 50
"""The errors that are kept of one: its causes, its contexts, the members of its groups, and so on of each."""
MAX_ARGUMENTS = 100  # of one error
MAX_CHARACTERS = 200_000
"""Characters of JSON that one error takes with all of those, apart from its traceback. The rest is left out."""


class RemoteError(Exception):
    """An error whose class isn't loaded in this process. `kind` is the name of that class, `module` its module."""

    kind = ""
    module = ""


# ── to the log ────────────────────────────────────────────────────────────────────────────────────────────────────


def encode_error(error: BaseException) -> dict[str, Any]:
    """Return an error as the log keeps it: type, message, traceback, where it was raised, and what it is made from.

    It always fits into an event. Without its outcome, a step would run again, over and over.
    """
    room = _Room()
    try:
        encoded = _encoded(error, room)
    except Exception:  # noqa: BLE001  # an author's class may do anything
        encoded = _named(error, room)
    try:
        trace = _without_input("".join(traceback.format_exception(error)), room.errors)
    except Exception:  # noqa: BLE001  # an author's __str__ may raise anything
        trace = ""
    return {**encoded, "traceback": trace[-MAX_TEXT:], "where": where_raised(error)}


class _Room:
    """What of an error the log still has room for, and the errors that are in it already."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._characters = MAX_CHARACTERS

    def takes(self, error: BaseException) -> bool:
        """Return whether an error is written. Contexts may lead back to one that is already."""
        is_full = len(self.errors) >= MAX_ERRORS or self._characters <= 0
        return not is_full and not any(error is each for each in self.errors)

    def fits(self, encoded: Any, most: int = MAX_TEXT) -> bool:
        """Return whether there is room for this part of an error. If so, it is taken."""
        size = len(to_json(encoded))
        if size > min(most, self._characters):
            return False
        self._characters -= size
        return True

    def text(self, text: str) -> str:
        """Return as much of a text as there is room for."""
        text = text[: max(min(MAX_TEXT, self._characters), 200)]
        self._characters -= len(to_json(text))
        return text


def _named(error: BaseException, room: _Room) -> dict[str, Any]:
    kind = type(error)
    try:
        message = _message(error)
    except Exception as unprintable:  # noqa: BLE001
        message = f"(its text can't be read: {type(unprintable).__name__})"
    return {"type": kind.__qualname__, "module": kind.__module__, "message": room.text(message)}


def _message(error: BaseException) -> str:
    """Return an error's text; of a ValidationError, without what was given, which may be secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    return str(_validation_error(error.title, error.errors(include_url=False, include_input=False)))


def _without_input(trace: str, errors: list[BaseException]) -> str:
    """Return a traceback of these errors with the texts that `_message` returns. Groups indent them."""
    kept: dict[str, str] = {}
    for error in errors:
        if isinstance(error, ValidationError):
            kept |= zip(_lines(str(error)), _lines(_message(error)), strict=False)
    texts = ((line, line.lstrip(" |")) for line in trace.split("\n"))
    return "\n".join(line.removesuffix(text) + kept.get(text, text) for line, text in texts) if kept else trace


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _encoded(error: BaseException, room: _Room) -> dict[str, Any]:
    """Return an error and those that it came from."""
    room.errors.append(error)
    kind = type(error)
    encoded = _named(error, room)
    if kind.__module__ != "builtins":
        bases = [*_own_classes(kind)[1:], _builtin(kind)]
        encoded["bases"] = [[base.__module__, base.__qualname__] for base in bases]
    args = _arguments(error, room)
    if args != [encoded["message"]]:
        encoded["args"] = args
    if attributes := _attributes(error, room):
        encoded["attributes"] = attributes
    if isinstance(error, BaseExceptionGroup):
        encoded["members"] = [_encoded(each, room) for each in error.exceptions if room.takes(each)]
    if error.__suppress_context__:
        encoded["cause"] = None
    for name, other in (("cause", error.__cause__), ("context", _shown_context(error))):
        if other is not None and room.takes(other):
            encoded[name] = _encoded(other, room)
    return encoded


def _shown_context(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__


def _builtin(kind: type[BaseException]) -> type[BaseException]:
    """Return the nearest class that Python itself has."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _own_classes(kind: type[BaseException]) -> list[type]:
    """Return the class and its bases up to Python's own."""
    return [base for base in kind.__mro__ if issubclass(base, BaseException) and base.__module__ != "builtins"]


def _arguments(error: BaseException, room: _Room) -> list[Any]:
    """Return what the error was made from, as its nearest builtin class has it (an OSError its file name, too)."""
    builtin = _builtin(type(error))
    args: Any = error.args
    if isinstance(error, ValidationError):
        lines = error.errors(include_url=False, include_input=False)  # the input may be secret
        contexts = ({name: _kept(value, room) for name, value in line.get("ctx", {}).items()} for line in lines)
        args = (error.title, *({**line, "ctx": context} for line, context in zip(lines, contexts, strict=True)))
        if len(args) > MAX_ARGUMENTS:
            args = ()  # it comes back with its message, as a substitute
    elif isinstance(error, BaseExceptionGroup):
        args = (error.message,)
    elif issubclass(builtin, OSError):
        args = builtin.__reduce__(error)[1]
    return [_kept(argument, room) for argument in args[:MAX_ARGUMENTS]]


def _kept(value: Any, room: _Room) -> Any:
    """Return a value as the log keeps it, or what it reads as."""
    try:
        encoded = encode(value)
        if room.fits(encoded):
            return encoded
    except Exception:  # noqa: BLE001, S110  # an author's object; perhaps too large
        pass
    texts = []
    for text in (str, repr):
        try:
            texts.append(room.text(text(value)))
        except Exception:  # noqa: BLE001
            texts.append(f"<{type(value).__name__}>")
    return encode(Unkept(*texts))


def _attributes(error: BaseException, room: _Room) -> dict[str, Any]:
    """Return the attributes that the log can keep, notes among them."""
    found = dict(getattr(error, "__dict__", {}))
    for base in _own_classes(type(error)):
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(error, name):
                found[name] = getattr(error, name)
    for name in ("name", "path") if isinstance(error, ImportError | NameError | AttributeError) else ():
        if isinstance(value := getattr(error, name, None), str):
            found.setdefault(name, value)
    kept: dict[str, Any] = {}
    for name, value in found.items():
        with suppress(Exception):  # an author's object
            encoded = encode(value)
            if room.fits(encoded):
                kept[name] = encoded
    return kept


# ── from the log ──────────────────────────────────────────────────────────────────────────────────────────────────


def decode_error(error: dict[str, Any]) -> BaseException:
    """Return the error as its own class, or as a RemoteError if that class isn't loaded."""
    kind = _class(error)
    args = [decode(each) for each in error.get("args", [error["message"]])]
    made = _made(kind, args, error)
    attributes = {name: decode(value) for name, value in error.get("attributes", {}).items()}
    for name, value in attributes.items():
        with suppress(Exception):  # a property that the class has now
            _set(made, name, value)
    if "cause" in error:
        cause = error["cause"]
        _set(made, "__cause__", None if cause is None else decode_error(cause))
    if "context" in error:
        _set(made, "__context__", decode_error(error["context"]))
    return made


def _set(error: BaseException, name: str, value: Any) -> None:
    """Set it even on an error whose class forbids assignments (a frozen dataclass)."""
    BaseException.__setattr__(error, name, value)


def _class(error: dict[str, Any]) -> type[BaseException]:
    """Return the loaded class of this name, or a substitute."""
    found = _loaded(error["module"], error["type"])
    if found is not None:
        return found
    bases = [_loaded(module, name) for module, name in error.get("bases", ())]
    nearest: Any = next((base for base in bases if base is not None), Exception)
    return _substitute(error["module"], error["type"], nearest)


def _loaded(module: str, name: str) -> type[BaseException] | None:
    """Return the error class that a loaded module has under this name.

    Nothing is imported: what the log names must not decide which code runs. A body that handles a class has loaded it.
    """
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


@lru_cache(maxsize=256)
def _substitute(module: str, name: str, base: Any) -> type[BaseException]:
    """Return a class for errors whose own isn't loaded. It is a subclass of `base`, so `except` finds it."""
    body = {"__module__": module, "__qualname__": name, "kind": name, "module": module}
    body["__doc__"] = f"A substitute for {module}.{name}, which this process hasn't loaded."
    return type(name.rpartition(".")[2], (RemoteError, base), body)


def _made(kind: type[BaseException], args: list[Any], error: dict[str, Any]) -> BaseException:
    """Make an error as its nearest builtin class does, without its own constructor."""
    if kind is ValidationError:
        with suppress(Exception):  # a kind of problem that this pydantic hasn't
            lines = ({**line, "ctx": {name: decode(value) for name, value in line["ctx"].items()}} for line in args[1:])
            return _validation_error(args[0], lines)
        kind = _substitute(error["module"], error["type"], ValueError)
        args = [error["message"]]
    builtin: Any = _builtin(kind)
    if issubclass(builtin, BaseExceptionGroup):
        args = [args[0] if args else "", [decode_error(each) for each in error.get("members", ())]]
    try:
        made: BaseException = builtin.__new__(kind, *args)
        builtin.__init__(made, *args)
    except Exception:  # noqa: BLE001  # its builtin class has other arguments now
        made = _substitute(error["module"], error["type"], Exception)(error["message"])
    return made


def _validation_error(title: str, lines: Iterable[Mapping[str, Any]]) -> ValidationError:
    """Make an error of these lines, which are as `errors()` returns them."""
    details: list[InitErrorDetails] = []
    for line in lines:
        detail = InitErrorDetails(type=line["type"], loc=line["loc"], input=None, ctx=line.get("ctx", {}))
        try:
            ValidationError.from_exception_data(title, [detail])
        except Exception:  # noqa: BLE001  # an author's kind of problem, or one of another pydantic
            detail["type"] = PydanticCustomError(line["type"], line["msg"])
        details.append(detail)
    return ValidationError.from_exception_data(title, details, hide_input=True)


def step_error(step: str, data: dict[str, Any]) -> StepFailedError:
    """Return the error that the workflow sees when a step has failed for good."""
    cause = data["error"]
    error = StepFailedError(step, data["attempts"], cause["type"], cause["message"])
    error.__cause__ = decode_error(cause)
    return error
