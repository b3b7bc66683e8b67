"""How people read values: "1,250.00 EUR", "1 h 30 min", "5 Nov 2026". Plain text, to be escaped by whoever shows it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from approvals_bot.approvals.values import Money, decimal_text

NOT_GIVEN = "not given"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def shown_value(value: Any) -> str:
    """How people read a typed value."""
    match value:
        case None:
            return NOT_GIVEN
        case bool():
            return "yes" if value else "no"
        case Money():
            return shown_money(value)
        case Decimal():
            return decimal_text(value)
        case datetime():
            return shown_moment(value)
        case date():
            return shown_date(value)
        case timedelta():
            return shown_duration(value)
        case _:
            return str(value)


def shown_money(money: Money) -> str:
    """ "1,250.00 EUR": never rounded, at least the decimals that the currency has."""
    return f"{Decimal(str(money)):,f} {money.currency}".strip()


def shown_date(day: date) -> str:
    """ "5 Nov 2026": the same in every place, never mistaken for month and day the other way round."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def shown_duration(span: timedelta) -> str:
    """ "1 h 30 min"."""
    seconds, parts = int(span.total_seconds()), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def shown_moment(moment: datetime) -> str:
    """ "5 Nov 2026, 14:00 UTC"."""
    return f"{shown_date(moment.date())}, {moment:%H:%M} UTC"
