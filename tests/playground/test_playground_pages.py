"""The playground's pages, read as a browser does and used through their forms."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.message import EmailMessage
from html import unescape
from typing import TYPE_CHECKING, Any

import aiosmtplib
import pytest

from approvals_bot.playground import Sample
from approvals_bot.playground.rendering import Rendering

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig

FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')
FORM = re.compile(r"<form method=\"post\" action=\"([^\"]*)\"[^>]*>(.*?)</form>", re.DOTALL)


async def look(rig: Rig, path: str, status: int = 200) -> str:
    async with rig.http.get(f"{rig.base_url}/playground{path}") as response:
        assert response.status == status
        return await response.text()


async def press(rig: Rig, page: str, button: str, **typed: str) -> str:
    """Submit the form with this button, including its hidden fields, and return the next page."""
    for action, inside in FORM.findall(page):
        if button in inside:
            fields = {unescape(name): unescape(value) for name, value in FIELD.findall(inside)}
            async with rig.http.post(f"{rig.base_url}{action}", data=fields | typed) as response:
                assert response.status == 200, await response.text()
                return await response.text()
    raise AssertionError(f"no form has the button {button}")


async def test_start_page_explains_the_playground(rig: Rig) -> None:
    page = await look(rig, "")
    assert "This is a playground, not Slack" in page
    for word in ("Ann Ode", "# deploys", "Home tab", "Mailbox", "Move the clock", "Gus Guest"):
        assert word in page
    assert "<script" not in page


async def test_reply_to_a_press_is_shown_beside_the_card(rig: Rig) -> None:
    @rig.bolt.action("approve")
    async def approve(ack: Any, respond: Any) -> None:
        await ack()
        await respond("Counted: 1 of 2.", replace_original=False)

    await rig.card()
    page = await look(rig, "/channels/C0DEPLOYS?as=U0ANN")
    assert "<strong>Deploy</strong> api 2.1" in page
    assert "Sure?" in page
    page = await press(rig, page, ">Yes<")
    assert "Only visible to you" in page
    assert "Counted: 1 of 2." in page
    assert "Acknowledged in" in page
    assert "Counted" not in await look(rig, "/channels/C0DEPLOYS?as=U0BO")


async def test_modal_is_filled_in_corrected_and_submitted(rig: Rig) -> None:
    reasons: list[str] = []

    @rig.bolt.action("reject")
    async def reject(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        await ack()

    @rig.bolt.view("reason")
    async def reason(ack: Any, view: dict[str, Any]) -> None:
        reasons.append(view["state"]["values"]["why"]["comment"]["value"])
        await ack()

    await rig.card()
    page = await press(rig, await look(rig, "/channels/C0DEPLOYS?as=U0ANN"), ">Reject<")
    assert "Why?" in page
    page = await press(rig, page, 'name="do"', do="submit")
    assert "Please complete this required field." in page
    page = await press(rig, page, 'name="do"', do="submit", **{"input-0": "too risky"})
    assert "Why?" not in page
    assert reasons == ["too risky"]


async def test_user_text_is_never_markup(rig: Rig) -> None:
    evil = "<img src=x onerror=alert(1)> <!channel> *x*"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": evil}},
        {"type": "section", "text": {"type": "mrkdwn", "text": evil}},
        {
            "type": "rich_text",
            "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": evil}]}],
        },
    ]
    await rig.client.chat_postMessage(channel="#deploys", text=evil, blocks=blocks)
    await rig.client.chat_postMessage(channel="#deploys", text=evil)
    page = await look(rig, "/channels/C0DEPLOYS?as=U0ANN")
    assert "<img" not in page
    assert page.count('<span class="mention">@channel</span>') == 2  # mrkdwn only: there it is live, as in Slack


async def test_private_channels_and_others_messages_are_hidden(rig: Rig) -> None:
    await look(rig, "/channels/C0SECRET?as=U0ANN")
    await look(rig, "/channels/C0SECRET?as=U0BO", status=404)
    await rig.client.chat_postMessage(channel="U0ANN", text="for Ann")
    await look(rig, "/channels/D0ANN?as=U0BO", status=404)
    await look(rig, "/channels/C0NONE?as=U0BO", status=404)
    await look(rig, "?as=nobody", status=404)


async def test_person_without_slack_has_only_a_mailbox(rig: Rig) -> None:
    page = await look(rig, "/mailbox?as=fin@acme.eu")
    assert "Mail for fin@acme.eu" in page
    assert "Home tab" not in page


async def test_mail_is_shown_as_text_and_in_a_frame_without_scripts(rig: Rig) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@acme.eu", "ann@acme.eu", "Deploy <b>api</b>"
    message.set_content("Open https://approve.acme.eu/decisions/abc")
    message.add_alternative("<html><head></head><body><p>Hello</p><script>x</script></body></html>", subtype="html")
    await aiosmtplib.send(
        message, hostname="127.0.0.1", port=rig.playground.smtp_port, start_tls=False, local_hostname="test"
    )
    assert "Deploy &lt;b&gt;api" in await look(rig, "/mailbox?as=U0ANN")
    page = await look(rig, "/mailbox/m1?as=U0ANN")
    frame = re.search(r"<iframe[^>]*>", page)
    assert frame
    assert "allow-scripts" not in frame[0]
    assert "allow-same-origin" not in frame[0]
    assert "<head><base target" in unescape(frame[0])
    assert 'href="https://approve.acme.eu/decisions/abc"' in page
    await look(rig, "/mailbox/m9", status=404)


async def test_home_tab_is_requested_when_opened(rig: Rig) -> None:
    @rig.bolt.event("app_home_opened")
    async def opened(client: Any, event: dict[str, Any]) -> None:
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": rig.card_blocks})

    @rig.bolt.action("reject")
    async def reject(ack: Any) -> None:
        await ack()

    page = await look(rig, "/home?as=U0ANN")
    assert "api 2.1" in page
    assert "Acknowledged in" in await press(rig, page, ">Reject<")


async def test_commands_and_the_clock_have_forms(rig: Rig) -> None:
    @rig.bolt.command("/approve")
    async def approve(ack: Any, command: dict[str, Any]) -> None:
        await ack(f"You typed {command['text']}")

    page = await look(rig, "/channels/C0DEPLOYS?as=U0ANN")
    assert "You typed deploy api" in await press(rig, page, ">Send<", command="/approve", text="deploy api")
    assert "moved forward by 30m" in await press(rig, page, 'value="30m"', advance="30m")
    refused = await press(rig, page, 'value="30m"', advance="4h")
    assert "The clock wasn't moved" in unescape(refused)


async def test_sample_request_is_opened_through_the_api(start_rig: StartRig) -> None:
    sample = Sample("Deploy api", {"workflow": "deploy"}, "dev")
    rig = await start_rig(samples=[sample])
    page = await look(rig, "?as=U0ANN")
    assert "Deploy api" in page
    answered = await press(rig, page, 'name="sample"', sample="Deploy api")
    assert "notice refused" in answered  # this rig has no API, and the page shows the response


async def test_calls_of_the_service_are_listed(start_rig: StartRig) -> None:
    rig = await start_rig(target_secrets={"deploy-api": "s"})
    async with rig.http.post(f"{rig.base_url}/playground/http/deploy-api", json={"service": "api"}):
        pass
    await rig.card()
    page = await look(rig, "/wire")
    assert "deploy-api" in page
    assert "signature missing or wrong" in page
    assert "chat.postMessage" in page


async def test_removed_button_says_so_on_the_page(rig: Rig) -> None:
    ts = await rig.card()
    page = await look(rig, "/channels/C0DEPLOYS?as=U0ANN")
    await rig.client.chat_update(channel="C0DEPLOYS", ts=ts, text="Approved")
    assert "This message has no action" in unescape(await press(rig, page, ">Reject<"))


async def test_forms_lead_back_into_the_playground_only(rig: Rig) -> None:
    form = {"as": "U0ANN", "back": "//evil.example", "advance": "30m"}
    async with rig.http.post(f"{rig.base_url}/playground/ticks", data=form, allow_redirects=False) as response:
        assert response.status == 303
        assert response.headers["location"] == "/playground"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("*bold* _it_ ~gone~ `code`", "<strong>bold</strong> <em>it</em> <s>gone</s> <code>code</code>"),
        ("2*3*4 snake_case_name", "2*3*4 snake_case_name"),
        ("a &lt;b&gt; &amp; c", "a &lt;b&gt; &amp; c"),
        ("<@U0ANN> <#C0X> <!subteam^S0SRE>", "@Ann #C0X @S0SRE"),
        ("<https://a.eu|here> <javascript:x|no>", '<a href="https://a.eu">here</a> no'),
        (":tada: :unknown:", "🎉 :unknown:"),
        ("```\n<b>\n```", "<pre>&lt;b&gt;</pre>"),
        ("<!date^0^{date_num} {time_secs}|x>", "1970-01-01 01:00:00"),
        ("<!date^99999999999999^{date}|far>", "far"),
        ("<!date^soon^{date}|soon>", "soon"),
    ],
)
def test_mrkdwn_is_rendered_as_in_slack(text: str, shown: str) -> None:
    draw = Rendering(lambda one: {"U0ANN": "Ann"}.get(one, one), "Europe/Berlin", datetime(2026, 3, 2, tzinfo=UTC))
    drawn = re.sub(r"</?(span|time)[^>]*>", "", str(draw.mrkdwn(text)))
    assert drawn == shown
