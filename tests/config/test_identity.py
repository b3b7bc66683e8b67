"""`[identity]`, and addresses in config.toml: what is one person, and what is no address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from approvals_bot.app.directory import build_plain_people
from approvals_bot.config.load import load_configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.config.service import ServiceSettings

HEAD = """[server]
base_url = "https://approve.acme.eu"
signing_keys = ["env:KEY"]
"""


def load(text: str, folder: Path) -> ServiceSettings:
    (folder / "workflows").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(HEAD + text, encoding="utf-8")
    return load_configuration(folder / "config.toml", {"KEY": "k" * 40}).service


def fault(text: str, folder: Path) -> tuple[int, str]:
    with pytest.raises(ConfigErrors) as refused:
        load(text, folder)
    [problem] = refused.value.problems
    return problem.line, problem.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("bo@acme.eu", "bo+x@acme.eu"),
        ("bo@acme.eu", "Bo@ACME.com"),
        ("bo@bücher.example", "bo@xn--bcher-kva.example"),
        ("bo@acme.eu", "ｂｏ@acme.eu"),
    ],
)
def test_two_entries_for_one_person_are_an_error_that_names_both(tmp_path: Path, first: str, second: str) -> None:
    text = f'[identity]\ndomains = {{ "acme.com" = "acme.eu" }}\n[people."{first}"]\n[people."{second}"]\n'
    line, message = fault(text, tmp_path)
    assert line == 7
    assert message == f'"{first}" and "{second}" are the same person; merge the two entries'


def test_different_people_may_have_a_plus(tmp_path: Path) -> None:
    text = '[identity]\nplus = "different"\n[people."bo@acme.eu"]\n[people."bo+x@acme.eu"]\n'
    people = build_plain_people(load(text, tmp_path))
    assert [person.address for person in people.known()] == ["bo@acme.eu", "bo+x@acme.eu"]


def test_mail_goes_to_the_mailbox_as_it_is_written(tmp_path: Path) -> None:
    people = build_plain_people(load('[people."Ann+Work@Acme.eu"]\nname = "Ann"\n', tmp_path))
    person = people.person("ANN@acme.eu")
    assert (person.address, person.mailbox, person.name) == ("ann@acme.eu", "Ann+Work@Acme.eu", "Ann")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ann@acme", "is not an email address: there is no dot after the @"),
        ("ann@acme..eu", "is not an "),
        ("ann@acme.eu.", "ends with a dot; leave it out"),
        ("!ann@acme.eu", "begins like an exclusion"),
        ("-@core.eu", "begins like an exclusion"),
        ("a\u200bnn@acme.eu", "contains an invisible character"),
    ],
)
@pytest.mark.parametrize(
    ("where", "line"),
    [
        ('[people."{}"]\n', 4),
        ('[people."bo@acme.eu"]\nmanager = "{}"\n', 5),
        ('[groups]\nus = [\n"bo@acme.eu",\n"{}"]\n', 7),
        ('[directory]\noncall = {{ sre = "{}" }}\n', 5),
        ('[chat]\napprovers = ["{}"]\n', 5),
    ],
)
def test_what_is_no_address_is_refused_with_its_place(
    tmp_path: Path, where: str, line: int, address: str, says: str
) -> None:
    found, message = fault(where.format(address), tmp_path)
    assert says in message
    assert found == line


@pytest.mark.parametrize(
    ("domains", "says"),
    [
        ('{ "acme.com" = "acme.eu", "acme.org" = "acme.com" }', "acme.com is itself an alias"),
        ('{ "acme.eu" = "ACME.eu" }', "ACME.eu is itself an alias"),
        ('{ "acme" = "acme.eu" }', "is not a domain of email addresses"),
        ('{ "acme.com" = "acme.eu." }', "is not a domain of email addresses"),
    ],
)
def test_alias_domains_lead_to_one_domain(tmp_path: Path, domains: str, says: str) -> None:
    assert says in fault(f"[identity]\ndomains = {domains}\n", tmp_path)[1]


AWAY = '[[people."ann@acme.eu".away]]\nfrom = "2026-12-21"\nuntil = "2026-12-22"\ndelegate = "{}"\n'


def test_people_are_not_their_own_delegates_by_any_spelling(tmp_path: Path) -> None:
    assert fault(AWAY.format("Ann+x@acme.eu"), tmp_path)[1] == "people can't be their own delegate"


def test_a_delegate_whom_nobody_can_know_is_an_error(tmp_path: Path) -> None:
    assert fault(AWAY.format("zoe@acme.eu"), tmp_path)[1].startswith("nobody knows zoe@acme.eu")
    for known in ('[groups]\nus = ["Zoe+1@acme.eu"]\n', '[groups]\nus = { file = "us.json" }\n'):
        assert load(AWAY.format("zoe@acme.eu") + known, tmp_path).people


def test_a_default_has_no_alias_domains() -> None:
    content: dict[str, Any] = {"server": {"base_url": "https://a.acme.eu", "signing_keys": ["env:KEY"]}}
    service = ServiceSettings.model_validate(content, context={"env": {"KEY": "k" * 40}, "folder": Path()})
    assert (service.identity.plus, service.identity.domains) == ("same", {})
    with pytest.raises(ValidationError):
        ServiceSettings.model_validate(content | {"identity": {"plus": "maybe"}}, context={"env": {"KEY": "k" * 40}})
