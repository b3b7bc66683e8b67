"""Templates: rendering for people and for programs, and what loading refuses."""

from __future__ import annotations

import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals import fields
from approvals_bot.approvals.delivery_policy import CallTarget
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.templates import (
    LONGEST_LINE,
    AboutDecision,
    AboutRequest,
    Facts,
    TemplateError,
    Who,
    answers_of,
    check,
    render,
    render_json,
    render_key,
    render_line,
)

SAMPLES = Path(__file__).parents[2] / "workflows"
BO = Who("bo@acme.eu", "Bo Lund")


def sample(name: str) -> Definition:
    return Definition.model_validate(tomllib.loads((SAMPLES / f"{name}.toml").read_text()))


EXPENSE = sample("expense")


def facts(definition: Definition = EXPENSE, answers: dict[str, dict[str, Any]] | None = None, **given: Any) -> Facts:
    given = {"amount": "1250", "purpose": "team dinner", "team": "eng"} | given if definition is EXPENSE else given
    return Facts(
        workflow=definition.id,
        fields=fields.values(definition.fields, given),
        requester=BO,
        request=AboutRequest("run_1", "Title", "d1935", "https://approve.acme.eu/requests/run_1"),
        decision=AboutDecision("rejected", Who("ann@acme.eu", "Ann Ode"), "too dear", "slack"),
        answers=answers_of(definition, answers or {}),
    )


def test_a_title_shows_values_for_people() -> None:
    assert EXPENSE.workflow.title is not None
    assert render_line(EXPENSE.workflow.title, facts()) == "1,250.00 EUR for team dinner (Bo Lund)"
    access = sample("prod-access")
    about = facts(access, account="aws-prod", role="read", reason="to look at the log of today")
    assert access.workflow.title is not None
    assert render_line(access.workflow.title, about) == "Bo Lund wants read on aws-prod for 1 h"


def test_json_has_values_for_programs() -> None:
    access = sample("prod-access")
    about = facts(access, account="aws-prod", role="read", reason="to look at the log of today", duration="90m")
    action = access.on.approved[0]
    assert isinstance(action, CallTarget)
    assert render_json(action.json_, about) == {
        "who": "bo@acme.eu",
        "account": "aws-prod",
        "role": "read",
        "seconds": "5400",
    }
    nested: JsonValue = {
        "a": ["{{ amount }}", 1, True],
        "b": {"by": "{{ decision.by }}", "who": "{{ decision.by.name }}"},
    }
    assert render_json(nested, facts()) == {
        "a": ["1250.00", 1, True],
        "b": {"by": "ann@acme.eu", "who": "Ann Ode"},
    }


def test_an_answer_to_a_skipped_question_is_empty() -> None:
    text = "{{ answers.finance.budget_code | default('') }}|{{ answers.finance.budget_code }}"
    assert render_key(text, facts()) == "|"
    assert render_key(text, facts(answers={"finance": {"budget_code": "AB-1234"}})) == "AB-1234|AB-1234"


def test_every_type_renders_for_people_and_programs() -> None:
    definition = Definition.model_validate(
        {
            "workflow": {"id": "x", "title": "x", "request": ["*"]},
            "fields": {
                "day": "date",
                "at": "datetime",
                "ok": "boolean",
                "ratio": "decimal",
                "span": "duration",
                "why": {"type": "text", "required": False},
            },
            "stage": [{"id": "s", "from": ["a@b.c"]}],
        }
    )
    about = facts(definition, day="2026-11-05", at="2026-11-05T14:00:00Z", ok=True, ratio="1.50", span="90m")
    text = "{{ day }} · {{ at }} · {{ ok }} · {{ ratio }} · {{ span }} · {{ why }}"
    check(text, definition, of_decision=False)
    assert render(text, about) == "5 Nov 2026 · 5 Nov 2026, 14:00 UTC · yes · 1.5 · 1 h 30 min · "
    assert render_key(text, about) == "2026-11-05 · 2026-11-05T14:00:00Z · true · 1.5 · 1h30m · "
    assert render("{{ span.total_seconds() | int }}, {{ day.year }}", about) == "5400, 2026"


def test_values_are_never_rendered_as_templates() -> None:
    nasty = "{{ 7 * 7 }} <b>&amp; <!channel> {% raw %} {0.__class__}"
    assert render("{{ purpose }}", facts(purpose=nasty)) == nasty


def test_a_title_is_one_short_line() -> None:
    line = render_line("{{ purpose }}", facts(purpose="a\n\tb" + "c" * 190))
    assert line == "a b" + "c" * 190
    assert len(render_line("{{ purpose }}" * 5, facts(purpose="x" * 100))) == LONGEST_LINE


@pytest.mark.parametrize(
    "text",
    [
        "{{ amount if team == 'eng' else purpose }}",
        "{% if amount > 500 %}much{% else %}little{% endif %}",
        "{{ purpose | upper | truncate(20) }}",
        "{{ requester.name ~ ', ' ~ requester.email }}",
        "{{ amount.currency }}",
        "{{ answers['finance']['budget_code'] }}",
        "{{ answer_of('finance', 'budget_code') | default('none') }}",
        "{{ on_behalf_of.name | default('nobody') }}",
        "no names at all",
        "{# a comment #}",
    ],
)
def test_allowed_templates(text: str) -> None:
    check(text, EXPENSE, of_decision=True)
    render(text, facts())


REFUSED = [
    ("{{ ''.__class__ }}", "must follow a name", ""),
    ("{{ amount.__class__ }}", "amount has no __class__", ""),
    ("{{ requester.__init__ }}", "has no __init__", ""),
    ("{{ ''|attr('__class__') }}", "no filter is called attr", ""),
    ("{{ 'x' * 10**8 }}", "multiplication", ""),
    ("{{ 'x'.center(100000000) }}", "functions", ""),
    ("{{ 'x' | center(100000000) }}", "no filter is called center", ""),
    ("{{ '%100000000d' % 1 }}", "% is not allowed", ""),
    ("{{ '%s' | format(1) }}", "no filter is called format", "float"),
    ("{% for a in [1, 2] %}{% endfor %}", "loops", ""),
    ("{{ answer_of('finance', 'code') }}", "doesn't ask for code", ""),
    ("{{ answer_of(finance, 'code') }}", "functions", ""),
    ("{{ range(10) }}", "functions", ""),
    ("{{ lipsum() }}", "functions", ""),
    ("{% set a = 1 %}", "set variables", ""),
    ("{% include 'x' %}", "can't include or import", ""),
    ("{% macro a() %}{% endmacro %}", "can't include or import", ""),
    ("{% filter upper %}x{% endfilter %}", "not allowed", ""),
    ("{{ {'a': 1} }}", "not allowed", ""),
    ("{{ purpose[:3] }}", "in quotes", ""),
    ("{{ amuont }}", "nothing is called amuont", "amount"),
    ("{{ requester.nme }}", "requester has no nme", "name"),
    ("{{ requst.title }}", "nothing is called requst", "request"),
    ("{{ request }}", "say which part of request", ""),
    ("{{ answers.finace.budget_code }}", "no stage is called finace", "finance"),
    ("{{ answers.finance.budget_cod }}", "doesn't ask for budget_cod", "budget_code"),
    ("{{ answers.finance }}", "say which answer", ""),
    ("{{ amount.curency }}", "amount has no curency", "currency"),
    ("{{ purpose.upper() }}", "functions", ""),
    ("{{ amount", "syntax error", ""),
    ("{{ purpose | uper }}", "no filter is called uper", "upper"),
    ("{{ 1 is divisibleby 1 }}", "no test is called divisibleby", ""),
    ("{{ " + "not " * 300 + "amount }}", "nested too deeply", ""),
    ("{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}", "nested too deeply", ""),
    ("{{ " + " ~ ".join(["purpose"] * 30) + " }}", "too long", ""),
    ("{{ purpose }}" * 600, "too long", ""),
]


@pytest.mark.parametrize(("text", "message", "meant"), REFUSED, ids=[text[:40] for text, _, _ in REFUSED])
def test_loading_refuses(text: str, message: str, meant: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError) as refused:
        check(text, EXPENSE, of_decision=True)
    assert message in str(refused.value)
    assert refused.value.suggestion == meant
    assert time.process_time() - started < 0.5


def test_a_title_cannot_use_the_decision() -> None:
    for text in ("{{ decision.by }}", "{{ request.id }}", "{{ answers.finance.budget_code }}"):
        check(text, EXPENSE, of_decision=True)
        with pytest.raises(TemplateError, match="not known before the decision"):
            check(text, EXPENSE, of_decision=False)


def test_methods_need_brackets_and_values_none() -> None:
    access = sample("prod-access")
    check("{{ duration.total_seconds() }}", access, of_decision=False)
    for wrong, right in (("duration.total_seconds", "duration.total_seconds()"), ("duration.days()", "duration.days")):
        with pytest.raises(TemplateError) as refused:
            check("{{ " + wrong + " }}", access, of_decision=False)
        assert right in (refused.value.suggestion, "duration.days")


def test_a_result_that_gets_too_long_is_an_error() -> None:
    wordy = sample("prod-access")
    about = facts(wordy, account="aws-prod", role="read", reason="x" * 50_000)
    started = time.process_time()
    with pytest.raises(TemplateError, match="longer than"):
        render("{{ reason }}" * 100, about)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["{{ amount / 0 }}", "{{ purpose + 1 }}", "{{ purpose | round }}"])
def test_rendering_errors_are_template_errors(text: str) -> None:
    check(text, EXPENSE, of_decision=True)
    with pytest.raises(TemplateError):
        render(text, facts())


def test_a_stage_may_be_named_like_a_method() -> None:
    definition = Definition.model_validate(
        {
            "workflow": {"id": "x", "title": "x", "request": ["*"]},
            "stage": [{"id": "items", "from": ["a@b.c"], "ask": {"keys": "string"}}],
        }
    )
    check("{{ answers.items.keys }}", definition, of_decision=True)
    assert render("{{ answers.items.keys }}", facts(definition, answers={"items": {"keys": "x"}})) == "x"


def test_what_others_wrote_is_quoted_in_what_people_read() -> None:
    fields = {"plan": "ok.\n\nNote from security: “approved”", "service": "api"}
    about = Facts("deploy", fields, Who("bo@acme.eu", "Bo Lund"), untrusted=frozenset({"plan"}))
    quoted = '“ok. Note from security: "approved"”'
    assert render("Check {{ plan }} of {{ service }}.", about) == f"Check {quoted} of api."
    assert render_line("{% if plan %}{{ service ~ ': ' ~ plan }}{% endif %}", about) == (
        '“api: ok. Note from security: "approved"”'
    )
    assert render("{{ plan | upper }}", about) == quoted.upper()
    assert render("{{ 'big' if plan | length > 3 else plan }} {{ plan == 'x' }}", about) == "“big” no"
    assert render_key("{{ plan }}", about) == fields["plan"], "programs get the value itself"
    assert render("{{ plan }}", replace(about, fields={"plan": None})) == ""
