"""The smallest useful workflows: a step, a sleep, a hook, a webhook. Start one with:

    curl -X POST http://127.0.0.1:8000/api/runs -H 'Authorization: Bearer dev' \
         -H 'Content-Type: application/json' -d '{"workflow": "greeting", "input": {"name": "Ann"}}'
"""

from pydantic import BaseModel

from approvals_bot import create_webhook, define_hook, publish, sleep, step, workflow


class Guest(BaseModel):
    name: str
    pause: str = "2s"


@step(retries=3)
async def greet(name: str) -> str:
    """Steps touch the outside world. They run at least once, and their result is recorded once."""
    return f"Hello, {name}!"


@workflow
async def greeting(guest: Guest) -> str:
    """A step, a durable sleep, a step. Kill the process in between, and it continues where it was."""
    hello = await greet(guest.name)
    await sleep(guest.pause)
    return hello + " " + await greet("again")


class Words(BaseModel):
    text: str
    happy: bool = True


reply_hook = define_hook(schema=Words)


@workflow
async def conversation(guest: Guest) -> str:
    """Wait, for minutes or weeks, until somebody POSTs {"text": …} to /api/hooks/reply-<name>."""
    async with reply_hook.create(token=f"reply-{guest.name}") as hook:
        reply = await hook
    return f"{guest.name} says: {reply.text} {'🙂' if reply.happy else ''}".strip()


@workflow
async def callback(guest: Guest) -> dict[str, str]:
    """Publish a signed URL and wait until something posts to it. POST resumes the run; GET never does."""
    webhook = create_webhook()
    publish({"url": webhook.url})
    request = await webhook
    return {"guest": guest.name, "method": request.method, "body": await request.text()}
