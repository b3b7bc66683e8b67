"""A stage as frozen models: seats, alternatives and vetoes, and what they count. Files and Python write the same."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, model_validator

from approvals_bot.approvals.base import Frozen, Int, Label, Slug, Text, refuse
from approvals_bot.approvals.clock import Backoff, OnDeadline, Reminders, check_times
from approvals_bot.approvals.deadlines import StageDeadline
from approvals_bot.approvals.delivery_policy import StageDeliver
from approvals_bot.approvals.field_specs import Ask, FieldName, Question

Choice = Literal["approve", "reject", "changes", "edit", "answer"]
"""A choice that a stage may offer its approvers."""

CommentRule = Literal["never", "optional", "on-reject", "always"]
"""When approvers have to comment. `on-reject`: if they don't approve; `never`: they can't."""

SelfApproval = Literal["never", "allow", "skip-up"]
"""Whether requesters decide on their own requests."""

Rejections = Literal["any", "all"] | Annotated[Int, Field(ge=1, le=1000)]
"""How many rejections end a stage."""

Share = Annotated[str, StringConstraints(pattern=r"^(?:100|[1-9][0-9]?)%$")]
"""A share of the people of a seat: `50%`."""

Need = Literal["all", "majority"] | Share | Annotated[Int, Field(ge=1, le=1000)]
"""How many votes a seat needs."""


# No twin of Clock: that is for all stages, this may say another time for its own.
class Stage(Frozen):
    """Seats that are open at the same time, or alternatives of which one is enough.

    With only one seat, its keys may be the stage's own: `from` (`from_`).
    """

    also_written: ClassVar[tuple[str, ...]] = ("from", "need", "pick", "notify")
    id: Slug
    title: Label | None = None  # None: derived from the id
    when: Text | None = None
    seat: Annotated[tuple[Seat, ...], Field(min_length=1)] | None = None
    alternatives: Annotated[tuple[Alternative, ...], Field(min_length=1)] | None = Field(None, alias="any")
    outcomes: Outcomes | None = None
    ask: dict[FieldName, Question] = Field(default_factory=dict)  # what approvers fill in
    comment: CommentRule = "on-reject"
    decide: Literal["when-all-answered"] | None = None  # None: as soon as the result is certain
    self_approval: SelfApproval | None = None  # None: the policy's, as for `reject`
    reject: Rejections | None = None
    veto: Veto | None = None  # who alone may reject; None: the approvers
    deadline: StageDeadline | None = None  # None: the clock's, as for `remind` and `on_deadline`
    remind: Reminders | None = None
    on_deadline: OnDeadline | None = None
    i_know: Literal[True] | None = None
    deliver: StageDeliver | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            id: str,
            title: str | None = ...,
            from_: Sequence[str] = ...,
            need: int | Literal["all", "majority"] | str = ...,
            pick: int | None = ...,
            notify: Sequence[str] | None = ...,
            when: str | None = ...,
            seat: Sequence[Seat | Mapping[str, Any]] = ...,
            any: Sequence[Alternative | Mapping[str, Any]] | None = ...,
            outcomes: Sequence[Choice] | None = ...,
            ask: Mapping[str, Ask | Mapping[str, Any] | str] = ...,
            comment: CommentRule = ...,
            decide: Literal["when-all-answered"] | None = ...,
            self_approval: SelfApproval | None = ...,
            reject: int | Literal["any", "all"] | None = ...,
            veto: Veto | Mapping[str, Any] | None = ...,
            deadline: str | timedelta | None = ...,
            remind: Sequence[str | timedelta] | Backoff | Mapping[str, Any] | None = ...,
            on_deadline: OnDeadline | None = ...,
            i_know: Literal[True] | None = ...,
            deliver: StageDeliver | Mapping[str, Any] | None = ...,
        ) -> None: ...

    @model_validator(mode="after")
    def _counts_rejections_once(self) -> Stage:
        if self.veto is not None and self.reject is not None:
            raise refuse("is said by [stage.veto], with need", at="reject")
        return self

    @model_validator(mode="after")
    def _times_make_sense(self) -> Stage:
        check_times(self.deadline, self.remind, self.on_deadline, knows=self.i_know)
        return self

    @model_validator(mode="before")
    @classmethod
    def _is_one_seat(cls, value: object, info: ValidationInfo) -> object:
        value = _as_in_the_file(value, info)
        if not isinstance(value, dict):
            return value
        own = {key: value[key] for key in cls.also_written if key in value}
        if value.get("any") is not None:
            if key := "seat" if value.get("seat") is not None else next(iter(own), ""):
                raise refuse(f'this stage has alternatives, so "{key}" belongs in one of them, in its seats', at=key)
            return value
        if value.get("seat") is None:
            return {**{key: of for key, of in value.items() if key not in own}, "seat": [own]}
        if own:
            key = next(iter(own))
            raise refuse(f'this stage has its own seats, so "{key}" belongs in one of them', at=key)
        return value

    @cached_property
    def seats(self) -> tuple[Seat, ...]:
        """All seats, those of alternatives one after the other. A seat's id is its position here."""
        return self.seat or tuple(seat for each in self.alternatives or () for seat in each.seats)

    def alternative_of(self, seat: int) -> int:
        """Return the number of the alternative that this seat belongs to, from 0; without alternatives, 0."""
        ends = list(accumulate(len(each.seats) for each in self.alternatives or ()))
        return bisect_right(ends, seat)

    def path_of(self, seat: int) -> tuple[str | int, ...]:
        """Return the path of this seat's table in the stage's."""
        if self.alternatives is None:
            return ("seat", seat)
        number = self.alternative_of(seat)
        return ("any", number, "seats", seat - sum(len(each.seats) for each in self.alternatives[:number]))


class Alternative(Frozen):
    """Seats that are enough for a stage, beside its other alternatives."""

    seats: Annotated[tuple[Seat, ...], Field(min_length=1)]

    if TYPE_CHECKING:

        def __init__(self, *, seats: Sequence[Seat | Mapping[str, Any]]) -> None: ...


class Veto(Frozen):
    """People who alone may reject in a stage. It doesn't wait for them."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    need: Annotated[Int, Field(ge=1, le=1000)] = 1

    if TYPE_CHECKING:

        def __init__(self, *, from_: Sequence[str], need: int = ...) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _is_written_in_python(cls, value: object, info: ValidationInfo) -> object:
        return _as_in_the_file(value, info)


class Seat(Frozen):
    """Votes needed from one set of people."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    need: Need = 1
    pick: Annotated[Int, Field(ge=1, le=1000)] | None = None  # how many of them are asked; None: all
    when: Text | None = None
    notify: tuple[Text, ...] | None = None  # who of them gets a card; None: all, (): nobody

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            from_: Sequence[str],
            need: int | Literal["all", "majority"] | str = ...,
            pick: int | None = ...,
            when: str | None = ...,
            notify: Sequence[str] | None = ...,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _is_written_by_an_author(cls, value: object, info: ValidationInfo) -> object:
        return _as_in_the_file(value, info)


def _as_in_the_file(value: object, info: ValidationInfo) -> object:
    """Accept `from_` from authors, as `from` is a Python keyword. A file (validated with a context) must say `from`."""
    if info.context is None and isinstance(value, dict) and "from_" in value:
        return {("from" if key == "from_" else key): of for key, of in value.items()}
    return value


def _outcomes(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise refuse("an outcome is listed twice")
    if not {"approve", "answer"} & set(value):
        raise refuse('nobody could ever approve here; add "approve" or "answer"')
    return value


Outcomes = Annotated[tuple[Choice, ...], Field(min_length=1), AfterValidator(_outcomes)]
