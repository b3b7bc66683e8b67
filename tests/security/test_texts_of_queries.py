"""Texts that one store can't hold, in every query and form of pages and API: refused or not found, on both stores."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.browsing import a_port
from tests.support.staffed_house import ENV, OURS, StaffedHouse, a_staffed_house

FLOW = """
[workflow]
id = "plain"
title = "Plain"
request = ["*"]
[fields]
what = "string"
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
"""
EVERYBODY = """
[audit]
key = "env:AUDIT"
"""
ODD = ("\0", "run_\0", "x" * 6_000, "\u202e", "\ud800", "%", "'", "a\nb", "0" * 400, "-1", "[]", "\U0010ffff")
PAGES = {
    "/inbox": ("cursor", "batch", "box", "workflow", "q", "person", "asked", "voted"),
    "/inbox/next": ("cursor",),
    "/live": ("run", "inbox"),
    "/runs": ("cursor", "status", "state", "workflow", "requester", "waiting_for", "delivery", "opened_after", "q"),
    "/runs.csv": ("status", "state", "workflow", "requester", "waiting_for", "opened_after", "q"),
    "/requests/new/plain": ("what",),
    "/workflows": ("cursor",),
    "/workflows/plain": ("cursor",),
    "/deliveries": ("state", "channel", "workflow", "cursor", "batch"),
    "/operations": ("cursor",),
    "/audit": ("who", "what", "run", "after", "before", "cursor"),
    "/audit.csv": ("who", "what", "run", "after", "before"),
    "/login": ("next", "again"),
    "/login/oidc": ("next", "state", "code"),
    "/login/slack": ("next", "state", "code"),
    "/me": ("said",),
}
CALLS = {
    "/api/runs": ("workflow", "status", "waiting_for", "cursor", "key", "requester", "limit", "open", "attr__a"),
    "/api/audit": ("since",),
    "/api/files": ("name",),
}
FORMS = {
    "/inbox/votes": {"request": "run_x:y", "choice": "approve", "comment": "So."},
    "/requests": {"workflow": "plain", "field.what": "x", "once": "o", "on_behalf_of": "bo@acme.eu"},
    "/deliveries/attempts": {"delivery": "x"},
    "/me": {"zone": "UTC", "from": "2026-01-01", "until": "2026-01-02", "delegate": "bo@acme.eu"},
    "/login": {"address": "ann@acme.eu", "code": "1", "code_token": "x", "next": "/inbox"},
}


def in_query(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.mark.long  # ten seconds on each store
async def test_no_text_of_a_query_or_form_breaks_a_page(tmp_path: Path, database: str) -> None:
    with a_port() as free:
        port = free.getsockname()[1]
    async with a_staffed_house(tmp_path, {"plain": FLOW}, port, EVERYBODY, database=database) as house:
        found = [*await _get(house), *await _call(house), *await _post(house)]
    assert found == []


async def _get(house: StaffedHouse) -> list[str]:
    """Ask for each page with each text in each query, as somebody with all roles. Returns what broke."""
    broken = []
    for person in ("cy@acme.eu", "di@acme.eu", "audit@acme.eu"):
        async with await house.as_person(person) as browser:
            for path, names in PAGES.items():
                for name in names:
                    for text in ODD if person == "di@acme.eu" else ODD[:1]:
                        if path == "/live" and (name, text) == ("inbox", text):
                            continue  # it never ends
                        answer = await browser.get(f"{path}?{name}={in_query(text)}")
                        if answer.status_code >= 500:
                            broken.append(f"{answer.status_code} {path}?{name}={text[:20]!r}")
    return broken


async def _call(house: StaffedHouse) -> list[str]:
    broken, key = [], {"Authorization": f"Bearer {ENV['DESK']}"}
    for path, names in CALLS.items():
        for name in names:
            for text in ODD:
                where = f"{path}?{name}={in_query(text)}"
                send = house.http.post if path == "/api/files" else house.http.get
                answer = await send(where, headers=key)
                if answer.status_code >= 500:
                    broken.append(f"{answer.status_code} {path}?{name}={text[:20]!r}")
    return broken


async def _post(house: StaffedHouse) -> list[str]:
    broken = []
    async with await house.as_person("di@acme.eu") as browser:
        for path, form in FORMS.items():
            for name in form:
                for text in ODD:
                    body = "&".join(
                        f"{each}={in_query(text if each == name else given)}" for each, given in form.items()
                    )
                    headers = OURS | {"content-type": "application/x-www-form-urlencoded"}
                    answer = await browser.post(path, content=body.encode(), headers=headers)
                    if answer.status_code >= 500:
                        broken.append(f"{answer.status_code} {path} {name}={text[:20]!r}")
                    where = answer.headers.get("location", "")
                    if where and (await browser.get(where)).status_code >= 500:
                        broken.append(f"then {where} after {path} {name}={text[:20]!r}")
    return broken
