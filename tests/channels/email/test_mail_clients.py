"""Mails in the clients that people have: each element and property against caniemail's data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from tests.support.mail_kinds import mails

DATA = json.loads((Path(__file__).parents[2] / "data" / "caniemail.json").read_text("utf-8"))
CLIENTS: list[str] = DATA["clients"]  # Outlook for Windows, Gmail, Apple Mail, Outlook.com
FEATURES: dict[str, list[str]] = DATA["features"]

KNOWN_EVERYWHERE = {
    "html",
    "head",
    "meta",
    "title",
    "a",
    "br",
    "tr",
    "td",
    "tbody",
    "em",
}  # caniemail tests no such tag
TAGS = {"h1": "html-h1-h6"}
ATTRIBUTES = {"align", "cellpadding", "cellspacing", "dir", "lang", "role", "width"}
BORDERS = ("border-color", "border-left", "border-left-color", "border-top", "border-top-color")
PROPERTIES = {"padding-bottom": "css-padding"} | dict.fromkeys(BORDERS, "css-border")
OUTLOOKS_OWN = {"mso-hide", "mso-padding-alt"}

# What some client lacks or does half, and why a reader there misses nothing.
HARMLESS = {
    "css-at-media": "the layout fits without it: tests/channels/email/test_mail_screens.py",
    "css-at-media-prefers-color-scheme": "the light colours stay, or the client makes its own dark ones",
    "css-border": "Word draws it on tables and cells only, and it is on no other",
    "css-border-radius": "square corners",
    "css-color-scheme": "a hint for scroll bars",
    "css-display": "`none` works, and `block` only makes more of a button clickable",
    "css-font-size": "no rem",
    "css-font-weight": "600 and 700 are bold, 400 isn't",
    "css-important": "in the style sheet only",
    "css-line-height": "without a unit",
    "css-margin": "never negative, never auto",
    "css-max-height": "only on the preheader, which Outlook hides by mso-hide",
    "css-max-width": "only on tables; Outlook has one of 600 pixels around it",
    "css-overflow": "only on the preheader, see max-height",
    "css-padding": "on cells only, but for links in buttons, whose cells have mso-padding-alt",
    "css-text-align": "center only",
    "css-text-decoration": "underline and none",
    "css-width": "on tables and cells",
    "css-word-break": "a long word is broken earlier, or makes the mail wider",
    "html-body": "Gmail makes it a div; its colour is the page cell's, too",
    "html-dir": "never on links",
    "html-doctype": "no standards mode, which nothing here needs",
    "html-meta-color-scheme": "see css-color-scheme",
    "html-style": "everything but dark and narrow screens is inlined",
    "html-width": "in per cent on tables, 600 pixels for Outlook",
}
UNTESTED = {"color", "font-family", "-webkit-text-size-adjust"}  # by caniemail: everywhere, with fallbacks; iOS only


class Reading(HTMLParser):
    """A mail's elements and declarations."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sheet = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "style":
            self.sheet += data

    def inline(self) -> Iterator[tuple[str, str, str]]:
        for tag, attrs in self.elements:
            for name, value in declarations(attrs.get("style", "")):
                yield tag, name, value


def declarations(text: str) -> list[tuple[str, str]]:
    return [
        (name.strip(), value.strip()) for name, _, value in (one.partition(":") for one in text.split(";")) if value
    ]


def used(html: str) -> set[str]:
    """Return the slugs of all that a mail uses; for what caniemail doesn't test, the name itself."""
    reading = Reading(html)
    found = {"html-doctype"} if html.lower().startswith("<!doctype") else set()
    for tag, attrs in reading.elements:
        if tag not in KNOWN_EVERYWHERE:
            found.add(TAGS.get(tag, f"html-{tag}"))
        found |= {f"html-{name}" for name in attrs if name in ATTRIBUTES}
    sheet = re.sub(r"@media \((prefers-color-scheme|max-width)[^)]*\)", "", reading.sheet)
    assert "@" not in sheet, "only these two media queries were looked at"
    if "!important" in sheet:
        found.add("css-important")
    if 'name="color-scheme"' in html:
        found.add("html-meta-color-scheme")
    found |= {"css-at-media", "css-at-media-prefers-color-scheme"} if sheet != reading.sheet else set()
    names = [name for _, name, _ in reading.inline()]
    for block in re.findall(r"\{([^{}]*)\}", sheet):
        names += [name for name, _ in declarations(block)]
    found |= {PROPERTIES.get(name, f"css-{name}") for name in names if name not in UNTESTED | OUTLOOKS_OWN}
    return found


def faults(html: str) -> list[str]:
    """List what one of the clients doesn't do as meant."""
    found = []
    for slug in sorted(used(html)):
        if slug not in FEATURES:
            found.append(f"{slug}: caniemail doesn't know it")
        elif slug not in HARMLESS:
            weak = [client for client, says in zip(CLIENTS, FEATURES[slug], strict=True) if says[0] != "y"]
            if weak:
                found.append(f"{slug}: not in {', '.join(weak)}")
    for tag, name, value in Reading(html).inline():
        if name == "padding" and tag not in ("td", "a", "body"):
            found.append(f"padding on <{tag}>: Outlook ignores it")
        if (
            name.startswith("border")
            and name not in ("border-radius", "border-collapse")
            and tag not in ("td", "table")
        ):
            found.append(f"{name} on <{tag}>: Outlook may ignore it")
        if name == "margin" and re.search(r"auto|-\d", value):
            found.append(f"margin: {value}: Outlook ignores it")
        if name == "display" and not (value == "none" or (value == "block" and tag == "a")):
            found.append(f"display: {value} on <{tag}>")
        if name in ("max-height", "overflow") and "mso-hide" not in html:
            found.append(f"{name} on <{tag}>: Outlook ignores it")
        if name in ("width", "max-width") and tag not in ("table", "td", "body"):
            found.append(f"{name} on <{tag}>: Outlook ignores it")
    return found


def test_every_mail_works_in_the_clients_people_have(card: Card, now: datetime, outcome: CardOutcome) -> None:
    for name, letter in mails(card, outcome, now).items():
        assert faults(letter.html) == [], name
        sheet = Reading(letter.html).sheet
        assert len(sheet) < 16_000, "Gmail drops a larger style sheet"


def test_every_exemption_is_needed(card: Card, now: datetime, outcome: CardOutcome) -> None:
    seen = set[str]().union(*(used(letter.html) for letter in mails(card, outcome, now).values()))
    assert sorted(set(HARMLESS) - seen) == []
    assert [slug for slug in HARMLESS if all(says[0] == "y" for says in FEATURES[slug])] == []


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<p style="white-space: pre-wrap">x</p>', "css-white-space: not in outlook-windows, gmail-ios"),
        ('<td style="position: absolute">x</td>', "css-position: not in"),
        ("<details>x</details>", "html-details: caniemail doesn't know it"),
        ('<p style="padding: 2px">x</p>', "padding on <p>"),
        ('<div style="border-left: 1px solid">x</div>', "border-left on <div>"),
        ('<td style="opacity: 0">x</td>', "css-opacity: not in outlook-windows"),
    ],
)
def test_the_check_finds_what_outlook_ignores(html: str, expected: str) -> None:
    assert any(fault.startswith(expected) for fault in faults(html)), faults(html)


def test_the_preheader_is_hidden_everywhere(card: Card, now: datetime, outcome: CardOutcome) -> None:
    for name, letter in mails(card, outcome, now).items():
        (style,) = re.findall(r'<div class="preheader" style="([^"]*)"', letter.html)
        hidden = dict(declarations(style))
        assert hidden == {"display": "none", "max-height": "0", "overflow": "hidden", "mso-hide": "all"}, name
