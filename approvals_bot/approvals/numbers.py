"""Numbers and amounts of money: how exact they are, and how they are read and written.

In JSON, a decimal is a string such as "1250.00", and a number is accepted. What people read, "1,250.00 EUR", is
accepted back. An amount never has more decimals than its currency: "12.345" is twelve euros to one reader and twelve
thousand to another, so it is refused with both readings, and nobody guesses.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.client.digests import LARGEST_INTEGER

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_SHOWN = re.compile(r"-?[0-9]{1,3}(,[0-9]{3}){1,4}(\.[0-9]{1,9})?")  # as we write thousands for people
_GROUP = re.compile(r"-?[0-9]{1,3}[.,][0-9]{3}")  # to some, thousands; to others, three decimals

_NO_DECIMALS = frozenset(  # ISO 4217
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"}
)
_THREE_DECIMALS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


class Money(Decimal):
    """An exact amount with its currency. It compares and calculates as the plain number."""

    currency: str

    def __new__(cls, amount: Decimal | str | int, currency: str) -> Money:
        money = super().__new__(cls, amount)
        money.currency = currency
        return money

    def __str__(self) -> str:
        """Return the canonical digits, without the currency: "1250.00"."""
        return decimal_text(self, decimals_of(self.currency))

    def __reduce__(self) -> Any:
        return Money, (str(self), self.currency)


def decimals_of(currency: str | None) -> int:
    """Return how many decimals an amount of this currency has."""
    return 0 if currency in _NO_DECIMALS else 3 if currency in _THREE_DECIMALS else 2


def read_integer(given: Any) -> int:
    """Parse a whole number. Raises UnfitError."""
    if isinstance(given, bool) or not isinstance(given, int):
        raise UnfitError("not_integer")
    if abs(given) > LARGEST_INTEGER:
        raise UnfitError("integer_range", largest=LARGEST_INTEGER)
    return given


def read_decimal(given: Any) -> Decimal:
    """Parse a number, or the text of one. Raises UnfitError."""
    text = _digits(given)
    if not _NUMBER.fullmatch(text):
        raise UnfitError("number_form")
    return Decimal(text) + 0  # + 0: no minus zero


def amount(given: Any, currency: str) -> Decimal:
    """Parse an amount of money, also as people read it: "1,250.00 EUR". Raises UnfitError.

    Digits that could be thousands or decimals are refused, and so are decimals that the currency doesn't have.
    """
    text, most = _digits(given), decimals_of(currency)
    if isinstance(given, str):
        text = text.removesuffix(f" {currency}")
    fraction = text.partition(".")[2]
    if _SHOWN.fullmatch(text) and (len(fraction) == most if most else not fraction):
        text = text.replace(",", "")
    elif _GROUP.fullmatch(text) and len(fraction) != most:
        raise UnfitError("ambiguous_amount", given=f"{text} {currency}", **_readings(text, most))
    if not _NUMBER.fullmatch(text):
        raise UnfitError("amount_form", example=decimal_text(Decimal(1250), most))
    if len(fraction) > most:
        rounded = _rounded(Decimal(text), most)
        raise UnfitError("too_many_decimals", given=f"{text} {currency}", most=most, rounded=rounded)
    return Decimal(text) + 0


def _readings(text: str, decimals: int) -> dict[str, str]:
    """Return both readings of an amount with one group of three digits."""
    thousands = Decimal(re.sub("[.,]", "", text))
    return {
        "thousands": decimal_text(thousands, decimals),
        "rounded": _rounded(Decimal(text.replace(",", ".")), decimals),
    }


def _rounded(value: Decimal, decimals: int) -> str:
    return decimal_text(value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP), decimals)


def _digits(given: Any) -> str:
    """Return a number as the text that was given; what isn't text, without an exponent and needless zeros."""
    if isinstance(given, bool) or not isinstance(given, (str, int, float, Decimal)):
        raise UnfitError("not_number")
    match given:
        case str():
            return given
        case int():
            return str(read_integer(given))
        case _:
            return decimal_text(Decimal(str(given)))


def decimal_text(value: Decimal, decimals: int = 0) -> str:
    """Return all significant digits, without an exponent, with at least so many decimals."""
    text = format(Decimal(value), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    have = len(text.partition(".")[2])
    if have < decimals:
        text += ("" if have else ".") + "0" * (decimals - have)
    return text


_MARKS = {"1.234,56": (".", ","), "1,234.56": (",", "."), "1 234,56": ("\u00a0", ",")}
"""The marks of thousands and of decimals in each `people.<address>.number_format`."""


def in_format(text: str, number_format: str) -> str:
    """Return a number as we write it ("1,250.00 EUR") in a person's own format; "" stands for ours."""
    if not number_format:
        return text
    thousands, decimals = _MARKS[number_format]
    return text.translate({ord(","): thousands, ord("."): decimals})


def from_format(text: str, number_format: str) -> str:
    """Return a number that a person typed in their own format as we write it, without thousands marks.

    Text that isn't one in this format is returned as it is.
    """
    found = _typed_in(number_format).fullmatch(text) if number_format else None
    if found is None:
        return text
    digits = re.sub("[^0-9-]", "", found["whole"])
    return digits + (f".{found['fraction']}" if found["fraction"] else "") + found["currency"]


@lru_cache(maxsize=len(_MARKS))
def _typed_in(number_format: str) -> re.Pattern[str]:
    thousands, decimals = _MARKS[number_format]
    mark = "[ \u00a0\u202f]" if thousands == "\u00a0" else re.escape(thousands)
    whole = f"-?(?:[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+|[0-9]+)"
    return re.compile(f"(?P<whole>{whole})(?:{re.escape(decimals)}(?P<fraction>[0-9]+))?(?P<currency>(?: [A-Z]{{3}})?)")


def shown_money(money: Money) -> str:
    """Format as "1,250.00 EUR": never rounded, with at least the currency's decimals."""
    return f"{Decimal(str(money)):,f} {money.currency}".strip()
