"""Random annotations and values: each value is the same after the log, or is refused with its path."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from approvals_bot import InvalidPayloadError, SerializationError
from approvals_bot.durable.core.serialization import Codec, to_json
from tests.support.annotated_values import kinds, portrait

EXAMPLES = int(os.environ.get("VALUES", "150"))
"""More find more, and other ones each time: VALUES=8000 takes six minutes."""


@pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute", "ignore:Typed field .* overrides")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="VALUES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(st.data())
def test_a_value_is_the_same_after_the_log_or_refused(data: st.DataObject) -> None:
    kind = data.draw(kinds())
    value = data.draw(kind.values)
    codec = Codec(kind.annotation)
    try:
        encoded = codec.encode(value, "x")
    except InvalidPayloadError:
        reject()  # it was drawn for another member of a union
    except SerializationError as error:
        refused = error
    else:
        back = codec.decode(json.loads(to_json(encoded)))
        assert portrait(back) == portrait(codec.validated(value))
        return
    assert refused.path.startswith("x")
    assert not kind.must_survive, refused


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
@example("\ud800")
@example("\x00\x7f NaN Infinity")
@example(10**40)
@example({"a": [float("-inf")]})
def test_compiled_json_is_what_json_writes(value: Any) -> None:
    try:
        expected = json.loads(json.dumps(value, allow_nan=False))
    except ValueError:
        with pytest.raises(SerializationError):
            to_json(value)
    else:
        text = to_json(value)
        assert text.isascii()
        assert "\x00" not in text
        assert repr(json.loads(text)) == repr(expected)
