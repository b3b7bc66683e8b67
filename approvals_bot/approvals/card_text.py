"""Message texts of cards, the same in every copy. Pure; plain text, which the renderer escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

from approvals_bot.approvals.card_model import (
    GRANT_WORDS,
    NOT_DELIVERED,
    STALLED,
    STATE_WORDS,
    Card,
    CardComment,
    CardDelivery,
    CardField,
    CardGrant,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    FollowUp,
    Name,
    StageState,
    Via,
    Voted,
)
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.port import EMAIL, SLACK
from approvals_bot.approvals.text import VOTE
from approvals_bot.approvals.zones import zone_of, zone_words

VIA_WORDS: dict[Via, str] = {
    "slack": "via Slack",
    "email": "via email",
    "inbox": "via the inbox",
    "chat": "via the chat",
    "api": "via the API",
    "cli": "via the terminal",
    "rule": "",
    "clock": "at the deadline",
}

CHOICE_WORDS: dict[Voted, tuple[str, str]] = {
    "approve": ("✅", "approved"),
    "reject": ("⛔", "rejected"),
    "changes": ("↩︎", "requested changes"),
    "edit": ("✎", "approved with changes"),
    "answer": ("💬", "answered"),
    "take_back": ("↩︎", "undid their vote"),
    "justified": ("✅", "found it justified"),
    "not_justified": ("⛔", "found it not justified"),
}

BY_MODEL, COVERED = "Written by a model.", "Your decision covers exactly these values."

KEPT_MEANWHILE = "Votes are kept meanwhile, and count once it is fixed."

NO_STAGE = CardStage("")

_ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}

STAGE_ICONS: dict[StageState, str] = {
    "done": "✓",
    "open": "●",
    "ahead": "○",
    "skipped": "–",
    "rejected": "✕",
    "expired": "✕",
    "withdrawn": "✕",
    "cancelled": "✕",
    "failed": "✕",
}


def state(card: Card) -> str:
    """Return icon and word of the state, never one without the other: `⏳ Waiting`."""
    return " ".join(state_words(card))


def state_words(card: Card) -> tuple[str, str]:
    """Return icon and word of the state. A request whose run has stalled is waiting for a fix."""
    return STALLED if card.is_stalled else STATE_WORDS[card.state]


def stalled(card: Card) -> str:
    """Say what a stalled run means to its reader; "" if it isn't stalled."""
    return KEPT_MEANWHILE if card.is_stalled else ""


def whole(card: Card) -> str:
    """Return what a vote is about, as every channel shows it: title, requester, instructions and all fields."""
    fields = [f"{field.label}: {field.value}" for field in card.fields]
    return "\n".join(each for each in (card.title, asked_by(card), card.instructions, *fields) if each)


def progress(card: Card) -> str:
    """Return `1 of 2`, of alternatives `1 of 2 or 0 of 1`, or "" if no vote is needed now."""
    if not card.need or card.outcome is not None:
        return ""
    every = alternatives(next((stage for stage in card.stages if stage.state == "open"), NO_STAGE))
    if len(every) < 2:
        return f"{card.have} of {card.need}"
    return " or ".join(
        f"{sum(len(seat.filled_by) for seat in seats)} of {sum(seat.need for seat in seats)}" for seats in every
    )


def asked_by(card: Card) -> str:
    """Return `Requested by Bo Lund for Ann Ode`."""
    behalf = f" for {card.on_behalf_of.text}" if card.on_behalf_of else ""
    return f"Requested by {card.requester.text}{behalf}"


def waiting_for(card: Card, most: int = 6) -> str:
    """Return `Waiting for Ann Ode, Bo Lund and 3 others`, or "".

    Also says which groups can't be read: `Waiting: slack:@sre can't be read (no such group)`.
    """
    if card.outcome is not None:
        return ""
    people = f"Waiting for {names(card.waiting_for, most)}" if card.waiting_for else ""
    if people:
        return "; ".join(filter(None, (people, unresolved(card))))
    return f"Waiting: {unresolved(card)}" if card.unresolved else ""


def awaited(card: Card) -> str:
    """Say what an open request waits for: `Waiting for Ann Ode`, `No more votes are needed` while it is held."""
    if found := waiting_for(card):
        return found
    is_decided = all(choice.choice == "take_back" for choice in card.choices)  # and held for a while
    return "No more votes are needed" if is_decided else "Waiting for its approvers"


def unresolved(card: Card) -> str:
    """Return `slack:@sre can't be read (no such group)`, or ""."""
    return "; ".join(map(str, card.unresolved))


def names(people: tuple[Name, ...], most: int = 6) -> str:
    """Join names: `Ann, Bo and Cy`; of a long list, the first and the number of others."""
    shown = [person.text for person in people[:most]]
    if others := len(people) - len(shown):
        shown.append("1 other" if others == 1 else f"{others} others")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1] if shown else ""


def by_model(card: Card) -> str:
    """Return the line about a tool call: who wrote it, and what a decision means; "" for other requests."""
    if not card.is_tool_call:
        return ""
    return BY_MODEL if card.outcome is not None else f"{BY_MODEL} {COVERED}"


def bare(field: CardField) -> CardField:
    """Return a field that was cut without the mark at its end, to be cut to less."""
    return field if field.whole is None else replace(field, value=field.value.removesuffix(field.whole.mark))


def line(field: CardField) -> str:
    """Put a field's value on one line, with its line breaks marked.

    So nothing that people wrote starts a line of ours. Untrusted text is in quotation marks, which JSON has anyway.
    """
    text = joined(field.value)
    return f"“{text}”" if field.untrusted and text and field.kind not in ("json", "code") else text


def joined(text: str) -> str:
    """Join the lines of people's text, with a mark between them."""
    return " ⏎ ".join(part.strip() for part in text.strip().splitlines())


def inset(text: str, mark: str = "    ") -> str:
    """Indent people's text in a text mail, so that no line of it passes for one of ours (letter.txt calls this)."""
    return "\n".join(f"{mark}{line}".rstrip() for line in text.splitlines())


def steps(card: Card, most: int = 12) -> str:
    """Return the stages in a row: `✓ Manager → ● Finance → ○ Board`.

    Returns "" if there is only one; of many, those around the open one.
    """
    if len(card.stages) < 2:
        return ""
    passed = sum(stage.state in ("done", "skipped") for stage in card.stages)
    here = next((at for at, stage in enumerate(card.stages) if stage.state == "open"), passed)
    first = max(0, min(here - most // 2, len(card.stages) - most))
    row = [f"{STAGE_ICONS[stage.state]} {stage.title}" for stage in card.stages[first : first + most]]
    before, after = ["…"] if first else [], ["…"] if len(card.stages) > first + most else []
    return " → ".join(before + row + after)


def seat_label(seat: CardSeat) -> str:
    """Return the seat's label as the beginning of a line. An address stays as it is."""
    return seat.label if "@" in seat.label.partition(" ")[0] else seat.label[:1].upper() + seat.label[1:]


def alternatives(stage: CardStage) -> list[list[CardSeat]]:
    """Return the seats of each alternative; without alternatives, all seats are one."""
    return [list(seats) for _, seats in groupby(stage.seats, key=lambda seat: seat.alternative)]


def seats(stage: CardStage) -> list[str]:
    """Return a line for each seat: `Release managers: 1 of 2 (Ann Ode)`.

    Of alternatives, one for each: `Either SRE: 1 of 2 and Finance: 0 of 1`, `or Board: 0 of 3`.
    """
    every = alternatives(stage)
    if len(every) < 2:
        lines = [_seat(seat, seat_label(seat)) for seat in stage.seats]
    else:
        joined_up = (" and ".join(_seat(seat, seat.label) for seat in seats) for seats in every)
        lines = [f"{'or' if number else 'Either'} {text}" for number, text in enumerate(joined_up)]
    return [*lines, veto(stage)] if stage.veto else lines


def _seat(seat: CardSeat, label: str) -> str:
    people = f" ({names(seat.filled_by)})" if seat.filled_by else ""
    return f"{label}: {len(seat.filled_by)} of {seat.need}{people}"


def veto(stage: CardStage) -> str:
    """Return `Only Security can reject`; "" if every approver can."""
    return f"Only {stage.veto} can reject" if stage.veto else ""


LONGEST_ANSWER = 80  # characters on the line of its vote


def vote(cast: CardVote) -> str:
    """Return `✅ Ann Ode approved via Slack, cost centre: EU-7`, and whether the vote no longer counts."""
    icon, word = CHOICE_WORDS[cast.choice]
    counts = "" if cast.counts else " (no longer counts)"
    answers = "".join(f", {label}: {one_line(answer, LONGEST_ANSWER)}" for label, answer in cast.answers)
    carried = f" (carried over from “{cast.carried_from}”)" if cast.carried_from else ""
    return f"{icon} {cast.by.text} {word} {_way(cast)}".rstrip() + carried + answers + counts


def comment(made: CardComment) -> str:
    """Return `💬 Ann Ode via Slack`, to come before what they wrote."""
    return f"💬 {made.by.text} {_way(made)}"


def commented(made: Sequence[CardComment]) -> str:
    """Return `Ann Ode commented:`, about these comments; "" if there are none."""
    authors = tuple({each.by.key: each.by for each in made}.values())
    return f"{names(authors)} commented:" if authors else ""


def earlier_comments(card: Card, shown: int) -> str:
    """Return `… 3 earlier comments`, if so few of them are shown that some are left out; else ""."""
    left = card.earlier_comments + len(card.comments) - shown
    return f"… {left} earlier comment{'' if left == 1 else 's'}" if left > 0 else ""


def claimed(card: Card) -> str:
    """Return `✋ Ann Ode is on it.`, or ""."""
    return f"✋ {card.claimed_by.text} is on it." if card.claimed_by is not None and card.outcome is None else ""


def outcome(ended: CardOutcome) -> str:
    """Return `✅ Approved by Ann Ode via Slack`; without a name after a deadline."""
    icon, word = STATE_WORDS[ended.state]
    by = f" by {ended.by.text}" if ended.via != "clock" and ended.by.text else ""
    return f"{icon} {word}{by} {_way(ended)}".rstrip()


def grant(given: CardGrant) -> str:
    """Return `🔑 Active until`, to come before a time if there is one, or `✖ Revoked by Bo Lund (“done”)`."""
    icon, word = GRANT_WORDS[given.state]
    if given.state == "active":
        return f"{icon} {word} until"
    ended = {"revoked": " by", "ending": ", ended by", "overdue": ", ended by"}.get(given.state, "")
    by = f"{ended} {given.by.text}" if given.by is not None and ended else ""
    reason = f" (“{joined(given.reason)}”)" if by and given.reason.strip() else ""
    going_on = "; still trying" if given.error and given.state != "not_given" else ""
    error = f": {joined(given.error)}{going_on}" if given.error else ""
    return f"{icon} {word}{by}{reason}{error}"


def result(card: Card) -> str:
    """Return the word for what has come of a request: `Approved`, or what became of its grant since."""
    after = card.grant is not None and card.grant.state not in ("giving", "active")
    return GRANT_WORDS[card.grant.state][1] if card.grant is not None and after else STATE_WORDS[card.state][1]


def _way(remark: CardVote | CardOutcome | CardComment) -> str:
    """Return `via the API, passed on by app desk`."""
    return VIA_WORDS[remark.via] + (f", passed on by {remark.passed_on_by}" if remark.passed_on_by else "")


def changed(card: Card, reader: str | None = None) -> str:
    """Word the notification of a change: the request changed, or changes were requested.

    `reader`: the address of the one person who reads it.
    """
    if card.state == "changes_requested" and reader in card.requesters:
        return "Changes requested. It's your turn: edit the request or withdraw it."
    if card.state == "changes_requested":
        return f"Changes requested. You'll be asked again once {card.requester.text} has edited the request."
    return "The request has changed. Please check it again."


def notes(card: Card, most: int = 6) -> tuple[str, ...]:
    """Return the latest notes: `⇄ Ann Ode reassigned this to Di Ops: on holiday`."""
    return (*card.notes, moved(card))[-most:] if card.moved_to else card.notes[-most:]


def moved(card: Card) -> str:
    """Return `⇢ This request is in #team-data now.` for a place that the card has left, or ""."""
    return f"⇢ This request is in {card.moved_to} now." if card.moved_to else ""


def comment_needed(card: Card) -> str:
    """Return for which choices a comment is required: `required to reject`, or a label of the file's in quotes."""
    needed = [choice for choice in card.choices if choice.comment == "required"]
    if all(choice.short == VOTE[choice.choice] for choice in needed):
        return f"required to {' or '.join(choice.short.lower() for choice in needed)}"
    return f"required for {' or '.join(f'“{choice.short}”' for choice in needed)}"


def own_comment(cast: CardVote, card: Card) -> str:
    """Return the vote's comment, unless the outcome shows it already."""
    is_said = card.outcome is not None and cast.counts and cast.comment == card.outcome.comment
    return "" if is_said else cast.comment


def not_delivered(copy: CardDelivery) -> str:
    """Return `⚠ Not delivered to ann@acme.eu by email: mailbox full`."""
    icon, word = NOT_DELIVERED
    return f"{icon} {word} to {copy.to} {way(copy)}" + (f": {copy.error}" if copy.error else "")


def delivery(copy: CardDelivery) -> str:
    """Return the state of any copy: `✓ #deploys in Slack`, `⏳ #ops in Slack, on its way`."""
    if copy.state == "not_delivered":
        return not_delivered(copy)
    if copy.uncertain:
        return perhaps_twice(copy)
    tries = f", {_attempts(copy.attempts)}" if _attempts(copy.attempts) else ""
    match copy.state:
        case "delivered":
            return f"✓ {copy.to} {way(copy)}{tries}"
        case "held" if copy.retried == "update":
            return f"⏳ The card for {copy.to} {way(copy)} shows an older state; its update waits for its turn"
        case "retrying":
            return f"⏳ {retrying(copy)}" + (f": {copy.error}" if copy.error else "")
        case "not_sent":
            return f"– Not sent to {copy.to} {way(copy)}: {copy.error}"
        case _:
            return f"⏳ {copy.to} {way(copy)}, on its way"


def retrying(copy: CardDelivery) -> str:
    """Say what will be tried again: the card itself, or what comes after it."""
    match copy.retried:
        case "update":
            return f"The card for {copy.to} {way(copy)} shows an older state; its update will be tried again"
        case "reply":
            return f"{copy.to} {way(copy)} has the card; a message about it will be tried again"
        case _:
            return f"{copy.to} {way(copy)}, will be tried again"


def way(copy: CardDelivery) -> str:
    """Return how a copy goes: `in Slack`, `by email`, of another channel `by chat`."""
    return {SLACK: "in Slack", EMAIL: "by email"}.get(copy.channel, f"by {copy.channel}")


def undelivered(card: Card) -> tuple[CardDelivery, ...]:
    return tuple(copy for copy in card.deliveries if copy.state == "not_delivered")


def perhaps_twice(copy: CardDelivery) -> str:
    """Return `⚠ May have arrived twice at #deploys in Slack: the confirmation was lost`."""
    return f"{NOT_DELIVERED[0]} May have arrived twice at {copy.to} {way(copy)}: the confirmation was lost"


def troubles(card: Card) -> list[str]:
    """List what went wrong with copies and follow-ups."""
    unfinished = [follow_up(one) for one in card.follow_ups if one.state in ("failed", "retrying")]
    return [*delivery_troubles(card), *unfinished]


def delivery_troubles(card: Card) -> list[str]:
    """List the copies that didn't arrive, or may have arrived twice."""
    doubtful = [copy for copy in card.deliveries if copy.uncertain and copy.state != "not_delivered"]
    return [*map(not_delivered, undelivered(card)), *map(perhaps_twice, doubtful)]


def follow_up(one: FollowUp) -> str:
    """Return `✓ erp called: 200, second try` or `⚠ Follow-up failed: call erp: it answered 404`."""
    match one.state:
        case "done":
            results = [str(one.status) if one.status else "sent", _attempts(one.attempts)]
            what = f"{one.target} called" if one.target else one.what
            return f"✓ {what}: {', '.join(result for result in results if result)}"
        case "sending":
            return f"⏳ {one.what}"
        case "retrying":
            return f"{NOT_DELIVERED[0]} Follow-up will be retried: {one.what}" + (f": {one.error}" if one.error else "")
        case "failed":
            return f"{NOT_DELIVERED[0]} Follow-up failed: {one.what}" + (f": {one.error}" if one.error else "")


def _attempts(count: int) -> str:
    """Return `second try`, of many `after 21 tries`; "" for the first."""
    if count <= 1:
        return ""
    return f"{_ORDINALS[count]} try" if count in _ORDINALS else f"after {count} tries"


def moment(at: datetime, zone: str) -> str:
    """Format as `Tue 4 Nov 2025, 16:00 in Berlin`, in the reader's zone; in UTC if it is unknown."""
    local = at.astimezone(zone_of(zone))
    return f"{local:%a} {local.day} {local:%b %Y}, {local:%H:%M} {zone_words(local)}"


def until(deadline: datetime, now: datetime) -> str:
    """Say when as a person would: `in 4 hours` for 3 h 59 min 58 s, `now` once it has passed."""
    return f"in {span(deadline - now)}" if deadline > now else "now"


def span(time: timedelta) -> str:
    """Round a length as a person would: `3½ hours`, `5 days`.

    Half hours up to 6 hours, hours up to a day and a half, then days.
    """
    minutes = _nearest(time, timedelta(minutes=1))
    if time < timedelta(seconds=45):
        return "less than a minute"
    if minutes < 60:
        return _count(minutes, "minute")
    halves, hours = _nearest(time, timedelta(minutes=30)), _nearest(time, timedelta(hours=1))
    if halves < 12 and halves % 2:
        return f"{halves // 2}½ hours"
    if hours <= 36:
        return _count(hours if halves >= 12 else halves // 2, "hour")
    return _count(_nearest(time, timedelta(days=1)), "day")


def _nearest(time: timedelta, unit: timedelta) -> int:
    return (time + unit / 2) // unit


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" + ("" if number == 1 else "s")
