"""The leaves of lists and objects: how people read them, and the address by which each is edited.

A leaf is a value without values of its own: text, a number, true, false, null, an empty list or an empty object. Its
address names the way to it: `items.0.sku`. A key that is more than a plain word is in quotation marks, as JSON has it:
`"a.b".0`. So each address belongs to one leaf, and each line that people read begins with one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.acts import Rejection
from approvals_bot.approvals.card_model import FormField
from approvals_bot.approvals.field_specs import LENGTH, FieldSpec
from approvals_bot.approvals.json_values import UnfitError, check_json, parse_typed, same_json
from approvals_bot.approvals.visible import exact_line, revealed
from approvals_bot.client.digests import LARGEST_INTEGER, by_utf16, canonical

EMPTY = "empty"
"""What people read for null."""

YES_NO = ("yes", "no")
"""What people read and choose for true and false."""

LONGEST_LINES = 200_000  # characters of all lines of one value; a larger one is shown as JSON on one line
LONGEST_INPUT = 200  # characters of text in a one-line input

_WORD = re.compile(r"[\w$-]+")


def joined_address(root: str, key: str | int) -> str:
    """Return the address of a value in the list or object at `root`, "" being the outermost."""
    if isinstance(key, str) and not (_WORD.fullmatch(key) and revealed(key) == key):
        key = json.dumps(key)
    return f"{root}.{key}" if root else str(key)


def leaves(value: JsonValue, root: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield each leaf with its address, in the order of the canonical JSON."""
    match value:
        case dict() if value:
            for key in sorted(value, key=by_utf16):
                yield from leaves(value[key], joined_address(root, key))
        case list() if value:
            for at, item in enumerate(value):
                yield from leaves(item, joined_address(root, at))
        case _:
            yield root, value


def lines(value: JsonValue, root: str, was: JsonValue = None, *, is_edited: bool = False) -> str:
    """Return one line for each leaf: `items.0.sku: "a"`; after an edit, also what each changed leaf was.

    Returns canonical JSON on one line where so many lines would take too much room.
    """
    before = dict(leaves(was, root)) if is_edited else {}
    found, size = list[str](), 0
    for address, leaf in leaves(value, root):
        line = f"{revealed(address)}: {shown_leaf(leaf)}"
        if is_edited and not (address in before and same_json([before[address]], [leaf])):
            line += f" (was {shown_leaf(before[address])})" if address in before else " (new)"
        found.append(line)
        size += len(line) + 1
        if size > LONGEST_LINES:
            return revealed(canonical(value))
    return "\n".join(found)


def shown_leaf(leaf: JsonValue) -> str:
    """Return a leaf as people read it: JSON, but for null."""
    return EMPTY if leaf is None else exact_line(canonical(leaf))


def is_long_text(text: str) -> bool:
    """Return whether this text takes more than a line."""
    return len(text) > LONGEST_INPUT or "\n" in text


# Editing


def inputs(value: JsonValue, root: str, label: str = "") -> tuple[FormField, ...]:
    """Return an input for each leaf; its name is the leaf's address, and so is its label without a better one."""
    return tuple(_input(address, leaf, label or revealed(address)) for address, leaf in leaves(value, root))


def root_of(name: str, spec: FieldSpec) -> str:
    """Return where the addresses of a field's leaves begin. Those of a tool's arguments have no prefix."""
    return "" if spec.type == "arguments" else joined_address("", name)


def _input(address: str, leaf: JsonValue, label: str) -> FormField:
    match leaf:
        case bool():
            spec = FieldSpec(type="enum", values=YES_NO)  # an unticked box would send nothing
            return FormField(address, label, spec, YES_NO[0] if leaf else YES_NO[1], is_leaf=True)
        case int() | float():
            return FormField(address, label, FieldSpec(type="decimal"), canonical(leaf), is_leaf=True)
        case str() if is_long_text(leaf):
            longest = max(LENGTH["text"], 2 * len(leaf))
            return FormField(
                address, label, FieldSpec(type="text", required=False, max_length=longest), leaf, is_leaf=True
            )
        case str():
            return FormField(address, label, FieldSpec(type="string", required=False), leaf, is_leaf=True)
        case None:
            return FormField(address, label, FieldSpec(type="string", required=False), "", is_leaf=True)
        case _:
            return FormField(
                address, label, FieldSpec(type="array" if leaf == [] else "object"), canonical(leaf), is_leaf=True
            )


def replaced(
    value: JsonValue, root: str, given: Mapping[str, JsonValue], *, as_text: bool, is_checked: bool
) -> tuple[JsonValue, tuple[Rejection, ...]]:
    """Return the value with new leaves, and what is wrong with them. A list or an object may be replaced whole.

    `as_text`: the new leaves are what people typed. `is_checked`: a schema will check the result, so it may say what
    else a null can be; without one, null stays null.
    """
    edited, rejections = deepcopy(value), list[Rejection]()
    known = _places(edited, root)
    for address, new in given.items():
        if address not in known:  # no longer: what it was in has been replaced, too
            rejections.append(Rejection((address,), "unknown_field"))
            continue
        holder, key = known[address]
        try:
            new = _typed(holder[key], new) if as_text and isinstance(new, str) else new
            check_json(new)
            _check_type(holder[key], new, is_checked=is_checked)
        except UnfitError as error:
            rejections.append(Rejection((address,), error.code, error.params))
            continue
        is_branch = isinstance(holder[key], dict | list) or isinstance(new, dict | list)
        holder[key] = new
        if is_branch:
            known = _places(edited, root)
    return edited, tuple(rejections)


def addresses(value: JsonValue, root: str) -> frozenset[str]:
    """Return the address of everything in the value, lists and objects included."""
    return frozenset(_places(value, root))


def _places(value: JsonValue, root: str) -> dict[str, tuple[Any, Any]]:
    """Return what holds each value, and its key there, by address."""
    found, ahead = dict[str, tuple[Any, Any]](), [(value, root)]
    while ahead:
        holder, at = ahead.pop()
        match holder:
            case dict():
                inside: list[tuple[Any, Any]] = [*holder.items()]
            case list():
                inside = [*enumerate(holder)]
            case _:
                continue
        for key, item in inside:
            address = joined_address(at, key)
            found[address] = holder, key
            ahead.append((item, address))
    return found


def _typed(leaf: JsonValue, text: str) -> JsonValue:
    """Return what a person typed as JSON of the leaf's type. Raises UnfitError."""
    match leaf:
        case str():
            return text
        case bool() if text in YES_NO:
            return text == YES_NO[0]
        case bool():
            raise UnfitError("not_boolean")
        case int() | float():
            return _number(text.strip())
        case None if not text.strip():
            return None
        case None:
            try:
                parsed: JsonValue = parse_typed(text)
            except UnfitError:
                return text
            return parsed
        case _:
            whole: JsonValue = parse_typed(text)
            return whole


def _number(text: str) -> int | float:
    try:
        number = parse_typed(text)
    except UnfitError:
        raise UnfitError("required" if not text else "not_a_number") from None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UnfitError("not_a_number")
    if abs(number) > LARGEST_INTEGER and isinstance(number, int):
        raise UnfitError("integer_range", largest=LARGEST_INTEGER)
    return number


_FAULTS = {dict: "not_object", list: "not_list", str: "not_text", bool: "not_boolean", float: "not_a_number"}


def _check_type(old: JsonValue, new: JsonValue, *, is_checked: bool) -> None:
    """Check that the new value is of the old one's JSON type. Raises UnfitError."""
    if old is None:
        if new is not None and not is_checked:
            raise UnfitError("not_null")
        return
    kind = _type(old)
    if _type(new) is not kind and not (new is None and is_checked):
        raise UnfitError(_FAULTS[kind])


def _type(value: JsonValue) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
