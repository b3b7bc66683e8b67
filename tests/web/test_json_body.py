"""Which JSON is accepted; everything else is a 400 with its reason."""

from __future__ import annotations

import json
import time

import pytest

from approvals_bot.web.responses import Problem
from approvals_bot.web.validation import parse_json


def nested(levels: int) -> bytes:
    return b"[" * levels + b"1" + b"]" * levels


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"{} {}", "Extra data"),
        (b'{"approved": false, "approved": true}', "the key 'approved' appears twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "the key 'b' appears twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"1e999", "a number is too large"),
        (b"9" * 5_000, "a number has too many digits"),
        (nested(25), "nested deeper than 24 levels"),
        (nested(200_000), "nested deeper than 24 levels"),
        (b'{"a":' * 100_000, "nested deeper than 24 levels"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'["a\\u0000b"]', "a NUL character"),
        (b"\xff\xfe", "not UTF-8"),
        ('"é"'.encode("utf-16"), "not UTF-8"),
        ("\ufeff{}".encode(), "BOM"),
    ],
    ids=range(18),
)
def test_a_text_that_two_readers_could_read_differently_is_refused(body: bytes, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(Problem) as refused:
        parse_json(body)
    assert refused.value.status == 400
    assert reason in refused.value.detail
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "", "😀", [], {}, {"a": [1, {"b": None}]}, 2**63, "x" * 100_000], ids=repr
)
def test_plain_values_are_read_as_they_are(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_twenty_levels_are_taken() -> None:
    assert parse_json(nested(20)) == json.loads(nested(20))
