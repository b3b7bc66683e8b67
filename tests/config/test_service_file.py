"""Loading config.toml, and its commented example."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from approvals_bot.config.api_keys import ApiKeyEntry
from approvals_bot.config.checks import check_definition
from approvals_bot.config.directory import DirectoryFileEntry, DirectoryTable
from approvals_bot.config.groups import (
    DirectoryGroupEntry,
    FileGroupEntry,
    FileSourceEntry,
    HttpGroupEntry,
    HttpSourceEntry,
    PeopleGroupEntry,
    ScimGroupEntry,
    SlackGroupEntry,
)
from approvals_bot.config.load import load_configuration, load_service
from approvals_bot.config.mail import Email
from approvals_bot.config.retention import RetentionTable
from approvals_bot.config.service import (
    LONGEST_CLEAN_UP,
    HttpTarget,
    PersonEntry,
    Server,
    ServiceSettings,
    Slack,
)
from approvals_bot.durable.engine.limits import CANCEL_GRACE, MOST_GRACE, STEP_THREADS
from approvals_bot.durable.store.protocol import MAX_UNREAD
from approvals_bot.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"


class Everything(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, name: str, default: Any = None) -> Any:
        return f"{name}-" * 16


def service(**tables: Any) -> ServiceSettings:
    server = {"base_url": "https://approve.acme.eu/", "signing_keys": ["env:KEY"]}
    content = {"server": server | tables.pop("server", {}), **tables}
    return ServiceSettings.model_validate(content, context={"env": Everything(), "folder": Path("/etc/approvals")})


def test_example_loads_with_its_workflows() -> None:
    configuration = load_configuration(EXAMPLE, Everything(), check_definition)
    assert [each.id for each in configuration.workflows] == ["book-flight", "deploy", "expense", "prod-access"]
    assert configuration.service.people["ann@acme.eu"].zone == "Europe/Berlin"


def test_example_shows_every_setting() -> None:
    text = EXAMPLE.read_text()
    tables = (
        ServiceSettings,
        Server,
        ApiKeyEntry,
        Slack,
        Email,
        PersonEntry,
        HttpTarget,
        DirectoryTable,
        DirectoryGroupEntry,
        ScimGroupEntry,
        FileSourceEntry,
        HttpSourceEntry,
    )
    absent = [name for table in tables for name in settings_of(table) if not written_in(name, text)]
    assert absent == []


def settings_of(table: type[BaseModel]) -> Iterator[str]:
    for name, member in table.model_fields.items():
        yield member.alias or name


def written_in(name: str, text: str) -> bool:
    return any(f"{before}{name}{after}" in text for before in "\n# [{." for after in " =].\n")


def test_commented_settings_of_the_example_are_valid(tmp_path: Path) -> None:
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        setting = line.removeprefix("# ")
        is_setting = setting != line and (setting.startswith("[") or " = " in setting.split("#")[0].split(",")[0])
        is_setting = is_setting and setting[0].islower() | (setting[0] == "[") and "directory = " not in setting
        lines.append(setting if is_setting else line)
    text = "\n".join(lines)
    assert "\napp_token" in text
    assert "\n[http.hr]" in text
    path = tmp_path / "config.toml"
    path.write_text(text)
    loaded = load_service(path, Everything())
    assert loaded.api_keys["desk"].may_vote
    assert loaded.groups["contractors"] == HttpGroupEntry(http="hr")
    assert tomllib.loads(text)["email"]["username"] == "approvals"


def test_settings_of_the_engine_have_its_defaults() -> None:
    server = service().server
    assert (server.step_threads, server.cancel_grace.total_seconds()) == (STEP_THREADS, CANCEL_GRACE)
    assert service().hook.max_waiting == MAX_UNREAD
    assert service(server={"cancel_grace": "0s"}).server.cancel_grace == timedelta(0)
    assert LONGEST_CLEAN_UP.total_seconds() == MOST_GRACE


def test_paths_are_relative_to_the_file_that_contains_them() -> None:
    loaded = service(server={"workflows": "flows"}, groups={"a": {"file": "people/a.json"}})
    assert loaded.server.workflows == Path("/etc/approvals/flows")
    assert loaded.server.database.get_secret_value() == "sqlite:////etc/approvals/approvals.db"
    assert loaded.groups["a"] == FileGroupEntry(file=Path("/etc/approvals/people/a.json"))
    elsewhere = service(server={"database": "sqlite:////var/x.db", "workflows": "/srv/flows"}).server
    assert elsewhere.database.get_secret_value() == "sqlite:////var/x.db"
    assert elsewhere.workflows == Path("/srv/flows")


def test_database_url_from_the_environment_stays_secret(tmp_path: Path) -> None:
    plain = service(server={"database": "postgresql://me@db/x"}).server.database
    assert plain.get_secret_value() == "postgresql://me@db/x"
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nbase_url = "https://x"\nsigning_keys = ["env:A"]\ndatabase = "env:DATABASE_URL"\n[api_keys]\n'
    )
    environment = {"A": "a" * 32, "DATABASE_URL": "postgresql://me:hunter2@db/x"}
    loaded = load_service(config, environment)
    assert loaded.server.database.get_secret_value() == "postgresql://me:hunter2@db/x"
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in loaded.model_dump_json()
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        load_service(config, {"A": "a" * 32})
    with pytest.raises(ConfigError, match="write the database like") as caught:
        load_service(config, environment | {"DATABASE_URL": "mysql://me:hunter2@db/x"})
    assert "hunter2" not in str(caught.value)


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file-with-at-least-32-bytes\n")
    config = tmp_path / "config.toml"
    config.write_text('[server]\nbase_url = "https://x"\nsigning_keys = ["env:A"]\n[api_keys]\nci = "file:key"\n')
    loaded = load_service(config, {"A": "a" * 32})
    assert loaded.api_keys["ci"].key[0].get_secret_value() == "from-a-file-with-at-least-32-bytes"
    assert loaded.server.signing_keys[0].get_secret_value() == "a" * 32


def test_short_forms_equal_their_long_forms() -> None:
    loaded = service(
        api_keys={"ci": "env:CI", "desk": {"key": "env:DESK", "may_vote": True}},
        slack={"bot_token": "env:T", "app_token": "env:A"},
        groups={"sre": "slack:@sre", "hr": {"http": "hr"}, "us": ["Ann@Acme.eu"]},
        directory={"owner-of": {"account": {"prod": "cy@acme.eu"}}},
        http={"hr": {"url": "https://hr.acme.eu/people"}},
    )
    assert loaded.api_keys["desk"].may_vote
    assert not loaded.api_keys["ci"].may_vote
    assert loaded.groups["sre"] == SlackGroupEntry(slack="@sre")
    assert loaded.groups["us"] == PeopleGroupEntry(people=("Ann@Acme.eu",))  # mail goes there as it is written
    assert loaded.directory == DirectoryTable.model_validate({"owner-of": {"account": {"prod": ["cy@acme.eu"]}}})
    assert loaded.server.base_url == "https://approve.acme.eu"


def test_directory_may_be_a_live_source() -> None:
    assert service(directory={"file": "dir.json"}).directory == DirectoryFileEntry(file=Path("/etc/approvals/dir.json"))
    with pytest.raises(ValidationError, match=r"no \[http.directory\]"):
        service(directory={"http": "directory"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_unencrypted_mail_goes_to_this_machine_only(host: str) -> None:
    loaded = service(email={"host": host, "security": "none", "sender": "a@acme.eu"})
    assert loaded.email is not None
    with pytest.raises(ValidationError, match="this machine"):
        service(email={"host": "10.0.0.1", "security": "none", "sender": "a@acme.eu"})


def test_slack_group_needs_slack() -> None:
    with pytest.raises(ValidationError, match="Slack is not configured"):
        service(groups={"sre": "slack:@sre"})


def test_groups_made_of_lists_are_listed_too() -> None:
    groups = {
        "core": ["Ann@acme.eu", "bo@acme.eu", "cy@acme.eu"],
        "guests": ["bo@acme.eu"],
        "staff": {"name": "Staff", "all": "@core", "not": ["@guests", "ann@acme.eu"]},
        "both": ["@staff", "@guests"],
        "live": {"all": ["@both", "slack:@sre"]},
        "but": {"all": "@core", "not": "@live"},
    }
    loaded = service(slack={"bot_token": "env:T", "app_token": "env:A"}, groups=groups)
    assert loaded.people_in("staff") == ("cy@acme.eu",)
    assert loaded.people_in("both") == ("cy@acme.eu", "bo@acme.eu")
    assert [loaded.people_in(name) for name in ("live", "but", "none")] == [None] * 3
    assert loaded.group_names == {"staff": "Staff"}


def test_groups_stand_inside_each_other_ten_deep_at_most() -> None:
    chain = {f"g{number}": [f"@g{number + 1}"] for number in range(9)}
    assert service(groups=chain | {"g9": ["ann@acme.eu"]}).people_in("g0") == ("ann@acme.eu",)
    deeper = chain | {"g9": ["@g10"], "g10": ["ann@acme.eu"]}
    with pytest.raises(ValidationError, match="more than 10 groups inside each other"):
        service(groups=deeper)


def test_loaded_settings_are_frozen() -> None:
    loaded = service()
    with pytest.raises(ValidationError, match="frozen"):
        loaded.server.base_url = "https://elsewhere"  # type: ignore[misc]


def test_audit_is_kept_in_years_and_longer_than_runs() -> None:
    table = RetentionTable.model_validate({"ended": "400d", "audit": "7y"})
    assert (table.ended, table.audit) == (timedelta(days=400), timedelta(days=7 * 365))
    assert RetentionTable.model_validate_json(table.model_dump_json()) == table
    for audit in ("399d", "1y", "0y", "2h", "y"):
        with pytest.raises(ValidationError):
            RetentionTable.model_validate({"ended": "400d", "audit": audit})
