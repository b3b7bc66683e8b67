"""Making cards: what one reader sees of a request now.

One value for Slack, mail, page, inbox and terminal. The facts are the same for everyone; only the choices and the
reason for getting the card are the reader's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from approvals_bot.approvals.acts import Vote, passed_on_by
from approvals_bot.approvals.ballot import (
    DECISIVE,
    YES,
    Count,
    comment_rule,
    counts,
    in_place_of,
    nearest,
    refusal,
    seat_size,
    seats_for,
    stage_status,
    vote_of,
    with_vote,
)
from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardComment,
    CardField,
    CardGrant,
    CardOutcome,
    CardSeat,
    CardStage,
    CardState,
    CardVote,
    ChoiceName,
    FormField,
    NextCalls,
    StageState,
    State,
    TalkName,
    Voted,
)
from approvals_bot.approvals.fields import in_format_of, shown_with_names, values
from approvals_bot.approvals.grants import is_revocable, may_end
from approvals_bot.approvals.next_calls import next_calls_of
from approvals_bot.approvals.numbers import in_format
from approvals_bot.approvals.reassignment import reassignment_text
from approvals_bot.approvals.request import (
    RecordedComment,
    RecordedVote,
    Request,
    RequestGrant,
    RequestOutcome,
    RequestReview,
    RequestStage,
)
from approvals_bot.approvals.standing_grants import covers_text
from approvals_bot.approvals.text import TO_CHANGE, VOTE, edit_text
from approvals_bot.approvals.tool_call import inputs_of, with_lines
from approvals_bot.approvals.values import shown_date, shown_moment

SAMPLED = 5  # people waited for, on whom a place's card tries whether one vote decides
REPLACED = "⚠ A newer message shows this request. This one is out of date."
_FOUND: dict[State, CardState] = {"approved": "justified", "rejected": "not_justified"}
_VOTED: dict[ChoiceName, Voted] = {"approve": "justified", "reject": "not_justified"}
STYLES = {"approve": "primary", "reject": "danger"}


def card_of(view: Request, reader: str | None, now: datetime, url: str = "") -> Card:
    """Make the card for a reader. None: for a place with many readers, with the choices of any approver."""
    stage = view.stage
    counted = {one.id: counts(one) for one in view.stages if one.opened_at}
    best = nearest(counted[stage.id]) if stage else None
    # Copied: what every reader may see as it is; the rest is made for this one.
    return Card(
        run_id=view.id,
        hook_id=view.hook_id,
        workflow=view.workflow,
        version=view.version,
        state=_found_in_review(view.state) if view.reviews else view.state,
        title=view.title,
        requester=view.name(view.requester),
        on_behalf_of=view.name(view.on_behalf_of) if view.on_behalf_of else None,
        asked_at=view.asked_at,
        digest=view.digest,
        fields=tuple(sorted(shown_of(view, reader), key=lambda field: not field.pinned)),
        stages=tuple(_stage(view, one, counted.get(one.id)) for one in view.stages),
        have=best.have if best else 0,
        need=best.need if best else 0,
        waiting_for=tuple(
            view.acting(person, in_place_of(stage, person) if stage else "") for person in view.waiting_for
        ),
        votes=tuple(_vote(view, vote) for vote in view.votes),
        deadline=view.deadline if view.is_open else None,
        on_deadline=view.on_deadline if view.is_open else "",
        choices=_choices(view, stage, reader, now) if stage else (),
        next_calls=_next_calls(view, stage, reader, now) if view.allowance is not None and stage else None,
        outcome=_outcome(view, view.outcome) if view.outcome is not None else None,
        deliveries=view.deliveries,
        follow_ups=view.follow_ups,
        comments=tuple(comment_of(view, made) for made in view.comments),
        claimed_by=view.name(view.claimed_by) if view.claimed_by is not None else None,
        talk=_talk(view, reader),
        snoozed_until=until if reader is not None and (until := view.snoozes.get(reader)) and until > now else None,
        notes=_notes(view, reader),
        may_reassign=stage is not None and reader is not None and _may_reassign(view, stage, reader),
        instructions=view.instructions if view.is_open else "",
        why_me=_why_me(view, stage, reader) if stage is not None and reader is not None else "",
        url=url,
        decides_by_reply=view.email_replies == "decide" and view.link_auth == "link",
        unresolved=view.unresolved,
        is_stalled=view.is_stalled and view.is_open,
        grant=_grant(view, view.grant) if view.grant is not None else None,
    )


def _grant(view: Request, grant: RequestGrant) -> CardGrant:
    by = view.name(grant.revoked_by) if grant.revoked_by else None
    error = grant.error if grant.state in ("giving", "ending", "overdue", "not_given") else ""
    at = grant.until if grant.state == "active" else grant.taken_at
    return CardGrant(grant.state, at, by, grant.reason, error)


def closed(card: Card) -> Card:
    """Return the card without anything to press, for a message that a newer one replaces."""
    notes = card.notes if card.outcome is not None else (*card.notes, REPLACED)
    return replace(card, choices=(), talk=(), may_reassign=False, notes=notes)


def moved(card: Card, place: str) -> Card:
    """Return the open card without anything to press, for a message in a place that it has left."""
    return replace(card, choices=(), talk=(), may_reassign=False, moved_to=place)


def shown_of(view: Request, reader: str | None = None) -> tuple[CardField, ...]:
    """Return the fields as this reader reads them, with the lines of lists and objects, which aren't stored."""
    shown, number_format = view.shown, view.number_format(reader)
    if any(field.kind == "json" for field in shown):
        shown = with_lines(shown, view.fields, view.was)
    if not number_format:
        return shown
    return tuple(_in_format(field, number_format) if field.name in view.numbers else field for field in shown)


def _in_format(field: CardField, number_format: str) -> CardField:
    was = None if field.was is None else in_format(field.was, number_format)
    return replace(field, value=in_format(field.value, number_format), was=was)


def _found_in_review(state: State) -> CardState:
    """Return the state of a review as people see it: nobody has rejected anything."""
    return _FOUND.get(state, state)


def _vote(view: Request, cast: RecordedVote) -> CardVote:
    by = view.acting(cast.by, cast.in_place_of)
    actor = passed_on_by(cast.by, cast.vote.actor)
    answers = _answers(view, cast) if cast.vote.answers else ()
    comment = cast.vote.comment
    origin = next((stage.title for stage in view.stages if stage.id == cast.carried_from), "")
    choice = _VOTED.get(cast.choice, cast.choice) if view.reviews else cast.choice
    return CardVote(by, choice, cast.counts, actor, answers, origin, at=cast.at, via=cast.vote.via, comment=comment)


def _answers(view: Request, cast: RecordedVote) -> tuple[tuple[str, str], ...]:
    """Return what a voter filled in, as people read it."""
    asks = next(stage.asks for stage in view.stages if cast in stage.votes)
    given = {ask: answer for ask in asks if (answer := cast.vote.answers.get(ask.name)) is not None}
    typed = values({ask.name: ask.spec for ask in given}, {ask.name: answer for ask, answer in given.items()})
    return tuple((ask.label, shown_with_names(ask.spec, typed[ask.name], view.people)) for ask in given)


def comment_of(view: Request, made: RecordedComment) -> CardComment:
    """Return a comment as people see it."""
    act = made.act
    actor = passed_on_by(act.by, act.actor)
    return CardComment(view.name(act.by), actor, at=made.at, via=act.via, comment=act.text)


def _talk(view: Request, reader: str | None) -> tuple[TalkName, ...]:
    """Return what this reader can do besides deciding; in a place, what anybody there can."""
    if view.grant is not None:
        return _about_grant(view, view.grant, reader)
    if view.standing is not None and view.standing.grant.is_allowance:
        return ("revoke",) if reader is None or may_end(view, reader) else ()
    if not view.is_open or view.is_stalled:
        return ()
    if view.state != "waiting" or view.held is not None:
        return ("comment",)
    found: list[TalkName] = ["comment"]
    if reader is None:
        return ("comment", "claim", "snooze", *(("remind",) if _has_human_requester(view) else ()))
    if reader in view.waiting_for:
        found += ["unclaim" if view.claimed_by == reader else "claim", "snooze"]
    if reader in (view.requester, view.on_behalf_of):
        found.append("remind")
    return tuple(found)


def _about_grant(view: Request, grant: RequestGrant, reader: str | None) -> tuple[TalkName, ...]:
    """Return what this reader can do about the grant; in a place, what those concerned can."""
    if not is_revocable(grant):
        return ()
    is_own = reader in (view.requester, view.on_behalf_of)
    may_ask = grant.may_extend and grant.state == "active" and (is_own or reader is None)
    may_end_it = reader is None or may_end(view, reader)
    return (*(("revoke",) if may_end_it else ()), *(("extend",) if may_ask else ()))


def _has_human_requester(view: Request) -> bool:
    return any(one is not None and not one.startswith("app:") for one in (view.requester, view.on_behalf_of))


def _stage(view: Request, stage: RequestStage, counted: Sequence[Count] | None) -> CardStage:
    acting = {vote.by: vote.in_place_of for vote in stage.votes if vote.counts}
    seats = []
    for seat in stage.seats:
        filled_by = [address for one in counted or () for address, at in one.seated.items() if at == seat.id]
        size = seat_size(seat, also=filled_by) if counted or isinstance(seat.need, int) else 0
        people = tuple(view.acting(address, acting.get(address, "")) for address in filled_by)
        seats.append(CardSeat(seat.label, size, people, seat.alternative))
    veto = stage.veto.label if stage.veto is not None else ""
    return CardStage(stage.id, stage.title, _stage_state(view, stage), tuple(seats), veto, because=stage.because)


def _stage_state(view: Request, stage: RequestStage) -> StageState:
    """Return the state of a stage. One that ended without its votes has the state of its request."""
    match view.state:
        case "rejected" | "expired" | "withdrawn" | "cancelled" | "failed" if (
            stage.state in ("open", "done") and stage_status(stage) != "filled"
        ):
            return view.state
        case _:
            return stage.state


def _outcome(view: Request, ended: RequestOutcome) -> CardOutcome:
    by = view.acting(ended.by, ended.in_place_of)
    because = ended.because[:1].upper() + ended.because[1:]
    actor = passed_on_by(ended.by, ended.actor)
    state = _found_in_review(ended.state) if view.reviews else ended.state
    return CardOutcome(state, by, because, actor, at=ended.at, via=ended.via, comment=ended.comment)


def _choices(view: Request, stage: RequestStage, reader: str | None, now: datetime) -> tuple[CardChoice, ...]:
    """Return the reader's choices now. For a place, which has no single reader, all that the stage offers."""
    if view.state != "waiting" or (view.held is not None and (reader is None or vote_of(stage, reader) is None)):
        return ()
    offered: list[ChoiceName] = [*stage.outcomes]
    if reader is None:
        return tuple(
            _choice(view, stage, choice, None, decides=_may_decide(view, stage, choice, now)) for choice in offered
        )
    mine = vote_of(stage, reader)
    if mine is not None:
        offered.append("take_back")
    found = []
    for choice in offered:
        trial = Vote(reader, choice, comment="…")
        if refusal(stage, trial) is None and not (mine is not None and mine.choice == choice == "edit"):
            found.append(_choice(view, stage, choice, reader, decides=_decides(view, stage, trial, now)))
    return tuple(found)


def _decides(view: Request, stage: RequestStage, trial: Vote, now: datetime) -> bool:
    status = stage_status(with_vote(stage, trial, now))
    if status != "filled":
        return status in DECISIVE
    ids = [other.id for other in view.stages]
    return all(other.state == "skipped" for other in view.stages[ids.index(stage.id) + 1 :])


def _next_calls(view: Request, stage: RequestStage, reader: str | None, now: datetime) -> NextCalls | None:
    """Return what this reader may approve with this call: none but those who can approve it alone have anything."""
    if view.state != "waiting" or view.held is not None or any(vote.counts for vote in view.votes):
        return None
    if reader is None:
        decides = _may_decide(view, stage, "approve", now)
    else:
        trial = Vote(reader, comment="…")
        decides = refusal(stage, trial) is None and _decides(view, stage, trial, now)
    return next_calls_of(view) if decides and "approve" in stage.outcomes else None


def _may_decide(view: Request, stage: RequestStage, choice: ChoiceName, now: datetime) -> bool:
    """Whether this choice would decide if made by one of the people waited for; a few are tried."""
    return any(_decides(view, stage, Vote(address, choice), now) for address in view.waiting_for[:SAMPLED])


def _choice(view: Request, stage: RequestStage, choice: ChoiceName, reader: str | None, *, decides: bool) -> CardChoice:
    own = view.labels.get(choice)
    short = own or VOTE[choice]
    return CardChoice(
        choice=choice,
        label=f"{short}: {view.title}" if choice in ("approve", "reject") and own is None else short,
        short=short,
        style=STYLES.get(choice, "link"),  # type: ignore[arg-type]  # the two styles above are of the three
        confirm=f"{short} “{view.title}”? This decides it." if decides and not needs_form(view, choice) else None,
        comment=comment_rule(stage, choice),
        asks=asks_of(view, choice, view.number_format(reader)),
    )


def needs_form(view: Request, choice: ChoiceName) -> bool:
    """Return whether this choice needs a form: a comment is required, or there are questions."""
    stage = view.stage
    return stage is not None and (comment_rule(stage, choice) == "required" or bool(asks_of(view, choice)))


def asks_of(view: Request, choice: ChoiceName, number_format: str = "") -> tuple[FormField, ...]:
    """Return the inputs of this choice: questions, and for an edit the editable fields.

    `number_format`: how their reader writes numbers.
    """
    stage = view.stage
    if stage is None or choice not in YES:
        return ()
    editable = editable_of(view, number_format) if choice == "edit" else ()
    return (*editable, *(ask for ask in stage.asks if ask.name not in [own.name for own in editable]))


def editable_of(view: Request, number_format: str = "") -> tuple[FormField, ...]:
    """Return the inputs for what an approver may change: fields, and each leaf of a list or an object."""
    return tuple(
        one
        for field in view.editable
        for one in (
            inputs_of(field, view.fields.get(field.name))
            if field.spec.is_json
            else in_format_of(number_format, (field,))
        )
    )


def _notes(view: Request, reader: str | None) -> tuple[str, ...]:
    """List what has happened besides votes: reassignments, an edit, and a decision in its grace period."""
    notes = [f"⇄ {reassignment_text(done.act, view.people)}" for done in view.reassignments]
    if view.last_edit is not None:
        edit = view.last_edit
        notes.append(f"✎ {edit_text(view.called(edit.by), edit.kept, edit.reset)}")
    if view.held is not None:
        by = view.acting(view.held.by, view.held.in_place_of).text
        unless = "you undo it" if reader == view.held.by else f"{by} undoes it"
        notes.append(f"⏳ {view.held.state.capitalize()} by {by}. It takes effect in {view.grace} unless {unless}.")
    if view.standing is not None:
        notes.append(f"↻ {covers_text(view.standing.grant, shown_date(view.standing.grant.until.date()))}")
    if view.review is not None:
        notes.append(f"⚑ {_review_text(view, view.review)}")
    return tuple(notes)


def _review_text(view: Request, review: RequestReview) -> str:
    by, until = review.called or view.called(review.by), shown_moment(review.until.replace(microsecond=0))
    match review.state:
        case "approved":
            return f"Review: justified, says {by}."
        case "not_justified":
            return f"Review: not justified, says {by}{f': “{review.comment}”' if review.comment else '.'}"
        case "late":
            return f"Review needed: it was due by {until}, and the owners are asked, too."
        case "waiting":
            return f"Review needed by {until}."
        case "cancelled":
            return f"Nobody reviewed it: the run was cancelled{f': “{review.comment}”' if review.comment else '.'}"


def _may_reassign(view: Request, stage: RequestStage, reader: str) -> bool:
    """Whether this reader may reassign: an approver without a vote, if approvers may."""
    if view.state != "waiting" or view.held or view.reassign != "approvers":
        return False
    asks = view.requester, view.on_behalf_of
    return bool(seats_for(stage, reader)) and vote_of(stage, reader) is None and reader not in asks


def _why_me(view: Request, stage: RequestStage, reader: str) -> str:
    if view.state == "changes_requested" and reader in (view.requester, view.on_behalf_of):
        return TO_CHANGE
    for seat in stage.seats:
        if reader in seat.eligible:
            return f"You're an approver because you're {seat.eligible[reader]}."
    if stage.veto is not None and reader in stage.veto.eligible:
        return f"You can reject this because you're {stage.veto.eligible[reader]}."
    return ""
