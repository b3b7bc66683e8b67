"""Annotations that authors write: resolved when their names exist, or reported with file and line.

A name may be defined after the function that is annotated with it. So one that is missing at import is looked up again
at its first use, and at the latest when an engine opens. A name that only type checkers import is refused at once.
"""

from __future__ import annotations

import ast
import gc
import inspect
import linecache
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from types import FrameType
from typing import Any, ForwardRef, Literal, Protocol, get_args, get_origin, get_type_hints

from pydantic import PydanticUndefinedAnnotation, PydanticUserError
from typing_extensions import is_typeddict

from approvals_bot.durable.core.serialization import Codec, codec
from approvals_bot.errors import AnnotationError

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

DEFINE = "Define or import it in the module."
IMPORT = "Import it outside of `if TYPE_CHECKING:`; values are read back by their types."


class Annotated(Protocol):
    """What has annotations: a function's signature, or a defined hook."""

    module: str

    def check(self) -> None:
        """Raise AnnotationError if a type can't be resolved."""


_unchecked: weakref.WeakSet[Annotated] = weakref.WeakSet()


def check_later(one: Annotated) -> None:
    """Have the annotations checked when an engine opens. By then everything that they name must be defined."""
    _unchecked.add(one)


def check_annotations() -> None:
    """Check what was defined since the last check. Raises AnnotationError."""
    with suppress(AnnotationError):
        _check(None)
        return
    # It may belong to a function that is gone, but hasn't been collected yet. Until here the error held it, too.
    gc.collect()
    _check(None)


def check_annotations_of(module: str) -> None:
    """Check what a module has defined, once. Raises AnnotationError."""
    try:
        _check(module)
    finally:
        for one in list(_unchecked):
            if one.module == module:
                _unchecked.discard(one)


def _check(module: str | None) -> None:
    for one in list(_unchecked):
        if module in (None, one.module):
            one.check()
            _unchecked.discard(one)


def hints_if_defined(function: Callable[..., Any], scope: FrameType | None) -> dict[str, Any] | None:
    """Return the function's annotations. None if a name isn't defined yet.

    `scope` is the call that defines the function; annotations may use its local names. Raises AnnotationError if a name
    is imported for type checkers only.
    """
    try:
        return _evaluated(function, _written(function), scope)
    except NameError as error:
        if error.name in _names_for_checkers(function):
            raise _unresolved(function, scope, f"{error.name} is imported for type checkers only.", IMPORT) from error
    except Exception:  # noqa: BLE001, S110  # an annotation is any expression; it may work later
        pass
    return None


def hints_of(function: Callable[..., Any], scope: FrameType | None) -> dict[str, Any]:
    """Return the function's annotations. Raises AnnotationError if one can't be resolved."""
    try:
        return _evaluated(function, _written(function), scope)
    except Exception as error:
        raise _unresolved(function, scope, f"{error}.", DEFINE) from error


def codec_of(annotation: Any, what: str, where: Callable[[], tuple[str, int]]) -> Codec:
    """Return the codec of an annotation. Raises AnnotationError if it names a type that isn't complete."""
    try:
        return codec(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        file, line = where()
        raise AnnotationError(what, repr(annotation), file, line, "a type in it isn't defined.", DEFINE) from error


def is_complete(annotation: Any, inside: frozenset[Any] = frozenset()) -> bool:
    """Return whether all types in an annotation are defined. `inside`: the classes that it is a part of.

    The codecs of such annotations needn't be made when an engine opens: they are made at first use.
    """
    if get_origin(annotation) is Literal or annotation in inside:
        return True
    if parts := get_args(annotation):
        return all(is_complete(part, inside) for part in parts if not isinstance(part, list))
    if not _has_hints(annotation):
        return getattr(annotation, "__pydantic_complete__", True) and not isinstance(annotation, str | ForwardRef)
    with suppress(Exception):
        return all(is_complete(each, inside | {annotation}) for each in get_type_hints(annotation).values())
    return False


def _has_hints(annotation: Any) -> bool:
    """Return whether this is a class whose fields have types, but not one that pydantic has completed."""
    return is_dataclass(annotation) or is_typeddict(annotation) or hasattr(annotation, "_field_defaults")


def refuse_unreadable(annotation: Any, what: str, where: Callable[[], tuple[str, int]]) -> None:
    """Raise AnnotationError for a literal of a plain enum: JSON has its value, by which pydantic doesn't find it."""
    member = next(_plain_members(annotation, set()), None)
    if member is not None:
        kind = type(member).__name__
        why = f"Literal[{member}] is of {kind}, a plain Enum, and JSON has only {member.value!r}."
        raise AnnotationError(what, repr(annotation), *where(), why, f"Make {kind} a StrEnum.", resolves=True)


def _plain_members(annotation: Any, seen: set[Any]) -> Iterator[Enum]:
    """Find the members of plain enums in the literals of an annotation, and in those of the fields of its classes."""
    if get_origin(annotation) is Literal:
        yield from (each for each in get_args(annotation) if isinstance(each, Enum) and not isinstance(each, str | int))
        return
    for part in get_args(annotation):
        yield from _plain_members(part, seen)
    if not isinstance(annotation, type) or annotation in seen:
        return
    seen.add(annotation)
    fields = getattr(annotation, "__pydantic_fields__", None)
    if fields is not None:
        for each in fields.values():
            yield from _plain_members(each.annotation, seen)
    elif _has_hints(annotation):
        with suppress(NameError, TypeError):  # names of another module's function; its codec says so
            for hint in get_type_hints(annotation).values():
                yield from _plain_members(hint, seen)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature. From Python 3.14 on, its annotations may name what isn't defined yet."""
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def line_of(function: Callable[..., Any]) -> tuple[str, int]:
    """Return the file and line of a function."""
    code = inspect.unwrap(function).__code__
    return code.co_filename, code.co_firstlineno


def _written(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations with what isn't defined yet as a text or a reference."""
    if sys.version_info >= (3, 14):
        return get_annotations(function, format=Format.FORWARDREF)
    return getattr(function, "__annotations__", {})


def _evaluated(function: Callable[..., Any], written: Mapping[str, Any], scope: FrameType | None) -> dict[str, Any]:
    holder = type("_", (), {"__annotations__": dict(written)})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return get_type_hints(holder, names, None if scope is None else scope.f_locals, include_extras=True)


def _unresolved(function: Callable[..., Any], scope: FrameType | None, why: str, advice: str) -> AnnotationError:
    """Return the error that names the first annotation that can't be resolved."""
    name, annotation = "", ""
    for name, annotation in _written(function).items():
        try:
            _evaluated(function, {name: annotation}, scope)
        except Exception:  # noqa: BLE001  # this one
            break
    what = f"the result of {function.__name__}()" if name == "return" else f"{name} of {function.__name__}()"
    if sys.version_info >= (3, 14):
        annotation = get_annotations(function, format=Format.STRING).get(name, annotation)
    return AnnotationError(what, str(annotation), *line_of(function), why, advice)


def _names_for_checkers(function: Callable[..., Any]) -> set[str]:
    """Return the names that the function's module has only under `if TYPE_CHECKING:`."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    with suppress(SyntaxError):
        lines = linecache.getlines(line_of(function)[0])
        for statement, is_for_checkers in _statements(ast.parse("".join(lines)).body):
            found[is_for_checkers].update(_bound(statement))
    return found[True] - found[False]


def _statements(body: list[ast.stmt], is_for_checkers: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    for statement in body:
        match statement:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from _statements(statement.body, is_for_checkers=True)
                yield from _statements(statement.orelse, is_for_checkers)
            case ast.If() | ast.Try() | ast.With():
                for part in ("body", "orelse", "finalbody"):
                    yield from _statements(getattr(statement, part, []), is_for_checkers)
                for handler in getattr(statement, "handlers", []):
                    yield from _statements(handler.body, is_for_checkers)
            case _:
                yield statement, is_for_checkers


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Find the names that a statement of a module defines."""
    match statement:
        case ast.Import(names) | ast.ImportFrom(names=names):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
