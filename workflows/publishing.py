"""Approvals from Python: a text goes back and forth until somebody approves it. Start it with:

    curl -X POST http://127.0.0.1:8000/api/runs -H 'Authorization: Bearer dev' -H 'Content-Type: application/json' \
         -d '{"workflow": "publish_text", "requester": "bo@acme.eu", "input": {"headline": "We ship!", "text": "…"}}'
"""

from pydantic import BaseModel

from approvals_bot import Approved, ChangesRequested, Edited, request_approval, step, workflow


class Text(BaseModel):
    headline: str
    text: str


@step
async def put_online(text: Text) -> str:
    return f"online: {text.headline}"


@workflow
async def publish_text(text: Text) -> str:
    """Let a release manager approve, edit or return the text; three rounds at most."""
    for _ in range(3):
        outcome = await request_approval(
            f"Publish “{text.headline}”?",
            fields=text,
            editable=["headline", "text"],
            outcomes=["approve", "edit", "changes", "reject"],
            approvers="@release-managers",
            deliver={"dm": True, "email": True},
            clock={"deadline": "2d", "remind": ["1d"]},
        )
        match outcome:
            case Approved() | Edited():
                return await put_online(Text.model_validate(outcome.fields))
            case ChangesRequested(comment=wish):
                text = Text(headline=text.headline, text=f"{text.text}\n\nTo change: {wish}")
            case _:
                return "not published"
    return "not published, after three rounds"
