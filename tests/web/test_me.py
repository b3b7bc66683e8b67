"""What people set themselves at `/me`: their time zone, when they are away, and keys."""

from __future__ import annotations

from datetime import timedelta

import httpx2

from approvals_bot.app.service import open_service
from approvals_bot.service.own_people import OwnPeopleStore
from tests.web.test_pages import sound
from tests.web.test_roles_on_pages import BASE, OURS, House, configured
from tests.web.test_roles_on_pages import house as house  # a fixture

ANN, BO, CY, EVE = "ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "eve@acme.eu"


async def change(house: House, person: str, **form: str) -> httpx2.Response:
    cookie = await house.cookie(person)
    page = await house.http.get("/me", headers=cookie)
    token = sound(page).partition('name="form_token" value="')[2].partition('"')[0]
    form = {"form_token": token} | form
    return await house.http.post("/me/settings", data=form, headers=OURS | cookie)


async def asked(house: House) -> tuple[str, ...]:
    return (await house.request(await house.open())).waiting_for


async def test_delegates_are_asked_while_a_person_is_away(house: House) -> None:
    """It holds at the next request, at other replicas, after a reload, and after a restart."""
    assert await asked(house) == (ANN, CY)
    saved = await change(house, ANN, act="away", first="2026-01-01", last="2026-01-03", delegate="EVE@acme.eu")
    assert saved.headers["location"] == "/me?saved=away"
    page = sound(await house.get("/me?saved=away", ANN))
    assert "1 Jan 2026</time> to <time" in page
    assert "Eve in your place" in page
    assert "Your delegates are asked in your place on these days." in page
    assert set(await asked(house)) == {EVE, CY}
    (line,) = [one for one in await house.service.engine.audit_lines() if one.entry.what == "settings_changed"]
    assert line.entry.who == ANN
    assert line.entry.data["now"] == {"zone": "", "away": [["2026-01-01", "2026-01-03", EVE]], "keys": True}

    house.reconfigure("config.toml", 'name = "Di Oz"', 'name = "Di Ops"')
    assert set(await asked(house)) == {EVE, CY}
    replica = OwnPeopleStore(house.service.engine)
    await replica.read()
    assert replica.known.of(ANN).away[0].delegates == (EVE,)
    await change(house, CY, act="zone", zone="Asia/Tokyo")
    await replica.read()
    assert replica.known.of(CY).zone == "Asia/Tokyo"

    gone = await change(house, ANN, act="back", absence=f"2026-01-01 2026-01-03 {EVE}")
    assert gone.headers["location"] == "/me?saved=back"
    assert "Eve in your place" not in sound(await house.get("/me", ANN))
    await change(house, ANN, act="away", first="2026-01-02", last="2026-01-03", delegate=EVE)  # tomorrow
    assert await asked(house) == (ANN, CY)


async def test_an_old_sign_in_names_no_delegate(house: House) -> None:
    """An open browser that somebody finds doesn't give them this person's votes."""
    cookie = await house.cookie(ANN)
    await house.clock.advance(timedelta(minutes=11))
    token = (
        (await house.http.get("/me", headers=cookie)).text.partition('name="form_token" value="')[2].partition('"')[0]
    )
    form = {"form_token": token, "act": "away", "first": "2026-01-01", "last": "2026-01-03"}
    refused = await house.http.post("/me/settings", data=form | {"delegate": EVE}, headers=OURS | cookie)
    assert refused.status_code == 422
    assert "sign in again first" in sound(refused)
    assert await asked(house) == (ANN, CY)
    assert (await house.http.post("/me/settings", data=form, headers=OURS | cookie)).status_code == 303


async def test_settings_survive_a_restart(house: House) -> None:
    await change(house, ANN, act="away", first="2026-01-01", last="2026-01-03", delegate=EVE)
    await change(house, ANN, act="zone", zone="Asia/Tokyo")
    async with open_service(configured(house.folder), clock=house.clock) as again:
        transport = httpx2.ASGITransport(again.app, client=("192.0.2.7", 5000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            second = House(house.folder, again, http, house.clock)
            assert set(await asked(second)) == {EVE, CY}
            assert 'value="Asia/Tokyo"' in (await second.get("/me", ANN)).text


async def test_times_are_shown_in_the_persons_own_zone(house: House) -> None:
    await house.open()
    await change(house, CY, act="zone", zone="Asia/Tokyo")
    assert "18:00" in (await house.get("/me", CY)).text  # it is nine o'clock in UTC
    assert "09:00" in (await house.get("/me", ANN)).text


async def test_keys_can_be_turned_off(house: House) -> None:
    script = 'src="/static/keys.js"'
    await house.open()
    for path in ("/inbox", "/runs"):
        page = await house.get(path, CY)
        assert script in sound(page)
        assert "script-src 'self'" in page.headers["content-security-policy"]
    assert (await change(house, CY, act="keys", keys="off")).status_code == 303
    for path in ("/inbox", "/runs"):
        assert script not in sound(await house.get(path, CY))
    assert "Turn keys on" in (await house.get("/me", CY)).text
    assert script in sound(await house.get("/inbox", ANN))
    await change(house, CY, act="keys", keys="on")
    assert script in sound(await house.get("/runs", CY))


async def test_what_cannot_be_kept_is_said_and_changes_nothing(house: House) -> None:
    days = {"act": "away", "first": "2026-01-02", "last": "2026-01-03"}
    for form, said in (
        ({"act": "zone", "zone": "Mars/Base"}, "no such time zone"),
        ({"act": "zone", "zone": ""}, "no such time zone"),
        (days | {"first": "tomorrow"}, "Enter the first and the last day."),
        (days | {"last": "2026-01-01"}, "Enter the first and the last day."),
        (days | {"first": "2025-01-01", "last": "2025-01-02"}, "Enter the first and the last day."),
        (days | {"delegate": "mallory@elsewhere.eu"}, "nobody here knows this delegate"),
        (days | {"delegate": "Ann@acme.eu"}, "it's you"),
        (days | {"delegate": "nobody"}, "nobody here knows this delegate"),
        ({"act": "everything"}, "nothing was changed"),
    ):
        refused = await change(house, ANN, **form)
        assert refused.status_code == 422, form
        assert said in sound(refused).replace("&#39;", "'"), form
        assert form.get("first", "") in refused.text
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    refused = await house.http.post("/me/settings", data={"act": "keys"}, headers=elsewhere | await house.cookie(ANN))
    assert refused.status_code == 403
    assert (await house.http.post("/me/settings", data={"act": "keys"}, headers=OURS)).status_code == 401
    assert await asked(house) == (ANN, CY)
