"""Replies to our mails: comments, votes where the workflow says so, and what only looks like a vote."""

from __future__ import annotations

import asyncio
import base64
import quopri
import smtplib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

import pytest

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.email.bounces import Reports, ReturnPaths
from approvals_bot.channels.email.inbound import Inlet
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.email.replies import ReplyAddresses, ReplyInlet
from approvals_bot.channels.email.reply_text import own_words, read_reply
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.playground.mailbox import MailServer, ReceivedMail
from approvals_bot.service.catalog import Listed
from approvals_bot.service.host import ChannelHost
from tests.support.posting import a_posting_service

KEYS = Tokens(["a-key-of-these-tests-that-has-32-bytes!"], installation="one")
PASSED = "mx.acme.eu; spf=pass smtp.mailfrom=acme.eu; dkim=pass header.d=acme.eu; dmarc=pass header.from=acme.eu"


def by_reply(decides: bool, **deliver: Any) -> Definition:
    ways = {"email_replies": "decide", "i_know": True} if decides else {}
    name = "by-reply" if decides else "by-page"
    return Definition.model_validate(
        {
            "workflow": {"id": name, "title": "Deploy api {{ version }}", "request": ["*"]},
            "fields": {"version": {"type": "string", "pinned": True}, "plan": {"type": "text", "required": False}},
            "stage": [{"id": "go", "from": ["ann@acme.eu", "bo@acme.eu"], "need": 2}],
            "policy": {"outcomes": ["approve", "reject", "changes"]},
            "deliver": {"email": True, **ways, **deliver},
            "clock": {"deadline": "4h"},
        }
    )


@dataclass
class Post:
    """A service whose replies come to `port`."""

    service: Any
    mailbox: MailServer
    port: int

    async def open(self, workflow: str, **fields: str) -> str:
        run: str = await self.service.start(workflow, {"version": "2.1"} | fields, requester="di@acme.eu")
        return run

    def to(self, person: str) -> ReceivedMail:
        """The newest mail to this person."""
        return next(mail for mail in reversed(self.mailbox.mails) if mail.to == person)

    async def send(self, to: str, content: bytes, sender: str = "ann@acme.eu") -> int:
        return (await self.send_all([(to, content, sender)]))[0]

    async def send_all(self, mails: Sequence[tuple[str, bytes, str]]) -> list[int]:
        codes = await asyncio.to_thread(self._send, mails)
        await self.service.engine.settle()
        return codes

    def _send(self, mails: Sequence[tuple[str, bytes, str]]) -> list[int]:
        codes = []
        with smtplib.LMTP("127.0.0.1", self.port, timeout=20) as line:
            line.ehlo_or_helo_if_needed()
            for to, content, sender in mails:
                line.rset()
                line.mail(sender)
                code, _ = line.rcpt(to)
                codes.append(line.data(content)[0] if code == 250 else code)
        return codes

    async def votes(self, run: str) -> list[tuple[str, str, str]]:
        request = Request.model_validate(await self.service.view(run))
        return [(vote.by, vote.choice, vote.vote.comment) for vote in request.votes]


@pytest.fixture
async def post(open_service: Any) -> AsyncIterator[Post]:
    async with a_post(open_service) as opened:
        yield opened


@asynccontextmanager
async def a_post(open_service: Any) -> AsyncIterator[Post]:
    addresses = ReplyAddresses("reply@acme.eu", KEYS)
    async with a_posting_service(open_service, "https://approve.acme.eu", replies=addresses) as (service, mailbox):
        for definition in (by_reply(True), by_reply(False)):
            workflow = approval.under(definition.id, pinned(definition))
            service.workflows[definition.id] = Listed(workflow, definition)
        host = ChannelHost(
            engine=service.engine,
            tokens=KEYS,
            people=service.engine.resources[People],
            workflows=service.workflows,
            base_url="https://approve.acme.eu",
            now=service.clock.now,
            link=service.link_of_hook,
            counted=lambda *_: None,
        )
        inlets: list[Inlet] = [
            ReplyInlet(host, addresses, ["mx.acme.eu"], service.mailer.answer),
            Reports(service.engine, ReturnPaths("bounces@acme.eu", KEYS)),
        ]
        async with mail_in(inlets=inlets, sock=socket.create_server(("127.0.0.1", 0))) as port:
            yield Post(service, mailbox, port)


def reply_to(mail: ReceivedMail) -> str:
    return parseaddr(mail.headers["Reply-To"])[1]


def a_reply(
    mail: ReceivedMail,
    text: str,
    *,
    author: str = "Ann Ode <ann@acme.eu>",
    to: str = "",
    results: str = PASSED,
    more: str = "",
    number: int = 0,
) -> bytes:
    """A reply as Gmail writes it, after the server of acme.eu has looked at it."""
    quoted = "\n".join(f"> {line}" for line in mail.text.splitlines())
    lines = [
        *(f"Authentication-Results: {line}" for line in results.splitlines()),
        f"From: {author}",
        f"To: Di via Approvals <{to or reply_to(mail)}>",
        f"Subject: Re: {mail.subject}",
        f"Message-ID: <reply-{number}-{abs(hash(text))}@mail.acme.eu>",
        f"In-Reply-To: {mail.headers['Message-ID']}",
        *more.splitlines(),
        "MIME-Version: 1.0",
        *(["Content-Type: text/plain; charset=utf-8"] if "content-type" not in more.lower() else []),
        "",
        text,
        "",
        "On Wed, 4 Nov 2026 at 11:05, Approvals <approvals@acme.eu> wrote:",
        "",
        quoted,
    ]
    return "\n".join(lines).replace("\n", "\r\n").encode()


@pytest.mark.check(59)
async def test_a_right_reply_is_a_vote_confirmed_with_undo(post: Post) -> None:
    run = await post.open("by-reply")
    mail = post.to("ann@acme.eu")
    assert "reply with approve, reject or request changes alone on the first line" in " ".join(mail.text.split())
    assert len(reply_to(mail).partition("@")[0]) <= 64
    reply = a_reply(mail, "Approve\n\nAfter lunch, please.\n-- \nAnn Ode\nHead of everything")
    assert await post.send(reply_to(mail), reply) == 250
    assert await post.votes(run) == [("ann@acme.eu", "approve", "After lunch, please.")]
    confirmed = post.to("ann@acme.eu")
    assert "Your vote has been counted" in confirmed.text
    assert "Not you? You can undo this vote" in confirmed.text
    before, lines = len(post.mailbox.mails), await post.service.engine.audit_lines()
    acted = next(line.entry for line in lines if line.entry.what == "acted")
    assert (acted.actor or {}) == {"kind": "mail", "id": "ann@acme.eu", "peer": "mx.acme.eu"}
    assert await post.send(reply_to(mail), reply) == 250  # delivered again: nothing more happens
    assert await post.votes(run) == [("ann@acme.eu", "approve", "After lunch, please.")]
    assert len(post.mailbox.mails) == before
    await post.service.api.post(f"/api/runs/{run}/votes", json={"by": "ann@acme.eu", "choice": "take_back"})
    await post.service.engine.settle()
    assert await post.send(reply_to(mail), reply) == 250  # not even after the vote was undone
    assert [vote.counts for vote in Request.model_validate(await post.service.view(run)).votes] == [False]
    second = post.to("bo@acme.eu")
    html = "Content-Type: multipart/alternative; boundary=b"
    parts = ("Content-Type: text/plain\n\n  REJECT\n\nToo late in the day.", "Content-Type: text/html\n\n<p>x</p>")
    body = "--b\n" + "\n--b\n".join(parts) + "\n--b--"
    content = a_reply(second, body, author="bo@acme.eu", more=html)
    assert await post.send(reply_to(second).upper(), content, "bo@acme.eu") == 250
    assert (await post.service.view(run))["state"] == "rejected"
    assert (await post.votes(run))[-1] == ("bo@acme.eu", "reject", "Too late in the day.")


ASKED = "Which of the two services?\n\nAnn"


@pytest.mark.check(59)
async def test_other_words_are_a_comment_and_decide_nothing(post: Post) -> None:
    run = await post.open("by-page")
    mail = post.to("ann@acme.eu")
    assert "becomes a comment and decides nothing" in " ".join(mail.text.split())
    before = len(post.mailbox.mails)
    assert await post.send(reply_to(mail), a_reply(mail, ASKED)) == 250
    (comment,) = Request.model_validate(await post.service.view(run)).comments
    assert (comment.act.by, comment.act.text, comment.act.via) == ("ann@acme.eu", ASKED, "email")
    assert comment.act.actor == Actor("mail", "ann@acme.eu", peer="mx.acme.eu")
    assert await post.votes(run) == []
    assert not [mail for mail in post.mailbox.mails[before:] if mail.to == "ann@acme.eu"]


@pytest.mark.check(59)
async def test_a_choice_that_cannot_count_is_answered_once_an_hour(post: Post) -> None:
    run = await post.open("by-page")
    mail = post.to("ann@acme.eu")
    before = len(post.mailbox.mails)
    for number in range(3):
        assert await post.send(reply_to(mail), a_reply(mail, "approve", number=number)) == 250
    (answer,) = post.mailbox.mails[before:]
    assert (answer.to, answer.envelope_sender) == ("ann@acme.eu", "<>")
    assert "Your reply changed nothing: this request is decided on its page" in answer.text
    assert "https://approve.acme.eu/decisions/" in answer.text
    assert answer.headers["Auto-Submitted"] != "no"
    await post.service.clock.advance("61m")
    before = len(post.mailbox.mails)
    assert await post.send(reply_to(mail), a_reply(mail, "reject", number=9)) == 250
    assert [each.to for each in post.mailbox.mails[before:]] == ["ann@acme.eu"]
    assert await post.votes(run) == []
    refused = [line.entry for line in await post.service.engine.audit_lines() if line.entry.what == "reply_refused"]
    assert {each.data["because"] for each in refused} == {"not_allowed"}


WAYS: dict[str, dict[str, str]] = {
    # Spoofed: no word of a server that we trust says that From is true.
    "nobody vouches": {"results": ""},
    "a server that we don't trust": {"results": PASSED.replace("mx.acme.eu", "mx.evil.example")},
    "a similar name": {"results": PASSED.replace("mx.acme.eu", "mx.acme.eu.evil.example")},
    "it failed": {"results": PASSED.replace("dmarc=pass", "dmarc=fail")},
    "only the envelope": {"results": "mx.acme.eu; spf=pass smtp.mailfrom=acme.eu; dkim=pass header.d=evil.example"},
    "no policy": {"results": PASSED.replace("dmarc=pass", "dmarc=none")},
    "a forged word below the true one": {"results": f"mx.acme.eu; dmarc=fail header.from=acme.eu\n{PASSED}"},
    "a forged word above the true one": {"results": f"{PASSED}\nmx.acme.eu; dmarc=fail header.from=acme.eu"},
    "in a comment": {"results": "mx.acme.eu; dmarc=fail (dmarc=pass); spf=pass (sender; dmarc=pass (x))"},
    "in a quotation": {"results": 'mx.acme.eu; spf=pass smtp.mailfrom="x; dmarc=pass"@evil.example'},
    "for another domain": {"results": PASSED.replace("header.from=acme.eu", "header.from=evil.example")},
    "an ARC header": {"results": "", "more": f"ARC-Authentication-Results: i=1; {PASSED}"},
    "a broken comment": {"results": f"(((( {PASSED}"},
    "the right name, another address": {"author": '"ann@acme.eu" <ann@evil.example>', "results": PASSED},
    "two authors": {"author": "ann@acme.eu, mallory@evil.example"},
    "two From headers": {"more": "From: mallory@acme.eu"},
    "a colleague": {"author": "Bo Lund <bo@acme.eu>"},
    "a stranger of our company": {"author": "mallory@acme.eu"},
    # Automatic
    "out of office": {"more": "Auto-Submitted: auto-replied"},
    "generated": {"more": "Auto-Submitted: auto-generated; owner-email=x"},
    "vacation": {"more": "Precedence: bulk"},
    "Exchange's holiday": {"more": "X-Auto-Response-Suppress: All"},
    "an autoresponder": {"more": "X-Autoreply: yes"},
    "a list": {"more": "List-Id: <all.acme.eu>"},
    "ezmlm": {"more": "Mailing-List: contact all-help@acme.eu; run by ezmlm"},
    "Majordomo": {"more": "X-Mailing-List: all@acme.eu"},
    "Mailman, its List headers taken off": {"more": "X-BeenThere: all@acme.eu\nX-Mailman-Version: 2.1.39"},
    "Google Groups, From rewritten": {
        "author": "'Ann Ode' via All <ann@acme.eu>",
        "more": "X-Original-From: Ann Ode <ann@acme.eu>\nX-Google-Group-Id: 1\nReply-To: All <all@acme.eu>",
    },
    "a receipt": {"more": "Content-Type: multipart/report; report-type=disposition-notification; boundary=b"},
    "another's address in To": {"to": "approvals@acme.eu"},
}
TEXTS = {
    "Gmail's quotation": "On Wed, 4 Nov 2026 at 11:05, Approvals <approvals@acme.eu>\nwrote:\n\napprove",
    "a quotation": "> approve",
    "a deeper one": ">> approve\n> approve",
    "Outlook's border": "________________________________\nFrom: Approvals <approvals@acme.eu>\nSent: today\n\napprove",
    "the original": "-----Original Message-----\napprove",
    "forwarded": "---------- Forwarded message ---------\nFrom: Bo <bo@acme.eu>\n\napprove",
    "forwarded by an iPhone": "Begin forwarded message:\n\napprove",
    "a German quotation": "Am 4. November 2026 um 11:05 schrieb Approvals <approvals@acme.eu>:\napprove",
    "a French one": "Le mer. 4 nov. 2026 à 11:05, Approvals <approvals@acme.eu> a écrit :\napprove",
    "a signature": "-- \napprove",
    "a phone's signature": "Sent from my phone\napprove",
    "more words": "I approve",
    "the past": "approved",
    "a question": "approve?",
    "both": "approve or reject",
    "not yet": "approve later",
    "negation": "Do not approve",
    "the second line": "Hello,\napprove",
    "a button's long label": "Approve: Deploy api 2.1",
    "yes": "yes",
    "emphasis": "*approve*",
    "a look-alike": "аpprove",  # Cyrillic а
    "an invisible joint": "appro\u200bve it",
    "nothing": "",
    "a link": "https://approve.acme.eu",
}


def only_alike(mail: ReceivedMail, others: ReceivedMail, old: ReceivedMail) -> Iterator[tuple[str, bytes, str]]:
    """Mails that look like approving replies of Ann, each with its envelope."""
    mine = reply_to(mail)
    local, _, domain = mine.partition("@")
    name, seal = local[:-16], local[-16:]
    for number, way in enumerate(WAYS.values()):
        for text in ("approve", "Approve\n\nFine.", "  APPROVE  ", "reject\n\nNo.", "approve\n> reject"):
            yield mine, a_reply(mail, text, number=number, **way), "ann@acme.eu"
    for text in TEXTS.values():
        yield mine, a_reply(mail, text), "ann@acme.eu"
        encoded = base64.encodebytes(text.encode()).decode()
        head = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64"
        yield mine, a_reply(mail, encoded, more=head).partition(b"\r\n\r\nOn Wed")[0], "ann@acme.eu"
    for to in (
        reply_to(others),  # Bo's address for the same request
        f"{name}{seal[::-1]}@{domain}",
        f"{name}{seal[:8]}{'a' * 8}@{domain}",
        f"{name}{'a' * 8}{seal[8:]}@{domain}",
        f"{name}{reply_to(others).partition('@')[0][-16:]}@{domain}",
        f"bounces+{local.partition('+')[2]}@{domain}",
        "reply@acme.eu",
        reply_to(old),  # of what the request showed before it was edited
    ):
        yield to, a_reply(mail, "approve", to=to), "ann@acme.eu"
        yield to, a_reply(mail, "approve", to=mine), "ann@acme.eu"
    html = "<html><body><p>approve</p><blockquote>x</blockquote></body></html>"
    yield mine, a_reply(mail, html, more="Content-Type: text/html; charset=utf-8"), "ann@acme.eu"
    quoted = quopri.encodestring(b"> approve").decode()
    head = "Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable"
    yield mine, a_reply(mail, quoted, more=head), "ann@acme.eu"
    yield mine, a_reply(mail, "approve"), ""  # from the null sender, as vacation programs send
    for content in (b"", b"\xff\x00", b"From: ann@acme.eu\r\n\r\napprove", b"approve"):
        yield mine, content, "ann@acme.eu"


@pytest.mark.check(59)
async def test_two_hundred_mails_that_only_look_right_decide_nothing(post: Post) -> None:
    run = await post.open("by-reply")
    old = post.to("ann@acme.eu")
    body = {"by": "di@acme.eu", "fields": {"plan": "Another plan."}}
    assert (await post.service.api.patch(f"/api/runs/{run}/fields", json=body)).status_code == 200
    await post.service.engine.settle()
    mail, others = post.to("ann@acme.eu"), post.to("bo@acme.eu")
    assert reply_to(mail) != reply_to(old)
    mails = list(only_alike(mail, others, old))
    assert len(mails) >= 200
    before = len(post.mailbox.mails)
    codes = await post.send_all(mails)
    assert set(codes) <= {250, 550}
    assert (await post.votes(run), (await post.service.view(run)).get("state", "waiting")) == ([], "waiting")
    answered = post.mailbox.mails[before:]
    assert [each.to for each in answered if "Your reply changed nothing" in each.text] == ["ann@acme.eu"]
    assert await post.send(reply_to(mail), a_reply(mail, "approve", number=1_000)) == 250  # and a right one still does
    assert await post.votes(run) == [("ann@acme.eu", "approve", "")]


def test_own_words_end_where_the_quotation_begins() -> None:
    assert own_words("Fine.\n\nBut not on Friday.\n\nOn Wed, Approvals wrote:\n> x") == "Fine.\n\nBut not on Friday."
    assert own_words("On Wednesday it works again: great") == "On Wednesday it works again: great"
    assert own_words("x" * 50_000 + "\n" + "On " * 20_000)[:1] == "x"


OTHERS_WORDS = {
    "a forwarded message": "Content-Type: message/rfc822\n\nFrom: eve@acme.eu\n\nApprove",
    "an attached message": (
        "Content-Type: message/rfc822\nContent-Disposition: attachment\n\n"
        "From: eve@acme.eu\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nApprove\n--c--"
    ),
    "a file shown below": 'Content-Type: text/plain; name="yes.txt"\nContent-Disposition: inline\n\nApprove',
    "a second text": "Content-Type: text/plain\n\nApprove",
}


@pytest.mark.parametrize("part", OTHERS_WORDS.values(), ids=OTHERS_WORDS)
@pytest.mark.parametrize("own", ["", "Content-Type: text/html\n\n<p>Please don't, see below.</p>"])
def test_what_is_attached_to_a_reply_is_not_its_text(part: str, own: str) -> None:
    if part.startswith("Content-Type: text/plain\n") and not own:
        return  # then it is the reply's text
    parts = "\n".join(f"--b\n{each}" for each in (own, part) if each)
    mail = f"From: ann@acme.eu\nContent-Type: multipart/mixed; boundary=b\n\n{parts}\n--b--\n"
    found = read_reply(mail.encode(), [])
    assert (found.first_line, found.is_plain) == ("Please don't, see below." if own else "", False)


def test_a_reply_in_html_alone_is_read_up_to_its_quotation() -> None:
    html = (
        b"Content-Type: text/html\r\n\r\n<html><head><style>p {}</style></head><body><div>Which one?</div>"
        b'<div>Ann</div><div class="gmail_quote">On Wed wrote:<blockquote>approve</blockquote></div></body></html>'
    )
    found = read_reply(html, [])
    assert (found.own_text, found.is_plain) == ("Which one?\nAnn", False)


# What mail programs put between a reply and the mail that it answers, in languages and forms seen in other trackers.
QUOTATIONS = [
    "Fra: Approvals <approvals@acme.eu>\nSendt: 4. november 2026 10:05\nTil: Ann\nEmne: Please decide\n\n",
    "From: Approvals\nSent: Wednesday, November 4, 2026 10:05 AM\nTo: Ann Ode\nSubject: Please decide\n\n",
    "*From:* Approvals <approvals@acme.eu>\n*Sent:* Wed\n*To:* Ann\n\n",
    "在 2026年11月4日,10:05,Approvals <approvals@acme.eu> 写道:\n\n",
    "发件人: Approvals <approvals@acme.eu>\n发送时间: 2026年11月4日 10:05\n收件人: Ann\n主题: x\n\n",
    "2026年11月4日(水) 10:05 Approvals <approvals@acme.eu>:\n\n",
    "差出人: Approvals\n送信日時: 2026年11月4日 10:05\n宛先: Ann\n件名: x\n\n",
    "ср, 4 нояб. 2026 г. в 10:05, Approvals <approvals@acme.eu>:\n\n",
    '4 ноября 2026, 10:05 от "Approvals" <approvals@acme.eu>:\n\n',
    "Approvals <approvals@acme.eu>, 4 Kas 2026 Çar, 10:05 tarihinde şunu yazdı:\n\n",
    "Von: Approvals <approvals@acme.eu>\nGesendet: Mittwoch\nAn: Ann\nBetreff: x\n\n",
    "Sent with Proton Mail secure email.\n\nOn Wednesday, November 4th, 2026, App <approvals@acme.eu> wrote:\n\n> ",
    "Sent from my Galaxy\n\n-------- Original message --------\nFrom: Approvals\n",
    "Am 04.11.26 um 10:05 schrieb Approvals:\n> ",
    "2026-11-04 10:05 GMT+01:00 Approvals <approvals@acme.eu>:\n\n> ",
    "From:\tApprovals/Acme\nTo:\tAnn\nDate:\t04.11.2026 10:05\nSubject:\tx\n\n",
    "śr., 4 lis 2026 o 10:05 Approvals <approvals@acme.eu> napisał(a):\n\n",
    "2026년 11월 4일 (수) 오전 10:05, Approvals <approvals@acme.eu>님이 작성:\n\n",
    "Le mer. 4 nov. 2026 à 10:05, Approvals <approvals@acme.eu> a écrit :\n\n",
    "",
]
OWN_LINK = "https://approve.acme.eu/decisions/eyJoIjoiT2VISHVl.WrsYOWLB"


@pytest.mark.parametrize("border", QUOTATIONS)
def test_no_quotation_in_any_language_becomes_a_comment(border: str) -> None:
    """Not least because what is quoted has the reader's own link, with which others could decide as them."""
    assert own_words(f"Fine by me\n\n{border}{OWN_LINK}\n") == "Fine by me"


def test_words_that_only_look_like_a_quotation_are_kept() -> None:
    for text in (
        "Window:\nFrom: 22:00\nTo: 23:00\nRisk: low",
        "Ask me at 10:30:\nI'm on call",
        "Contact: ann@acme.eu\nLet me know",
        "See https://approve.acme.eu/requests/run_1",
    ):
        assert own_words(text) == text
