"""Bad input gets a clear error with its place; nothing is started and nothing is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.forked import run_command
from tests.support.journey import Service


def requests_and_runs(service: Service) -> list[str]:
    """Return what the database holds, but for the audit and what is counted of callers."""
    aside = ('INSERT INTO "audit"', 'INSERT INTO "counters"')
    return [line for line in service.stored() if not line.startswith(aside)]


def test_the_api_says_what_is_wrong_and_where(service: Service) -> None:
    before = requests_and_runs(service)
    good = {"service": "api", "version": "2.1", "env": "prod"}

    def ask(**body: object) -> tuple[int, list[list[str]]]:
        answer = service.api("POST", "/runs", json={"workflow": "deploy", "requester": "bo@acme.eu"} | body)
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()
        assert found["status"] == answer.status_code
        return answer.status_code, [error["loc"] for error in found.get("errors", [])]

    assert ask(workflow="deplyo", input=good) == (404, [])
    assert ask(input=good | {"env": "moon"}) == (422, [["input", "env"]])
    assert ask(input=good | {"version": 7}) == (422, [["input", "version"]])
    assert ask(input={"service": "api"})[0] == 422
    assert ask(input=good | {"verison": "2"})[1] == [["input", "verison"]]
    assert ask(input=good, requester="eve@evil.example")[0] == 403
    assert requests_and_runs(service) == before


def test_without_a_key_the_api_reveals_nothing(service: Service) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic ZGV2"}):
        assert service.http.get("/api/runs", headers=headers).status_code == 401


def check(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run_command(folder, "check", COLUMNS="200", **env)


ENVIRONMENT = {
    name: f"{name:_<48}"
    for name in (
        *("APPROVALS_KEY_2026", "APPROVALS_KEY_2025", "CI_KEY", "DESK_KEY", "TRAVEL_AGENT_KEY"),
        *("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "SLACK_APP_TOKEN", "SMTP_PASSWORD"),
        *("DEPLOY_HMAC", "ERP_HMAC", "GRANT_HMAC"),
    )
}


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "config.example.toml").rename(folder / "config.toml")
    return folder


def test_check_accepts_the_samples(configured: Path) -> None:
    done = check(configured, **ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("config.toml", "[groups]", "[gruops]", "gruops"),
        ("workflows/deploy.toml", "deadline ", "deadine ", "deadine: "),
        ("workflows/deploy.toml", 'from = ["@release-managers"]', "", "from"),
        ("workflows/deploy.toml", "@release-managers", "@release-mangers", "release-managers"),
        ("workflows/deploy.toml", 'risk == "high"', 'rsik == "high"', "risk"),
    ],
)
def test_check_names_file_line_and_key(configured: Path, file: str, old: str, new: str, expected: str) -> None:
    path = configured / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = check(configured, **ENVIRONMENT)
    assert done.returncode == 1
    assert expected in done.stdout
    for line in done.stdout.splitlines():
        name, number, _ = line.split(":", 2)
        assert name.endswith(".toml")
        assert int(number) >= 1


def test_an_unset_variable_is_named_with_its_place(configured: Path) -> None:
    done = check(configured, **{k: v for k, v in ENVIRONMENT.items() if k != "SLACK_BOT_TOKEN"})
    assert done.returncode == 1
    assert "SLACK_BOT_TOKEN" in done.stdout
    assert "config.toml:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
