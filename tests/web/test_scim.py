"""`/scim/v2`: what identity providers send, what they get, and what that changes for people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.directory import open_people
from approvals_bot.app.service import open_service
from approvals_bot.approvals.acts import Vote
from approvals_bot.cli.doctor import examine_people
from approvals_bot.config.load import Configuration
from approvals_bot.people import People
from approvals_bot.people.roster import Rosters
from approvals_bot.service.act import perform
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.provisioning import Provisioning
from approvals_bot.testing import FakeClock
from tests.support.browsing import a_port, serving
from tests.web.test_roles_on_pages import BASE, CONFIG, DESK, KEY, WORKFLOW, House

IDP = "the key of an identity provider, for the tests"
ANN, BO, CY = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu"
USER, GROUP = "urn:ietf:params:scim:schemas:core:2.0:User", "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


def write_site(folder: Path, base_url: str = BASE) -> Configuration:
    config = CONFIG.replace('{ file = "sre.json" }', '{ scim = "night-crew" }').replace(BASE, base_url)
    config = config.replace("[api_keys]\n", '[api_keys]\nidp = { key = "env:IDP", may = ["scim"] }\n')
    (folder / "workflows").mkdir()
    (folder / "config.toml").write_text(config)
    workflow = WORKFLOW.format(id="ship", more="").replace('"cy@acme.eu"]\n[deliver]', '"@sre"]\n[deliver]')
    (folder / "workflows" / "ship.toml").write_text(workflow)
    return configuration(folder)


def configuration(folder: Path) -> Configuration:
    return read_configuration(folder / "config.toml", {"KEY": KEY, "DESK": DESK, "IDP": IDP})


class Provider:
    """An identity provider."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def ask(self, method: str, path: str, body: Any = None, key: str = IDP, **headers: str) -> httpx2.Response:
        headers |= {"Authorization": f"Bearer {key}"}
        return await self.house.http.request(method, f"/scim/v2{path}", json=body, headers=headers)

    async def create(self, path: str, **document: Any) -> str:
        schema = USER if path == "/Users" else GROUP
        answer = await self.ask("POST", path, {"schemas": [schema]} | document)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def patch(self, path: str, *operations: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ask("PATCH", path, {"schemas": [PATCH], "Operations": operations})
        assert answer.status_code in (200, 204), answer.text
        found: dict[str, Any] = (await self.ask("GET", path)).json()
        return found


@pytest.fixture
async def idp(tmp_path: Path) -> AsyncIterator[Provider]:
    clock = FakeClock()
    async with open_service(write_site(tmp_path), clock=clock) as service:
        transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            yield Provider(House(tmp_path, service, http, clock))


SOME = {"discovery", "misc", "crud:create", "crud:delete"}  # the others take a while


@pytest.mark.parametrize("tags", [SOME, pytest.param(None, marks=pytest.mark.long)])
async def test_the_standard_is_kept(tmp_path: Path, tags: set[str] | None) -> None:
    """The checks of scim2-tester pass, against a running service."""
    from scim2_client.engines.httpx2 import SyncSCIMClient
    from scim2_tester import check_server

    def check(url: str) -> list[str]:
        with httpx2.Client(base_url=f"{url}/scim/v2", headers={"Authorization": f"Bearer {IDP}"}) as client:
            results = check_server(SyncSCIMClient(client), include_tags=tags)
        done = [one for one in results if tags is None or one.status.name != "SKIPPED"]
        assert len(done) > (100 if tags is None else 15)
        return [f"{one.title}: {one.reason}" for one in done if one.status.name != "SUCCESS"]

    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with open_service(write_site(tmp_path, url)) as service, serving(service.app, bound):
            assert await asyncio.to_thread(check, url) == []


async def test_a_deactivated_person_may_nothing_any_more(idp: Provider) -> None:
    """Not on what was opened before, and whatever the file says: Ann is in [people] and in the workflow."""
    house = idp.house
    ann = await idp.create("/Users", userName=ANN, emails=[{"value": ANN, "primary": True}], active=True)
    cy = await idp.create("/Users", userName="cy", emails=[{"value": "CY@acme.eu"}], displayName="Cy Rus")
    crew = await idp.create("/Groups", displayName="night-crew", members=[{"value": cy}])
    run = await house.open()
    assert (await house.request(run)).waiting_for == (ANN, CY)
    link, cookie = await house.link(run, ANN), await house.cookie(ANN)
    assert (await house.get(link)).status_code == 200

    entra = {"op": "Replace", "path": "active", "value": "False"}  # a text, as Entra writes it
    assert (await idp.patch(f"/Users/{ann}", entra))["active"] is False
    assert (await house.get(link)).status_code == 404
    assert await house.service.engine.store.sessions(ANN) == []
    assert (await house.http.get("/inbox", headers=cookie)).status_code == 401
    for via in ("inbox", "slack", "api", "email"):
        reply = await perform(house.service.engine, await house.request(run), Vote(ANN, "approve", via=via))
        assert (reply.verdict, reply.code) == ("not_an_approver", "left"), via
    refused = await house.api("/api/runs", {"workflow": "ship", "requester": ANN, "input": {}})
    assert refused.status_code == 403
    assert (await house.request(await house.open())).waiting_for == (CY,)

    assert (await idp.patch(f"/Users/{ann}", {"op": "replace", "value": {"active": True}}))["active"] is True  # Okta
    assert (await house.get(link)).status_code == 200
    left = await idp.patch(f"/Groups/{crew}", {"op": "remove", "path": f'members[value eq "{cy}"]'})
    assert left.get("members", []) == []
    reply = await perform(house.service.engine, await house.request(run), Vote(CY, "approve", via="inbox"))
    assert reply.verdict == "not_an_approver"
    lines = [line.entry for line in await house.service.engine.audit_lines() if line.entry.what.startswith("scim_")]
    assert [(line.what, line.who, line.data.get("active")) for line in lines[-3:]] == [
        ("scim_changed", ANN, False),
        ("scim_changed", ANN, True),
        ("scim_changed", None, None),
    ]
    assert lines[0].actor is not None
    assert (lines[0].actor["key"], lines[0].actor["peer"]) == ("idp", "192.0.2.7")


async def test_members_come_and_go_as_providers_send_it(idp: Provider) -> None:
    ids = [await idp.create("/Users", userName=f"p{at}@acme.eu") for at in range(4)]
    group = await idp.create("/Groups", displayName="night-crew", externalId="okta-7")
    path = f"/Groups/{group}"

    async def members(*operations: dict[str, Any]) -> list[int]:
        found = await idp.patch(path, *operations)
        return [ids.index(member["value"]) for member in found.get("members", [])]

    assert await members({"op": "add", "path": "members", "value": [{"value": ids[0]}, {"value": ids[1]}]}) == [0, 1]
    assert await members({"op": "add", "value": {"members": [{"value": ids[2]}]}}) == [0, 1, 2]
    assert await members({"op": "Remove", "path": "members", "value": [{"value": ids[1]}]}) == [0, 2]  # Entra
    assert await members({"op": "replace", "value": {"id": group, "displayName": "night-crew"}}) == [0, 2]  # Okta
    assert await members({"op": "replace", "path": "members", "value": [{"value": ids[3]}]}) == [3]
    assert await idp.house.service.engine.resources[People].is_in("p3@acme.eu", "sre")
    shown = [(await idp.ask("GET", f"/Users/{id}")).json().get("groups") for id in (ids[0], ids[3])]
    assert shown == [None, [{"value": group, "display": "night-crew"}]]
    await idp.patch(f"/Users/{ids[3]}", {"op": "replace", "path": "displayName", "value": "Pia"})
    assert await members({"op": "remove", "path": "members"}) == []
    assert "groups" not in (await idp.ask("GET", f"/Users/{ids[3]}")).json()


async def test_users_are_found_as_providers_ask(idp: Provider) -> None:
    for at in range(5):
        mails = [{"value": f"p{at}@acme.eu", "type": "work"}]
        await idp.create("/Users", userName=f"Person.{at}", externalId=f"EXT-{at}", emails=mails)

    async def found(query: str) -> tuple[int, list[str]]:
        answer = (await idp.ask("GET", f"/Users?{query}")).json()
        return answer["totalResults"], [one["userName"] for one in answer.get("Resources", [])]

    one = (1, ["Person.3"])
    assert await found('filter=userName eq "person.3"') == one
    assert await found('filter=externalId eq "EXT-3"') == one
    assert await found('filter=externalId eq "ext-3"') == (0, [])  # it is case exact
    assert await found('filter=emails.value eq "p3@acme.eu"') == one
    assert await found('filter=emails[type eq "work" and value eq "p3@acme.eu"]') == one
    assert await found('filter=userName sw "person" and active eq true') == (0, [])
    assert await found("startIndex=2&count=2") == (5, ["Person.1", "Person.2"])
    assert await found("count=0") == (5, [])
    assert (await idp.ask("GET", "/Users?filter=userName eq")).json()["scimType"] == "invalidFilter"


async def test_what_is_wrong_is_said_in_scims_shape(idp: Provider) -> None:
    ann = await idp.create("/Users", userName="Ann", password="secret-of-ann")  # nobody: there is no address
    asks: list[tuple[httpx2.Response, int, str | None]] = [
        (await idp.ask("GET", "/Users", key="x" * 40), 401, None),
        (await idp.ask("GET", "/Users", key=DESK), 403, None),
        (await idp.ask("GET", "/Users/none"), 404, None),
        (await idp.ask("POST", "/Users", {"schemas": [USER], "userName": "ANN"}), 409, "uniqueness"),
        (await idp.ask("POST", "/Users", {"schemas": [USER]}), 400, "invalidValue"),
        (await idp.ask("POST", "/Users", "text"), 400, "invalidSyntax"),
        (await idp.ask("POST", "/Users", {"schemas": [USER], "userName": "a\x00b"}), 400, "invalidValue"),
        (await idp.ask("DELETE", f"/Users/{ann}", **{"If-Match": 'W/"x"'}), 412, None),
        (await idp.ask("POST", "/Bulk", {}), 501, None),
    ]
    for answer, status, kind in asks:
        body = answer.json()
        assert (answer.status_code, body["schemas"], body["status"]) == (status, [ERROR], str(status)), body
        assert body.get("scimType") == kind, body
        assert answer.headers["content-type"].startswith("application/scim+json")
    shown = await idp.ask("GET", f"/Users/{ann}")
    assert shown.headers["etag"] == shown.json()["meta"]["version"]
    assert shown.json()["meta"]["location"] == f"{BASE}/scim/v2/Users/{ann}"
    row = await idp.house.service.engine.store.document("User", ann)
    assert row is not None
    assert "secret-of-ann" not in str(row.document)
    assert (await idp.ask("DELETE", f"/Users/{ann}")).status_code == 204
    assert (await idp.ask("GET", f"/Users/{ann}")).status_code == 404


async def test_what_was_pushed_is_there_everywhere(idp: Provider) -> None:
    """At another replica, after a reload with other rules, and after a restart."""
    await idp.create("/Users", userName="x", emails=[{"value": "new@acme.com"}])
    engine, rosters = idp.house.service.engine, Rosters()
    replica = Provisioning(engine, rosters)
    await replica.read()
    assert list(rosters.pushed.rows) == ["new@acme.com"]
    config = idp.house.folder / "config.toml"
    config.write_text(config.read_text() + '[identity]\ndomains = { "acme.com" = "acme.eu" }\n')
    idp.house.service.reload(configuration(idp.house.folder))
    await idp.create("/Users", userName="y")
    assert (await idp.house.get("/inbox", "new@acme.eu")).status_code == 200


async def test_pushed_people_are_there_after_a_restart(tmp_path: Path) -> None:
    configured = write_site(tmp_path)
    for created in (201, 409):
        async with open_service(configured) as service:
            transport = httpx2.ASGITransport(service.app, client=("192.0.2.7", 5000))
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
                idp = Provider(House(tmp_path, service, http, FakeClock()))
                body = {"schemas": [USER], "userName": "new@acme.eu"}
                assert (await idp.ask("POST", "/Users", body)).status_code == created
                assert (await idp.house.get("/inbox", "new@acme.eu")).status_code == 200
    diagnosed = [one.what for one in await examine_people(configured.service, ()) if one.about == "SCIM"]
    assert diagnosed == ["no group with this name was pushed: night-crew"]
    async with open_people(configured.service, FakeClock().now, live=False) as people:
        assert await people.knows("new@acme.eu")
