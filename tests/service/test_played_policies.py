"""Policies that combine features, played as their authors' tests play them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
