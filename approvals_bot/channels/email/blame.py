"""The blame for a mail server's refusal, by its code, its enhanced status, or else its words. Pure.

A refusal of our account concerns all mail, one of the message only that mail, and neither says anything about the
recipient: such mails are kept and tried again. Only what the recipient's side has decided is final.

Sources: the registry of enhanced status codes (RFC 3463, 4954, 5248, 6710, 7293, 7372, 7504, 7505, 8689), Exchange
Online ("Email nondelivery reports and SMTP errors", learn.microsoft.com), Gmail ("SMTP errors and codes", support.
google.com/a/answer/3726730), Amazon SES ("SMTP response codes returned by Amazon SES"), Postfix's and Exim's own texts.
"""

from __future__ import annotations

import re
from typing import Literal

Blame = Literal["nobody", "account", "message", "recipient"]
"""`nobody`: a server is busy, or greylists us. `account`: all our mail has this trouble: a login, a quota, the sender.
`message`: a filter refused this mail, and may be mended. `recipient`: their mailbox or its owner's rules refuse it."""

Command = Literal["login", "sender", "recipient", "text"]
"""The command that was answered. `login`: anything before the first mail, the greeting too."""

_STATUS = re.compile(r"\s*#?([245])\.(\d{1,3})\.(\d{1,3})\b")
_STATUS_AT_END = re.compile(r".*\(#([245])\.(\d{1,3})\.(\d{1,3})\)\s*", re.DOTALL)  # as qmail writes it

_BY_STATUS: dict[str, Blame] = {
    # X.1, addresses: the sender's are ours.
    "1.7": "account",  # its syntax
    "1.8": "account",  # its system; Exchange: blocked, because spam was sent from the account
    "1.90": "account",  # Exchange: the daily limit of recipients
    # X.2, mailboxes: what Exchange says here about the sender
    "2.121": "nobody",  # the mailbox takes only so many mails an hour …
    "2.122": "nobody",  # … or only so many of ours
    "2.252": "account",  # SendAsDenied
    "3.4": "message",  # too big: we wrote it
    # X.4, networks and routes
    "4.5": "account",  # Gmail: the daily limit
    "4.7": "nobody",  # delivery time expired
    # X.7, security and policy. What isn't listed is a filter's verdict on one mail.
    "7.2": "recipient",  # may not send to this mailing list
    "7.3": "account",  # Exchange: not logged in
    "7.8": "account",  # wrong credentials
    "7.13": "account",  # the account is disabled
    "7.14": "account",  # Gmail: sign in with a browser first
    "7.15": "recipient",  # too low a priority
    "7.17": "recipient",  # the mailbox has a new owner
    "7.18": "recipient",  # the domain has a new owner
    **dict.fromkeys(("7.20", "7.21", "7.22"), "account"),  # DKIM
    **dict.fromkeys(("7.23", "7.24"), "account"),  # SPF
    "7.25": "account",  # no reverse DNS
    "7.26": "account",  # several checks of the sender fail
    "7.27": "account",  # the sender's domain takes no mail
    "7.28": "account",  # too much mail from us
    "7.30": "account",  # Exchange: no login by password any more
    "7.57": "account",  # Exchange: not logged in
    "7.60": "account",  # Exchange: SendAsDenied
    "7.64": "account",  # Exchange: our server belongs to no tenant
    "7.124": "recipient",  # Exchange: only some people may write to this group …
    "7.129": "recipient",  # … to this mailbox
    "7.133": "recipient",  # the group takes no mail from outside
    "7.134": "recipient",  # nor does the mailbox
    "7.135": "recipient",  # nor the public folder
    "7.136": "recipient",  # nor the contact
    "7.139": "account",  # Exchange: this account may not log in by SMTP
    **dict.fromkeys(("7.501", "7.502", "7.503", "7.508", "7.509", "7.511"), "account"),  # Exchange: blocked, DMARC
    **dict.fromkeys((f"7.{number}" for number in range(606, 650)), "account"),  # Exchange: banned addresses
    **dict.fromkeys((f"7.{number}" for number in range(700, 751)), "account"),  # Exchange: limits of a tenant
}
_BY_SUBJECT: dict[str, Blame] = {
    "1": "recipient",
    "2": "recipient",
    "3": "recipient",
    "4": "recipient",
    "5": "message",  # a command or its order: a newer release of us or of the relay may mend it
    "6": "recipient",  # a content that their server can't take
    "7": "message",
}
_BY_CODE: dict[int, Blame] = {
    **dict.fromkeys((521, 556), "recipient"),  # takes no mail at all (RFC 7504)
    **dict.fromkeys((550, 551, 552, 553), "recipient"),  # RFC 5321: the mailbox
}
_LOGIN = (530, 534, 535, 538)  # RFC 4954 and 3207: log in or encrypt first; wrong credentials

_IN_A_MAILBOX = re.compile(
    r"mailbox(?!\stable)|inbox|over ?quota|user.{0,30}is full|recipient.{0,30}(quota|full)|@\S+\s+has\s+exceeded\s+its",
    re.IGNORECASE,
)
_WORDS_OF_A_MAILBOX: tuple[tuple[str, Blame], ...] = (
    # Exchange's own names for the recipient's rules, with whatever code before them
    (r"RESOLVER\.RST\.(AuthRequired|NotAuthorized|SenderNotAuth|RestrictedTo)", "recipient"),
    (r"SendAsDenied|not allowed to send as", "account"),
    (r"receiving mail (too quickly|at a rate)", "nobody"),  # Gmail
    # Outlook.com says the first with 5.5.0, Yahoo the second with 554
    (r"mailbox (is )?(unavailable|disabled|full|over ?quota)", "recipient"),
)
_WORDS: tuple[tuple[str, Blame], ...] = (
    *_WORDS_OF_A_MAILBOX,
    (r"(message|mail)( size)? (is )?(too (big|large|long)|exceeds?\b.{0,40}\bsize)", "message"),
    (r"(send|message|mail|recipient|smtp)\w*[ -](limit|quota|rate|credit)s?\b.{0,20}(exceed|reach)", "account"),
    (r"(exceed|reach)\w* (the|your|its|our)\b.{0,40}\b(limit|quota|rate)", "account"),
    (r"(daily|hourly|monthly|24[ -]hour)\b.{0,40}\b(limit|quota)", "account"),
    (r"maximum (sending rate|credits)|too many (messages|mails|emails)|exceeded the max\b.{0,40}\bper hour", "account"),
    (r"not (been )?verified|verified sender|sending (has been |is )?(paused|suspended|disabled)", "account"),  # SES
    (r"recipient('s)? account|account of the recipient|account has been disabled or discontinued", "recipient"),
    (r"account\b.{0,40}\b(suspended|disabled|blocked|deactivated|under review|locked)", "account"),
    (r"bad outbound sender|blocked from sending|not allowed to send|unauthenticated sender", "account"),
    (r"sender (address )?(rejected|verify failed|verification failed)|not owned by user", "account"),
    (r"relay(ing)? (access )?(is )?(denied|not (allowed|permitted))|unable to relay|rcpthosts", "account"),
    (r"not (been )?authenticated|auth(entication)? (is )?required|must issue a starttls|fail\w* to auth", "account"),
    (r"(black|block|deny) ?(ed )?list|blocked using|spamhaus|dnsbl|client host.{0,60}(blocked|rejected)", "account"),
    (r"poor reputation|(?<!not )listed (at|in|on|by) |ipcheck|helo name", "account"),
    (r"\b(spf|dkim|dmarc)\b|open-?spf\.", "account"),
    (
        r"(not a valid|no such|unknown|invalid) (recipient|user)|doesn't have an? \S+ account|suppression list",
        "recipient",
    ),
)
_WORDS_OF_A_FILTER = re.compile(
    r"spam|virus|malware|phish|polic(y|ies)|prohibit|reject\w* (by|due to)|filter|content|harmful|badmailfrom",
    re.IGNORECASE,
)
"""A filter's words, which count where no status says more: 550 alone is used for all there is."""


def blame_for(code: int, text: str, command: Command) -> Blame:
    """Return who is to blame for this reply. `text`: without the code, such as `5.4.5 Daily limit exceeded`."""
    status = _status_of(text)
    own = status.partition(".")[2]
    if code < 500 or status.startswith("4."):
        return "nobody"
    if own in _BY_STATUS:
        return _BY_STATUS[own]
    if command == "login" or code in _LOGIN:
        return "account"
    subject = own.partition(".")[0]
    said = _by_words(text, is_of_mailbox=subject == "2")
    if said is not None:
        return said
    if command == "sender" and subject not in ("3", "6"):
        return "message" if code == 552 else "account"  # 552: this mail is too big
    if subject in ("", "0") and _WORDS_OF_A_FILTER.search(text) and not _IN_A_MAILBOX.search(text):
        return "message"
    return _BY_SUBJECT.get(subject) or _BY_CODE.get(code, "message")


def blame_for_report(status: str, words: str) -> Blame:
    """Return who is to blame for a failure that was reported later: by the report's status, and the server's words.

    The relay has given up, so what would pass in time is the recipient's by now.
    """
    found = re.search(r"\b(5\d\d)[ -](.*)", words, re.DOTALL)
    code, text = (int(found[1]), found[2]) if found else (550, words)
    blame = blame_for(code, text if _status_of(text) else f"{status} {text}", "text")
    return "recipient" if blame == "nobody" else blame


def _status_of(text: str) -> str:
    """Return the enhanced status that a reply begins with, such as `5.1.1`; "" without one."""
    found = _STATUS.match(text) or _STATUS_AT_END.fullmatch(text)
    return ".".join(found.groups()) if found else ""


def _by_words(text: str, *, is_of_mailbox: bool) -> Blame | None:
    table = _WORDS_OF_A_MAILBOX if is_of_mailbox or _IN_A_MAILBOX.search(text) else _WORDS
    return next((blame for words, blame in table if re.search(words, text, re.IGNORECASE)), None)
