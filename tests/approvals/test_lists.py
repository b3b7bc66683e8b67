"""Lists as values of fields, and what conditions say about them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from approvals_bot.approvals.circumstances import Known
from approvals_bot.approvals.conditions import Condition, ConditionError
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import dump, form_field, from_texts, json_schema, read_values, shown_fields
from approvals_bot.approvals.list_conditions import matches
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reach import gaps_of
from tests.approvals.conftest import ANN, BO, CFO, CY, DI
from tests.approvals.test_checks import problems, workflow

FILE = {"id": "file_1", "name": "plan.tf", "size": 3, "sha256": "ab", "type": "text/plain"}
FIELDS: dict[str, FieldSpec] = {
    name: FieldSpec.model_validate(spec)
    for name, spec in {
        "paths": {"type": "list", "of": "string", "max_length": 20},
        "envs": {"type": "list", "of": "enum", "values": ["dev", "stage", "prod"], "min": 0, "max": 2},
        "reviewers": {"type": "list", "of": "person", "required": False},
        "plans": {"type": "list", "of": "file", "required": False},
        "region": "string",
    }.items()
}
GIVEN: dict[str, Any] = {"paths": ["a"], "envs": [], "region": "eu"}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"paths": ["infra/a.tf", "infra/a.tf"], "envs": ["prod", "dev"]}, None),
        ({"reviewers": ["Ann@ACME.eu", BO]}, None),
        ({"paths": []}, (("paths",), "is required")),
        ({"paths": "infra"}, (("paths",), "must be a list")),
        ({"paths": ["a", ""]}, (("paths", "1"), "is required")),
        ({"paths": ["a", "b\nc"]}, (("paths", "1"), "must be on one line, without blanks around it")),
        ({"paths": ["x" * 21]}, (("paths", "0"), "is too long: 21 characters, and at most 20 are allowed")),
        ({"paths": ["a"] * 1001}, (("paths",), "must have at most 1000")),
        ({"paths": [1]}, (("paths", "0"), "must be text")),
        ({"envs": ["dev", "stage", "prod"]}, (("envs",), "must have at most 2")),
        ({"envs": ["dev", "dev"]}, (("envs", "1"), "is there twice")),
        ({"envs": ["prd"]}, (("envs", "0"), 'must be one of "dev", "stage", "prod" (did you mean "prod"?)')),
        ({"reviewers": [ANN, "Ann@acme.eu"]}, (("reviewers", "1"), "is there twice")),
        ({"reviewers": ["Ann"]}, (("reviewers", "0"), "must be a person's email address, like ann@acme.eu")),
        ({"plans": ["file_1"]}, (("plans", "0"), "must be the id of an uploaded file")),
    ],
)
def test_a_list_says_which_item_is_wrong(given: dict[str, Any], fault: Any) -> None:
    typed, rejections = read_values(FIELDS, {**GIVEN, **given})
    assert [(each.path, each.text) for each in rejections] == ([fault] if fault else [])
    if not fault:
        again, _ = read_values(FIELDS, dump(FIELDS, typed))
        assert again == typed


def test_typed_text_has_one_item_a_line() -> None:
    given = from_texts(
        FIELDS, {"paths": " infra/a.tf\r\n\n docs/b c.md ", "envs": "", "reviewers": "Ann@acme.eu\nbo@acme.eu"}
    )
    assert given == {"paths": ["infra/a.tf", "docs/b c.md"], "reviewers": ["Ann@acme.eu", "bo@acme.eu"]}
    assert form_field("paths", FIELDS["paths"], ["a", "b"]).value == "a\nb"


def test_the_schema_has_the_items() -> None:
    schema = json_schema(FIELDS)
    assert schema["properties"]["envs"] == {
        "type": "array",
        "items": {"type": "string", "enum": ["dev", "stage", "prod"]},
        "minItems": 0,
        "maxItems": 2,
        "uniqueItems": True,
    }
    assert schema["properties"]["paths"]["items"] == {"type": "string", "minLength": 1, "maxLength": 20}


def test_cards_show_items_and_each_file_on_its_own() -> None:
    given = {
        **GIVEN,
        "paths": ["<!channel>", "a,b"],
        "envs": ["dev", "prod"],
        "plans": [FILE, {**FILE, "id": "file_2"}],
    }
    typed, _ = read_values(FIELDS, given)
    shown = [(field.label, field.value, field.kind, field.file) for field in shown_fields(FIELDS, typed, {})]
    file = "plan.tf, 3 bytes, SHA-256 ab"
    assert shown == [
        ("Paths (2)", "<!channel>\na,b", "long", ""),
        ("Envs", "dev, prod", "short", ""),
        ("Reviewers", "not given", "short", ""),
        ("Plans 1 of 2", file, "file", "file_1"),
        ("Plans 2 of 2", file, "file", "file_2"),
        ("Region", "eu", "short", ""),
    ]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("infra/**", ["infra", "infra/a", "infra/a/b.tf", "infra/"], ["infrared", "x/infra/a", ""]),
        ("infra/*", ["infra/a", "infra/"], ["infra", "infra/a/b"]),
        ("**/x.tf", ["x.tf", "a/x.tf", "a/b/x.tf"], ["ax.tf", "x.tf/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "b"]),
        ("a/**/**", ["a", "a/b"], ["b"]),
        ("**", ["", "a", "a/b"], []),
        ("*.tf", ["a.tf", ".tf"], ["a/b.tf", "atf"]),
        ("a?c", ["abc", "a.c"], ["a/c", "ac"]),
        ("a.b+(c)", ["a.b+(c)"], ["aXb+(c)"]),
        ("Ümlaut [x]", ["Ümlaut [x]"], ["ümlaut [x]"]),
    ],
)
def test_patterns_stay_within_a_folder(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in [*yes, *no] if matches(pattern, text)] == yes


def test_a_pattern_of_many_stars_takes_linear_time() -> None:
    pattern = "*a" * 30 + "/**/" + "**/x/" * 30 + "*b"
    began = time.process_time()
    assert not any(matches(pattern, "a" * length + "/" + "x/" * length) for length in range(1, 200))
    assert time.process_time() - began < 5  # backtracking would take longer than anybody has


PATHS = {"paths": ("infra/a.tf", "docs/b.md"), "envs": (), "reviewers": (ANN, BO), "region": "eu"}


@pytest.mark.parametrize(
    ("text", "holds", "because"),
    [
        ('paths.any("infra/**")', True, "“infra/a.tf” of the paths matches infra/**"),
        ('paths.any("src/**")', False, "none of the paths matches src/**"),
        ('paths.all("docs/**")', False, "“infra/a.tf” of the paths doesn't match docs/**"),
        ('paths.all("*/*")', True, "all of the paths match */*"),
        ('envs.all("prod")', False, "nothing is in the envs"),
        ('not envs.any("prod")', True, "none of the envs matches prod"),
        ("paths.count >= 2", True, "the number of paths is 2 (2 or more)"),
        ("envs.count == 0", True, "the number of envs is 0"),
        ('"docs/b.md" in paths', True, '"docs/b.md" in paths is true (paths: infra/a.tf, docs/b.md)'),
        ('"dev" in envs', False, '"dev" in envs is not true (envs: not given)'),
        (
            'region == "eu" and paths.any("docs/*")',
            True,
            "the region is eu and “docs/b.md” of the paths matches docs/*",
        ),
        (f'"{ANN}" in reviewers and reviewers.count < 3', True, None),
        ("requester.email in reviewers", True, None),
    ],
)
def test_conditions_ask_about_lists(text: str, holds: bool, because: str | None) -> None:
    condition = Condition(text, FIELDS)
    judged = condition.judge({**PATHS, **condition.known(Known(ANN))})
    assert judged.holds is holds
    assert because in (None, judged.because)


@pytest.mark.parametrize("text", ['reviewers.any("*")', "reviewers.count == 0", 'plans.any("*.tf")'])
def test_a_list_that_is_not_given_is_unknown(text: str) -> None:
    judged = Condition(text, FIELDS).judge({"reviewers": None, "plans": None})
    assert judged.holds is None
    assert judged.because.endswith(" are not given" if "," in judged.because else " is not given")


def test_files_are_asked_by_name() -> None:
    typed, _ = read_values(FIELDS, {**GIVEN, "plans": [FILE]})
    assert Condition('plans.any("*.tf") and plans.count == 1', FIELDS).judge(typed).holds is True


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ('path.any("a")', "no field is called path", "paths.any"),
        ('paths.some("a")', "a list has no .some", ""),
        ('region.any("a")', "region is no list, so it has no .any", ""),
        ("paths.any", "paths.any needs a pattern", 'paths.any("infra/**")'),
        ("paths.count()", "write paths.count without parentheses", "paths.count"),
        ('paths.any("a**b")', "in a**b, ** stands for whole folders; inside a name, write *", ""),
        ('envs.any("prd")', "no value is like prd", "prod"),
        ('"prd" in envs', '"prd" is not a value of envs', "prod"),
        ("3 in paths", "paths is a list of texts, so 3 can't be in it", ""),
        ('paths == "a"', 'paths and "a" can\'t be equal: this compares a list with a string', ""),
        ("paths", "a condition must be true or false; compare this with something", ""),
        ('"Ann@acme.eu" in reviewers', 'reviewers holds "Ann@acme.eu" in its one spelling', f'"{ANN}"'),
        ('"ann" in reviewers', '"ann" is no address, and reviewers holds addresses', ""),
        (
            'paths.any("a") and paths.any("b") or envs.count > 1',
            "`and` next to `or` needs brackets, to show which belong together",
            "",
        ),
    ],
)
def test_a_mistake_about_a_list_is_named(text: str, message: str, suggestion: str) -> None:
    with pytest.raises(ConditionError) as refused:
        Condition(text, FIELDS)
    assert (str(refused.value), refused.value.suggestion) == (message, suggestion)


LIST: dict[str, Any] = {"type": "list", "of": "string"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "list"}, "a list needs the type of its items"),
        (LIST | {"values": ["a"]}, '"values" is for enum; these are items of the type string'),
        (LIST | {"of": "enum"}, "an enum needs its values"),
        (LIST | {"of": "enum", "values": ["a", "b "]}, "must be on one line, without spaces around it"),
        (LIST | {"default": "a"}, "a list has no default"),
        ({"type": "string", "of": "string"}, '"of" is for list; this field has the type string'),
        (LIST | {"of": "file", "editable": True}, "approvers can't change a file"),
        (LIST | {"in": ["@two"]}, '"in" is for person; these are items of the type string'),
    ],
)
def test_a_list_takes_the_options_of_its_items(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FieldSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (LIST | {"min": 3, "max": 2}, ["fields.x.min: min is more than max, 2"]),
        (LIST | {"max": 2000}, ["fields.x.max: must be a number of items, from 0 to 1,000"]),
        (LIST | {"example": "a\nb"}, []),
        (LIST | {"min": 2, "example": "infra/**"}, []),
    ],
)
def test_check_reads_a_lists_bounds(spec: dict[str, Any], found: list[str]) -> None:
    assert problems(workflow({"from": ["@two"]}, fields={"x": spec})) == found


REVIEW = """
[workflow]
id = "review"
title = "Review of {{ paths }} by {{ reviewers }}"
request = ["*"]
[fields]
paths = { type = "list", of = "string", pinned = true }
authors = { type = "list", of = "person", required = false }
reviewers = { type = "list", of = "person", in = ["@release-managers", "@finance"], min = 1, max = 3, editable = true }
[policy]
outcomes = ["approve", "reject", "edit"]
exclude = ["field:authors"]
[[auto]]
when = 'paths.all("docs/**")'
decision = "approve"
[[stage]]
id = "code"
from = ["field:reviewers"]
need = "all"
[[stage]]
id = "infra"
when = 'paths.any("infra/**")'
from = ["@finance"]
"""


async def test_the_people_in_a_list_decide(office: Any) -> None:
    async with office.open():
        asked = {"paths": ["infra/a"], "authors": [BO], "reviewers": [ANN, BO, CY]}
        opened = await office.ask(REVIEW, asked, by=DI)
        view = await opened.view()
        assert (view.waiting_for, view.title) == ((ANN, CY), "Review of infra/a by Ann Ode, Bo Lund, Cy Rus")
        assert [seat.label for seat in view.stages[0].seats] == ["Reviewers"]
        assert [field.value for field in view.shown if field.name == "authors"] == ["Bo Lund (bo@acme.eu)"]
        assert await opened.vote(BO) == "not_an_approver"
        assert [await opened.vote(ANN), await opened.vote(CY)] == ["counted", "counted"]
        assert (await opened.view()).waiting_for == (CFO, "fin@acme.eu")
        assert await opened.vote(CFO) == "decided"


async def test_an_approver_edits_the_list_of_people(office: Any) -> None:
    async with office.open():
        opened = await office.ask(REVIEW, {"paths": ["a"], "authors": None, "reviewers": [ANN, BO]}, by=DI)
        wrong = {"kind": "vote", "by": ANN, "choice": "edit", "fields": {"reviewers": [ANN, DI]}}
        assert (await opened.act(**wrong))["text"].startswith(
            "reviewers.1: must be one of Release managers or Finance."
        )
        typed = {
            "kind": "vote",
            "by": ANN,
            "choice": "edit",
            "via": "email",
            "fields": {"reviewers": "Ann@acme.eu\r\nCY@acme.eu"},
        }
        assert (await opened.act(**typed))["verdict"] == "counted"
        view = await opened.view()
        assert (view.fields["reviewers"], view.waiting_for) == ([ANN, CY], (CY,))
        assert await opened.vote(CY) == "decided"


async def test_a_rule_over_a_list_decides_alone(office: Any) -> None:
    async with office.open():
        opened = await office.ask(REVIEW, {"paths": ["docs/a", "docs"], "authors": None, "reviewers": [ANN]}, by=DI)
        view = await opened.view()
        assert (view.state, view.outcome.because) == ("approved", "all of the paths match docs/**")


def gaps(fields: dict[str, Any], *whens: str) -> list[str]:
    stages = [{"id": f"s{at}", "from": ["@two"], "when": when} for at, when in enumerate(whens)]
    text: dict[str, Any] = {"workflow": {"id": "x", "title": "X", "request": ["*"]}, "fields": fields, "stage": stages}
    return [gap.message for gap in gaps_of(Definition.model_validate(text))]


ENVS = {"envs": {"type": "list", "of": "enum", "values": ["dev", "prod"]}}


@pytest.mark.parametrize(
    ("fields", "whens", "found"),
    [
        (ENVS, ('envs.any("prod")', 'envs.all("dev")'), []),
        (
            ENVS,
            ('envs.all("prod")', 'envs.all("dev")'),
            ['no stage applies to envs = ["dev", "prod"]: such a request can\'t be opened; add a stage for it'],
        ),
        (ENVS, ("envs.count > 0", "envs.count > 2"), ["never applies: no values make it true"]),
        (
            {"paths": LIST},
            ('paths.any("infra/**")', "paths.count > 3"),
            ['no stage applies to paths = ["something else"]: such a request can\'t be opened; add a stage for it'],
        ),
    ],
)
def test_check_tries_the_lists_that_conditions_divide(fields: Any, whens: tuple[str, ...], found: list[str]) -> None:
    assert gaps(fields, *whens) == found
