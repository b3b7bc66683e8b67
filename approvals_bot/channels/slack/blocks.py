"""A card as a Slack message: a top-level text and Block Kit blocks. Pure.

People's text goes in as `plain_text` and `rich_text` only, which have no syntax to inject: `<!channel>` stays those ten
characters. The only `mrkdwn` is our own: a date token, which Slack shows in the reader's zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card_model import BRIEF, Card, CardChoice, CardField, CardGrant, CardOutcome, TalkName
from approvals_bot.approvals.plain_text import clean, clip, clip_value, length, one_line
from approvals_bot.approvals.port import Dispatch, Place
from approvals_bot.approvals.request import state_mark
from approvals_bot.durable.core.serialization import json_text

CARD_LIMIT = 8_000  # characters of the blocks as JSON; Slack refuses a message at about 13,200 of text
BLOCK_LIMIT = 50  # per message
ID_LIMIT = 255  # of a block_id
BUTTON_LIMIT = 75  # of a button's text; Slack shows about 30
CONFIRM_LIMITS = {"title": 100, "text": 300, "button": 30}
VOTE = "vote:"  # action ids are `vote:approve`, `vote:reject`, …
NEXT_CALLS = "next_calls"  # and `vote:next_calls`, which opens a form
WHY = "why"  # the action id of "Why me?"
TALK = "talk:"  # action ids are `talk:claim`, `talk:snooze-1h`, …
TALK_BUTTONS: Mapping[TalkName, Mapping[str, str]] = {
    "claim": {"claim": "I'm on it"},
    "unclaim": {"unclaim": "No longer on it"},
    "snooze": {"snooze-1h": "Snooze 1 h", "snooze-tomorrow": "Snooze until tomorrow"},
    "remind": {"remind": "Remind now"},
    "revoke": {"revoke": "End it now"},
    "extend": {"extend-1h": "Extend 1 h"},
}
"""The buttons of what people can do besides deciding, by action. Comments are replies in the card's thread."""
REVOKE = {"revoke": "Revoke allowance"}
"""The button that ends what an approval covers of the next calls: one press, since nothing is removed by it."""
COMMENTS_SHOWN = 5  # of a request that a card shows
SHORT_DIGEST = 12  # characters of a digest that people see, as on the pages; votes are bound to the whole digest
METADATA = "approvals_bot_delivery"  # the event_type of our messages' metadata, which names the delivery

HEADER_LIMIT = 150  # characters of a title
TEXT_LIMIT = 400  # of the top-level text, which notifications and screen readers use; Slack wants ≤ 4,000
MOMENT = "{date_short_pretty} at {time}"


@dataclass(frozen=True, slots=True)
class CardLimits:
    """How much of a card is shown. The first of `ROOMS` that fits into a message is used."""

    long: int  # characters of a long field
    short: int  # … of a short one and of a comment
    rows: int  # at most so many fields, votes, stages and seats each
    longs: int = 6  # at most so many long fields
    pinned: int = 20  # … of either kind, if they are pinned: other fields make room for them


ROOMS = (
    CardLimits(2_400, 300, 20),
    CardLimits(1_200, 200, 12),
    CardLimits(500, 120, 8, 4),
    CardLimits(200, 80, 6, 2),
    CardLimits(80, 40, 3, 1),
    CardLimits(80, 40, 3, 1, pinned=6),
    CardLimits(80, 40, 3, 1, pinned=1),
)


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a message mentions: Slack's ids of people, by address, and of user groups. Slack notifies these."""

    users: Mapping[str, str]
    groups: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.users or self.groups)


NOBODY = Mentions({}, ())


def message(dispatch: Dispatch, mentions: Mentions = NOBODY) -> tuple[str, list[Block]]:
    """Render this dispatch: the card, a note in its thread, or the operator's own text."""
    if dispatch.text:
        return own_text(dispatch)
    if dispatch.thread is not None:
        return note(dispatch, mentions)
    return card_message(dispatch.card, mentions)


def card_message(card: Card, mentions: Mentions = NOBODY) -> tuple[str, list[Block]]:
    """Render the whole card, below a text like `⏳ Waiting: Deploy api 2.1 to prod. Requested by Bo Lund.`

    A decided card opens with its outcome and keeps everything but the buttons.
    """
    for room in ROOMS:
        blocks = _blocks(card, room, mentions)
        size = length(json_text(blocks, ensure_ascii=False))
        if len(blocks) <= BLOCK_LIMIT and size <= CARD_LIMIT:
            break
    title = one_line(card.title, 250)
    if card.outcome is not None:
        return escape(f"{card_text.outcome(card.outcome)}: {title}")[: TEXT_LIMIT * 2], blocks
    stop = "" if title.endswith(("?", "!", ".", "…")) else "."
    return escape(one_line(f"{card_text.state(card)}: {title}{stop} {card_text.asked_by(card)}.", TEXT_LIMIT)), blocks


def _blocks(card: Card, room: CardLimits, mentions: Mentions) -> list[Block]:
    """Render each part that has content. Block ids change with every update, as Slack wants."""
    fields, is_cut = _fields(card, room)
    is_cut = (
        is_cut
        or len(card.instructions) > room.long
        or len(card.title) > HEADER_LIMIT
        or max(len(card.votes), len(card.comments)) > room.rows
        or any(length(said.comment) > room.short for said in (*card.votes, *card.comments))
        or (card.outcome is not None and length(card.outcome.comment) > room.short * 2)
        or card.state == "changes_requested"
    )
    troubles = [[styled(one_line(trouble, 200))] for trouble in card_text.troubles(card)[: room.rows]]
    page: Block = {"type": "link", "url": card.url[:3_000], "text": "Open the full request"}
    digest = f"digest {card.digest[:SHORT_DIGEST]}" if card.digest else ""
    small = [plain(line) for line in (one_line(card.why_me, 200), digest) if line]
    more = [_why_button(card)] if mentions and card.outcome is None else []
    parts: dict[str, Block | None] = {
        "outcome": _outcome(card.outcome, room) if card.outcome else None,
        "grant": _given(card.grant, room) if card.grant else None,
        "title": {"type": "header", "text": plain(one_line(card.title, HEADER_LIMIT) or "A request")},
        "state": _status(card) if card.outcome is None else None,
        "stalled": rich(paragraph([styled(card_text.stalled(card))])) if card.is_stalled else None,
        "requester": rich(paragraph([styled(one_line(card_text.asked_by(card), 200) + ", "), dated(card.asked_at)])),
        "model": rich(paragraph([styled(card_text.by_model(card), italic=True)])) if card.is_tool_call else None,
        "instructions": rich(quotation(cut_to(card.instructions, room.long))) if card.instructions else None,
        "fields": rich(*fields) if fields else None,
        "people": _people(card, room),
        "undelivered": rich(paragraph(*troubles)) if troubles else None,
        "waiting": _waiting(card, mentions) if card.outcome is None else None,
        "full": rich(paragraph([page])) if is_cut and card.url else None,
        "choices": choices(card, "choices", more) if card.choices or more else None,
        "talk": talk_buttons(card),
        "small": {"type": "context", "elements": small} if small else None,
    }
    return [{"block_id": f"{part}:{card.version}", **block} for part, block in parts.items() if block]


def _status(card: Card) -> Block:
    """Render the state line. It has only our own words, so mrkdwn is safe."""
    icon, word = card_text.state_words(card)
    parts = [f"{icon} *{word}*"]
    if done := card_text.progress(card):
        parts.append(done)
    if card.deadline is not None:
        then = f"; {escape(one_line(card.on_deadline, 100))}" if card.on_deadline else ""
        parts.append(f"Due {date_token(card.deadline)}{then}")
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(parts), "verbatim": True}]}


def _outcome(ended: CardOutcome, room: CardLimits) -> Block:
    line = [styled(one_line(card_text.outcome(ended), 200), bold=True), styled(", "), dated(ended.at)]
    if ended.because.strip():
        line.append(styled(f"\n{one_line(ended.because, room.short)}"))
    comment = cut_to(ended.comment, room.short * 2)
    return rich(paragraph(line), *([quotation(comment)] if comment else []))


def _given(grant: CardGrant, room: CardLimits) -> Block:
    """Render what became of the grant, and until when it lasts."""
    line = [styled(one_line(card_text.grant(grant), room.short), bold=True)]
    return rich(paragraph(line if grant.at is None else [*line, styled(" "), dated(grant.at)]))


def _fields(card: Card, room: CardLimits) -> tuple[list[Block], bool]:
    """Render the short fields, pinned ones first, then the long ones, cut to fit.

    A long field with little text takes a line like a short one. Also returns whether anything was left out.
    """
    short: list[CardField] = []
    long: list[CardField] = []
    for field in sorted(card.fields, key=lambda field: not field.pinned):
        is_brief = len(field.value) <= BRIEF and "\n" not in field.value.strip()
        (short if is_brief or field.is_short else long).append(field)
    lines, texts = _most(card, short, room.rows, room), _most(card, long, room.longs, room)
    left = [*short[len(lines) :], *long[len(texts) :]]
    is_cut = bool(left) or any(_is_long(field, room.short) for field in lines)
    elements = [paragraph(*(_short_field(card, field, room) for field in lines))] if lines else []
    for field in texts:
        whole = clean(card_text.bare(field).value).strip("\n")
        value = clip_value(whole, room.long, is_signed=card.signs(field), whole=field.whole) or "–"
        is_cut = is_cut or field.whole is not None or (bool(whole) and value != whole)
        text: Block = {"type": "rich_text_preformatted", "elements": [styled(value)]}
        elements += [paragraph(_label(field)), quotation(value) if field.untrusted and field.kind != "json" else text]
    if left:
        pinned = sum(card.signs(field) for field in left)
        more = f"… and {len(left)} more {'field' if len(left) == 1 else 'fields'}"
        elements.append(paragraph([styled(f"{more}, {pinned} of them pinned" if pinned else more, italic=True)]))
    return elements, is_cut


def _most(card: Card, fields: Sequence[CardField], most: int, room: CardLimits) -> Sequence[CardField]:
    """Return the first fields, as many as there is room for: there is more for pinned ones, which come first."""
    pinned = sum(card.signs(field) for field in fields)
    return fields[: max(most, min(pinned, room.pinned))]


def _is_long(field: CardField, limit: int) -> bool:
    """Return whether a line has no room for the whole field, or for what it was."""
    text, was = clean(card_text.line(card_text.bare(field))), one_line(field.was or "")
    return field.whole is not None or max(length(text), length(was)) > limit


def _short_field(card: Card, field: CardField, room: CardLimits) -> list[Block]:
    style = {"code": True} if field.kind == "code" else {}
    text = clean(card_text.line(card_text.bare(field)))
    value = clip_value(text, room.short, is_signed=card.signs(field), whole=field.whole)
    shown = styled(value or "–", **style)
    if field.file and card.url:
        shown = {"type": "link", "url": f"{card.url}/files/{field.file}"[:3_000], "text": shown["text"]}
    line = [*_label(field), styled(": "), shown]
    if field.was is not None:
        was = clip_value(one_line(field.was), room.short, is_signed=card.signs(field))
        line += [styled(", was "), styled(was or "–", strike=True)]
    return line


def _label(field: CardField) -> list[Block]:
    label = [styled(one_line(field.label, 80) or "–", bold=True)]
    return [*label, styled(" (pinned)", italic=True)] if field.pinned else label


def _people(card: Card, room: CardLimits) -> Block | None:
    """Render the row of steps, the seats of the open stage, and the votes."""
    steps = card_text.steps(card, most=min(room.rows, 12))
    texts = [one_line(steps, 600)] if steps else []
    for stage in [stage for stage in card.stages if stage.state == "open"][:3]:
        texts += [one_line(seat, 200) for seat in card_text.seats(stage)[: room.rows]]
    if (earlier := len(card.votes) - room.rows) > 0:
        texts.append(f"… {earlier} earlier {'vote' if earlier == 1 else 'votes'}")
    lines = [[styled(text)] for text in texts]
    for cast in card.votes[-room.rows :]:
        comment = one_line(card_text.own_comment(cast, card), room.short)
        line = [styled(one_line(card_text.vote(cast), 200)), styled(", "), dated(cast.at)]
        lines.append([*line, styled(f": “{comment}”")] if comment else line)
    lines += [[styled(one_line(note, room.short))] for note in card_text.notes(card, min(room.rows, 6))]
    comments = card.comments[-min(room.rows, COMMENTS_SHOWN) :]
    if earlier_comments := card_text.earlier_comments(card, len(comments)):
        lines.append([styled(earlier_comments)])
    for made in comments:
        line = [styled(one_line(card_text.comment(made), 200)), styled(", "), dated(made.at)]
        lines.append([*line, styled(f": “{one_line(made.comment, room.short)}”")])
    if claimed := card_text.claimed(card):
        lines.append([styled(one_line(claimed, 200))])
    return rich(paragraph(*lines)) if lines else None


def _waiting(card: Card, mentions: Mentions) -> Block:
    """Render the people it waits for, and beside plain names the button that explains why.

    Mentions are elements of rich text, which has no room for a button: then it is below, among the choices.
    """
    if mentions:
        return rich(paragraph(_mentioned(card, mentions)))
    text = one_line(card_text.awaited(card), 300)
    return {"type": "section", "text": plain(text), "accessory": _why_button(card)}


def _why_button(card: Card) -> Block:
    return {"type": "button", "action_id": WHY, "text": plain("Why me?"), "value": card.hook_id[:2_000]}


def _mentioned(card: Card, mentions: Mentions) -> list[Block]:
    """Render `Waiting for @sre, @Ann Ode and Bo Lund`: mentions first, then the names of all others."""
    found = _elements(mentions)
    others = tuple(name for name in card.waiting_for if name.key not in mentions.users)
    if others and not mentions.groups:  # a group's members may be named already
        found.append(styled(one_line(card_text.names(others), 300)))
    line = [styled("Waiting for "), *_listed(found)]
    return [*line, styled(f"; {one_line(card_text.unresolved(card), 200)}")] if card.unresolved else line


def _elements(mentions: Mentions) -> list[Block]:
    groups: list[Block] = [{"type": "usergroup", "usergroup_id": group} for group in mentions.groups]
    return [*groups, *({"type": "user", "user_id": user} for user in mentions.users.values())]


def _listed(elements: Sequence[Block]) -> Iterator[Block]:
    """Put commas and an `and` between elements."""
    for at, element in enumerate(elements):
        if at:
            yield styled(" and " if at == len(elements) - 1 else ", ")
        yield element


def choices(card: Card, part: str, more: Sequence[Block] = ()) -> Block:
    """Render the buttons of the card's choices, and `more`. `part`: the start of the block's id."""
    buttons = [*choice_buttons(card), *([_next_calls_button(card)] if card.next_calls else []), *more]
    return {"type": "actions", "block_id": shown_id(card, part), "elements": buttons}


def shown_id(card: Card, part: str) -> str:
    """Return the id of a block with choices, which a press brings back: it is bound to what was on screen."""
    return f"{part}:{state_mark(card.version, card.votes)}:{card.digest}"[:ID_LIMIT]


def choice_buttons(card: Card) -> list[Block]:
    """Render a button for each of the card's choices."""
    return list({choice.choice: _button(card, choice) for choice in card.choices}.values())


def _next_calls_button(card: Card) -> Block:
    label = "Approve, and the next calls"
    about = one_line(f"{label}: {card.title}", BUTTON_LIMIT)
    button = {"type": "button", "action_id": VOTE + NEXT_CALLS, "text": plain(f"{label}…")}
    return button | {"value": card.hook_id[:2_000], "accessibility_label": about}


def talk_buttons(card: Card) -> Block | None:
    """Render what else can be done about the request; None if there is nothing but to comment, in the thread."""
    buttons = talk_elements(card)
    return {"type": "actions", "elements": buttons} if buttons else None


END_IT: Block = {
    "title": {"type": "plain_text", "text": "End it now?"},
    "text": {
        "type": "plain_text",
        "text": "What it gave is removed at once. Everyone involved is notified.",
    },
    "confirm": {"type": "plain_text", "text": "End it"},
    "deny": {"type": "plain_text", "text": "Not now"},
    "style": "danger",
}


def talk_elements(card: Card) -> list[Block]:
    """Render the buttons of what can be done besides deciding."""
    return [
        {
            "type": "button",
            "action_id": TALK + action,
            "text": plain(label),
            "value": card.hook_id[:2_000],
            "accessibility_label": one_line(f"{label}: {card.title}", BUTTON_LIMIT),
            **({"confirm": END_IT, "style": "danger"} if action == "revoke" and card.grant is not None else {}),
        }
        for name in card.talk
        for action, label in (REVOKE if name == "revoke" and card.grant is None else TALK_BUTTONS.get(name, {})).items()
    ]


def _button(card: Card, choice: CardChoice) -> Block:
    """Render a choice: its short name shows, and screen readers say the whole act.

    The button's value names the request and grants nothing.
    """
    button: Block = {
        "type": "button",
        "action_id": VOTE + choice.choice,
        "text": plain(one_line(choice.short, BUTTON_LIMIT) or choice.choice),
        "value": card.hook_id[:2_000],
        "accessibility_label": one_line(choice.label, BUTTON_LIMIT) or choice.choice,
    }
    if choice.style != "link":
        button["style"] = choice.style
    if choice.confirm:
        yes = one_line(choice.short, CONFIRM_LIMITS["button"]) or "Yes"
        button["confirm"] = {
            "title": plain(one_line(choice.label, CONFIRM_LIMITS["title"]) or yes),
            "text": plain(cut_to(choice.confirm, CONFIRM_LIMITS["text"]) or yes),
            "confirm": plain(yes),
            "deny": plain("Not now"),
            **({"style": choice.style} if choice.style != "link" else {}),
        }
    return button


def digest_seen(block_id: str) -> str | None:
    """Return the digest that the card with these buttons showed; None when nothing was pinned."""
    return block_id.partition(":")[2].partition(":")[2] or None


def state_seen(block_id: str) -> str | None:
    """Return the mark of the state that the card with these buttons showed; None for other buttons."""
    return block_id.partition(":")[2].partition(":")[0] or None


def delivery_of(message: Mapping[str, Any]) -> str | None:
    """Return the id of the delivery that this Slack message is; it starts with the run's id.

    None if the message isn't ours, or Slack left out its metadata.
    """
    match message.get("metadata"):
        case {"event_type": kind, "event_payload": {"delivery_id": delivery}} if kind == METADATA and delivery:
            return str(delivery)
    return None


def own_text(dispatch: Dispatch) -> tuple[str, list[Block]]:
    """Render the operator's own text, unchanged."""
    text = cut_to(dispatch.text, 3_000) or one_line(dispatch.card.title, HEADER_LIMIT) or "–"
    elements = [paragraph([styled(text)])]
    if dispatch.card.url:
        elements.append(paragraph([{"type": "link", "url": dispatch.card.url[:3_000], "text": "Open the request"}]))
    return escape(one_line(text, TEXT_LIMIT)) or "–", [{"block_id": f"text:{dispatch.card.version}", **rich(*elements)}]


def note(dispatch: Dispatch, mentions: Mentions = NOBODY) -> tuple[str, list[Block]]:
    """Render a reply in the card's thread: why it comes now, without buttons that could go stale."""
    card = dispatch.card
    reason = [styled(one_line(_reason(dispatch), 300), bold=True)]
    said = [quotation(cut_to(made.comment, 2_000)) for made in dispatch.comments if card.outcome is None]
    parts = [styled(one_line(card.title, 250))] if said else [*reason, styled("\n" + one_line(card.title, 250))]
    if said:  # its readers aren't all waited for
        parts += [styled("\ncc "), *_listed(_elements(mentions))] if mentions else []
    elif mentions and card.outcome is None:
        parts += [styled("\n"), *_mentioned(card, mentions)]
    elif where := card_text.moved(card):
        parts.append(styled(f"\n{one_line(where, 300)}"))
    elif waiting := card_text.waiting_for(card):
        parts.append(styled(f"\n{one_line(waiting, 300)}"))
    if card.deadline is not None and card.outcome is None and not said:
        parts += [styled("\nDue "), dated(card.deadline)]
    elements = [*([paragraph(reason), *said] if said else []), paragraph(parts)]
    if card.outcome is not None and (comment := cut_to(card.outcome.comment, 1_000)):
        elements.append(quotation(comment))
    text = escape(one_line(f"{_reason(dispatch)} {card.title}", TEXT_LIMIT)) or "–"
    return text, [{"block_id": f"note:{card.version}", **rich(*elements)}]


def _reason(dispatch: Dispatch) -> str:
    """Say why the note comes now."""
    if dispatch.card.grant is not None and dispatch.card.grant.state not in ("giving", "active"):
        return f"{card_text.grant(dispatch.card.grant)}."
    if dispatch.card.outcome is not None:
        return f"{card_text.outcome(dispatch.card.outcome)}."
    match dispatch.occasion:
        case "reminder":
            return "Reminder: this is still waiting for a decision."
        case "escalation":
            return "Nobody has decided yet, so this has been escalated."
        case "change":
            return card_text.changed(
                dispatch.card, None if isinstance(dispatch.to, Place) else dispatch.to.person.address
            )
        case "comment":
            return card_text.commented(dispatch.comments)
        case "reassigned":
            return "This has been reassigned. There's nothing more for you to do."
        case _:
            return f"{card_text.state(dispatch.card)}."


Block = dict[str, Any]


def escape(text: str) -> str:
    """Escape the three characters that have a meaning in Slack's mrkdwn."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def date_token(at: datetime) -> str:
    """Write the moment in Slack's date syntax, which shows it in the reader's zone."""
    date = dated(at)
    return f"<!date^{date['timestamp']}^{date['format']}|{date['fallback']}>"


def dated(at: datetime) -> Block:
    fallback = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return {"type": "date", "timestamp": int(at.timestamp()), "format": MOMENT, "fallback": fallback}


def plain(text: str) -> Block:
    return {"type": "plain_text", "text": text or "–", "emoji": False}


def styled(text: str, **style: bool) -> Block:
    element: Block = {"type": "text", "text": clean(text) or "–"}
    return element | ({"style": style} if style else {})


def cut_to(text: str, limit: int) -> str:
    """Clean the text and cut it to `limit`, without reading more of a very long one than needed."""
    return clip(clean(text.lstrip()[: limit * 8]).strip(), limit)


def paragraph(*lines: list[Block]) -> Block:
    """Join lines of rich text elements into one section."""
    broken = [element for line in lines for element in (*line, styled("\n"))]
    return {"type": "rich_text_section", "elements": broken[:-1]}


def quotation(text: str) -> Block:
    return {"type": "rich_text_quote", "elements": [styled(text)]}


def rich(*elements: Block) -> Block:
    return {"type": "rich_text", "elements": list(elements)}
