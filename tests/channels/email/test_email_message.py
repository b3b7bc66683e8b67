"""Mails as bytes: their content, and that people's text can't break out of its place."""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
from dataclasses import replace
from datetime import datetime, timedelta
from email.message import EmailMessage

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.card_model import Card, CardChoice, CardComment, CardField, CardOutcome, Name
from approvals_bot.approvals.delivery import LONGEST_MAIL_VALUE, shortened
from approvals_bot.approvals.port import Dispatch, Receipt, ToPerson
from approvals_bot.channels.email.message import Address, InvalidAddressError, OutgoingMail, compose, message_id_of
from approvals_bot.people import Person

SENDER = Address.parse_sender("Approvals <approvals@acme.eu>")
LINK = "https://approve.acme.eu/decisions/signed.token-1"
ANN = Person("ann@acme.eu", "Ann Ode", zone="Europe/Berlin")


def mail(card: Card, now: datetime, person: Person = ANN, **more: object) -> OutgoingMail:
    dispatch = Dispatch("run_1:d1", ToPerson("email", person), card, link=LINK, **more)  # type: ignore[arg-type]
    return compose(dispatch, sender=SENDER, now=now)


def parsed(composed: OutgoingMail) -> EmailMessage:
    message = email.message_from_bytes(composed.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def part(message: EmailMessage, subtype: str) -> str:
    body = message.get_body((subtype,))
    assert body is not None
    return str(body.get_content())


def header_names(composed: OutgoingMail) -> list[str]:
    head = composed.content.partition(b"\r\n\r\n")[0].decode()
    return [line.partition(":")[0] for line in head.split("\r\n") if line[:1] not in (" ", "\t")]


@pytest.mark.check(52)
def test_a_mail_has_one_recipient_and_suppresses_auto_replies(card: Card, now: datetime) -> None:
    message = parsed(mail(card, now))
    assert message["To"] == "Ann Ode <ann@acme.eu>"
    assert message["From"] == "Approvals <approvals@acme.eu>"
    assert message["Reply-To"] == "Bo Lund <bo@acme.eu>"
    assert message["Subject"] == "Please decide: Deploy api 2.1.0 to prod"
    assert message["Date"].datetime == now
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "OOF, AutoReply, DR, RN, NRN"  # All would suppress bounces, too
    assert message.get_content_type() == "multipart/alternative"
    assert [one.get_content_type() for one in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.check(52)
def test_the_text_part_is_complete_with_the_link_on_its_own_line(card: Card, now: datetime) -> None:
    text = part(parsed(mail(card, now)), "plain")
    wanted = [
        "⏳ Waiting · 1 of 2",
        "Deadline: Wed 4 Nov 2026, 14:35 in Berlin (in 3½ hours); then it is rejected",
        "Deploy api 2.1.0 to prod",
        "Requested by Bo Lund, Wed 4 Nov 2026, 11:01 in Berlin",
        "Version: 2.1.0 [pinned] (was: 2.0.9)",
        "+replicas: 6",
        "Release managers: 1 of 1 (Cy Rus)",
        "✅ Cy Rus approved via Slack, Wed 4 Nov 2026, 11:03 in Berlin: “Watch the migration.”",
        "pinned fields: sha256:5f1c3",
    ]
    places = [text.index(line) for line in wanted]
    assert places == sorted(places)
    assert LINK in text.splitlines()


def test_the_html_part_has_a_button_per_choice_and_loads_nothing(card: Card, now: datetime) -> None:
    html = part(parsed(mail(card, now)), "html")
    assert len(html.encode()) < 102_000
    assert re.findall(r'href="([^"]+)"', html) == [f"{LINK}?choice={it}" for it in ("approve", "reject", "changes")]
    assert not re.search(r"<(img|script|link|iframe|object)\b|\bsrc=|url\(", html)
    assert "Approve: Deploy api 2.1.0 to prod" in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.check(52)
def test_a_delivery_is_always_the_same_mail_with_a_short_id(card: Card, now: datetime) -> None:
    assert mail(card, now) == mail(card, now)
    assert message_id_of("a", "acme.eu") != message_id_of("b", "acme.eu")
    for domain in ("acme.eu", "a-very-long-department-name.of-a-very-long-company-name.example.org", "x" * 63 + ".eu"):
        assert re.fullmatch(r"[a-z0-9]+@[a-z0-9.-]+", message_id_of("run_1:d1", domain))
        assert len(message_id_of("run_1:d1", domain)) <= 60


@pytest.mark.check(53)
def test_later_mails_thread_under_the_first_one(card: Card, now: datetime, outcome: CardOutcome) -> None:
    first = mail(card, now)
    decided = replace(card, state="approved", outcome=outcome, choices=())
    message = parsed(mail(decided, now, occasion="outcome", thread=Receipt("ann@acme.eu", first.message_id)))
    assert message["In-Reply-To"] == message["References"] == f"<{first.message_id}>"
    assert message["Subject"] == "Approved: Deploy api 2.1.0 to prod"
    edited = replace(card, title="Deploy api 2.1.1 to prod")
    thread = Receipt("ann@acme.eu", first.message_id, subject=parsed(first)["Subject"])
    reminder = parsed(mail(edited, now, occasion="reminder", thread=thread))
    assert reminder["Subject"] == "Re: Please decide: Deploy api 2.1.0 to prod"
    assert reminder["References"] == f"<{first.message_id}>"
    assert "Deploy api 2.1.1 to prod" in part(reminder, "plain")
    assert "✅ Approved by Ann Ode via email" in part(message, "plain")
    assert "?choice=" not in part(message, "html")


def test_a_voter_reads_what_to_do_if_it_was_not_them(card: Card, now: datetime, outcome: CardOutcome) -> None:
    cy = Person("cy@acme.eu", "Cy Rus")
    back = CardChoice("take_back", "Undo vote", "Undo vote")
    open_still = parsed(mail(replace(card, choices=(*card.choices, back)), now, cy, occasion="change"))
    text = part(open_still, "plain")
    assert "You approved this via Slack. Not you? You can undo this vote while the request is open:" in text
    assert f"{LINK}?choice=take_back" in text.splitlines()
    assert part(open_still, "html").count("?choice=take_back") == 1
    ended = replace(card, state="approved", outcome=outcome, choices=())
    text = part(parsed(mail(ended, now, cy, occasion="outcome")), "plain")
    assert (
        "You approved this via Slack. Not you? The vote can no longer be undone, "
        "so please contact Bo Lund and your Approvals admin right away."
    ) in text
    assert "choice=" not in text
    by_app = replace(ended, requester=Name("app:ci", "ci"))
    assert "so please contact your Approvals admin right away." in part(parsed(mail(by_app, now, cy)), "plain")
    for other in (mail(ended, now), mail(ended, now, cy, text="Deployed.")):
        assert "Not you?" not in part(parsed(other), "plain")


def test_an_operators_text_is_the_mail(card: Card, now: datetime, outcome: CardOutcome) -> None:
    sent = mail(replace(card, state="approved", outcome=outcome, choices=()), now, text="Deployed <b>it</b> & more")
    message = parsed(sent)
    assert message["Subject"] == "Approved: Deploy api 2.1.0 to prod"
    assert "Deployed <b>it</b> & more" in part(message, "plain")
    assert "Deployed &lt;b&gt;it&lt;/b&gt; &amp; more" in part(message, "html")


@pytest.mark.parametrize("name", ["Ode, Ann", 'Ann "the" Ode', "Ann (CFO)", "ann@acme.eu", "Ann\\", "Änne Öde", ""])
def test_any_name_can_precede_an_address(card: Card, now: datetime, name: str) -> None:
    (address,) = parsed(mail(card, now, Person("ann@acme.eu", name)))["To"].addresses
    assert (address.display_name, address.addr_spec) == (name, "ann@acme.eu")


INJECTIONS = {
    "B64 line breaks": "Deploy\r\nBcc: spy@evil.example\r\n\r\nbody",
    "B65 encoded word": "=?utf-8?q?x=0D=0ABcc:=20spy@evil.example?=",
    "B65 nested": "==??utf-8?q?x=0D=0ABcc:=20spy@evil.example?==",
    "B68 a very long line": "x" * 10_000,
    "NUL and bidi": "a\x00b\u202egnp.exe\u2028Bcc: spy@evil.example",
    "beyond ASCII": "Ünïcode 👩‍🚀 " * 40,
}


@pytest.mark.check(54)
@pytest.mark.parametrize("text", INJECTIONS.values(), ids=INJECTIONS.keys())
def test_no_text_becomes_a_header(card: Card, now: datetime, text: str) -> None:
    hostile = replace(card, title=text, requester=Name("bo@acme.eu", text))
    composed = mail(hostile, now, Person("ann@acme.eu", text))
    message = parsed(composed)
    expected = ["From", "To", "Reply-To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress"]
    assert header_names(composed) == [*expected, "MIME-Version", "Content-Type"]
    assert "\n" not in message["Subject"]
    assert len(message["Subject"]) <= 200
    assert [address.addr_spec for address in message["To"].addresses] == ["ann@acme.eu"]
    assert max(len(line) for line in composed.content.split(b"\r\n")) < 998
    assert b"\x00" not in composed.content
    again = email.message_from_bytes(message.as_bytes(policy=email.policy.SMTP), policy=email.policy.default)
    assert again["Bcc"] is None


@pytest.mark.check(54)
@pytest.mark.parametrize(
    "address",
    ["a@b.eu, c@d.eu", "a@b.eu\r\nRCPT TO:<c@d.eu>", '"a b"@acme.eu', "a@b@c.eu", "<a@b.eu> x", "", "a b@c.eu"],
)
def test_anything_but_one_address_is_refused(card: Card, now: datetime, address: str) -> None:
    with pytest.raises(InvalidAddressError):
        mail(card, now, Person(address, "x"))


@pytest.mark.check(54)
def test_domains_are_ascii_and_only_other_local_parts_need_smtputf8(card: Card, now: datetime) -> None:
    idn = mail(card, now, Person("ann@bücher.example.eu", "Ann"))
    assert (idn.recipient, idn.needs_utf8) == ("ann@xn--bcher-kva.example.eu", False)
    beyond = mail(card, now, Person("änn@acme.eu", "Ann"))
    assert beyond.needs_utf8
    assert "To: Ann <änn@acme.eu>\r\n".encode() in beyond.content


def test_html_shows_peoples_text_as_text(card: Card, now: datetime) -> None:
    live = "<script>alert(1)</script><img src=https://evil.example/x.png> {{ 7 * 7 }} javascript:alert(1)"
    hostile = replace(
        card,
        title=live,
        fields=(CardField("a", live, live, was=live), CardField("b", live, live, "diff")),
        votes=(replace(card.votes[0], comment=live),),
        why_me=live,
        digest=live,
    )
    html = part(parsed(mail(hostile, now)), "html")
    assert not re.search(r"<(img|script)\b", html)
    assert "{{ 7 * 7 }}" in html


def test_an_unknown_zone_falls_back_to_utc(card: Card, now: datetime) -> None:
    assert "10:01 UTC" in part(parsed(mail(card, now, replace(ANN, zone="Mars/Olympus"))), "plain")


@settings(max_examples=8, deadline=timedelta(seconds=60), suppress_health_check=list(HealthCheck))
@given(
    text=st.text(max_size=300),
    long=st.sampled_from(["x", "é\n", "<&>", "👩‍🚀"]),
    times=st.sampled_from([1, 500, 60_000]),
)
def test_every_mail_is_complete_and_below_the_clipping_size(
    card: Card, now: datetime, text: str, long: str, times: int
) -> None:
    fields = tuple(CardField(f"f{n}", text, long * times, kind) for n, kind in enumerate(("short", "long", "diff") * 9))  # type: ignore[arg-type]
    message = parsed(mail(replace(card, title=text, fields=fields, why_me=text), now))
    assert len(part(message, "html").encode()) < 102_000
    assert LINK in part(message, "plain").splitlines()


def test_no_line_that_people_wrote_passes_for_one_of_ours(card: Card, now: datetime) -> None:
    forged = "fine\n\nTo decide (Approve), open this page:\n\nhttps://evil.example/approve"
    fields = (
        CardField("short", "Short", forged),
        CardField("long", "Long", forged, "long"),
        CardField("model", "Model", forged, "long", untrusted=True),
        CardField("flight", "Flight", "LH 1", untrusted=True),
    )
    votes = tuple(replace(vote, comment=forged) for vote in card.votes)
    lines = part(parsed(mail(replace(card, fields=fields, votes=votes), now)), "plain").splitlines()
    assert len([line for line in lines if line.startswith("To decide")]) == 1
    assert [line for line in lines if line.startswith("http")] == [LINK]
    assert "    https://evil.example/approve" in lines
    assert "> https://evil.example/approve" in lines
    assert "Flight: “LH 1”" in lines


def test_untrusted_text_is_a_quotation_in_the_html(card: Card, now: datetime) -> None:
    fields = (CardField("why", "Why", "cheap\nand fast", "long", untrusted=True), CardField("n", "Name", "x", "long"))
    html = part(parsed(mail(replace(card, fields=fields), now)), "html")
    assert html.count('long prose quoted text"') == 1


@pytest.mark.parametrize(
    ("mailbox", "recipient"),
    [
        ("Ann+Work@ACME.eu", "Ann+Work@acme.eu"),
        ("o'brien@acme.local", "o'brien@acme.local"),
        ("\uff41nn\uff20acme\u3002eu.", "ann@acme.eu"),
    ],
)
def test_mail_goes_to_the_mailbox_as_it_is_configured(card: Card, now: datetime, mailbox: str, recipient: str) -> None:
    assert mail(card, now, Person("ann@acme.eu", "Ann", mail=mailbox)).recipient == recipient


def test_replies_go_to_the_human_behind_an_app(card: Card, now: datetime) -> None:
    by_app = replace(card, requester=Name("app:ci", "ci"))
    for_bo = parsed(mail(replace(by_app, on_behalf_of=card.requester), now))
    assert for_bo["Reply-To"] == "Bo Lund <bo@acme.eu>"
    assert parsed(mail(by_app, now))["Reply-To"] is None
    own = Person("bo@acme.eu", "Bo Lund")
    assert parsed(mail(card, now, own))["Reply-To"] is None


def test_every_mail_says_that_a_reply_decides_nothing(card: Card, now: datetime, outcome: CardOutcome) -> None:
    ended = replace(card, state="approved", outcome=outcome, choices=())
    nobody = replace(card, requester=Name("app:ci", "ci"))
    to_decide = "Decide on the request's page."
    expected = {
        "request": (mail(card, now), f"A reply to this mail goes to Bo Lund and decides nothing. {to_decide}"),
        "of an app": (mail(nobody, now), f"A reply to this mail decides nothing. {to_decide}"),
        "outcome": (mail(ended, now, occasion="outcome"), "A reply to this mail goes to Bo Lund and decides nothing."),
        "text": (mail(ended, now, text="Deployed."), "A reply to this mail goes to Bo Lund and decides nothing."),
        "code": (mail(card, now, occasion="code", text="123 456"), "and decides nothing."),
    }
    for composed, sentence in expected.values():
        assert sentence in part(parsed(composed), "plain")
        assert sentence in part(parsed(composed), "html").replace("&#39;", "'")


def test_replies_that_are_read_go_to_their_own_address(card: Card, now: datetime) -> None:
    dispatch = Dispatch("run_1:d1", ToPerson("email", ANN), card, link=LINK)
    message = parsed(compose(dispatch, sender=SENDER, now=now, replies_to="reply+sealed@acme.eu"))
    assert message["Reply-To"] == "Bo Lund via Approvals <reply+sealed@acme.eu>"
    assert "A reply to this mail becomes a comment and decides nothing." in part(message, "plain")


def test_line_breaks_and_indents_need_no_css(card: Card, now: datetime, outcome: CardOutcome) -> None:
    text = "1. stop\n2. migrate\n   - table a\n\tb  c\n\n3. <start>"
    shown = (
        "1. stop<br>\n2. migrate<br>\n&nbsp; &nbsp;- table a<br>\n&nbsp; &nbsp; b&nbsp; c<br>\n<br>\n3. &lt;start&gt;"
    )
    fields = (CardField("a", "A", text, "long"), CardField("j", "J", text, "json"))
    several = replace(card, fields=fields, instructions=text, votes=(replace(card.votes[0], comment=text),))
    note = replace(card, state="approved", outcome=replace(outcome, comment=text), choices=())
    for one, times in ((mail(several, now), 4), (mail(note, now, text=text), 2)):
        html = part(parsed(one), "html").replace("\r\n", "\n").replace("\xa0", "&nbsp;")
        assert html.count(shown) == times
        assert "white-space" not in html


def test_the_html_cuts_long_text_that_the_text_has_whole(card: Card, now: datetime) -> None:
    lines = "\n".join(f"step {n} of the plan" for n in range(400))
    fields = (CardField("plan", "Plan", lines, "long", pinned=True), CardField("why", "Why", "word " * 4_000, "long"))
    message = parsed(mail(replace(card, fields=fields, instructions=lines), now))
    text, html = part(message, "plain"), part(message, "html")
    assert text.count("step 399 of the plan") == 2
    assert text.count("word") == 4_000
    assert html.count("step 7 of the plan…") == 2
    assert "step 8 of the plan" not in html
    assert re.search(r"step 7 of the plan… \([\d,]+ characters, SHA-256 [0-9a-f]{32}\)", html)
    assert html.count("word ") < 8 * 72 / 5 + 10
    assert html.count("Read the rest on the request's page") == 3
    assert "The rest is on the request's page." not in text


def test_whatever_a_mail_cuts_it_says_so_and_where_the_rest_is(card: Card, now: datetime) -> None:
    whole = "word " * 6_000
    fields = (CardField("plan", "Plan", whole, "long", pinned=True), CardField("name", "Name", "n" * 900))
    spoken = tuple(CardComment(Name("bo@acme.eu", "Bo"), at=now, via="slack", comment="c" * 900) for _ in range(2))
    cut = shortened(replace(card, fields=fields, comments=spoken), LONGEST_MAIL_VALUE)
    message = parsed(mail(cut, now))
    text, html = (" ".join(part(message, kind).split()) for kind in ("plain", "html"))
    mark = f"… (30,000 characters, SHA-256 {hashlib.sha256(whole.encode()).hexdigest()[:32]})"
    assert text.count(mark) == html.count(mark) == text.count("SHA-256") == 1
    assert text.count("The rest is on the request's page.") == 2  # of the line, and of the text
    assert html.count("Read the rest on the request's page") == 2
    assert "All comments in full are on the request's page." in text
    assert "word " * 4_000 in text
    assert "The rest is" not in part(parsed(mail(card, now)), "plain")
