"""Reach: values that no stage covers, and rules and stages that no value ever reaches. Pure.

The conditions of a file divide the values of its fields into regions, at the constants that they compare with. One
value of each region is tried, in every combination. A combination that is found is real; that there is none is
claimed only where every region was tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import combinations, pairwise, product
from math import prod
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.circumstances import Circumstance, Known
from approvals_bot.approvals.conditions import condition
from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.field_specs import ORDERED, FieldSpec
from approvals_bot.approvals.fields import read_values
from approvals_bot.approvals.list_conditions import example_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reasons import children
from approvals_bot.approvals.rule_language import ast
from approvals_bot.approvals.rules import Rules, rules_of
from approvals_bot.approvals.stage_policy import Seat, Stage

MOST = 2_000  # combinations that are tried; of more, as many are drawn
FEW = 5  # values of an enum whose lists are all tried
LONGEST_SAMPLE = 20  # items of a list that is tried
MOST_OF_FIELD = 60  # values of one field
MOST_SEATS = 8  # of an alternative that is compared with others
MOST_HOLIDAYS = 10  # that are tried
_OTHERS = ("something else", "x", "someone@elsewhere.example", "https://elsewhere.example/", "x" * 40)

Path = tuple[str | int, ...]
Combination = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """What a file leaves out, at a key: a sentence with an example."""

    path: Path
    message: str


def gaps_of(definition: Definition) -> Iterator[Gap]:
    """Find what no stage covers, and what nothing reaches. The conditions must compile."""
    yield from _Regions(rules_of(definition)).gaps()


@dataclass(slots=True)
class _StagePart:
    """What was found of a part of a stage that applied: an example without it, and one in which it could matter."""

    without: Combination | None = None
    is_reached: bool = False
    needless: tuple[int, Combination] | None = None  # an alternative that is complete first, with an example
    is_needed: bool = False


@dataclass(slots=True)
class _Reached:
    """What was found of one rule or stage: whether it was reached, and what came before it, with an example."""

    is_reached: bool = False
    behind: tuple[int, Combination] | None = None


class _Regions:
    def __init__(self, rules: Rules) -> None:
        self._rules, definition = rules, rules.definition
        # `check` has compiled them before (benchmarks/parts/startup.py).
        self._conditions = {when: condition(when, definition.fields) for when in definition.conditions()}
        conditions = self._conditions.values()
        # Each condition has its own names for what it asks about the requester, which are tried as if independent.
        about = {one for each in conditions for one in each.about.values()}
        self._asked = {one: f"{number}" for number, one in enumerate(sorted(about, key=str))}
        specs = {name: definition.fields[name] for each in conditions for name in each.names}
        specs |= {name: one.spec for one, name in self._asked.items()}
        self._names = tuple(specs)
        self._labels = {name: one for one, name in self._asked.items()}
        seen = _Constants()
        for each in conditions:
            names = {name: self._asked[one] for name, one in each.about.items()}
            seen.read(each.expression, names | {name: one.field for name, one in each.lists.items()})
            for one in each.lists.values():
                seen.constants.setdefault(one.field, []).extend([example_of(one.pattern)] if one.pattern else [])
        self._samples: dict[str, list[tuple[JsonValue, Any]]] = {}
        self._times = [one for one in self._asked if one.is_time]
        self._possible = _possible_times(self._times, definition)
        # One group may be part of another, and office hours are hours.
        self._is_whole = seen.is_whole and len(about) - len(self._times) < 2 and self._possible is None
        for name, spec in specs.items():
            found, is_whole = _samples(spec, seen.constants.get(name, []))
            self._samples[name] = found[:MOST_OF_FIELD]
            self._is_whole &= is_whole and len(found) <= MOST_OF_FIELD
        self._known: dict[tuple[str, Combination], bool | None] = {}
        self._needless: dict[tuple[int, tuple[bool, ...]], list[int | None]] = {}

    def gaps(self) -> Iterator[Gap]:
        definition, uncovered = self._rules.definition, None
        autos = [_Reached() for _ in definition.auto]
        stages = [_Reached() for _ in definition.stage]
        parts = {path: _StagePart() for stage in enumerate(definition.stage) for path, _ in _parts_of(*stage)}
        for combination in self._combinations():
            if not self._is_possible(combination) or not self._may_be_requested(combination):
                continue
            matching = [at for at, rule in enumerate(definition.auto) if self._holds(rule.when, combination) is True]
            applying = [at for at, stage in enumerate(definition.stage) if self._applies(stage, combination)]
            for at in matching[:1]:
                autos[at].is_reached = True
            for reached, found in ((autos, matching[1:]), (stages, applying if matching else [])):
                for at in found:
                    reached[at].behind = reached[at].behind or (matching[0], combination)
            if not matching:
                for at in applying:
                    stages[at].is_reached = True
                    self._note_parts(parts, at, combination)
                if not applying:
                    uncovered = uncovered or combination
        if uncovered is not None and definition.policy.when_nobody is None:
            values = self._shown(uncovered)
            yield Gap(("stage",), f"no stage applies to {values}: such a request can't be opened; add a stage for it")
        yield from _needless_in_any_case(definition)
        if not self._is_whole:
            return
        for table, reached in (("auto", autos), ("stage", stages)):
            for at, one in enumerate(reached):
                if not one.is_reached:
                    yield self._unreached((table, at, "when"), one)
        known = {gap.path for gap in _needless_in_any_case(definition)}
        yield from (gap for path, part in parts.items() for gap in self._of_part(path, part) if path not in known)

    def _note_parts(self, parts: Mapping[Path, _StagePart], at: int, combination: Combination) -> None:
        """Note which seats and alternatives of a stage that applies do, too, and which of those can matter."""
        stage = self._rules.definition.stage[at]
        applies = tuple(seat.when is None or self._holds(seat.when, combination) is not False for seat in stage.seats)
        if (at, applies) not in self._needless:
            self._needless[at, applies] = _needless_of(stage, applies)
        for path, seats in _parts_of(at, stage):
            part = parts[path]
            if not any(applies[number] for number in seats):
                part.without = part.without or combination
                continue
            part.is_reached = True
            first = self._needless[at, applies][int(path[-1])] if path[-2] == "any" else None
            if first is not None:
                part.needless = part.needless or (first, combination)
            else:
                part.is_needed = True

    def _of_part(self, path: Path, part: _StagePart) -> Iterator[Gap]:
        if part.without is not None and not part.is_reached:
            yield Gap(path, f"never applies where its stage does, as with {self._shown(part.without)}")
        elif part.needless is not None and not part.is_needed:
            first, combination = part.needless
            yield Gap(path, f"{_needless(first)}, as with {self._shown(combination)}")

    def _unreached(self, path: Path, found: _Reached) -> Gap:
        verb = "decides" if path[0] == "auto" else "applies"
        if found.behind is None:
            return Gap(path, f"never {verb}: no values make it true")
        before, combination = found.behind
        return Gap(path, f"never {verb}: [[auto]] {before + 1} decides first, as with {self._shown(combination)}")

    def _combinations(self) -> Iterator[Combination]:
        sizes = [len(self._samples[name]) for name in self._names]
        if prod(sizes) <= MOST:
            yield from product(*map(range, sizes))
            return
        self._is_whole = False
        draw = random.Random(0)  # noqa: S311  # the same warnings each time
        for _ in range(MOST):
            yield tuple(draw.randrange(size) for size in sizes)

    def _is_possible(self, combination: Combination) -> bool:
        """Whether it is ever that time."""
        if self._possible is None:
            return True
        at = [self._names.index(self._asked[one]) for one in self._times]
        return tuple(self._samples[self._names[index]][combination[index]][1] for index in at) in self._possible

    def _may_be_requested(self, combination: Combination) -> bool:
        rules = self._rules.definition.request
        return rules is None or any(rule.when is None or self._holds(rule.when, combination) is True for rule in rules)

    def _applies(self, stage: Stage, combination: Combination) -> bool:
        if stage.when is not None and self._holds(stage.when, combination) is False:
            return False
        return any(seat.when is None or self._holds(seat.when, combination) is not False for seat in stage.seats)

    def _holds(self, when: str, combination: Combination) -> bool | None:
        compiled = self._conditions[when]
        names = {name: name for name in compiled.names}
        names |= {name: self._asked[one] for name, one in compiled.about.items()}
        own = tuple(combination[self._names.index(name)] for name in names.values())
        if (when, own) not in self._known:
            typed = {name: self._samples[names[name]][at][1] for name, at in zip(names, own, strict=True)}
            self._known[when, own] = compiled.holds(typed)
        return self._known[when, own]

    def _shown(self, combination: Combination) -> str:
        given = {name: self._samples[name][at][0] for name, at in zip(self._names, combination, strict=True)}
        parts = []
        for name, value in given.items():
            if name in self._labels and self._labels[name].is_time:
                parts.append(f"{self._labels[name].text} = {_literal(value)}")
            elif name in self._labels:
                parts.append(f"“{self._labels[name].spec.label}” {_literal(value)}")
            else:
                parts.append(f"no {name}" if value is None else f"{name} = {_literal(value)}")
        return ", ".join(parts) or "any request"


def _parts_of(at: int, stage: Stage) -> Iterator[tuple[Path, Sequence[int]]]:
    """Yield a stage's alternatives and conditional seats, each with the numbers of its seats."""
    for number in range(len(stage.alternatives or ())):
        seats = [seat for seat in range(len(stage.seats)) if stage.alternative_of(seat) == number]
        yield ("stage", at, "any", number), seats
    for number, seat in enumerate(stage.seats):
        is_alone = stage.alternatives is not None and len(stage.alternatives[stage.alternative_of(number)].seats) == 1
        if seat.when is not None and not is_alone:
            yield ("stage", at, *stage.path_of(number), "when"), [number]


def _needless_of(stage: Stage, applies: Sequence[bool]) -> list[int | None]:
    """Return for each alternative another one that is complete first, if only these seats apply."""
    there: list[list[Seat]] = [[] for _ in stage.alternatives or ()]
    for number, seat in enumerate(stage.seats):
        if applies[number] and stage.alternatives is not None:
            there[stage.alternative_of(number)].append(seat)
    return [_completes(there, number) for number in range(len(there))]


def _needless_in_any_case(definition: Definition) -> Iterator[Gap]:
    """Find the alternatives that another one makes needless, whatever the values are."""
    for at, stage in enumerate(definition.stage):
        seats = [each.seats for each in stage.alternatives or ()]
        for number in range(len(seats)):
            if (first := _completes(seats, number, always=True)) is not None:
                yield Gap(("stage", at, "any", number), _needless(first))


def _needless(first: int) -> str:
    return f"never decides: alternative {first + 1} is complete whenever this one is"


def _completes(alternatives: Sequence[Sequence[Seat]], number: int, *, always: bool = False) -> int | None:
    """Return an alternative that is complete whenever this one is. Of two that are equal, the first matters.

    `always`: whatever the values are. Otherwise only these seats apply.
    """
    own = alternatives[number]
    for at, other in enumerate(alternatives):
        is_first = at < number or not _fills(other, own, always=always)
        if at != number and is_first and _fills(own, other, always=always):
            return at
    return None


def _fills(own: Sequence[Seat], other: Sequence[Seat], *, always: bool) -> bool:
    """Whether the votes that fill these seats fill the other ones, too: a different one of these for each of those."""
    if always:
        own = [seat for seat in own if seat.when is None]
        if all(seat.when is not None for seat in other):
            return False
    if not other or len(own) > MOST_SEATS:
        return False
    ways = [frozenset[int]()]
    for seat in other:
        ways = list(
            {way | {at} for way in ways for at, each in enumerate(own) if at not in way and _is_more(each, seat)}
        )
    return bool(ways)


def _is_more(own: Seat, other: Seat) -> bool:
    """Whether who fills a seat would fill the other one, too. False if that isn't certain."""
    if other.pick is not None or not {*own.from_} <= {*other.from_}:
        return False
    if isinstance(other.need, int):
        return other.need == 1 or (isinstance(own.need, int) and own.need >= other.need)
    if own.pick is not None or {*own.from_} != {*other.from_} or isinstance(own.need, int):
        return False
    return _share(own.need) >= _share(other.need)


def _share(need: str) -> Decimal:
    """Return a share to compare: a majority is more than any 50 %, and at most 51 %."""
    return {"all": Decimal(100), "majority": Decimal("50.5")}.get(need) or Decimal(need.removesuffix("%"))


def _possible_times(times: Sequence[Circumstance], definition: Definition) -> set[tuple[Any, ...]] | None:
    """Return which times there are together, from a week in winter, one in summer, and holidays. None: all are."""
    calendars = definition.calendars or {}
    named = [calendars.get(one.names[0]) for one in times if one.kind == "business_hours"]
    if not named or None in named or len(times) < 2:
        return None
    days = [date(2024, month, 1) + timedelta(days=later) for month in (1, 7) for later in range(7)]
    days += [day for calendar in named if calendar is not None for day in calendar.holidays[:MOST_HOLIDAYS]]
    zone = definition.clock.zone or "UTC"
    found = set()
    for day in dict.fromkeys(days):
        for half_hour in range(48):
            at = datetime.combine(day, time(), UTC) + timedelta(minutes=30 * half_hour)
            known = Known(at=at, zone=zone, calendars=calendars)
            found.add(tuple(known.value(one) for one in times))
    return found


def _literal(value: JsonValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case list() | tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            return str(value)


@dataclass(slots=True)
class _Constants:
    """The constants that fields are compared with. `is_whole`: nothing else is done with fields."""

    constants: dict[str, list[Any]] = field(default_factory=dict)
    is_whole: bool = True

    def read(self, node: Any, names: Mapping[str, str]) -> None:
        """Read an expression. `names`: what some of its names are called here."""
        match node:
            case ast.LogicExpression(left=left, right=right):
                self.read(left, names)
                self.read(right, names)
            case ast.UnaryExpression(type="not", right=right):
                self.read(right, names)
            case ast.ContainsExpression(
                container=ast.ArrayExpression(value=members), member=ast.SymbolExpression(name=name, scope=None)
            ):
                self._note(names.get(name, name), members)
            case ast.ContainsExpression(
                container=ast.SymbolExpression(name=name, scope=None), member=ast.StringExpression() as member
            ):
                self._note(names.get(name, name), [member])
            case ast.ComparisonExpression(left=ast.SymbolExpression(name=name, scope=None), right=other):
                self._note(names.get(name, name), [other])
            case ast.ComparisonExpression(left=other, right=ast.SymbolExpression(name=name, scope=None)):
                self._note(names.get(name, name), [other])
            case ast.SymbolExpression(scope=None) | ast.BooleanExpression():
                pass
            case _:
                self.is_whole = False
                for child in children(node):
                    self.read(child, names)

    def _note(self, name: str, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if _names_field(node):
                self.is_whole = False
                continue
            value = node.evaluate({})
            if value is not None and not isinstance(value, bool):
                self.constants.setdefault(name, []).append(value)


def _names_field(node: Any) -> bool:
    if isinstance(node, ast.SymbolExpression) and node.scope is None:
        return True
    return any(map(_names_field, children(node)))


def _samples(spec: FieldSpec, constants: Sequence[Any]) -> tuple[list[tuple[JsonValue, Any]], bool]:
    """Return a value of each region, in JSON and typed, and whether these are all regions."""
    values, is_whole = _values(spec, constants)
    found = []
    for value in dict.fromkeys(values):
        typed, rejections = read_values({"x": spec}, {"x": value})
        if not rejections:
            found.append((value, typed["x"]))
    if spec.type in ("string", "text", "email", "url"):
        is_whole = any(value not in constants for value, _ in found)
        kept = next((at for at, (value, _) in enumerate(found) if value not in constants), len(found))
        found = [*found[: kept + 1], *(one for one in found[kept + 1 :] if one[0] in constants)]
    if not spec.required and spec.default is None:
        found.append((None, None))
    return found, is_whole and bool(found)


def _values(spec: FieldSpec, constants: Sequence[Any]) -> tuple[list[Any], bool]:
    match spec.type:
        case "enum":
            return list(spec.values or ()), True
        case "boolean":
            return [True, False], True
        case "list":
            return _lists(spec, constants)
        case kind if kind in ORDERED:
            return _ordered(spec, constants), True
        case _:
            return [*(each for each in constants if isinstance(each, str)), *_OTHERS], True


def _lists(spec: FieldSpec, constants: Sequence[Any]) -> tuple[list[Any], bool]:
    """Return lists of the texts and lengths that conditions name: all there are of an enum's, if those are few."""
    texts = [each for each in constants if isinstance(each, str)]
    if spec.values is not None and len(spec.values) <= FEW:
        return [each for size in range(len(spec.values) + 1) for each in combinations(spec.values, size)], True
    items = [*(spec.values or (*texts, "someone@elsewhere.example" if spec.holds_people else _OTHERS[0]))]
    found = [(), *((each,) for each in items), tuple(items)]
    others = [] if spec.values is not None else [f"p{number}@elsewhere.example" for number in range(LONGEST_SAMPLE)]
    known = [int(each) for each in (*constants, spec.min or 0, spec.max or 0) if each not in texts]
    lengths = {length + more for length in known for more in (0, 1)}
    found += [tuple([*items, *others][:length]) for length in lengths if 0 <= length <= LONGEST_SAMPLE]
    return found, False


def _ordered(spec: FieldSpec, constants: Sequence[Any]) -> list[Any]:
    """Return the bounds and constants of an ordered field, and a value between each two and beyond the last."""
    known = sorted({_number(each) for each in (*constants, *_limits(spec))})
    known = known or [Decimal(1)]
    unit = Decimal(86_400) if spec.type == "date" else Decimal(3_600) if spec.type == "datetime" else Decimal(1)
    found = [known[0] - unit, *known, known[-1] + unit]
    found += [low + unit for low, high in pairwise(known) if low + unit < high]
    found += [(low + high) / 2 for low, high in pairwise(known)]
    return [_written(spec, number) for number in found]


def _limits(spec: FieldSpec) -> Iterator[Any]:
    for limit in (spec.min, spec.max):
        typed, rejections = read_values({"x": spec}, {"x": limit})
        if limit is not None and not rejections:
            yield typed["x"]


def _number(value: Any) -> Decimal:
    match value:
        case timedelta():
            return Decimal(value.total_seconds())
        case datetime():
            return Decimal(value.timestamp())
        case date():
            return Decimal(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
        case _:
            return Decimal(value)


def _written(spec: FieldSpec, number: Decimal) -> JsonValue:
    """Return the number as a client would send it for this field; what isn't valid is left out later."""
    match spec.type:
        case "integer":
            return int(number)
        case "date":
            return datetime.fromtimestamp(int(number), UTC).date().isoformat()
        case "datetime":
            return datetime.fromtimestamp(int(number), UTC).isoformat().replace("+00:00", "Z")
        case "duration":
            return duration_text(timedelta(seconds=max(0, int(number))))
        case "money":
            return str(number.quantize(Decimal("0.01")))
        case _:
            return format(number.normalize(), "f")
