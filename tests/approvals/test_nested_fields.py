"""Lists and objects as fields of `request_approval`: shown, pinned, edited, and limited."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, JsonValue

from approvals_bot import Approved, Edited, request_approval, workflow
from approvals_bot.approvals.card import editable_of, shown_of
from approvals_bot.approvals.json_values import (
    DEEPEST,
    LINE,
    MOST_BYTES,
    MOST_GROWTH,
    TypedText,
    UnfitError,
    check_json,
    one_line_json,
    parse_typed,
    same_json,
    shown_json,
)
from approvals_bot.approvals.request import Request
from approvals_bot.client.digests import canonical
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.engine import Run
from approvals_bot.errors import ApprovalMismatchError, RunFailedError
from approvals_bot.service.read import requests_of
from tests.support.thorough import examples

ANN, BO = "ann@acme.eu", "bo@acme.eu"

ORDER: dict[str, Any] = {
    "items": [{"sku": "a", "n": 2, "price": 9.5}, {"sku": "b", "n": 0, "gift": None}],
    "to": {"city": "Oslo", "zip": "0150", "notes": []},
    "tags": ["a", "b"],
    "nothing": {},
    "emoji": ["👩‍💻 ❤️ 🇳🇴"],
    "evil": ["<!channel>", "</script>", "‮gpj.exe", "a\u200bb"],
}


def nested(levels: int) -> Any:
    """An object of so many levels."""
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def sized(size: int) -> dict[str, Any]:
    """Fields of exactly so many bytes of canonical JSON."""
    empty = len(canonical({"rows": [""]}).encode())
    return {"rows": ["x" * (size - empty)]}


@workflow
async def calls_a_tool(arguments: dict[str, Any]) -> dict[str, Any]:
    outcome = await request_approval(
        "Call a tool",
        fields=arguments,
        editable=list(arguments),
        approvers=ANN,
        requester=BO,
        outcomes=["approve", "edit", "reject", "changes"],
    )
    if isinstance(outcome, Approved | Edited):
        outcome.require(outcome.fields)
    return {"kind": type(outcome).__name__, "fields": dict(outcome.fields), "digest": outcome.digest}


async def asked(office: Any, arguments: dict[str, Any]) -> tuple[Run[Any], Request]:
    run = await office.engine.start(calls_a_tool, arguments)
    await office.settle()
    return run, await newest(office, run)


async def newest(office: Any, run: Run[Any]) -> Request:
    record = await office.engine.record(run.id)
    assert record.status != "failed", record.error
    return requests_of(record)[-1]


async def send(office: Any, view: Request, **message: Any) -> dict[str, Any]:
    hook = await office.engine.find_hook(view.hook_id)
    given = {"kind": "vote", "by": ANN, "choice": "approve", "via": "inbox"} | message
    answer = await office.engine.resume_webhook(hook.token, WebhookRequest.of_json(given), timeout=20)
    await office.settle()
    found: dict[str, Any] = json.loads(bytes(answer.body))
    return found


async def test_nested_arguments_are_shown_leaf_by_leaf_and_come_back(office: Any) -> None:
    async with office.open():
        run, view = await asked(office, ORDER)
        assert list(view.fields) == list(ORDER)
        assert view.fields == ORDER
        shown = shown_of(view)
        assert [field.kind for field in shown] == ["json"] * len(ORDER)
        assert shown[0].value.splitlines() == [
            "items.0.n: 2",
            "items.0.price: 9.5",
            'items.0.sku: "a"',
            "items.1.gift: empty",
            "items.1.n: 0",
            'items.1.sku: "b"',
        ]
        assert [(field.value, field.is_short) for field in shown[1:4]] == [
            ('to.city: "Oslo"\nto.notes: []\nto.zip: "0150"', False),
            ('tags.0: "a"\ntags.1: "b"', False),
            ("{}", True),
        ]
        evil = shown[5].value
        assert 'evil.2: "⟨U+202E⟩gpj.exe"' in evil
        assert 'evil.3: "a⟨U+200B⟩b"' in evil
        assert shown[4].value == 'emoji.0: "👩‍💻 ❤️ 🇳🇴"'
        assert (await send(office, view))["verdict"] == "decided"
        result = await run.return_value()
        assert (result["kind"], result["fields"]) == ("Approved", ORDER)
        assert json.dumps(result["fields"]) == json.dumps(ORDER), "types and order, too"
        for sent in office.slack.sent:
            assert sent.card.fields[0].value == shown[0].value


async def test_a_flat_object_of_a_model_and_its_types(office: Any) -> None:
    class Size(Enum):
        BIG = "big"

    @dataclass
    class Part:
        sku: str
        price: Decimal

    class Order(BaseModel):
        parts: list[Part]
        size: Size = Size.BIG
        on: date = date(2026, 3, 9)
        within: timedelta = timedelta(hours=1)
        id: UUID = UUID(int=1)

    @workflow
    async def buys() -> Any:
        outcome = await request_approval(
            "Buy", fields={"order": Order(parts=[Part("a", Decimal("1.50"))]), "pair": (1, 2.0)}, approvers=ANN
        )
        outcome.require({"order": Order(parts=[Part("a", Decimal("1.50"))]), "pair": [1, 2]})
        return dict(outcome.fields)

    async with office.open():
        run = await office.engine.start(buys)
        await office.settle()
        await send(office, await newest(office, run))
        assert await run.return_value() == {
            "order": {
                "parts": [{"sku": "a", "price": "1.50"}],
                "size": "big",
                "on": "2026-03-09",
                "within": "1h",
                "id": "00000000-0000-0000-0000-000000000001",
            },
            "pair": [1, 2.0],
        }


ODD_NAMES = ["from", "request", "none", "order-id", "größe", "👍", "a b", '"><b>', "1st", "a.b", "__proto__", "answers"]


async def test_numbers_with_more_digits_than_decimals_have_are_shown(office: Any) -> None:
    computed = {"sum": 0.1 + 0.2, "longitude": 13.404953999999998, "tiny": 1e-07, "price": 9.5}
    async with office.open():
        run, view = await asked(office, computed)
        shown = {field.name: field.value for field in shown_of(view)}
        assert shown == {
            "sum": "0.30000000000000004",
            "longitude": "13.404953999999998",
            "tiny": "1e-07",
            "price": "9.5",
        }
        await send(office, view)
        assert (await run.return_value())["kind"] == "Approved"


async def test_arguments_may_have_any_name(office: Any) -> None:
    async with office.open():
        arguments = {name: [name] for name in ODD_NAMES} | {"workflow": "text", "if": 1}
        run, view = await asked(office, arguments)
        assert view.fields == arguments
        await send(office, view, choice="edit", fields={"from": '["ann"]', '"><b>': "[1]"})
        result = await run.return_value()
        assert result["fields"] == arguments | {"from": ["ann"], '"><b>': [1]}
        nameless = await office.engine.start(calls_a_tool, {"": 1})
        with pytest.raises(RunFailedError, match="invalid request: fields"):
            await nameless.return_value()


# ── limits ──


@pytest.mark.parametrize("fields", [nested(DEEPEST), sized(MOST_BYTES), {"text": "x" * MOST_BYTES}])
async def test_sixty_four_kilobytes_and_twenty_levels_are_fine(office: Any, fields: dict[str, Any]) -> None:
    async with office.open():
        run, view = await asked(office, fields)
        assert view.fields == fields
        await send(office, view)
        assert (await run.return_value())["fields"] == fields


REFUSED: list[tuple[dict[str, Any], str]] = [
    (nested(DEEPEST + 1), "nested too deeply: at most 20 levels"),
    (nested(500), "nested too deeply"),
    (sized(MOST_BYTES + 1), "65,537 bytes of JSON, and at most 65,536 are allowed"),
    ({"text": "x" * (MOST_BYTES + 1)}, "too long: 65,537 characters"),
    ({"n": [2**53]}, "must be between -9007199254740991 and 9007199254740991"),
]


@pytest.mark.parametrize(("fields", "why"), REFUSED)
async def test_more_is_refused_before_anything_is_written(office: Any, fields: dict[str, Any], why: str) -> None:
    @workflow
    async def too_much() -> None:
        await request_approval("Call", fields=fields, approvers=ANN)

    async with office.open():
        run = await office.engine.start(too_much)
        with pytest.raises(RunFailedError) as failed:
            await run.return_value()
        assert why in str(failed.value)
        assert [event.type for event in await run.events()] == ["run_created", "run_started", "run_failed"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: 2}, "a key that isn't text"),
        ([{1, 2}], "contains a set, which JSON doesn't have"),
        ([b"x"], "contains a bytes"),
        ([float("nan")], "a number that JSON doesn't have"),
        (["\ud800"], "broken character"),
        ({"a\ud800": 1}, "broken character"),
        (["a\0b"], "control character"),
        ([object()], "contains a object"),
    ],
)
async def test_what_is_no_json_is_refused_with_its_place(office: Any, value: Any, why: str) -> None:
    @workflow
    async def odd() -> None:
        await request_approval("Call", fields={"ok": [1], "odd": value}, approvers=ANN)

    async with office.open():
        run = await office.engine.start(odd)
        with pytest.raises(RunFailedError) as failed:
            await run.return_value()
        assert "odd" in str(failed.value)
        assert why in str(failed.value)


# ── editing ──


async def test_a_person_edits_json_text_and_its_type_stays(office: Any) -> None:
    async with office.open():
        run, view = await asked(office, {"tags": ["a", "b"], "to": {"city": "Oslo"}, "n": 1})
        assert [(field.name, field.value) for field in editable_of(view)] == [
            ("tags.0", "a"),
            ("tags.1", "b"),
            ("to.city", "Oslo"),
            ("n", "1"),
        ]
        for text, why in [
            ('["a",\n  "b" "c"]', "tags: is not valid JSON: the mistake is at line 2, column 7."),
            ("{}", "tags: must be a list."),
            ('"a"', "tags: must be a list."),
            ("[NaN]", "tags: contains a number that JSON doesn't have."),
            ('[{"a": 1, "a": 2}]', 'tags: has the key "a" twice in one object.'),
            ("[" * 5_000 + "]" * 5_000, "is nested too deeply: at most 20 levels are allowed."),
            ("[" * 70_000, "tags: is nested too deeply: at most 20 levels are allowed."),
            ("[9007199254740993]", "tags.0: must be between"),
            (f"[{'9' * 5_000}]", "tags: must be between"),
            (json.dumps(["x" * MOST_BYTES]), "the fields are too large: 65,"),
            ("", "tags: is required."),
        ]:
            reply = await send(office, view, choice="edit", fields={"tags": text})
            assert (reply["verdict"], reply["changed"]) == ("invalid", False)
            assert why in reply["text"], (text[:30], reply["text"])
            assert reply["text"].endswith("Nothing was changed.")
            assert (await newest(office, run)).fields == {"tags": ["a", "b"], "to": {"city": "Oslo"}, "n": 1}
        reply = await send(office, view, choice="edit", fields={"tags": '[ "a" , "b" ]'})
        assert "That's what it already says" in reply["text"]
        edited = {"tags": '["a", 1, true]', "to": '{"zip": "0150",\n "city": "Oslo"}'}
        assert (await send(office, view, choice="edit", fields=edited))["verdict"] == "decided"
        result = await run.return_value()
        assert (result["kind"], result["fields"]["tags"]) == ("Edited", ["a", 1, True])
        assert list(result["fields"]["to"].items()) == [("zip", "0150"), ("city", "Oslo")]
        view = await newest(office, run)
        assert shown_of(view)[0].value == 'tags.0: "a"\ntags.1: 1 (was "b")\ntags.2: true (new)'


async def test_the_api_edits_json_as_json(office: Any) -> None:
    async with office.open():
        run, view = await asked(office, {"tags": ["a"]})
        text = await send(office, view, choice="edit", via="api", fields={"tags": '["b"]'})
        assert text["text"].startswith("tags: must be a list.")
        assert (await send(office, view, choice="edit", via="api", fields={"tags": ["b"]}))["verdict"] == "decided"
        assert (await run.return_value())["fields"] == {"tags": ["b"]}


async def test_true_is_not_one_and_one_is_one_point_zero(office: Any) -> None:
    async with office.open():
        run, view = await asked(office, {"flags": [1, 0]})
        same = await send(office, view, choice="edit", via="api", fields={"flags": [1.0, 0]})
        assert "already says" in same["text"]
        edited = await send(office, view, choice="edit", via="api", fields={"flags": [True, False]})
        assert edited["verdict"] == "decided"
        result = await run.return_value()
        assert (result["kind"], result["fields"]["flags"]) == ("Edited", [True, False])
        assert result["fields"]["flags"][0] is True


async def test_a_pinned_list_that_changed_voids_the_vote_and_the_approval(office: Any) -> None:
    @workflow
    async def pays(rows: list[int]) -> str:
        outcome = await request_approval("Pay", fields={"rows": rows}, approvers=ANN)
        outcome.require({"rows": [1.0, 2]})
        try:
            outcome.require({"rows": [2, 1]})
        except ApprovalMismatchError:
            return "the order of a list counts"
        return "it doesn't"

    async with office.open():
        run = await office.engine.start(pays, [1, 2])
        await office.settle()
        await send(office, await newest(office, run))
        assert await run.return_value() == "the order of a list counts"


async def test_changing_an_outcomes_lists_changes_no_request(office: Any) -> None:
    @workflow
    async def clears() -> list[Any]:
        outcome = await request_approval("Go", fields={"rows": [1, 2]}, approvers=ANN)
        outcome.fields["rows"].clear()
        second = await request_approval("Go on", fields={"rows": [1, 2]}, approvers=ANN)
        return [outcome.fields["rows"], second.fields["rows"]]

    async with office.open():
        run = await office.engine.start(clears)
        await office.settle()
        await send(office, await newest(office, run))
        await send(office, await newest(office, run))
        assert await run.return_value() == [[], [1, 2]]


# ── a model's own rules ──


class Line(BaseModel):
    sku: str = Field(pattern="^[a-z]+$")
    n: int = Field(gt=0)


class Cart(BaseModel):
    lines: list[Line]
    limit: Decimal = Decimal("10")


@workflow
async def buys_a_cart() -> Any:
    outcome = await request_approval(
        "Buy",
        fields=Cart(lines=[Line(sku="a", n=1)]),
        editable=["lines", "limit"],
        approvers=ANN,
        requester=BO,
        outcomes=["approve", "edit"],
    )
    return outcome.fields["lines"]


async def test_an_edit_must_fit_the_model_that_the_fields_came_from(office: Any) -> None:
    async with office.open():
        run = await office.engine.start(buys_a_cart)
        await office.settle()
        view = await newest(office, run)
        for message in (
            {"choice": "edit", "fields": {"lines": '[{"sku": "A", "n": 1}]'}},
            {"choice": "edit", "fields": {"lines": [{"sku": "a", "n": 0}]}, "via": "api"},
            {"kind": "edit", "by": BO, "fields": {"lines": '[{"sku": "a"}]'}},
        ):
            reply = await send(office, view, **message)
            assert reply["verdict"] == "invalid"
            assert reply["text"].startswith("lines: is not what the workflow takes: 0.")
        assert (await newest(office, run)).fields["lines"] == [{"sku": "a", "n": 1}]
        await send(office, view, choice="edit", fields={"lines": '[{"sku": "b", "n": 2}]'})
        assert await run.return_value() == [{"sku": "b", "n": 2}]


# ── pure ──

NUMBER_SIGNS = regex.compile(r"\p{Prepended_Concatenation_Mark}")  # Arabic and others: format characters, and visible

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"], exclude_characters="\0"), max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text("abc é\u202e\u200d👩", max_size=5), inner),
    max_leaves=25,
)


@settings(max_examples=examples(300))
@given(JSON)
def test_what_people_read_is_the_value_itself(value: Any) -> None:
    shown = shown_json(value)
    assert parse_typed(shown) == value
    assert json.dumps(parse_typed(shown)) == json.dumps(value), "the order of keys, too"
    assert same_json(parse_typed(shown), value)
    assert len(shown) <= max(MOST_GROWTH * len(one_line_json(value)), LINE)
    seen = NUMBER_SIGNS.sub("", shown.replace(" ", ""))
    assert all(character.isprintable() or character in "\n\u200d" for character in seen)


@settings(max_examples=examples(300))
@given(JSON, JSON)
def test_equal_json_has_one_canonical_form(one: Any, other: Any) -> None:
    assert json.loads(canonical(one), parse_int=float) == one
    assert (canonical(one) == canonical(other)) == same_json([one], [other])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.25e-9, "1.25e-9"),
        (333333333.33333329, "333333333.3333333"),
        (1e30, "1e+30"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740991, "9007199254740991"),
    ],
)
def test_numbers_are_written_as_rfc_8785_says(number: float, text: str) -> None:
    assert canonical(number) == text


def test_keys_are_sorted_by_their_utf_16_code_units() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "ö"]  # RFC 8785's own example
    found = json.loads(canonical(dict.fromkeys(keys)), object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    assert found == ["\r", "1", "\x80", "ö", "\u20ac", "\U0001f600", "\ufb33"]


def test_long_numbers_fill_lines_and_texts_have_one_each() -> None:
    assert shown_json(list(range(40))).splitlines()[1] == "  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"
    texts: list[JsonValue] = ["a file of the first kind", "a file of the second kind"]
    assert shown_json(texts) == f'[\n  "{texts[0]}",\n  "{texts[1]}"\n]'


def test_deep_values_stay_on_one_line_rather_than_grow() -> None:
    deep: Any = [{"a": 1}, {"a": 2}] * 300
    for _ in range(17):
        deep = {"a": deep}
    assert shown_json(deep) == one_line_json(deep)


def test_only_json_passes_and_only_so_deep() -> None:
    check_json([[[1]]], depth=DEEPEST - 2)
    with pytest.raises(UnfitError, match="too deeply"):
        check_json([[[1]]], depth=DEEPEST - 1)
    with pytest.raises(UnfitError, match="tuple"):
        check_json([(1,)])
    assert TypedText("[]") == "[]"
