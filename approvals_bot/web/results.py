"""What a person reads on the page that her vote led to: her verdict, from the request as it stands now. Pure.

The page is reached by a redirect, so that it can be reloaded. The sentence is made anew each time and not carried
along: a link holds no text about people, and what it says is still true after the next vote.
"""

from __future__ import annotations

from approvals_bot.approvals import sentences
from approvals_bot.approvals.ballot import Verdict, Word, have, missing, need, rejections_needed, standing
from approvals_bot.approvals.request import RequestView, StageView, VoteView, ballot_of

DONE = ("counted", "decided", "changed", "taken_back", "already_voted", "received")
"""Verdicts that lead to the result page."""


HANDING_DONE = ("reassigned", "added")


def result(view: RequestView, reader: str, done: str, received: str) -> str | None:
    """The sentence for this reader. None when she did nothing that fits, as when a link was opened by hand.

    `received`: what to say of a vote that is saved and not counted yet.
    """
    if done == "edited":
        reset = view.is_open and not any(vote.stands for vote in view.votes)
        return sentences.EDITED_AND_RESET if reset else sentences.EDITED
    if done in HANDING_DONE:
        return _handed_over(view, reader)
    mine = next((vote for vote in reversed(view.votes) if vote.by == reader), None)
    if done == "received" and mine is None:
        return received
    if mine is None or done not in DONE:
        return None
    if done == "taken_back":
        return None if mine.stands else _say("taken_back", view, mine)
    if not mine.stands:
        return None
    if view.outcome is not None and view.outcome.by == reader:
        return _decided(view)
    return _say("changed" if done == "changed" else "counted", view, mine)


def _handed_over(view: RequestView, reader: str) -> str | None:
    done = next((each for each in reversed(view.handovers) if each.by == reader), None)
    if done is None:
        return None
    instead_of = view.name(done.instead_of).text if done.instead_of else ""
    return sentences.handed_over(view.name(done.person).text, instead_of)


def _decided(view: RequestView) -> str | None:
    match view.state:
        case "approved":
            return sentences.DECIDED["filled"]
        case "rejected":
            return sentences.DECIDED["rejected"]
        case "answered":
            return sentences.DECIDED["answered"]
        case "changes_requested":
            return sentences.CHANGES_ASKED
    return None


def _say(word: Word, view: RequestView, mine: VoteView) -> str | None:
    if view.held is not None and view.held.by == mine.by:
        return sentences.held(view.held.state, view.grace)  # type: ignore[arg-type]  # one of the states that votes bring
    if mine.choice == "changes":
        return sentences.CHANGES_ASKED
    stage = next((stage for stage in view.stages if stage.id == mine.stage), None)
    if stage is None:
        return None
    following = _following(view, stage)
    return sentences.say(_verdict(word, view, stage, mine), following)


def _following(view: RequestView, stage: StageView) -> str:
    """The stage after this one, which may not have been opened yet."""
    if view.stage is not None and view.stage.id != stage.id:
        return view.stage.title
    ahead = [later.title for later in view.stages if later.state == "ahead"]
    return ahead[0] if stage.state == "done" and ahead and view.is_open else ""


def _verdict(word: Word, view: RequestView, stage: StageView, mine: VoteView) -> Verdict:
    ballot = ballot_of(view, stage)
    if mine.choice == "reject":
        rejections = sum(vote.stands and vote.choice == "reject" for vote in ballot.votes)
        return Verdict(word, "reject", "open", rejections, rejections_needed(ballot))
    return Verdict(word, mine.choice, standing(ballot), have(ballot), need(ballot), missing(ballot))
