"""Slack's own types and models judge what we send: every card, view and manifest, with hostile and oversized content.

Three judges that we did not write: the TypeScript compiler with `@slack/types` and `@slack/web-api` (names, kinds,
styles), `slack_sdk.models` (lengths and counts), and in the packages' tests the limits that the fake Slack enforces.
Without Node the first is skipped, and the summary says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_args

import pytest
from slack_sdk.models.blocks import Block as SdkBlock
from slack_sdk.models.views import View as SdkView

from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardDelivery,
    CardField,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    FormField,
    Name,
    State,
)
from approvals_bot.approvals.field_specs import FieldSpec, FieldType
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Dispatch, Place, Receipt
from approvals_bot.channels.slack import blocks
from approvals_bot.channels.slack import home as home_tab
from approvals_bot.channels.slack import modals as views
from approvals_bot.channels.slack import opening as forms
from approvals_bot.channels.slack.manifest import manifest
from approvals_bot.people import Person
from tests.support.slack_javascript import node_folder, refused_by_compiler

NOW = datetime(2026, 11, 4, 10, 5, tzinfo=UTC)
TEXTS = {
    "plain": "Deploy api 2.1.0 to prod",
    "broadcast": "<!channel> <@U0ANN> <#C1> &lt;!here&gt;",
    "link": "<https://evil.example|https://good.example> `code` *bold* ~x~ > quote",
    "emoji": "👨‍👩‍👧‍👦" * 400,
    "rtl": "\u202eevil\u2066 שלום " * 50,
    "control": "a\x00b\x1b[31m\u2028\u2029\r\n\t\ud800",
    "long": "x" * 60_000,
    "huge": "word " * 40_000,
    "empty": "",
    "blank": " \n ",
    "json": '"}],"type":"header"',
}


def card_with(text: str, state: State = "waiting") -> Card:
    who = Name("x@acme.eu", text, "U0X")
    ended = state not in ("waiting", "changes_requested")
    return Card(
        run_id="run_1",
        hook_id="hook_1",
        workflow="deploy",
        version=3,
        state=state,
        title=text,
        requester=who,
        asked_at=NOW,
        digest="5f1c3a9e",
        on_behalf_of=who,
        fields=tuple(CardField(f"f{n}", text, text, kind, n % 2 == 0, text) for n in range(9) for kind in KINDS),
        stages=tuple(
            CardStage(f"s{n}", text, "open" if n == 0 else "ahead", (CardSeat(text, 2, (who,)),)) for n in range(15)
        ),
        have=1,
        need=2,
        waiting_for=(who,) * 30,
        votes=(CardVote(who, "approve", at=NOW, via="slack", comment=text),) * 30,
        deadline=None if ended else NOW + timedelta(hours=4),
        on_deadline=text,
        choices=() if ended else CHOICES(text),
        outcome=CardOutcome(state, who, text, at=NOW, via="slack", comment=text) if ended else None,
        deliveries=(CardDelivery("x@acme.eu", "email", "not_delivered", 3, text),) * 9,
        why_me=text,
        url="https://approve.acme.eu/requests/run_1",
    )


KINDS: tuple[Any, ...] = ("short", "long", "diff")


def any_spec(kind: FieldType, required: bool, values: tuple[str, ...], text: str) -> FieldSpec:
    """Build a field with any texts, without the checks of workflow files."""
    return FieldSpec.model_construct(type=kind, required=required, values=values, hint=text, example=text)


def CHOICES(text: str) -> tuple[CardChoice, ...]:
    asks = tuple(
        FormField(f"a{n}", text, any_spec(kind, n % 2 == 0, (text[:75] or "a", "b"), text), text)
        for n, kind in enumerate(get_args(FieldType))
    )
    return (
        CardChoice("approve", text, text, "primary", confirm=text),
        CardChoice("reject", text, text, "danger", comment="required"),
        CardChoice("changes", text, text, comment="required", asks=asks),
        CardChoice("take_back", text, text),
    )


def _messages() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    to = Place("slack", "#deploys")
    for kind, text in TEXTS.items():
        for state in ("waiting", "approved") if kind != "plain" else get_args(State):
            yield f"card {kind} {state}", blocks.card_message(card_with(text, state))[1]
        card = card_with(text)
        yield f"note {kind}", blocks.message(Dispatch("d", to, card, "reminder", thread=Receipt("C1", "1.2")))[1]
        yield f"notice {kind}", blocks.message(Dispatch("d", to, card, text=text or "–"))[1]
        yield f"opened {kind}", forms.opened(text or "–", "https://approve.acme.eu/requests/run_1")
        yield f"changed your mind {kind}", views.with_undo_button(text, card)
    yield "choices", forms.choices([f"workflow-{n}" for n in range(60)])
    yield "no choices", forms.choices([])


def _modals() -> Iterator[tuple[str, dict[str, Any]]]:
    opened = views.Opened("hook_1", "reject", "5f1c", "C1")
    for kind, text in TEXTS.items():
        for choice in CHOICES(text):
            yield f"vote {kind} {choice.choice}", views.vote_modal(card_with(text), choice, opened)
        yield f"said {kind}", views.reply_modal(text)
        yield f"form {kind}", forms.form(form_with(text), forms.Form("change", "C1"), Person("ann@acme.eu", text))
    yield "chooser", forms.chooser(["a", "b"])


def _homes() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, text in TEXTS.items():
        cards = [replace(card_with(text), run_id=f"run_{n}") for n in range(25)]
        many, ended = home_tab.Cards(cards, 250, False, [text]), home_tab.Cards([card_with(text, "approved")] * 9, 9)
        yield f"home {kind}", home_tab.home(home_tab.Inbox(many, many, ended, many, may_ask=True))
    yield "home of a stranger", home_tab.stranger_home("You are a guest here.")


def form_with(text: str) -> Definition:
    fields: dict[str, Any] = {}
    for n, kind in enumerate(get_args(FieldType)):
        options: dict[str, Any] = {"currency": "EUR"} if kind == "money" else {}
        if kind == "enum":
            options = {"values": [f"v{i}" for i in range(300)]}
        if kind == "list":
            options = {"of": "string"}
        fields[f"{kind}_{n}"] = {"type": kind, "required": n % 2 == 0 and kind != "file"} | options
    default = text.replace("\x00", "").replace("\x1b", "").replace("\ud800", "")[:500]
    fields["first"] = {"type": "text", "default": default or "x", "required": False}
    stage = {"id": "go", "from": ["ann@acme.eu"]}
    return Definition.model_validate(
        {"workflow": {"id": "change", "title": "x", "request": ["*"]}, "fields": fields, "stage": [stage]}
    )


@cache
def messages() -> dict[str, list[dict[str, Any]]]:
    return dict(_messages())


@cache
def modals() -> dict[str, dict[str, Any]]:
    return dict(_modals())


@cache
def homes() -> dict[str, dict[str, Any]]:
    return dict(_homes())


MANIFEST_TYPE = 'AppsManifestValidateArguments["manifest"]'
TYPES = (
    'import type { HomeView, KnownBlock, ModalView } from "@slack/types"; '
    'import type { AppsManifestValidateArguments } from "@slack/web-api";'
)
PLAIN = {"type": "plain_text", "text": "x"}
BAD: dict[str, tuple[str, Any]] = {
    "a key that no type knows": ("KnownBlock[]", [{"type": "divider", "colour": "red"}]),
    "a block that there is not": ("KnownBlock[]", [{"type": "marquee", "text": PLAIN}]),
    "a modal without a title": ("ModalView", {"type": "modal", "blocks": []}),
    "a scope that is misspelt": (
        MANIFEST_TYPE,
        manifest("https://a.eu", socket=False) | {"oauth_config": {"scopes": {"bot": ["chat:wrote"]}}},
    ),
}


@pytest.fixture(scope="module")
def refused() -> dict[str, str]:
    """Everything that the compiler refuses, in one run, because starting it takes seconds."""
    given: dict[str, tuple[str, Any]] = {name: ("KnownBlock[]", shown) for name, shown in messages().items()}
    given |= {name: ("ModalView", view) for name, view in modals().items()}
    given |= {name: ("HomeView", view) for name, view in homes().items()}
    for socket in (True, False):
        given[f"manifest {socket}"] = (MANIFEST_TYPE, manifest("https://approve.acme.eu", socket=socket))
    return refused_by_compiler(node_folder(), TYPES, given | BAD)


@pytest.mark.check(22)
def test_slacks_types_accept_every_message_and_view(refused: dict[str, str]) -> None:
    assert {name: refused[name] for name in (*messages(), *modals(), *homes()) if name in refused} == {}


@pytest.mark.check(38)
def test_slacks_types_accept_the_manifests_and_know_every_scope(refused: dict[str, str]) -> None:
    assert {name: why for name, why in refused.items() if name.startswith("manifest")} == {}


def test_compiler_refuses_invalid_messages(refused: dict[str, str]) -> None:
    assert BAD.keys() <= refused.keys()


@pytest.mark.check(22)
def test_slack_sdk_models_accept_every_message_and_view() -> None:
    for name, shown in messages().items():
        for block in shown:
            parsed = SdkBlock.parse(block)
            assert parsed is not None, f"{name}: {block['type']} is unknown"
            parsed.to_dict()
    for name, view in (modals() | homes()).items():
        try:
            SdkView(**view).to_dict()
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error
