"""What a request says: its fields, typed and as JSON, their digest; and what the file's conditions say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals import filled_in
from approvals_bot.approvals import policy as config
from approvals_bot.approvals.conditions import Judgement
from approvals_bot.approvals.editions import edition_of
from approvals_bot.approvals.policy import Definition


@dataclass(frozen=True, slots=True)
class JudgedRule:
    """A condition of the file, the fields that it looked at, and what it said of them."""

    rule: str
    names: tuple[str, ...]
    fields: Mapping[str, JsonValue]
    applies: bool
    because: str


class Content:
    """The fields of one request as they are, and the rules of its file."""

    def __init__(self, definition: Definition, fields: Mapping[str, JsonValue]) -> None:
        self._definition = definition
        self.edition = edition_of(definition)  # of the file that this request follows
        self.was: dict[str, JsonValue] = {}  # what edited fields said before
        self._autos: list[JudgedRule] = []
        self._stages: list[JudgedRule] = []
        self._take(forms.values(definition, fields))

    @property
    def rules(self) -> tuple[JudgedRule, ...]:
        """The conditions that were asked about last."""
        return (*self._autos, *self._stages)

    def change(self, typed: dict[str, Any]) -> bool:
        """Take the new values. Whether the votes so far are void."""
        before, old = self.typed, self.fields
        self._take(typed)
        self.was = self.was | {name: old.get(name) for name in typed if self.fields.get(name) != old.get(name)}
        return filled_in.voids_votes(self._definition.policy, before, typed)

    def _take(self, typed: dict[str, Any]) -> None:
        self.typed = typed
        self.fields = forms.dump(self._definition, typed)
        self.digest = forms.digest(self._definition, typed)
        self._judged: dict[str, Judgement] = {}  # of the fields as they are

    def automatic(self) -> tuple[int, config.Auto, str] | None:
        """The first rule that decides without people: its number from 1, the rule, and its text with its values."""
        self._autos = []
        for number, rule in enumerate(self._definition.auto, 1):
            judged = self._judge(rule.when)
            applies = judged.holds is True
            self._autos.append(self._rule(f"auto {number}: {rule.decision} when {rule.when}", rule.when, applies))
            if applies:
                return number, rule, judged.because
        return None

    def plan(self) -> list[tuple[bool, str]]:
        """Of each stage, whether it is asked, and why or why not. What can't be known is asked."""
        self._stages = []
        return [self._applies(rule) for rule in self._definition.stage]

    def _applies(self, rule: config.Stage) -> tuple[bool, str]:
        because = ""
        if rule.when is not None:
            judged = self._judge(rule.when)
            self._stages.append(self._rule(f"stage {rule.id} when {rule.when}", rule.when, judged.holds is not False))
            if judged.holds is False:
                return False, judged.because
            because = judged.because
        if not self.seats(rule):
            return False, "none of its seats applies"
        return True, because

    def seats(self, rule: config.Stage) -> list[tuple[int, config.Seat]]:
        """The stage's seats that apply to this request."""
        return [
            (number, seat)
            for number, seat in enumerate(rule.seat)
            if seat.when is None or self._judge(seat.when).holds is not False
        ]

    def _judge(self, when: str) -> Judgement:
        judged = self._judged.get(when)
        if judged is None:
            judged = self._judged[when] = self.edition.condition(when).judge(self.typed)
        return judged

    def _rule(self, text: str, when: str, applies: bool) -> JudgedRule:
        return JudgedRule(text, self.edition.condition(when).names, self.fields, applies, self._judge(when).because)
