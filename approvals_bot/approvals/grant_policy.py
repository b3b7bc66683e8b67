"""What a workflow's file says of an approval that ends: how long it lasts, and the calls that give it and take it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from approvals_bot.approvals.base import Frozen, Slug, Text, refuse
from approvals_bot.approvals.durations import Duration, duration_text, parse_duration


class GrantCall(Frozen):
    """A POST of `json` to a target of [http.*], signed and retried under one event id. Strings in it are templates."""

    http: Slug
    json_: dict[str, JsonValue] = Field(default_factory=dict, alias="json")


class Grant(Frozen):
    """An approval that ends: `give` is called after the decision, and `take` when it is over.

    `lasts`: a duration, or a template of one. `max`: how far ahead the end may ever be, extensions included.
    """

    lasts: Annotated[Text, StringConstraints(max_length=500)]
    max: Duration | None = None  # None: `lasts`
    give: GrantCall
    take: GrantCall
    extend: Literal["never", "ask"] = "never"

    @property
    def is_templated(self) -> bool:
        return "{" in self.lasts

    @property
    def longest(self) -> timedelta:
        """How far ahead the end may ever be."""
        return self.max if self.max is not None else parse_duration(self.lasts)

    @model_validator(mode="after")
    def _lasts_for_a_known_time(self) -> Grant:
        if self.is_templated:
            if self.max is None:
                raise refuse("is missing; lasts is a template, so say how long it may be at most", at="max")
            return self
        try:
            lasts = parse_duration(self.lasts)
        except ValueError as error:
            raise refuse(str(error), at="lasts") from None
        if lasts <= timedelta(0):
            raise refuse("must be longer than 0s", at="lasts")
        if self.max is not None and lasts > self.max:
            raise refuse(f"is longer than max, {duration_text(self.max)}", at="lasts")
        return self
