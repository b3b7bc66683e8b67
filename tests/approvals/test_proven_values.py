"""What the approvals' steps exempt from the comparison with the log (`Proven`), because of what that costs."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.delivery import send_copy, update_copy
from approvals_bot.approvals.eligibility import RequestContext, Resolution, SeatQuery
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.port import Delivered, Dispatch, Receipt, Refused, Result, TryAgain
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import look_up
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.fidelity import lost
from approvals_bot.durable.core.serialization import SURVIVES, decode, encode, to_json
from approvals_bot.errors import SerializationError

SPECS = [
    {"type": "text", "label": "Why", "max_length": 40, "default": "so"},
    {"type": "money", "currency": "EUR", "min": "1.50", "required": False},
    {"type": "enum", "values": ["now", "tonight"]},
    {"type": "date", "hint": "a day"},
    {"type": "duration", "default": "1h"},
]
st.register_type_strategy(FieldSpec, st.sampled_from([FieldSpec.model_validate(spec) for spec in SPECS]))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.text(), JSON, max_size=3)

RESULTS: st.SearchStrategy[Result] = st.from_type(Delivered) | st.from_type(TryAgain) | st.from_type(Refused)

PROVEN: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "an opening": (approval.signature.annotation("opening"), st.builds(Opening, fields=FIELDS)),
    "look-ups of seats": (look_up.signature.annotation("asks"), st.from_type(tuple[SeatQuery, ...])),
    "what addresses mean": (look_up.signature.annotation("about"), st.builds(RequestContext, fields=FIELDS)),
    "other people": (look_up.signature.annotation("also"), st.from_type(tuple[str, ...])),
    "an instant": (look_up.signature.annotation("at"), st.none() | st.datetimes(timezones=st.just(UTC))),
    "a resolution": (look_up.signature.annotation("return"), st.from_type(Resolution)),
    "a dispatch": (send_copy.signature.annotation("dispatch"), st.from_type(Dispatch)),
    "a receipt": (update_copy.signature.annotation("receipt"), st.from_type(Receipt)),
    "a result": (send_copy.signature.annotation("return"), RESULTS),
}


@pytest.mark.parametrize("what", PROVEN)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_proven_value_survives_the_log(what: str, data: st.DataObject) -> None:
    annotation, values = PROVEN[what]
    value = data.draw(values)
    assert SURVIVES in get_args(annotation)
    kept = json.loads(to_json(encode(value, annotation)))
    back = decode(kept, annotation)
    assert lost(value, back) is None
    assert not containers(kept) & containers(back)


def containers(value: Any) -> set[int]:
    """Return which lists and dicts a value consists of."""
    match value:
        case list() | tuple():
            parts = [*value]
        case dict():
            parts = [*value.values()]
        case _:
            parts = [getattr(value, name) for name in getattr(value, "__dataclass_fields__", ())]
    own = {id(value)} if isinstance(value, list | dict) else set()
    return own.union(*map(containers, parts))


def test_a_part_of_another_type_is_refused() -> None:
    wrong: Any = 1_700_000_000
    with pytest.raises(SerializationError, match="result: "):
        encode(Delivered(Receipt("#deploys", wrong)), send_copy.signature.annotation("return"), "result")
