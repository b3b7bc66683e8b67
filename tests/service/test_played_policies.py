"""Policies that combine features, played as their authors' tests play them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.config.policy_tests import START
from approvals_bot.people import People
from approvals_bot.service.playing import played as played_request
from tests.support.small_site import Site, install


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return install(tmp_path)


HEAD = """\
[workflow]
id = "paid"
title = "Paid"
request = ["*"]
"""

DUE = (
    HEAD
    + """\
[fields]
size = "integer"
due  = "date"
[[auto]]
when = "size == 0"
decision = "approve"
[[stage]]
id = "small"
from = ["ann@acme.eu"]
when = "size < 10"
deadline = "4h"
[[stage]]
id = "large"
from = ["cy@acme.eu"]
when = "size >= 5"
deadline = "field:due"
"""
)
DUE_TESTS = """\
[[case]]
name = "long due, and no stage that goes by it"
requester = "bo@acme.eu"
input = { size = 2, due = 2025-01-01 }
votes = [{ by = "ann@acme.eu" }]
outcome = "approved"
[[case]]
name = "long due, and decided by a rule"
requester = "bo@acme.eu"
input = { size = 0, due = 2025-01-01 }
outcome = "approved"
[[case]]
name = "long due"
requester = "bo@acme.eu"
input = { size = 5, due = 2025-01-01 }
outcome = "refused"
why = "it is the request's deadline"
[[case]]
name = "an edit lets the stage apply"
requester = "bo@acme.eu"
input = { size = 2, due = 2025-01-01 }
votes = [
  { by = "bo@acme.eu", choice = "edit", fields = { size = 7 } },
  { by = "bo@acme.eu", choice = "edit", fields = { size = 3 } },
  { by = "ann@acme.eu" },
]
outcome = "approved"
why = "due"
"""


def played(site: Site, workflow: str, tests: str) -> dict[str, bool]:
    """Play the cases, which must all pass. Returns their coverage."""
    site.write("workflows/paid.toml", workflow)
    site.write("workflows/paid.test.toml", tests)
    (found,) = site.json("test", str(site.folder / "workflows" / "paid.toml"))["files"]
    coverage: dict[str, bool] = found["coverage"]
    return coverage


def test_only_deadlines_of_stages_that_apply_have_to_be_ahead(site: Site) -> None:
    played(site, DUE, DUE_TESTS)


async def test_acts_on_a_request_that_failed_have_a_reply() -> None:
    definition = Definition.model_validate(tomllib.loads(HEAD + '[[stage]]\nid = "go"\nfrom = ["@gone"]\n'), context={})
    with played_request(definition, Opening({}, "bo@acme.eu"), People([], {"gone": []}), START) as play:
        await play.open()
        assert "nobody can approve" in play.failure
        assert (await play.act(Vote("ann@acme.eu", "approve"))).code == "takes_no_votes"
