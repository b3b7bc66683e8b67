"""Random annotations and values: each value is the same after the log, or is refused with its path."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, reject, settings
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
