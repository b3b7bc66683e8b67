"""Hooks that a run has before its body creates any: that of `start(hook_token=…)`, and those of the run it continues.

`run_created` lists them, with negative numbers. The body adopts one by creating a hook with its token. Payloads may
come before that, when nobody knows their schema: these are checked when the body gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from approvals_bot.durable.core import commands
from approvals_bot.durable.core.bugs import FailureRules
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.hooks import Hook, Webhook
from approvals_bot.durable.core.payload_schemas import schema_of
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.serialization import decode, encode
from approvals_bot.errors import InvalidArgumentError, InvalidPayloadError, NondeterminismError, SerializationError

Check = Callable[[int, Any], Any]
"""Returns a payload, given its event's number, in the form that its schema has in the log. Raises DoesNotFit."""


class DoesNotFit(Exception):
    """A payload that doesn't fit its hook's schema. It isn't delivered."""


class ReservedHook(Hook[Any]):
    """A hook that the body may not have created yet. Until then, it keeps what it receives as it came."""

    def __init__(self, run: RunState, given: dict[str, Any]) -> None:
        super().__init__(run, given["id"], given["hook_id"], given["token"], None, _unread)
        self.number: int = given["id"]
        self.is_adopted = False
        self.raw: set[int] = set()  # events whose payloads nobody has checked
        self._check: Check | None = None

    @property
    def is_open(self) -> bool:
        """Whether payloads may still arrive for the body. Before it adopts the hook, none can wake it."""
        return self.is_adopted and self.is_live

    @property
    def is_live(self) -> bool:
        """Whether payloads may still arrive, for this body or the next."""
        return super().is_open

    def receive(self, seq: int, payload: Any) -> None:
        if self._check is not None and seq in self.raw:
            try:
                payload = self._check(seq, payload)
            except DoesNotFit:
                return
        super().receive(seq, payload)

    def adopt(self, metadata: Any, read: Callable[[int, Any], Any], check: Check) -> None:
        """Be the hook that the body creates. Payloads that came before are checked now."""
        self.is_adopted = True
        self.metadata = metadata
        self._read = read
        self._check = check
        came, self.inbox = [*self.inbox], type(self.inbox)()
        for seq, payload in came:
            self.receive(seq, payload)


class ReservedWebhook(ReservedHook, Webhook):
    """A webhook of the run before. `create_hook` with its token adopts it, as the webhook it is."""

    def __init__(self, run: RunState, given: dict[str, Any]) -> None:
        super().__init__(run, given)
        self.answer = given["answer"]


def _unread(seq: int, payload: Any) -> Any:
    raise AssertionError("nothing awaits a hook that the body hasn't created")


class RunWithHooks(RunState):
    """The replay of a run that has hooks before its body creates any."""

    def __init__(
        self, created: Event, entropy: bytes, link: Callable[[str], str], failures: FailureRules | None = None
    ) -> None:
        super().__init__(created, entropy, link, failures)
        self._reserved: dict[str, ReservedHook] = {}
        self._first: str | None = None  # the token that the body's first hook must have
        for given in created.data["hooks"]:
            hook = ReservedWebhook(self, given) if "answer" in given else ReservedHook(self, given)
            self.hooks[hook.number] = self._reserved[hook.token] = hook
            if given.get("first"):
                self._first = hook.token

    @property
    def first(self) -> str | None:
        """The token that the body's first hook must have, as long as it has created none."""
        return self._first

    def create_hook(
        self, token: str | None, metadata: Any, schema: Any, answer: dict[str, Any] | None = None
    ) -> Hook[Any]:
        first, self._first = self._first, None
        if first is not None and token != first:
            got = "one with a random token" if token is None else f"one with the token {token!r}"
            asked = f"the token {first!r} for the run's first hook, because start(hook_token=…) has claimed it"
            self.drift = self.drift or NondeterminismError(1, asked, got)
        hook = None if token is None else self._reserved.pop(token, None)
        if hook is None:
            return super().create_hook(token, metadata, schema, answer)
        if isinstance(hook, ReservedWebhook) and schema is not None:
            raise InvalidArgumentError("this token is a webhook's, whose payloads are requests: leave out the schema")
        self._adopt(hook, metadata, schema)
        return hook

    def deliver(self, event: Event) -> None:
        if event.type == "hook_received" and "raw" in event.data:
            hook = self.hooks[event.data["id"]]
            assert isinstance(hook, ReservedHook), "all others check what they receive"
            hook.raw.add(event.seq)
        super().deliver(event)

    def _adopt(self, hook: ReservedHook, metadata: Any, schema: Any) -> None:
        """Record that the body has created this hook, and give the hook what the body says of it."""
        number = self._count = self._count + 1
        recorded = self._recorded.get(number)
        stated = {
            "adopts": hook.number,
            "metadata": encode(metadata, Any, "metadata"),
            "answer": hook.answer,
            "has_schema": schema is not None or None,
            "schema": None if schema is None or recorded is not None else schema_of(schema),
        }
        options = {name: value for name, value in stated.items() if value is not None}
        before = 0 if recorded is None else recorded.seq

        def check(seq: int, payload: Any) -> Any:
            return self._checked(hook.number, schema, seq, payload, was_accepted=seq < before)

        # What is refused comes before the hook in the log: what doesn't come before it has been accepted.
        hook.adopt(metadata, self._reader(hook.number, schema, hook.answer), check)
        self._ask(commands.CreateHook(number, hook.hook_id, hook.token, options))
        if recorded is not None and recorded.data.get("token", hook.token) != hook.token:
            self.drifts(number, f"hook #{number} with token {recorded.data['token']!r}", f"the token {hook.token!r}")
        if schema is not None:
            self.schemas[hook.number] = schema

    def _checked(self, number: int, schema: Any, seq: int, payload: Any, *, was_accepted: bool) -> Any:
        """Return a payload as the log would have it if it had been checked when it came.

        Raises DoesNotFit for one that doesn't fit. The log says which have been refused; `was_accepted` that this one
        wasn't: then it is the schema that has changed, which is drift.
        """
        if ("refused", seq) in self._decided:
            raise DoesNotFit
        if schema is None:
            return payload
        try:
            return encode(decode(payload, Any), schema, "payload")
        except (InvalidPayloadError, SerializationError) as error:
            if was_accepted:
                self.drifts(number, f"a payload of hook #{number}", f"another type ({error})", seq)
            else:
                self._new["refused", seq] = commands.Refuse(number, seq, _errors_of(error))
            raise DoesNotFit from None


def _errors_of(error: InvalidPayloadError | SerializationError) -> list[dict[str, Any]]:
    """Return what is wrong where, as the log keeps it: without the values, which may be anything."""
    if isinstance(error, SerializationError):
        return [{"loc": [error.path], "msg": error.reason}]
    return [{"loc": [str(part) for part in each["loc"]], "msg": str(each["msg"])} for each in error.errors]
