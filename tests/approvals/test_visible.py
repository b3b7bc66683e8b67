"""What people see of a text: no two pinned values look alike, and nothing invisible goes unseen."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals import fields
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.json_values import shown_json
from approvals_bot.approvals.numbers import Money
from approvals_bot.approvals.plain_text import clean, clip_value, one_line
from approvals_bot.approvals.visible import exact_line, exact_value, first_unseen
from tests.support.thorough import examples

INVISIBLE = [
    *("\u200b", "\xad", "\u2060", "\u3164", "\u200d", "\u200e", "\u202e", "\u2066", "\u2800", "\ufe0f", "\ufeff"),
    *("\u115f", "\u034f", "\u180e", "\u061c", "\u2028", "\U000e0041", "\U000e0100", "\U0001d173", "\U0001bca0"),
]
ODD = "ab \n\t⏎·“”⟨U+200B⟩–éåаοe\u0301\u030a\u0344\u212b\u1112\u1161\xa0\u3000"
TRICKY = st.text(st.sampled_from([*ODD, *INVISIBLE]), max_size=5)
TEXTS = TRICKY | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def seen(shown: str) -> str:
    """What is left of a text in the meanest channel: composed, trimmed line by line, empty lines squeezed."""
    lines: list[str] = []
    for line in unicodedata.normalize("NFC", clean(shown)).splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip()


@settings(max_examples=examples(600))
@given(TEXTS, TEXTS, st.booleans())
@example("e\u0301", "é", False)
@example("a ", "a", True)
@example("a\n", "a", True)
@example("⏎", "\n", True)
@example("not given", "“not given”", False)
@example("a\u200b", "a⟨U+200B⟩", False)
@example("p\u0430y", "pay", False)
@example("\u0440\u0430\u0443", "pay", False)
@example("to \u0440\u0430\u0443", "to pay", False)
def test_two_pinned_texts_never_look_alike(one: str, other: str, is_block: bool) -> None:
    shown = [seen(exact_value(text, is_block=is_block)) for text in (one, other)]
    assert (shown[0] == shown[1]) == (one == other)
    if not is_block:
        shown = [one_line(exact_value(text, is_block=False)) for text in (one, other)]
        assert (shown[0] == shown[1]) == (one == other)
        assert "\n" not in shown[0]


@settings(max_examples=examples(200))
@given(TEXTS, TEXTS, st.integers(1, 6))
def test_cut_values_never_look_alike(one: str, other: str, limit: int) -> None:
    cut = [clip_value(exact_value(text, is_block=False), limit, is_signed=True) for text in (one, other)]
    assert (cut[0] == cut[1]) == (one == other)


def test_word_of_latin_twins_is_marked_unless_its_text_is_plainly_foreign() -> None:
    assert exact_line("Pay \u0441\u043e\u0441\u043e Ltd") == "Pay ⟨U+0441⟩⟨U+043E⟩⟨U+0441⟩⟨U+043E⟩ Ltd"
    assert exact_line("\u039f\u039a") == "⟨U+039F⟩⟨U+039A⟩"
    assert exact_line("сор из избы") == "сор из избы"


def test_usual_text_is_shown_as_it_is() -> None:
    for text in (
        "api 2.1",
        "Привет, мир",
        "日本語",
        "Zoë's façade",
        "naïve → 10 €",
        "שלום",
        "3 × 4",
        "한국어",
        "a-b_c",
    ):
        assert exact_value(text, is_block=False) == exact_value(text, is_block=True) == text
    assert exact_value("--- a\n+++ b\n  x: 1\n\ty", is_block=True) == "--- a\n+++ b\n  x: 1\n\ty"


@pytest.mark.parametrize("character", INVISIBLE, ids=lambda each: f"U+{ord(each):04X}")
@pytest.mark.parametrize("type", ["string", "text", "url", "email"])
def test_invisible_characters_are_refused_where_pinned(type: str, character: str) -> None:
    base = {"url": "https://acme.eu/pro", "email": "pro"}.get(type, "pro")
    text = f"{base}{character}d" + ("@acme.eu" if type == "email" else "")
    of = {"version": FieldSpec(type=type, pinned=True)}
    _, (rejection,) = fields.read_values(of, {"version": text})
    assert (rejection.path, rejection.code) == (("version",), "invisible_character")
    assert rejection.params == {"character": f"⟨U+{ord(character):04X}⟩", "at": len(base) + 1}
    free = {"version": FieldSpec(type=type)}
    if type in ("string", "text"):
        assert fields.read_values(free, {"version": text}) == ({"version": text}, ())
    assert f"⟨U+{ord(character):04X}⟩" in clean(text) or character == "\u2028"


def test_joiners_stay_in_other_text_where_unicode_needs_them() -> None:
    for text in ("👩‍💻 ❤️ 🏳️‍🌈 1️⃣", "می‌خواهم", "ක්‍ෂ", "क्‍ष", "↩︎ Changes"):
        assert clean(text) == text
        assert first_unseen(text) is not None
    assert clean("pro\u200dd a\u200cb x\ufe0f 1\ufe0f") == "pro⟨U+200D⟩d a⟨U+200C⟩b x⟨U+FE0F⟩ 1⟨U+FE0F⟩"


VALUES: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "string": ({}, TRICKY.filter(lambda text: first_unseen(text) is None) | st.none()),
    "text": ({}, TRICKY.filter(lambda text: first_unseen(text) is None) | st.none()),
    "boolean": ({}, st.booleans() | st.none()),
    "integer": ({}, st.integers(-(2**53) + 1, 2**53 - 1) | st.none()),
    "decimal": ({}, st.decimals(-1000, 1000, places=9) | st.sampled_from([Decimal("1.50"), Decimal("1.5")])),
    "money": ({"currency": "EUR"}, st.decimals(-(10**9), 10**9, places=3).map(lambda each: Money(each, "EUR"))),
    "date": ({}, st.dates() | st.none()),
    "datetime": ({}, st.datetimes(timezones=st.just(UTC)) | st.none()),
    "duration": ({}, st.integers(0, 10**7).map(lambda seconds: timedelta(seconds=seconds))),
    "enum": ({"values": ("prod", "prod ", "Prod", "not given")}, st.sampled_from(["prod", "prod ", "not given", None])),
}


@pytest.mark.parametrize("type", VALUES)
def test_what_is_shown_of_a_pinned_field_is_its_value(type: str) -> None:
    options, strategy = VALUES[type]
    spec = FieldSpec(type=type, required=False, pinned=True, **options)

    @settings(max_examples=examples(100))
    @given(strategy, strategy)
    def check(one: Any, other: Any) -> None:
        shown = [seen(fields.shown_field(spec, "it", value, {}).value) for value in (one, other)]
        digests = [fields.digest("w", "1", {"it": spec}, {"it": value}) for value in (one, other)]
        assert (shown[0] == shown[1]) == (digests[0] == digests[1])

    check()


def test_moments_are_shown_with_their_seconds() -> None:
    spec = FieldSpec(type="datetime", pinned=True)

    def shown(second: float) -> str:
        at = datetime(2026, 11, 5, 14, 0, tzinfo=UTC) + timedelta(seconds=second)
        return fields.shown_field(spec, "at", at, {}).value

    assert shown(0) == "5 Nov 2026, 14:00 UTC"
    assert shown(30) == "5 Nov 2026, 14:00:30 UTC"
    assert shown(0.5) == "5 Nov 2026, 14:00:00.5 UTC"
    assert fields.shown_field(FieldSpec(type="date"), "at", date(2026, 11, 5), {}).value == "5 Nov 2026"


@pytest.mark.parametrize(
    "character", ["\u200b", "\ufe0f", "\u2800", "\ue000", "\U00013430", "\U00016fe4", "\U0001bca0", "\U0001d173"]
)
def test_json_that_people_sign_has_no_character_without_a_picture(character: str) -> None:
    """Its escape reads back as itself, in keys and in texts."""
    values: list[dict[str, Any]] = [{f"a{character}": 1}, {"a": [f"b{character}"]}]
    for value in values:
        assert character not in shown_json(value)
        assert json.loads(shown_json(value)) == value
    assert shown_json(["❤\ufe0f", "👩\u200d🚀", "1\ufe0f\u20e3"]) == '["❤\ufe0f", "👩\u200d🚀", "1\ufe0f\u20e3"]'
