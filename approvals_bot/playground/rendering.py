"""Slack's text as HTML: mrkdwn, rich text and date tokens, in the reader's time zone.

Everything that people typed is escaped. Broadcasts and mentions are marked, so injected ones are visible.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

CONTROL = re.compile(r"(```.*?```|`[^`\n]+`|<[^<>\n]+>)", re.DOTALL)
EMPHASIS = (
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])"), "strong"),
    (re.compile(r"(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])"), "em"),
    (re.compile(r"(?<![\w~])~(?=\S)([^~\n]+?)(?<=\S)~(?![\w~])"), "s"),
)
EMOJI = {
    "white_check_mark": "✅",
    "no_entry": "⛔",
    "hourglass": "⌛",
    "hourglass_flowing_sand": "⏳",
    "warning": "⚠️",
    "x": "✖",
    "eyes": "👀",
    "tada": "🎉",
    "lock": "🔒",
    "leftwards_arrow_with_hook": "↩︎",
}
STYLES = (("bold", "strong"), ("italic", "em"), ("strike", "s"), ("code", "code"), ("underline", "u"))
MOMENTS = re.compile(r"\{(\w+)\}")


class Rendering:
    """Renders for one reader. `name_of` returns the displayed name of a person, channel or user group ID."""

    def __init__(self, name_of: Callable[[str], str], zone: str, now: datetime) -> None:
        self.name_of = name_of
        self.zone = ZoneInfo(zone)
        self.now = now.astimezone(self.zone)

    # mrkdwn

    def text(self, given: Mapping[str, Any]) -> Markup:
        """Render a text object, or a cell of a table."""
        match given:
            case {"type": "mrkdwn", "text": str(text)}:
                return self.mrkdwn(text)
            case {"type": "rich_text"}:
                return self.rich(given)
            case _:
                return lines(escape(given.get("text") or given.get("value") or ""))

    def mrkdwn(self, text: str) -> Markup:
        return Markup("").join(self.span(span) for span in CONTROL.split(text))

    def span(self, text: str) -> Markup:
        if text.startswith("```") and len(text) > 6:
            return Markup("<pre>{}</pre>").format(html.unescape(text[3:-3]).strip("\n"))
        if text.startswith("`") and len(text) > 1:
            return Markup("<code>{}</code>").format(html.unescape(text[1:-1]))
        if text.startswith("<") and text.endswith(">"):
            return self.control(text[1:-1])
        marked = str(escape(html.unescape(text)))
        for pattern, tag in EMPHASIS:
            marked = pattern.sub(rf"<{tag}>\1</{tag}>", marked)
        marked = re.sub(r":([a-z_]+):", lambda found: EMOJI.get(found[1], found[0]), marked)
        return lines(Markup(marked))  # noqa: S704 - escaped above

    def control(self, inside: str) -> Markup:
        """Render the content of angle brackets: a mention, a date or a link."""
        target, _, label = html.unescape(inside).partition("|")
        if target.startswith("!date^"):
            _, stamp, form, *_ = [*target.split("^"), ""]
            return self.date(int(stamp), form, label) if stamp.isdigit() else escape(label)
        if target.startswith("!subteam^"):
            return mention("@" + self.name_of(target.removeprefix("!subteam^")))
        if target.startswith("!"):
            return mention("@" + target[1:])
        if target.startswith("@"):
            return mention("@" + self.name_of(target[1:]))
        if target.startswith("#"):
            return mention("#" + self.name_of(target[1:]).removeprefix("#"))
        return link(target, label or target)

    # rich text

    def rich(self, block: Mapping[str, Any]) -> Markup:
        return Markup("").join(self.rich_part(part) for part in block["elements"])

    def rich_part(self, part: Mapping[str, Any]) -> Markup:
        match part["type"]:
            case "rich_text_list":
                tag = "ol" if part["style"] == "ordered" else "ul"
                items = Markup("").join(Markup("<li>{}</li>").format(self.inline(item)) for item in part["elements"])
                return Markup(f"<{tag}>") + items + Markup(f"</{tag}>")  # noqa: S704 - one of two tags
            case "rich_text_preformatted":
                return Markup("<pre>{}</pre>").format("".join(e.get("text", "") for e in part["elements"]))
            case "rich_text_quote":
                return Markup("<blockquote>{}</blockquote>").format(self.inline(part))
            case _:
                return Markup("<p>{}</p>").format(self.inline(part))

    def inline(self, section: Mapping[str, Any]) -> Markup:
        return Markup("").join(self.element(element) for element in section["elements"])

    def element(self, element: Mapping[str, Any]) -> Markup:
        match element["type"]:
            case "text":
                shown = lines(escape(element["text"]))
            case "link":
                shown = link(element["url"], element.get("text") or element["url"])
            case "user":
                shown = mention("@" + self.name_of(element["user_id"]))
            case "usergroup":
                shown = mention("@" + self.name_of(element["usergroup_id"]))
            case "channel":
                shown = mention("#" + self.name_of(element["channel_id"]).removeprefix("#"))
            case "broadcast":
                shown = mention("@" + element["range"])
            case "emoji":
                shown = escape(EMOJI.get(element["name"], f":{element['name']}:"))
            case "date":
                shown = self.date(element["timestamp"], element["format"], element.get("fallback", ""))
            case _:
                shown = escape(element.get("value", ""))
        for style, tag in STYLES:
            if element.get("style", {}).get(style):
                shown = Markup(f"<{tag}>") + shown + Markup(f"</{tag}>")  # noqa: S704 - our own tags
        return shown

    # moments

    def date(self, stamp: int, form: str, fallback: str) -> Markup:
        """Render a date token in the reader's time zone."""
        try:
            at = datetime.fromtimestamp(stamp, UTC).astimezone(self.zone)
        except (OverflowError, ValueError, OSError):
            return escape(fallback)
        shown = MOMENTS.sub(lambda found: self.moment(at, found[1]), form)
        return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), fallback, shown)

    def moment(self, at: datetime, word: str) -> str:
        """Render one of Slack's date placeholders: `date_short_pretty`, `time`, …"""
        if word.startswith("time"):
            return f"{at:%H:%M:%S}" if word == "time_secs" else f"{at:%H:%M}"
        if word.endswith("_pretty") and (near := self.near(at)):
            return near
        if word.startswith("date_num"):
            return f"{at:%Y-%m-%d}"
        if word.startswith("date_short"):
            return f"{at:%b} {at.day}, {at.year}"
        day = f"{at:%B} {at.day}, {at.year}"
        return f"{at:%A}, {day}" if word.startswith("date_long") else day

    def near(self, at: datetime) -> str:
        for days, word in ((0, "today"), (-1, "yesterday"), (1, "tomorrow")):
            if at.date() == (self.now + timedelta(days=days)).date():
                return word
        return ""

    def time_of(self, at: datetime) -> Markup:
        """Render a message's time, with the day unless it is today."""
        local = at.astimezone(self.zone)
        near = self.near(local)
        day = "" if near == "today" else f"{near or f'{local:%b} {local.day}'}, "
        return Markup('<time datetime="{}">{}{}</time>').format(local.isoformat(), day, f"{local:%H:%M}")


def lines(text: Markup) -> Markup:
    return text.replace("\n", Markup("<br>"))


def mention(text: str) -> Markup:
    return Markup('<span class="mention">{}</span>').format(text)


def link(url: str, label: str) -> Markup:
    """Render a link; as in Slack, only to http, https and mailto."""
    if not re.match(r"(https?://|mailto:)", url):
        return escape(label)
    return Markup('<a href="{}">{}</a>').format(url, label)
