"""One spelling per person: what `canonical` folds, what it refuses, and that the fast path changes nothing."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from approvals_bot.people import AddressError, IdentityRules, People, Person, addresses, canonical, is_mail
from approvals_bot.people.addresses import LONGEST_ADDRESS, canonical_in_file


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


# ── any spelling ──

LOCALS = st.sampled_from(["bo", "bo.lund", "o'brien", "r&d", "änn", "weiß", "b_o"])
A_LABELS = {"bücher.example": "xn--bcher-kva.example", "straße.de": "xn--strae-oqa.de", "例え.jp": "xn--r8jz45g.jp"}
DOMAINS = st.sampled_from(["acme.eu", "sub.acme.local", "a-b.acme.eu", *A_LABELS])
RULES = IdentityRules(domains={"alias.example": "acme.eu"})


@st.composite
def spellings(draw: st.DrawFn, local: str, domain: str) -> str:
    """An address in another spelling of the same person."""
    if draw(st.booleans()):
        domain = A_LABELS.get(domain, domain)
    if domain == "acme.eu" and draw(st.booleans()):
        domain = "alias.example"
    local = local + draw(st.sampled_from(["", "+x", "+a.b", "+"]))
    text = f"{local}@{domain}" + draw(st.sampled_from(["", "."]))
    return "".join(draw(st.sampled_from(_alike(letter))) for letter in text)


def _alike(letter: str) -> list[str]:
    """Characters that mean the same in an address: the other case, another width, a letter and its mark apart."""
    found = [letter, unicodedata.normalize("NFD", letter)]
    if letter.isascii() and "!" <= letter <= "~":
        found.append(chr(ord(letter) + 0xFEE0))
    if letter != "ß" and len(letter.upper()) == 1:
        found.append(letter.upper())
    return found


@given(st.data(), LOCALS, DOMAINS)
def test_no_spelling_makes_another_person(data: st.DataObject, local: str, domain: str) -> None:
    one, other = (data.draw(spellings(local, domain)) for _ in range(2))
    assert RULES.canonical(one) == RULES.canonical(other)
    people = People([Person(one, "Bo")], rules=RULES)
    assert people.person(other).name == "Bo"


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9.+!'_\u00c0-\u017f\uff21-\uff3a-]{1,9}@[a-zß.\u3002-]{1,9}\.eu")))
def test_the_canonical_spelling_is_canonical(text: str) -> None:
    try:
        found = canonical(text)
    except AddressError:
        return
    assert canonical(found) == found
    assert RULES.canonical(RULES.canonical(found)) == RULES.canonical(found)


@given(st.from_regex(r"\A[a-z0-9.+'!~_-]{1,9}@[a-z0-9.-]{1,12}\Z"))
@example("ann@acme.eu")
@example("ann@aa--b.eu")
@example("ann@acme.e1")
@example("ann@-a.eu")
@example("ann@arpa")
@example("ann@a.arpa")
@example("a" * 64 + "@" + ".".join(["b" * 63, "c" * 63, "d" * 60]) + ".eu")
@example("ann@" + "b" * 64 + ".eu")
def test_the_fast_path_takes_what_the_slow_one_would(text: str) -> None:
    is_fast = len(text) <= LONGEST_ADDRESS and addresses._PLAIN.fullmatch(text) is not None
    try:
        slow = addresses._validated(text)
    except AddressError:
        slow = None
    assert slow == (text if is_fast else slow), "what is taken fast would be taken as it is"
    if slow == text and not text.startswith(tuple("!~-")):
        assert is_fast, "and nothing plain goes the slow way"


def _by_library(address: str, text: str) -> None:
    """Check an address as email-validator does. Special-use domains may be a company's own, so they count."""
    if "." not in address.rpartition("@")[2]:
        raise AddressError("no_dot", text)
    head, _, last = address.rpartition(".")
    special = last in ("arpa", "invalid", "local", "localhost", "onion", "test")
    try:
        validate_email(f"{head}.{'z' * len(last)}" if special else address, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise AddressError("not_an_address", text) from None


def _outcome(text: str) -> str:
    try:
        return addresses._validated(text)
    except AddressError as error:
        return error.code


WORDS = st.one_of(st.text(max_size=6), st.text("aZ9.-_+'\"<(@ \\\u00e9\u0301\u00df\u202e\u06f1", max_size=9))
HOSTS = st.text("abxn19.-\u00e9\u05d0\u0661\u4f8b\u00df\u3002", max_size=12)


@given(WORDS, st.one_of(HOSTS, DOMAINS, st.from_regex(r"\A(xn--)?[a-z0-9-]{1,8}\.(eu|xn--p1ai)\Z")))
@example("ann", "a---b.eu")
@example("ann", "xn--bcher-kva.example")
@example("ann", "xn--a.eu")
@example("\u0301ann", "acme.eu")
@example("a" * 64, "acme.eu")
@example("\u00e4" * 64, ".".join(["b" * 63, "c" * 63]) + ".eu")
def test_an_address_is_what_email_validator_says(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    ours = _outcome(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "_validate", _by_library)
        assert ours == _outcome(text)


def test_an_everyday_address_imports_no_library() -> None:
    code = "import sys; from approvals_bot.people import canonical; canonical('Ann+x@ACME.eu.'); "
    code += "print({'idna', 'regex'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
