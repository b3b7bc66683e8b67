"""Stricter schemas of hooks: what a newer one no longer takes is named, and what it takes besides is no matter."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from approvals_bot.durable.core.payload_schemas import schema_of, stricter


class Reply(BaseModel):
    text: str


class WithDefault(BaseModel):
    text: str
    colour: str = "red"


class WithMore(BaseModel):
    text: str
    colour: str


class Strange(BaseModel):
    text: int


class Short(BaseModel):
    text: Annotated[str, Field(max_length=3)]


class Longer(BaseModel):
    text: Annotated[str, Field(max_length=30)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


class Maybe(BaseModel):
    text: str | None = None


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class NamedTree(BaseModel):
    name: Annotated[str, Field(pattern="^[a-z]+$")]
    children: list[NamedTree] = []


class Colour(Enum):
    red = "red"
    blue = "blue"


SAME: list[tuple[Any, Any]] = [
    (Reply, Reply), (Reply, WithDefault), (WithMore, Reply), (Short, Longer), (Short, Reply), (Closed, Reply),
    (Reply, Maybe), (int, float), (int, int | str), (Literal["a"], Literal["a", "b"]), (Literal["a"], str),
    (Reply, Any), (Tree, Tree), (list[int], list[float]), (dict[str, int], dict[str, int | None]), (Colour, str),
]  # fmt: skip
STRICTER: list[tuple[Any, Any, str]] = [
    (Reply, WithMore, "payload.colour: is required now"),
    (Maybe, Reply, "payload.text: is required now"),
    (Reply, Strange, "payload.text: was string, and is integer now"),
    (Reply, Short, "payload.text: maxLength is 3 now"),
    (Longer, Short, "payload.text: maxLength is 3 now"),
    (Reply, Closed, "payload: takes no other fields now"),
    (int | str, int, "payload: was string, and is integer now"),
    (float, int, "payload: was number, and is integer now"),
    (Literal["a", "b"], Literal["a"], "payload: takes fewer values now"),
    (str, Colour, "payload: takes fewer values now"),
    (list[Reply], list[WithMore], "payload[].colour: is required now"),
    (dict[str, int], dict[str, Reply], "payload.*: was integer, and is object now"),
    (Tree, NamedTree, "payload.name: pattern has changed"),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_a_schema_that_takes_all_of_the_old_is_not_stricter(old: Any, new: Any) -> None:
    assert compared(old, new) == ""


@pytest.mark.parametrize(("old", "new", "why"), STRICTER)
def test_what_a_stricter_schema_refuses_is_named(old: Any, new: Any, why: str) -> None:
    assert compared(old, new) == why


def compared(old: Any, new: Any) -> str:
    was, now = schema_of(old), schema_of(new)
    if now is None:
        return ""
    assert was is not None
    return stricter(json.loads(json.dumps(was)), now)  # as the log has it


KINDS: list[Any] = [
    Reply,
    WithDefault,
    WithMore,
    Strange,
    Short,
    Longer,
    Closed,
    Maybe,
    Tree,
    NamedTree,
    int,
    float,
    Colour,
]
PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "red", "abcd", "x" * 20]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["text", "colour", "name", "children"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), PAYLOADS)
def test_no_payload_is_refused_by_a_schema_found_no_stricter(old: Any, new: Any, payload: Any) -> None:
    if compared(old, new) == "" and takes(old, payload):
        assert takes(new, payload), (old, new, payload)


def takes(kind: Any, payload: Any) -> bool:
    try:
        TypeAdapter(kind).validate_json(json.dumps(payload), strict=True)
    except ValidationError:
        return False
    return True


def test_types_without_a_schema_and_huge_ones_are_not_kept() -> None:
    class Odd:
        pass

    assert schema_of(Odd) is None
    assert schema_of(Literal[tuple(f"value {n}" for n in range(2_000))]) is None
