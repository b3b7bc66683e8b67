"""Roles by address and group, and what happens while a group can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals_bot.people import FileSource, People, SourceUnavailable
from approvals_bot.service.roles import Roles


@pytest.fixture
def roles(tmp_path: Path) -> Roles:
    (tmp_path / "sre.json").write_text('["cy@acme.eu"]')
    people = People(groups={"engineers": ["ann@acme.eu"], "sre": FileSource(tmp_path / "sre.json")})
    return Roles(people, {"viewer": ["@engineers"], "operator": ["@sre", "di@acme.eu"], "auditor": ["Eve@acme.eu"]})


async def test_operators_and_auditors_are_viewers(roles: Roles) -> None:
    assert await roles.of("ann@acme.eu") == {"viewer"}
    assert await roles.of("cy@acme.eu") == {"viewer", "operator"}
    assert await roles.of("DI@acme.eu") == {"viewer", "operator"}
    assert await roles.of("eve@acme.eu") == {"viewer", "auditor"}
    assert await roles.of("bo@acme.eu") == frozenset()


async def test_roles_are_read_at_each_request(roles: Roles, tmp_path: Path) -> None:
    (tmp_path / "sre.json").write_text('["bo@acme.eu"]')
    assert await roles.of("cy@acme.eu") == frozenset()
    assert await roles.of("bo@acme.eu") == {"viewer", "operator"}


async def test_nobody_gets_in_by_a_group_that_cant_be_read(roles: Roles, tmp_path: Path) -> None:
    (tmp_path / "sre.json").unlink()
    with pytest.raises(SourceUnavailable):
        await roles.of("cy@acme.eu")
    assert await roles.of("di@acme.eu") == {"viewer", "operator"}  # named by another entry
    assert await roles.is_viewer("ann@acme.eu")  # by a group that can be read
    with pytest.raises(SourceUnavailable):
        await roles.is_viewer("bo@acme.eu")
