"""The content of a mail: a card, or an operator's text, as a subject, a text part and an HTML part. Pure.

The text part is complete on its own, in the card's order, with the link on a line of its own. The HTML part begins with
what fits a phone's first screen: state, deadline, title, requester and choices. It cuts long text to eight lines and
stays under the size at which Gmail clips a mail; the page behind the link shows the rest.

Outlook for Windows lays mails out with Word, so boxes are table cells, and line breaks and indents are `<br>` and
`&nbsp;`. tests/channels/email/test_mail_clients.py checks every element and property against caniemail's data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import css_inline
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card_model import Card, CardChoice, CardComment, CardField, ChoiceName
from approvals_bot.approvals.plain_text import Whole, clean, clip, clip_rows, clip_value, header, length, one_line
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.approvals.text import CHOSEN
from approvals_bot.channels.email.reply_text import WORDS

HTML_LIMIT = 90_000  # bytes; Gmail clips at 102 KB, transfer encoding and the text part not counted
TEXT_LIMIT = 200_000  # bytes
ROW = 72  # characters that fill a line of the HTML part in a wide window
SHORT_COMMENT = 140  # characters of comments that leave the choices in a phone's first screen, below them
SHORT_BUTTON = 48  # characters: a longer label leaves its button to the verb, since the title is above it

_INLINER = css_inline.CSSInliner(keep_style_tags=True, load_remote_stylesheets=False, extra_css=None)


def _clean(value: Any) -> Any:
    """Show what nobody could see in people's text, such as a name that changes the direction of what comes after it."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _with_breaks(text: str) -> Markup:
    """Keep people's line breaks, indents and runs of spaces without CSS: Outlook ignores `white-space`."""
    lines = escape(clean(text)).replace("\t", "    ").split("\n")
    return Markup("<br>\n").join(Markup(_SPACES.sub(_no_break, line)) for line in lines)  # noqa: S704  # escaped above


def _no_break(spaces: re.Match[str]) -> str:
    """Return as many spaces, none of which collapses; every second one may still break the line."""
    return "".join(" " if at % 2 else "&nbsp;" for at in range(len(spaces[0])))


_SPACES = re.compile("^ +| {2,}")

_TEMPLATES = Environment(
    loader=PackageLoader("approvals_bot.channels.email", "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    finalize=_clean,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["with_breaks"] = _with_breaks


@dataclass(frozen=True, slots=True)
class Letter:
    """The readable part of a mail."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class LetterLimits:
    """How much of a card is shown. The first that fits is used."""

    long: int  # characters of a long text
    short: int
    rows: int  # at most so many fields, votes and seats each
    lines: int | None = None  # of a long text


HTML_LIMITS = (
    LetterLimits(20_000, 500, 60, lines=8),
    LetterLimits(10_000, 300, 30, lines=8),
    LetterLimits(5_000, 120, 15, lines=4),
    LetterLimits(2_000, 80, 8, lines=1),
)
TEXT_LIMITS = (
    LetterLimits(30_000, 500, 60),  # more than a card has of one text, so this cuts none any further
    LetterLimits(3_000, 300, 30),
    LetterLimits(800, 120, 15),
    LetterLimits(120, 80, 8),
)


@dataclass(frozen=True, slots=True)
class Replies:
    """What happens to a reply: it goes to a person (`name`), the service reads it, or nobody does."""

    name: str = ""
    are_read: bool = False


def write(dispatch: Dispatch, now: datetime, replies: Replies = Replies()) -> Letter:
    """Write the letter for this dispatch."""
    dispatch = replace(dispatch, card=_cleaned(dispatch.card))
    for limits in TEXT_LIMITS:
        text = _squeezed(_TEMPLATES.get_template("letter.txt").render(_names(dispatch, now, limits, replies)))
        if len(text.encode()) <= TEXT_LIMIT:
            break
    for limits in HTML_LIMITS:
        html = _INLINER.inline(_TEMPLATES.get_template("letter.html").render(_names(dispatch, now, limits, replies)))
        if len(html.encode()) <= HTML_LIMIT:
            break
    return Letter(subject(dispatch), text, html)


def write_together(dispatches: Sequence[Dispatch], now: datetime) -> Letter:
    """Write one letter about several requests, each with the reader's own link and no choices."""
    to = dispatches[0].to
    assert isinstance(to, ToPerson), "a letter goes to a mailbox"
    zone, count = to.person.zone, len(dispatches)
    rows = [
        {
            "card": dispatch.card,
            "title": one_line(dispatch.card.title, 200),
            "link": dispatch.url,
            "deadline": _deadline(dispatch.card, zone, now),
            "is_reminder": dispatch.occasion == "reminder",
        }
        for dispatch in dispatches
    ]
    titles = "; ".join(one_line(dispatch.card.title, 60) for dispatch in dispatches[:4])
    names: dict[str, Any] = {
        "subject": f"{count} requests are waiting for you",
        "preheader": one_line(titles, 140),
        "rows": rows,
        "moment": lambda at: card_text.moment(at, zone),
        "card_text": card_text,
    }
    html = _INLINER.inline(_TEMPLATES.get_template("digest.html").render(names))
    return Letter(names["subject"], _squeezed(_TEMPLATES.get_template("digest.txt").render(names)), html)


def subject(dispatch: Dispatch) -> str:
    """Return the mail's subject: the outcome, or the subject that its thread began with while there is none.

    An edited title makes no new subject: mailboxes would split the thread.
    """
    card = dispatch.card
    state = header(f"{card_text.result(card)}: {card.title}")
    if dispatch.occasion == "code":
        return header(f"Your code: {card.title}")
    if not card.run_id:  # a notice to somebody who looks after the service, about no request
        return header(card.title)
    if card.outcome is not None:
        return state
    if dispatch.thread is not None:
        return header(f"Re: {dispatch.thread.subject or card.title}")
    if card.choices and not dispatch.text:
        return header(f"Please decide: {card.title}")
    is_change = dispatch.text or dispatch.occasion == "outcome" or card.state != "waiting"
    return state if is_change else header(card.title)


def replying(dispatch: Dispatch, replies: Replies) -> str:
    """Return what a reply does, and where to decide instead."""
    offered = [choice.choice for choice in dispatch.card.choices if not choice.asks]
    words = [word for word, choice in WORDS.items() if choice in offered]
    if replies.are_read and dispatch.card.decides_by_reply and words:
        listed = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        return f"To decide by mail, reply with {listed} alone on the first line. Other replies become comments."
    if replies.are_read:
        does = "A reply to this mail becomes a comment and decides nothing."
    elif replies.name:
        does = f"A reply to this mail goes to {replies.name} and decides nothing."
    else:
        does = "A reply to this mail decides nothing."
    return f"{does} Decide on the request's page." if dispatch.card.choices and dispatch.url else does


def occasion(dispatch: Dispatch) -> str:
    """Return why this mail comes now, in one line; "" where the state says so already."""
    if dispatch.card.outcome is not None or dispatch.text:
        return ""
    match dispatch.occasion:
        case "reminder":
            return "Reminder: this is still waiting for you."
        case "escalation":
            return "Nobody has decided yet, so this has been escalated to you."
        case "change":
            return card_text.changed(dispatch.card, _reader(dispatch))
        case "comment":
            return card_text.commented(_new_comments(dispatch))
        case "reassigned":
            return "This has been reassigned. There's nothing more for you to do."
        case "vote":
            return "Your vote has been counted. There's nothing more for you to do."
        case _:
            return "Your decision is needed." if dispatch.card.choices else ""


def _new_comments(dispatch: Dispatch) -> tuple[CardComment, ...]:
    """Return the comments that this mail is about; for a first mail, the newest one."""
    if dispatch.occasion != "comment" or dispatch.card.outcome is not None:
        return ()
    return dispatch.comments or dispatch.card.comments[-1:]


def not_you(dispatch: Dispatch) -> str:
    """Return the reader's vote, and what to do if it wasn't them; "" for people who haven't voted.

    Anybody who has the link can vote with it, so the person it was made for must hear of each vote. While the request
    is open, they can undo the vote with the link after this sentence; later, only people can help.
    """
    assert isinstance(dispatch.to, ToPerson), "a letter goes to a mailbox"
    card, reader = dispatch.card, dispatch.to.person.address
    mine = [vote for vote in card.votes if vote.by.key == reader and vote.counts]
    if not mine or dispatch.text:
        return ""
    did = f"You {CHOSEN[mine[-1].choice]} {card_text.VIA_WORDS[mine[-1].via]}".rstrip()
    if _can_take_back(card):
        return f"{did}. Not you? You can undo this vote while the request is open:"
    human = next((name.text for name in (card.requester, card.on_behalf_of) if name and "@" in name.key), "")
    contact = f"{human} and your Approvals admin" if human else "your Approvals admin"
    return f"{did}. Not you? The vote can no longer be undone, so please contact {contact} right away."


def _names(dispatch: Dispatch, now: datetime, limits: LetterLimits, replies: Replies) -> dict[str, Any]:
    """Return what the templates of both parts show, cut to these limits."""
    assert isinstance(dispatch.to, ToPerson), "a letter goes to a mailbox"
    card, link = _fitting(dispatch.card, limits), dispatch.url
    card = replace(card, choices=_choices(card, _reader(dispatch)))
    if dispatch.occasion == "code":  # a code is for the page that asked for it, so the mail offers nothing else
        card, link = replace(card, choices=()), ""
    zone = dispatch.to.person.zone
    new_comments = [_fitting_text(clean(made.comment), limits, is_signed=False) for made in _new_comments(dispatch)]
    whole = {field.name: field for field in dispatch.card.fields}
    said = [*dispatch.card.votes, *dispatch.card.comments, *filter(None, [dispatch.card.outcome])]

    def is_cut(field: CardField) -> bool:
        before = whole[field.name]
        is_was_cut = field.is_short and before.was is not None and one_line(before.was) != field.was
        return field.whole is not None or field.value != before.value or is_was_cut

    return {
        "card": card,
        "because": clip(clean(card.outcome.because).strip(), limits.short) if card.outcome else "",
        "reader": one_line(dispatch.to.person.name, 80),
        "subject": subject(dispatch),
        "occasion": occasion(dispatch),
        "new_comments": new_comments,
        "are_comments_short": sum(map(len, new_comments)) + 40 * "".join(new_comments).count("\n") <= SHORT_COMMENT,
        "note": clip(clean(dispatch.text), limits.long),
        "is_code": dispatch.occasion == "code",
        "preheader": _preheader(dispatch, now),
        "deadline": _deadline(card, zone, now),
        "own_vote": not_you(dispatch),
        "take_back": _to_choose(link, "take_back") if _can_take_back(card) else "",
        "moment": lambda at: card_text.moment(at, zone),
        "link": link,
        "is_requester": card.outcome is None and _reader(dispatch) in card.requesters,
        "replying": one_line(replying(dispatch, replies)),
        "to_choose": lambda choice: _to_choose(link, choice.choice),
        "rank": lambda choice: _rank(card, choice),
        "on_button": lambda choice: choice.label if len(choice.label) <= SHORT_BUTTON else choice.short,
        "more_fields": max(0, len(dispatch.card.fields) - limits.rows),
        "more_votes": max(0, len(dispatch.card.votes) - limits.rows),
        "card_text": card_text,
        "is_cut": is_cut,
        "are_lines_cut": any(is_cut(field) for field in card.fields if field.is_short),
        "are_comments_cut": any(length(one.comment) > limits.short for one in said),
        "are_instructions_cut": card.instructions != dispatch.card.instructions,
        "clip": clip,
    }


def _reader(dispatch: Dispatch) -> str:
    assert isinstance(dispatch.to, ToPerson), "a letter goes to a mailbox"
    return dispatch.to.person.address


def _choices(card: Card, reader: str) -> tuple[CardChoice, ...]:
    """Return the choices to offer. Of people who have voted, those that would change their vote, none of them first."""
    chosen = [vote.choice for vote in card.votes if vote.by.key == reader and vote.counts]
    if not chosen:
        return card.choices
    return tuple(replace(each, style="link") for each in card.choices if each.choice not in chosen)


def _cleaned(card: Card) -> Card:
    """Clean the card's texts, once for both parts: they may be long."""
    return replace(
        card,
        title=one_line(card.title, 200),
        instructions=clean(card.instructions),
        fields=tuple(
            replace(field, label=one_line(field.label, 100), value=clean(field.value) or "–") for field in card.fields
        ),
        votes=tuple(replace(vote, comment=clean(vote.comment)) for vote in card.votes),
        comments=tuple(replace(made, comment=clean(made.comment)) for made in card.comments),
        notes=tuple(one_line(note, 200) for note in card.notes),
        outcome=card.outcome and replace(card.outcome, comment=clean(card.outcome.comment)),
    )


def _fitting(card: Card, limits: LetterLimits) -> Card:
    """Cut the card's texts and lists. Pinned fields come first, because votes are bound to them."""
    rows = limits.rows
    fields = sorted(card.fields, key=lambda field: not field.pinned)[:rows]
    return replace(
        card,
        instructions=_fitting_text(card.instructions, limits, is_signed=False),
        fields=tuple(_fitting_field(card, field, limits) for field in fields),
        votes=tuple(replace(vote, comment=clip(vote.comment, limits.short)) for vote in card.votes[-rows:]),
        comments=tuple(replace(made, comment=clip(made.comment, limits.short)) for made in card.comments),
        stages=tuple(replace(stage, seats=stage.seats[:rows]) for stage in card.stages[:rows]),
        deliveries=card_text.undelivered(card)[:rows],
        outcome=card.outcome and replace(card.outcome, comment=clip(card.outcome.comment, limits.short)),
    )


def _fitting_field(card: Card, field: CardField, limits: LetterLimits) -> CardField:
    is_signed, text = card.signs(field), card_text.bare(field).value
    if field.is_short:
        value = clip_value(text, limits.short, is_signed=is_signed, whole=field.whole)
    else:
        value = _fitting_text(text, limits, is_signed=is_signed, whole=field.whole)
    was = None if field.was is None else clip_value(one_line(field.was), min(limits.short, 200), is_signed=is_signed)
    return replace(field, value=value, was=was)


def _fitting_text(text: str, limits: LetterLimits, *, is_signed: bool, whole: Whole | None = None) -> str:
    if limits.lines is not None:
        return clip_rows(text, limits.lines, ROW, is_signed=is_signed, whole=whole)
    return clip_value(text, limits.long, is_signed=is_signed, whole=whole)


def _preheader(dispatch: Dispatch, now: datetime) -> str:
    """Return what mailboxes show after the subject: requester and deadline, or the outcome."""
    card = dispatch.card
    if dispatch.text:
        return one_line(dispatch.text, 140)
    if card.grant is not None and card.grant.state not in ("giving", "active"):
        return one_line(card_text.grant(card.grant), 140)
    if card.outcome is not None:
        comment = f": “{card.outcome.comment}”" if card.outcome.comment else "."
        return one_line(card_text.outcome(card.outcome) + comment, 140)
    due = f" Due {card_text.until(card.deadline, now)}." if card.deadline and card.choices else ""
    return one_line(f"{card_text.asked_by(card)}.{due}", 140)


def _deadline(card: Card, zone: str, now: datetime) -> str:
    if card.deadline is None or card.outcome is not None:
        return ""
    then = f"; {card.on_deadline}" if card.on_deadline else ""
    return f"{card_text.moment(card.deadline, zone)} ({card_text.until(card.deadline, now)}){then}"


def _can_take_back(card: Card) -> bool:
    return any(choice.choice == "take_back" for choice in card.choices)


def _to_choose(link: str, choice: ChoiceName) -> str:
    """Return the link to the page with this choice first. Only a button on that page decides."""
    return link + ("&" if "?" in link else "?") + urlencode({"choice": choice}) if link else ""


def _rank(card: Card, choice: CardChoice) -> str:
    """Return the choice's look: Approve is filled, Reject outlined, the others are links."""
    return {"primary": "filled", "danger": "outlined"}.get(choice.style, "link")


def _squeezed(text: str) -> str:
    """Leave at most one empty line at a time, and no trailing blanks."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip() + "\n"
