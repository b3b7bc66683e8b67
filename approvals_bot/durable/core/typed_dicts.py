"""`typing.TypedDict` before Python 3.12, of which pydantic can't tell which keys are required.

It takes that of `typing_extensions`. So annotations that name the other are rewritten with a copy that has the same
fields.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from typing_extensions import TypedDict


def rewritten(annotation: Any, inside: tuple[Any, ...] = ()) -> Any:
    """Return the annotation with each typed dict as `typing_extensions` has it. `inside`: what it is a part of.

    A typed dict that contains itself stays as it is, and so does one in a field of a dataclass.
    """
    if is_typeddict(annotation):
        return annotation if annotation in inside else _copy(annotation, (*inside, annotation))
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is None or not parts:
        return annotation
    if origin is Annotated:
        return Annotated[rewritten(parts[0], inside), *parts[1:]]
    new = tuple(rewritten(part, inside) for part in parts)
    if all(one is other for one, other in zip(parts, new, strict=True)):
        return annotation
    return reduce(or_, new) if origin in (Union, UnionType) else origin[new]


def _copy(typed: Any, inside: tuple[Any, ...]) -> Any:
    fields = {}
    for name, hint in get_type_hints(typed, include_extras=True).items():
        says = get_origin(hint)
        value = rewritten(get_args(hint)[0] if says in (Required, NotRequired) else hint, inside)
        # `__required_keys__` doesn't know what is written as text, as all annotations of a module may be.
        is_required = says is Required or (says is not NotRequired and name in typed.__required_keys__)
        fields[name] = value if is_required else NotRequired[value]
    made: Any = TypedDict(typed.__name__, fields)  # type: ignore[misc]  # its fields are another's
    made.__module__, made.__doc__ = typed.__module__, typed.__doc__
    return made
