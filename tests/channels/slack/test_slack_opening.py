"""Requests from Slack: the command, the shortcut, the Home tab, the form and its replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from approvals_bot.approvals.policy import pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.manifest import SHORTCUT
from approvals_bot.playground.slack.blocks import check_view
from approvals_bot.service.catalog import Catalog, Listed
from tests.support.slack_office import DEPLOY, Office

EVERY_TYPE: dict[str, Any] = {
    "name": "string",
    "plan": {"type": "text", "required": False},
    "replicas": {"type": "integer", "min": 1, "max": 9},
    "share": {"type": "decimal", "default": 0.5},
    "cost": {"type": "money", "currency": "EUR"},
    "urgent": {"type": "boolean", "default": False},
    "env": {"type": "enum", "values": ["staging", "prod"]},
    "region": {"type": "enum", "values": [f"region {n}" for n in range(250)], "required": False},
    "day": "date",
    "at": {"type": "datetime", "required": False},
    "window": {"type": "duration", "default": "30m"},
    "contact": "email",
    "docs": {"type": "url", "required": False},
    "lead": {"type": "person", "required": False},
    "paths": {"type": "list", "of": "string", "required": False},
    "envs": {"type": "list", "of": "enum", "values": ["dev", "prod"], "required": False},
    "team": {"type": "list", "of": "person", "required": False},
}
FULL = {"workflow": {"title": "Change {{ name }}"}, "fields": EVERY_TYPE, "stage": DEPLOY["stage"]}
FILLED = {
    "field:name": {"value": "api"},
    "field:replicas": {"value": "3"},
    "field:cost": {"value": "1250.00"},
    "field:env": {"value": "prod"},
    "field:day": {"value": "2026-11-05"},
    "field:at": {"value": 1793872800},
    "field:contact": {"value": "ann@acme.eu"},
    "field:docs": {"value": "https://acme.eu/runbook"},
    "field:paths": {"value": "infra/a\n\n docs b "},
    "field:envs": {"value": ["dev", "prod"]},
    "field:team": {"value": ["U0ANN", "U0CY"]},
}


async def test_a_form_takes_numbers_as_the_requester_writes_them(office: Office) -> None:
    office.offer(change=FULL)
    view = (await office.command("U0DI", "change"))["view"]
    share = next(block for block in view["blocks"] if block.get("block_id") == "field:share")
    assert share["element"]["initial_value"] == "0,5"
    filled = FILLED | {"field:cost": {"value": "12.345"}, "field:share": {"value": "1,25"}}
    await office.submit("U0DI", view, filled)
    fields = (await only_run(office)).parts[0]["fields"]
    assert (fields["cost"], fields["share"]) == ("12345.00", "1.25")


async def test_a_form_leaves_out_files_and_names_one_that_is_needed(office: Office) -> None:
    optional = {"service": "string", "doc": {"type": "file", "required": False}}
    office.offer(
        optional=FULL | {"workflow": {}, "fields": optional}, needed=FULL | {"workflow": {}, "fields": {"doc": "file"}}
    )
    view = (await office.command("U0BO", "optional"))["view"]
    assert [block["block_id"] for block in view["blocks"] if block["type"] == "input"] == ["field:service", "behalf"]
    await office.submit("U0BO", view, {"field:service": {"value": "api"}})
    assert (await only_run(office)).parts[0]["fields"] == {"service": "api", "doc": None}
    refused = await office.command("U0BO", "needed")
    assert refused["view"] is None
    assert "needs a file" in str(refused)


async def only_run(office: Office) -> Any:
    (record,) = (await office.engine.records()).records
    return await office.engine.record(record.id)


async def direct_message_to(office: Office, user: str) -> Any:
    await office.until(lambda: any(m.channel == "D" + user[1:] for m in office.playground.workspace.messages.values()))
    return next(m for m in office.playground.workspace.messages.values() if m.channel == "D" + user[1:])


async def test_the_command_opens_the_form_and_the_form_the_request(office: Office) -> None:
    office.offer(change=FULL)
    view = (await office.command("U0BO", "change"))["view"]
    assert check_view({name: view[name] for name in ("type", "title", "blocks", "submit", "close")}) == []
    inputs = {b["block_id"]: b for b in view["blocks"] if b["type"] == "input"}
    assert list(inputs) == [*(f"field:{name}" for name in EVERY_TYPE), "behalf"]
    kinds = {block_id.removeprefix("field:"): block["element"]["type"] for block_id, block in inputs.items()}
    assert kinds == {
        "name": "plain_text_input",
        "plan": "plain_text_input",
        "replicas": "number_input",
        "share": "plain_text_input",
        "cost": "plain_text_input",
        "urgent": "static_select",
        "env": "static_select",
        "region": "static_select",
        "day": "datepicker",
        "at": "datetimepicker",
        "window": "plain_text_input",
        "contact": "email_text_input",
        "docs": "url_text_input",
        "lead": "users_select",
        "paths": "plain_text_input",
        "envs": "multi_static_select",
        "team": "multi_users_select",
        "behalf": "users_select",
    }
    assert inputs["field:share"]["element"]["initial_value"] == "0.5"
    assert inputs["field:urgent"]["element"]["initial_option"]["value"] == "false"
    assert (inputs["field:plan"]["optional"], inputs["field:name"]["optional"]) == (True, False)
    answer = await office.submit("U0BO", view, FILLED)
    assert (answer["errors"], answer["view"]) == ({}, None)
    record = await only_run(office)
    assert record.parts[0]["requester"] == "bo@acme.eu"
    assert record.parts[0]["fields"] == {
        "name": "api",
        "plan": None,
        "replicas": 3,
        "share": "0.5",
        "cost": "1250.00",
        "urgent": False,
        "env": "prod",
        "region": None,
        "day": "2026-11-05",
        "at": "2026-11-05T10:00:00Z",
        "window": "30m",
        "contact": "ann@acme.eu",
        "docs": "https://acme.eu/runbook",
        "lead": None,
        "paths": ["infra/a", "docs b"],
        "envs": ["dev", "prod"],
        "team": ["ann@acme.eu", "cy@acme.eu"],
    }


async def test_a_workflow_of_a_folder_opens_by_name_and_by_button(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    (listed,) = [office.slack.opening.workflows.find("deploy")] if office.slack.opening.workflows else []
    assert listed is not None
    assert listed.definition is not None
    inside = listed.definition.in_folder("team-a")
    office.slack.opening.workflows = Catalog({inside.id: Listed(approval.under(inside.id, pinned(inside)), inside)})
    values = {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}}
    view = (await office.command("U0BO", "Team-A/deploy"))["view"]
    assert (await office.submit("U0BO", view, values))["errors"] == {}
    assert (await only_run(office)).parts[0]["workflow"] == "team-a/deploy"
    await office.command("U0BO")
    chosen = office.ephemerals("U0BO")[-1]
    view = (await office.press("U0BO", "Deploy (team a)", ts=chosen.ts))["view"]
    assert view["title"]["text"] == "Deploy (team a)"


async def test_the_requester_gets_an_ephemeral_link_where_they_typed(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    values = {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}}
    answer = await office.submit("U0BO", view, values)
    record = await only_run(office)
    assert "Waiting: Deploy api 2.1. Waiting for Ann Ode and Cy Rus." in answer["ephemeral"]
    assert f"{office.url}/requests/{record.id}" in json.dumps(office.ephemerals("U0BO")[-1].blocks)


async def test_where_the_app_is_missing_the_reply_is_a_direct_message(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    office.fault("error", "chat.postEphemeral", error="not_in_channel")
    await office.submit("U0BO", view, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert "Deploy api 2.1" in (await direct_message_to(office, "U0BO")).text


async def test_the_command_alone_lists_the_workflows(office: Office) -> None:
    office.offer(
        deploy=DEPLOY,
        change=FULL,
        secret=DEPLOY | {"workflow": {"request": ["ann@acme.eu", "app:ci"], "title": "x"}},
    )
    answer = await office.command("U0BO")
    said = office.ephemerals("U0BO")[-1]
    buttons = [e for block in said.blocks if block["type"] == "actions" for e in block["elements"]]
    assert [button["text"]["text"] for button in buttons] == ["Change", "Deploy"]
    assert answer["ephemeral"].startswith("What do you need approval for?")
    opened = await office.press("U0BO", "Deploy", ts=said.ts)
    assert opened["view"]["title"]["text"] == "Deploy"
    assert json.loads(opened["view"]["private_metadata"]) == {
        "w": "deploy",
        "ch": office.ephemerals("U0BO")[-1].channel,
    }


@pytest.mark.parametrize("text", ["secret", "nothing <!channel>"])
async def test_a_forbidden_workflow_looks_like_a_missing_one(office: Office, text: str) -> None:
    office.offer(deploy=DEPLOY, secret=DEPLOY | {"workflow": {"request": ["ann@acme.eu"], "title": "x"}})
    answer = await office.command("U0BO", text)
    assert answer["view"] is None
    shown = text.replace("<", "&lt;").replace(">", "&gt;")
    assert f"You can't request “{shown}”. No request was made." in answer["ephemeral"]


async def test_the_shortcuts_list_is_replaced_by_the_form(office: Office) -> None:
    office.offer(deploy=DEPLOY, change=FULL)
    chooser = (await office.call("/slack/shortcut", {"user": "U0BO", "callback_id": SHORTCUT}))["view"]
    assert chooser["title"]["text"] == "Request approval"
    form = (await office.call("/slack/click", {"user": "U0BO", "view_id": chooser["id"], "button": "Deploy"}))["view"]
    assert form["callback_id"] == "open"
    await office.submit("U0BO", form, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert "Deploy api 2.1" in (await direct_message_to(office, "U0BO")).text


async def test_the_shortcut_skips_the_list_if_there_is_one_workflow(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    form = (await office.call("/slack/shortcut", {"user": "U0BO", "callback_id": SHORTCUT}))["view"]
    assert form["title"]["text"] == "Deploy"


async def test_the_home_tab_leads_to_the_form(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    home = await office.call("/slack/home?user=U0BO")
    form = (await office.call("/slack/click", {"user": "U0BO", "view_id": home["view"]["id"], "action_id": "open:"}))[
        "view"
    ]
    assert form["title"]["text"] == "Deploy"


@pytest.mark.check(20)
async def test_errors_show_at_their_fields_and_the_input_is_kept(office: Office) -> None:
    office.offer(change=FULL)
    view = (await office.command("U0BO", "change"))["view"]
    wrong = FILLED | {"field:cost": {"value": "a lot"}, "field:window": {"value": "soon"}}
    answer = await office.submit("U0BO", view, wrong)
    assert list(answer["errors"]) == ["field:cost", "field:window"]
    assert answer["view"]["id"] == view["id"]
    assert (await office.engine.records()).records == []
    kept = answer["view"]["state"]["values"]
    assert kept["field:name"]["value"]["value"] == "api"
    answer = await office.submit("U0BO", view, FILLED)
    assert answer["errors"] == {}
    assert (await only_run(office)).parts[0]["fields"]["cost"] == "1250.00"


@pytest.mark.check(20)
async def test_a_form_submitted_twice_opens_one_request(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    office.fault("duplicate", "interaction")
    await office.submit("U0BO", view, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert len((await office.engine.records()).records) == 1


async def test_an_undecidable_request_is_refused_in_the_form(office: Office) -> None:
    alone = DEPLOY | {"workflow": {"title": "x"}, "stage": [{"id": "go", "from": ["bo@acme.eu"]}]}
    office.offer(deploy=alone)
    view = (await office.command("U0BO", "deploy"))["view"]
    answer = await office.submit("U0BO", view, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert answer["errors"]["field:service"].startswith("Nothing was opened:")
    assert (await office.engine.records()).records == []


async def test_a_request_can_be_on_behalf_of_somebody(office: Office) -> None:
    office.offer(deploy=DEPLOY | {"workflow": {"title": "x", "on_behalf_of": "required"}})
    view = (await office.command("U0BO", "deploy"))["view"]
    values = {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}}
    await office.submit("U0BO", view, values | {"behalf": {"value": "U0DI"}})
    assert (await only_run(office)).parts[0]["on_behalf_of"] == "di@acme.eu"


async def test_no_request_is_on_behalf_of_a_stranger(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    values = {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}}
    answer = await office.submit("U0BO", view, values | {"behalf": {"value": "U0STRANGER"}})
    assert answer["errors"]["behalf"].startswith("We can't identify this person")


async def test_a_form_offers_the_members_for_a_person(office: Office) -> None:
    people = {"lead": {"type": "person", "in": ["slack:@sre"]}}
    office.offer(change=FULL | {"fields": people, "workflow": {"title": "x"}})
    view = (await office.command("U0BO", "change"))["view"]
    stranger = await office.submit("U0BO", view, {"field:lead": {"value": "U0STRANGER"}})
    assert stranger["errors"]["field:lead"].startswith("We can't identify this person")
    other = await office.submit("U0BO", view, {"field:lead": {"value": "U0DI"}})
    assert other["errors"] == {"field:lead": "Must be one of SRE"}
    await office.submit("U0BO", view, {"field:lead": {"value": "U0ANN"}})
    assert (await only_run(office)).parts[0]["fields"] == {"lead": "ann@acme.eu"}


async def test_a_permission_lost_since_the_form_opened_is_refused(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    office.offer(deploy=DEPLOY | {"workflow": {"title": "x", "request": ["ann@acme.eu"]}})
    answer = await office.submit("U0BO", view, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert answer["errors"]["field:service"] == "You can't request this. No request was made."


@pytest.mark.parametrize("user", ["U0GUEST", "U0STRANGER"])
async def test_guests_and_strangers_open_no_requests(office: Office, user: str) -> None:
    office.offer(deploy=DEPLOY)
    office.invite(user)
    answer = await office.command(user, "deploy")
    assert answer["ephemeral"].startswith("You're a guest or from another workspace")
    assert answer["view"] is None


async def test_a_form_that_slack_cannot_open_is_reported(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    office.fault("error", "views.open", error="expired_trigger_id")
    answer = await office.command("U0BO", "deploy")
    assert answer["ephemeral"] == "Slack couldn't open the form. No request was made. Please try again."


@pytest.mark.check(18)
async def test_tampered_private_metadata_opens_no_request(office: Office) -> None:
    office.offer(deploy=DEPLOY)
    view = (await office.command("U0BO", "deploy"))["view"]
    office.playground.workspace.views[view["id"]].given["private_metadata"] = "{}"
    answer = await office.submit("U0BO", view, {"field:service": {"value": "api"}, "field:version": {"value": "2.1"}})
    assert "no longer available" in json.dumps(answer["view"])
    assert (await office.engine.records()).records == []
