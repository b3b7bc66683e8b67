"""One request while it is decided: its fields, its stages, its votes, and what each act does to them.

The rules of a workflow's file, applied; no clock, no channel, no lookup. The workflow around it brings the time, the
resolved people and the messages, and does what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from pydantic import JsonValue

from approvals_bot.approvals import filled_in
from approvals_bot.approvals.acts import Act, Edit, Reassign, Reply, Stop, Vote, Withdraw
from approvals_bot.approvals.ballot import Ballot, CastVote, cast, refusal, reset, standing, still_owed, vote_of
from approvals_bot.approvals.content import Content
from approvals_bot.approvals.eligibility import Found, RequestContext, SeatAsk, label_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import State, Via
from approvals_bot.approvals.reassignment import Rank, hand_over
from approvals_bot.approvals.request import RequestOutcome
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.values import shown_duration
from approvals_bot.people import Person


class Case:
    """The state of one request."""

    def __init__(self, definition: Definition, fields: Mapping[str, JsonValue], about: RequestContext) -> None:
        self.definition = definition
        self.content = Content(definition, fields)
        self.about = replace(about, fields=self.content.fields)
        self.stages = [StageState(rule, _title(rule.id)) for rule in definition.stage]
        self.people: dict[str, Person] = {}
        self.state: State = "waiting"
        self.outcome: RequestOutcome | None = None
        self._labels: dict[tuple[str, ...], str] = {}  # of the people and fields as they are
        self.version = 1
        self.held: RequestOutcome | None = None  # a decision that can still be taken back
        self.times_held = 0
        self.is_reset = False  # votes were voided, and the stage has not been opened anew yet
        self.plan()

    # ── where it stands ──

    @property
    def stage(self) -> StageState | None:
        return next((stage for stage in self.stages if stage.state == "open"), None)

    @property
    def ballot(self) -> Ballot:
        assert self.stage is not None, "a stage is open"
        assert self.stage.ballot is not None, "it was opened"
        return self.stage.ballot

    @property
    def owed(self) -> tuple[str, ...]:
        """Who has not voted in the open stage and could help."""
        return still_owed(self.ballot) if self.stage and self.state == "waiting" else ()

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Whose turn it is: people who owe a vote, or the requester who was asked for changes."""
        if self.state == "changes_requested":
            return tuple(who for who in (self.about.requester,) if not who.startswith("app:"))
        return self.owed if self.outcome is None and self.held is None else ()

    @property
    def stamp(self) -> tuple[object, ...]:
        """Another one whenever anything of this changes: what is made of it may be used again as long as it's equal."""
        stages = ((s.state, s.because, s.ballot, s.why, s.handovers, s.opened_at) for s in self.stages)
        said = (self.content.digest, self.content.fields, self.content.was, self.content.rules)
        return (self.version, self.state, self.held, self.outcome, self.people, said, *stages)

    def name(self, who: str) -> str:
        return self.people[who].name if who in self.people else who.removeprefix("app:")

    # ── rules of the file ──

    def decide_by_rule(self, now: datetime) -> bool:
        """Whether a rule decides this request without people."""
        matched = self.content.automatic()
        if matched is not None:
            number, rule, because = matched
            state: State = "approved" if rule.decision == "approve" else "rejected"
            self.decide(state, f"rule:{number}", now, "rule", because=because)
        return matched is not None

    def plan(self) -> None:
        """Say of every stage that is not open or done whether it will be asked."""
        for stage, (applies, because) in zip(self.stages, self.content.plan(), strict=True):
            if not applies:
                stage.state = "skipped"
            elif stage.state == "skipped":
                stage.state = "ahead"
            stage.because = because

    # ── stages ──

    def next_stage(self) -> StageState | None:
        """The first stage that applies and is not complete; stages before it are done. None: all are."""
        self.plan()
        for stage in self.stages:
            if stage.state == "skipped":
                continue
            if not stage.is_complete([number for number, _ in self.content.seats(stage.rule)]):
                return stage
            stage.state = "done"
        return None

    def open(self, stage: StageState, found: Found, now: datetime) -> None:
        """Ask the people of this stage."""
        for other in self.stages:
            if other.state == "open":
                other.state = "ahead"
        stage.state, stage.opened_at, self.state, self.is_reset = "open", now, "waiting", False
        policy, votes = self.definition.policy, stage.ballot.votes if stage.ballot else ()
        stage.ballot = Ballot(
            seats=(),
            outcomes=self.definition.outcomes_of(stage.rule),
            reject=policy.reject,
            comment=stage.rule.comment,
            recheck=policy.recheck,
            requesters=self.about.barred,
            digest=self.content.digest,
            votes=votes,
        )
        self.seat(stage, found)
        self.version += 1

    def asks(self, stage: StageState) -> list[SeatAsk]:
        """Whose people are to be found for this stage, escalations included."""
        return stage.asks(self.content.seats(stage.rule))

    def seat(self, stage: StageState, found: Found) -> None:
        """The stage's lists, as just resolved. One that could not be read stays as it was."""
        self.meet(found.people)
        stage.seat(found, dict(self.content.seats(stage.rule)), self.people, self.label)

    def escalate(self, stage: StageState, to: tuple[str, ...], mode: Literal["add", "replace"]) -> None:
        """More people, or other people, for every seat that is still open."""
        stage.escalate(to, mode)
        self.version += 1

    def meet(self, people: Mapping[str, Person]) -> None:
        """Their names, and how they are reached, as just looked up."""
        if any(self.people.get(who) != person for who, person in people.items()):
            self.people = {**self.people, **people}
            self._labels = {}

    def label(self, addresses: tuple[str, ...]) -> str:
        """How the people of these addresses are called."""
        known = self._labels.get(addresses)
        if known is None:
            known = self._labels[addresses] = label_of(addresses, self.about, self.people)
        return known

    # ── acts ──

    def vote(self, act: Vote, found: Found, now: datetime) -> Reply:
        """One person's choice, with the people of the open stage as resolved at the click."""
        stage = self.stage
        assert stage is not None, "a stage is open"
        self.seat(stage, found)
        assert stage.ballot is not None, "it was opened"
        vote = CastVote(act.by, act.choice, now, act.via, act.comment.strip(), {}, act.digest)
        answers, rejections = filled_in.answers(stage.rule, act)
        edited: dict[str, Any] = {}
        if act.choice == "edit":
            changes = filled_in.approver_changes(self.definition, stage.rule, self.content.fields, act)
            if isinstance(changes, tuple):
                rejections = changes
            else:
                edited = changes
        refused = refusal(stage.ballot, vote, Reply("invalid", rejections=rejections) if rejections else None)
        if refused is not None:
            return self._refused(act, refused)
        if edited and self._change(edited):
            self._reset()
        if edited and self.decide_by_rule(now):
            return Reply("decided", True, "rule_decided")
        vote = replace(vote, answers=answers, digest=None)
        ballot, reply = cast(stage.ballot, vote)
        stage.ballot = replace(
            ballot, votes=tuple(replace(v, digest=self.content.digest) if v.digest is None else v for v in ballot.votes)
        )
        self.version += 1
        self.held = None
        return self._counted(stage, vote, reply)

    def _counted(self, stage: StageState, vote: CastVote, reply: Reply) -> Reply:
        match standing(self.ballot):
            case "rejected" | "answered" as state:
                return self._end(stage, state, vote, reply)
            case "changes_requested":
                self.state = "changes_requested"
            case "filled":
                following = self.next_stage()
                if following is None:
                    return self._end(stage, "approved", vote, reply)
                return Reply("counted", True, params={**reply.params, "next_stage": following.title})
            case "open":
                pass
        return reply

    def _end(
        self, stage: StageState, state: Literal["approved", "rejected", "answered"], vote: CastVote, reply: Reply
    ) -> Reply:
        """This vote decides: now, or, with a grace period, unless it is taken back in time."""
        grace = self.definition.policy.grace
        if grace is None:
            self.decide(state, vote.by, vote.at, vote.via, vote.comment)
            return reply
        stage.state = "open"
        self.times_held += 1
        self.held = RequestOutcome(state=state, by=vote.by, at=vote.at, via=vote.via, comment=vote.comment)
        return Reply("counted", True, "held", {"outcome": state.capitalize(), "grace": shown_duration(grace)})

    def take_effect(self) -> None:
        """The grace period is over."""
        ended, self.held = self.held, None
        assert ended is not None, "a decision was held"
        self.decide(ended.state, ended.by, ended.at, ended.via, ended.comment)

    def refused_while_held(self, act: Act, now: datetime) -> Reply | None:
        """During the grace period only who has voted may think again, and the requester may withdraw."""
        held = self.held
        if held is None or isinstance(act, Withdraw) or (isinstance(act, Vote) and vote_of(self.ballot, act.by)):
            return None
        params = {"state": held.state, "by": self.name(held.by), **self.moment(held.at, now, act.by)}
        return Reply("already_decided", code="ended", params=params)

    def moment(self, at: datetime, now: datetime, reader: str) -> dict[str, str]:
        """A time of the past, as parameters of a reply to this reader."""
        zone = self.people[reader].zone if reader in self.people else "UTC"
        return {"at": at.isoformat(), "now": now.isoformat(), "zone": zone}

    def _refused(self, act: Vote, reply: Reply) -> Reply:
        """A refusal. A person who voted in a stage that is complete is told so, rather than that they may not vote."""
        earlier = [stage.ballot for stage in self.stages if stage.state == "done" and stage.ballot]
        if reply.verdict in ("not_an_approver", "own_request") and any(vote_of(ballot, act.by) for ballot in earlier):
            return Reply("already_voted", code="stage_is_over")
        return reply

    def hand_over(self, act: Reassign, found: Found, rank: Rank, now: datetime) -> Reply:
        """Somebody else is asked, instead of somebody or besides the others."""
        stage = self.stage
        assert stage is not None, "a stage is open"
        self.seat(stage, found)
        who_may = self.definition.policy.reassign or "approvers"
        done = hand_over(self.ballot, act, self.about, rank, self.people, now, who_may)
        if isinstance(done, Reply):
            return done
        stage.handovers = (*stage.handovers, done)
        self.seat(stage, found)
        self.version += 1
        instead_of = self.name(done.instead_of) if done.instead_of else ""
        params = {"person": self.name(done.person), "instead_of": instead_of}
        return Reply("reassigned" if done.instead_of else "added", True, params=params)

    def edit(self, act: Edit) -> Reply:
        """The requester changes fields. Votes are reset as the policy says, and always when changes were asked for."""
        if act.by not in (self.about.requester, self.about.on_behalf_of):
            return Reply("not_an_approver", code="not_yours")
        changed = filled_in.requester_changes(self.definition, self.content.fields, act)
        if isinstance(changed, tuple):
            return Reply("invalid", rejections=changed)
        resets = self._change(changed)
        if resets:
            self._reset()
        stage = self.stage
        if self.state == "changes_requested" and stage is not None and stage.ballot is not None:
            stage.ballot, resets = reset(stage.ballot, self.content.digest), True
            self.state = "waiting"  # at once: whoever looks before the stage is open anew is not told to change it
        self.is_reset = self.is_reset or resets
        self.version += 1
        return Reply("edited", True, "edited_and_reset" if resets else "")

    def withdraw(self, act: Withdraw | Stop, now: datetime) -> Reply:
        """The requester, or an app, takes the request back."""
        if act.by not in (self.about.requester, self.about.on_behalf_of) and not act.by.startswith("app:"):
            return Reply("not_an_approver", code="not_yours")
        self.decide("withdrawn", act.by, now, act.via, act.reason.strip())
        return Reply("taken_back", True, "withdrawal")

    def decide(self, state: State, by: str, at: datetime, via: Via, comment: str = "", because: str = "") -> None:
        """The end. There is one, and it stays."""
        assert self.outcome is None, "a request is decided once"
        self.state = state
        acted = (vote for stage in self.stages for vote in (stage.ballot.votes if stage.ballot else ()))
        place = next((vote.in_place_of for vote in acted if vote.stands and vote.by == by and vote.at == at), "")
        self.outcome = RequestOutcome(
            state=state, by=by, at=at, via=via, comment=comment, because=because, in_place_of=place
        )
        for stage in self.stages:
            if stage.state == "open":
                stage.state = "done"
        self.version += 1

    # ── fields ──

    def _change(self, typed: dict[str, Any]) -> bool:
        """Take the new values. Whether the votes so far are void."""
        voids = self.content.change(typed)
        self.about, self._labels = replace(self.about, fields=self.content.fields), {}
        for stage in self.stages:
            if stage.ballot is not None:
                stage.ballot = replace(stage.ballot, digest=self.content.digest)
        return voids

    def _reset(self) -> None:
        self.is_reset = True
        for stage in self.stages:
            if stage.ballot is not None:
                stage.ballot = reset(stage.ballot, self.content.digest)


def _title(id: str) -> str:
    return id.replace("-", " ").replace("_", " ").capitalize()
