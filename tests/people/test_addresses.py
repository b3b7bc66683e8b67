"""One spelling per person: what `canonical` folds, what it refuses, and that the fast path changes nothing."""

from __future__ import annotations

import pytest

from approvals_bot.people import AddressError, IdentityRules, canonical, is_mail
from approvals_bot.people.addresses import canonical_in_file


@pytest.mark.parametrize(
    "spelling",
    ["Bo@ACME.eu", "bo@acme.eu.", "bo@acme\uff0eeu", "bo@acme\u3002eu", "bo\uff20acme.eu", "\uff42o@\uff41cme.eu"],
)
def test_every_spelling_is_the_same_address(spelling: str) -> None:
    assert canonical(spelling) == "bo@acme.eu"


@pytest.mark.parametrize("spelling", ["bo@B\u00dcCHER.example", "bo@bu\u0308cher.example", "BO@XN--BCHER-KVA.example"])
def test_the_domain_is_an_a_label(spelling: str) -> None:
    assert canonical(spelling) == "bo@xn--bcher-kva.example"


def test_another_domain_that_only_casefold_confuses_stays_another() -> None:
    assert canonical("bo@straße.de") == canonical("bo@xn--strae-oqa.de") != canonical("bo@STRASSE.de")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("!@core", "exclusion"),
        ("-@core.eu", "exclusion"),
        ("~@core", "exclusion"),
        ("!ann@acme.eu", "exclusion"),
        ("\uff01ann@acme.eu", "exclusion"),
        ("\u2013ann@acme.eu", "exclusion"),
        ("not ann@acme.eu", "exclusion"),
        ("not@core", "no_dot"),
        ("ann@acme", "no_dot"),
        ("ann@acme..eu", "not_an_address"),
        ("ann@acme.eu..", "not_an_address"),
        ("ann@ac\u200bme.eu", "invisible"),
        ("a\u00adnn@acme.eu", "invisible"),
        ("ann\u3164@acme.eu", "invisible"),
        ("ann\ufe0f@acme.eu", "invisible"),
        ("ann\U000e0041@acme.eu", "invisible"),
        ('"ann"@acme.eu', "not_an_address"),
        ("ann(x)@acme.eu", "not_an_address"),
        ("ann@acme.eu\n", "not_an_address"),
        (" ann@acme.eu", "not_an_address"),
        ("a@b@acme.eu", "not_an_address"),
        ("ann@[127.0.0.1]", "not_an_address"),
        ("ann@xn--.eu", "not_an_address"),
        ("a" * 65 + "@acme.eu", "not_an_address"),
        ("a" * 100_000 + "@acme.eu", "not_an_address"),
        ("", "not_an_address"),
        ("app:ci", "not_an_address"),
    ],
)
def test_what_names_nobody_is_refused_by_its_reason(text: str, code: str) -> None:
    with pytest.raises(AddressError) as refused:
        canonical(text)
    assert refused.value.code == code
    assert str(refused.value).isprintable()
    assert not is_mail(text)


@pytest.mark.parametrize(
    "address",
    ["o'brien@core.eu", "d'angelo+approvals@acme.eu", "r&d@acme.eu", "100%@acme.eu", "x/y@acme.eu", "\u00e4nn@acme.eu",
     "ann@acme.local", "ann@a.test", "a@1.eu", "_@acme.eu"],
)  # fmt: skip
def test_everyday_addresses_are_addresses(address: str) -> None:
    assert canonical(address) == address == canonical_in_file(address)


@pytest.mark.parametrize("address", ["ann@acme.eu.", "ann@acme.eu\u3002", "ann@acme.eu\uff0e", "ann@acme.eu\uff61"])
def test_a_trailing_dot_is_folded_but_an_error_in_files(address: str) -> None:
    assert canonical(address) == "ann@acme.eu"
    with pytest.raises(AddressError) as refused:
        canonical_in_file(address)
    assert refused.value.code == "trailing_dot"


def test_rules_say_which_addresses_are_one_person() -> None:
    same, different = IdentityRules(domains={"ACME.com": "acme.eu"}), IdentityRules("different")
    assert same.canonical("Bo+x@acme.com") == "bo@acme.eu"
    assert same.canonical("+x@acme.eu") == "+x@acme.eu"
    assert different.canonical("Bo+x@acme.com") == "bo+x@acme.com"
