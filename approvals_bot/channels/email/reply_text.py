"""What a reply says and where it is from: its author, whether a server vouches for them, and their own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses
from html.parser import HTMLParser
from typing import Any

from approvals_bot.approvals.card_model import ChoiceName
from approvals_bot.approvals.plain_text import clean
from approvals_bot.people import AddressError, canonical

WORDS: dict[str, ChoiceName] = {"approve": "approve", "reject": "reject", "request changes": "changes"}
"""The choices that a reply can make, each with its word. The others need a page."""

LONGEST = 20_000  # characters of a reply that are looked at

_AUTOMATIC = ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress", "X-Loop", "Feedback-ID")
_OF_LISTS = (
    "Mailing-List",
    "X-Mailing-List",
    "X-BeenThere",
    "X-Google-Group-Id",
    "X-Mailman-Version",
    "X-Original-From",
)
_PRECEDENCE = ("bulk", "junk", "list", "auto_reply")
_REPORTS = ("multipart/report", "message/disposition-notification")

# What mail programs put above what they quote, in the languages of our users.
_ON = "on|am|le|el|il|op|den|em|w dniu|dne|pe"
_WROTE = "wrote|schrieb|a écrit|escribió|ha scritto|schreef|skrev|escreveu|napisał|napsal|kirjoitti"
_FORWARDED = (
    "original message|begin forwarded message|forwarded message|ursprüngliche nachricht|weitergeleitete nachricht|"
    "message d'origine|mensaje original|messaggio originale|oorspronkelijk bericht"
)
_FROM = "from|von|de|da|van|från|fra|od"
_SENT_FROM = "sent from|sent with|gesendet von|envoyé de|enviado desde|get outlook for"
_QUOTE = re.compile(r"\s*[>|]")
_ATTRIBUTION = re.compile(rf"\s*({_ON}) .{{0,300}}({_WROTE}).{{0,60}}:\s*", re.IGNORECASE | re.DOTALL)
_BORDER = re.compile(
    rf"\s*(_{{8,}}|-{{2,}} ?({_FORWARDED}).{{0,20}}|({_FORWARDED}):|({_FROM})\s?: .*@.*)\s*", re.IGNORECASE
)
_SIGNATURE = re.compile(rf"--|({_SENT_FROM}) .{{0,60}}", re.IGNORECASE)
# In any language: who wrote when, with an address, and a colon; the headers of a mail, one a line; and a link of ours,
# which is its reader's own and must not end up in a comment.
_TIME = re.compile(r"\d{1,2}[:.h時]\d{2}")
_DATED = re.compile(r"20\d\d\D.*?\d{1,2}[:.]\d{2}")
_AUTHOR = re.compile(r"\S@\S")
_HEADER = re.compile(r"\*?[^\W\d_][^\s:：]{0,20}( [^\s:：]{1,20})?\s?[:：]\*?\s.*")
_OWN_LINK = re.compile(r"https?://\S+/decisions/\S{10,}")
_QUOTED_PART = re.compile(r"gmail_quote|divRplyFwdMsg|appendonsend|moz-cite-prefix|yahoo_quoted")


@dataclass(frozen=True, slots=True)
class ReplyMail:
    """A reply, as far as it matters.

    `author`: the one address in From; "" unless there is exactly one. `recipients`: To and Cc. `vouched_by`: the
    trusted server that says `dmarc=pass` for the author's domain; "" if none does. `own_text`: without what is quoted
    and the signature. `is_plain`: whether a plain part has it; in HTML, what people see is a guess.
    """

    author: str
    recipients: tuple[str, ...]
    message_id: str
    is_automatic: bool
    vouched_by: str
    own_text: str
    is_plain: bool

    @property
    def first_line(self) -> str:
        return self.own_text.partition("\n")[0].strip()

    @property
    def rest(self) -> str:
        return self.own_text.partition("\n")[2].strip()


def read_reply(content: bytes, trusted: Sequence[str]) -> ReplyMail:
    """Read a reply. `trusted`: the servers whose Authentication-Results count.

    A stranger's bytes may make Python's parser raise anything.
    """
    mail = message_from_bytes(content)
    authors = _addresses(mail, "From")
    author = authors[0] if len(authors) == 1 else ""
    text, is_plain = _text(mail)
    return ReplyMail(
        author,
        tuple(_addresses(mail, "To", "Cc")),
        " ".join(str(mail.get("Message-ID", "")).split()),
        _is_automatic(mail),
        _vouched_by(mail, author, trusted),
        own_words(text),
        is_plain,
    )


def own_words(text: str) -> str:
    """Return what the author of a reply wrote above what they answer, without the signature."""
    lines = clean(text[:LONGEST]).replace("\u00a0", " ").splitlines()
    end = next((number for number in range(len(lines)) if _ends_own_words(lines[number : number + 5])), len(lines))
    return "\n".join(line.rstrip() for line in lines[:end]).strip()


def _ends_own_words(lines: Sequence[str]) -> bool:
    """Return whether the first of these lines begins a quotation or a signature."""
    if _QUOTE.match(lines[0]) or _BORDER.fullmatch(lines[0]) or _SIGNATURE.fullmatch(lines[0].strip()):
        return True
    if _OWN_LINK.search(lines[0]) or _are_headers(lines):
        return True
    # Mail programs wrap "On …, … wrote:" over up to three lines.
    joined = [" ".join(lines[:count]) for count in range(1, min(3, len(lines)) + 1)]
    return any(map(_ATTRIBUTION.fullmatch, joined)) or any(_says_who_and_when(lines[0], line) for line in joined)


def _says_who_and_when(first: str, whole: str) -> bool:
    """Return whether this is `2026年11月4日 10:05 Approvals <approvals@acme.eu>:` in any language."""
    begins = _AUTHOR.search(first) or _TIME.search(first)
    return bool(begins and whole.rstrip().endswith((":", "：")) and _AUTHOR.search(whole) and _TIME.search(whole))


def _are_headers(lines: Sequence[str]) -> bool:
    """Return whether these lines begin with three headers of a mail: with an address in them, or a whole date."""
    first = [line.strip() for line in lines[:3]]
    if len(first) < 3 or not all(_HEADER.fullmatch(line) for line in first):
        return False
    shown = "\n".join(line.strip() for line in lines)
    return bool(_AUTHOR.search(shown) or any(_DATED.search(line) for line in lines))


def _addresses(mail: Message[Any, Any], *headers: str) -> list[str]:
    """Return the addresses in these headers; "" stands for each that is none."""
    found = getaddresses([str(value) for header in headers for value in mail.get_all(header, ())])
    return [_canonical(address) for _, address in found]


def _canonical(address: str) -> str:
    try:
        return canonical(address)
    except AddressError:
        return ""


def _is_automatic(mail: Message[Any, Any]) -> bool:
    """Return whether a program sent this: a holiday's notice, a list, a report (RFC 3834, and older custom)."""
    says = str(mail.get("Auto-Submitted", "no")).partition(";")[0].strip().lower()
    precedence = str(mail.get("Precedence", "")).strip().lower()
    is_null = str(mail.get("Return-Path", "")).strip() == "<>"
    is_of_list = any(name in mail for name in _OF_LISTS) or any(str(name).lower().startswith("list-") for name in mail)
    is_marked = is_of_list or any(name in mail for name in _AUTOMATIC)
    is_report = mail.get_content_type() in _REPORTS
    return says != "no" or precedence in _PRECEDENCE or is_null or is_marked or is_report


def _vouched_by(mail: Message[Any, Any], author: str, trusted: Sequence[str]) -> str:
    """Return the trusted server that says `dmarc=pass` about the author's domain.

    The server puts its header on top, and takes away those that claim to be its own (RFC 8601, 5). In case it doesn't,
    its topmost word on DMARC counts, and any other must agree.
    """
    domain = author.rpartition("@")[2]
    said = [
        (server, result, of)
        for value in mail.get_all("Authentication-Results", ())
        for server, result, of in _dmarc(str(value))
        if server in trusted
    ]
    is_passed = bool(said) and all(result == "pass" and of in ("", domain) for _, result, of in said)
    return said[0][0] if is_passed and domain else ""


def _dmarc(header: str) -> Iterator[tuple[str, str, str]]:
    """Yield the server, each result that it says for DMARC, and the domain that this is about; "" if it is silent."""
    plain = _without_comments(header)
    server, *results = plain.split(";")
    words = server.split()
    for result in results:
        found = re.match(r"\s*dmarc\s*(?:/\s*\d+\s*)?=\s*([a-z]+)\b", result, re.IGNORECASE)
        if found is not None and words:
            of = re.search(r"\bheader\.from\s*=\s*(\S+)", result, re.IGNORECASE)
            yield words[0].lower(), found[1].lower(), _domain(of[1]) if of else ""


def _domain(text: str) -> str:
    return _canonical(f"x@{text.rpartition('@')[2]}").rpartition("@")[2] or "?"


def _without_comments(header: str) -> str:
    """Return a header without its comments, and with nothing in its quoted strings that has a meaning outside.

    Both may repeat what a stranger wrote, such as `(dmarc=pass)`.
    """
    plain, depth, is_quoted, skips = list[str](), 0, False, False
    for sign in header:
        if skips:
            skips = False
        elif sign == "\\" and (depth or is_quoted):
            skips = True
        elif is_quoted:
            is_quoted = sign != '"'
            plain.append("_" if sign in ";=()\\ " else "" if sign == '"' else sign)
        elif sign == "(":
            depth += 1
        elif depth:
            depth -= sign == ")"
        elif sign == '"':
            is_quoted = True
        else:
            plain.append(sign)
    return "".join(plain) if not depth and not is_quoted else ""


def _text(mail: Message[Any, Any]) -> tuple[str, bool]:
    """Return a mail's text, and whether it is a plain part's: the first text that isn't a file or another mail's."""
    part = next(_texts(mail), None)
    if part is None:
        return "", False
    text = _decoded(part)
    return (text, True) if part.get_content_type() == "text/plain" else (_seen(text), False)


def _texts(mail: Message[Any, Any]) -> Iterator[Message[Any, Any]]:
    """Yield the texts of a mail in their order. What others wrote comes as a message in it, or as a file."""
    is_file = mail.get_content_disposition() == "attachment" or mail.get_filename() is not None
    payload = mail.get_payload()
    if mail.get_content_maintype() == "multipart" and isinstance(payload, list):
        for part in payload:
            if isinstance(part, Message):
                yield from _texts(part)
    elif mail.get_content_type() in ("text/plain", "text/html") and not is_file:
        yield mail


def _decoded(part: Message[Any, Any]) -> str:
    raw = part.get_payload(decode=True)
    content = raw if isinstance(raw, bytes) else b""
    try:
        return content.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return content.decode("utf-8", "replace")


class _SeenText(HTMLParser):
    """The text of an HTML part, up to where a mail program begins to quote."""

    def __init__(self) -> None:
        super().__init__()
        self.text = list[str]()
        self.is_over = False
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = " ".join(value or "" for name, value in attrs if name in ("class", "id"))
        if tag == "blockquote" or _QUOTED_PART.search(names):
            self.is_over = True
        self._hidden += tag in ("style", "script", "head")
        if tag in ("br", "p", "div", "tr", "li"):
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script", "head") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self.is_over and not self._hidden:
            self.text.append(" ".join(data.split()) if data.strip() else " ")


def _seen(html: str) -> str:
    reader = _SeenText()
    reader.feed(html[: 5 * LONGEST])
    return "".join(reader.text)
