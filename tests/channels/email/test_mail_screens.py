"""Mails as a phone shows them: the first screen, width and contrast, measured in a browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from tests.support.browsing import chromium, needs_chromium
from tests.support.mail_kinds import mails
from tests.support.screens import CONTRAST, bottom_of, faint_texts, is_too_wide

pytestmark = needs_chromium

PHONE = {"width": 320, "height": 640}
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)

FIRST = {
    "title": "h1",
    "requester": ".muted:has-text('Requested by')",
    "deadline": ".state:has-text('due Wed 4 Nov 2026, 10:35 in São Paulo')",
    "Approve": "a:has-text('Approve') >> nth=0",
    "Reject": "a:has-text('Reject') >> nth=0",
}


@pytest.fixture
async def page() -> AsyncIterator[Any]:
    async with chromium(viewport=PHONE) as page:
        yield page


async def test_a_phones_first_screen_shows_what_and_the_choices(
    page: Any, card: Card, now: datetime, outcome: CardOutcome
) -> None:
    written = mails(card, outcome, now)
    for name in ("request", "everything", "long-title", "reminder", "escalation", "edited", "comment", "short-comment"):
        html = written[name].html
        for shown in (html, STYLE.sub("", html)):  # Gmail drops the style sheet for accounts elsewhere
            await page.set_content(shown)
            for what, selector in FIRST.items():
                assert await bottom_of(page, selector) <= PHONE["height"], f"{name}: {what}"
            assert await bottom_of(page, FIRST["Reject"]) < await bottom_of(page, ".part")


async def test_every_mail_fits_a_phone_and_can_be_read(
    page: Any, card: Card, now: datetime, outcome: CardOutcome
) -> None:
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        for name, letter in mails(card, outcome, now).items():
            await page.set_content(letter.html)
            assert not await is_too_wide(page), name
            assert await faint_texts(page) == [], f"{name}, {scheme}"


async def test_the_measure_of_contrast_finds_faint_text(page: Any) -> None:
    await page.set_content('<body style="background:#fff"><p style="color:#999">faint</p><p style="color:#666">not</p>')
    assert await faint_texts(page) == [f"faint: 2.8 of {CONTRAST}"]
