"""A refused opening's message, on its own and as a problem."""

from __future__ import annotations

from approvals_bot.service.refusals import OpeningRefused
from approvals_bot.web.responses import problem_of


def test_a_refusal_keeps_the_rules_findings_and_words_them() -> None:
    refused = OpeningRefused("nobody_decides", reason="@sre is nobody", stage="sre")
    assert (refused.code, refused.params) == ("nobody_decides", {"reason": "@sre is nobody", "stage": "sre"})
    assert str(refused) == "Nobody could decide. Nothing was opened: @sre is nobody, in stage 'sre'."
    assert refused.errors == []


def test_a_refused_input_is_named_by_its_path() -> None:
    refused = OpeningRefused("behalf_missing", ("on_behalf_of",))
    assert refused.errors == [{"loc": ["on_behalf_of"], "msg": "is required: name the person this is for"}]
    assert str(refused).splitlines() == [
        "Invalid input. Nothing was started.",
        "  on_behalf_of: is required: name the person this is for",
    ]


def test_an_unreadable_group_can_be_retried() -> None:
    problem = problem_of(OpeningRefused("group_unknown", error="sre: it answered 500"))
    assert problem is not None
    assert (problem.status, problem.title, problem.headers) == (503, "Group unknown", {"Retry-After": "2"})
