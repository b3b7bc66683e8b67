"""What the README shows a newcomer, done as it says: its own commands, its own files, its own code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from approvals_bot.service.catalog import read_configuration
from tests.support.journey import Json, Service, with_samples

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every command of the shell blocks, as its words. A quoted body may go on over several lines."""
    found = [""]
    for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
        quoted = found[-1].count("'") % 2
        found[len(found) - 1 if quoted else len(found) :] = [f"{found[-1]}\n{line}" if quoted else line]
    return [shlex.split(command) for command in found if command]


def post_with_curl(service: Service, words: list[str]) -> str:
    """Send what a `curl` of the README sends, to this service's port. The run's id."""
    _, url, *rest = words
    options = list(zip(rest[::2], rest[1::2], strict=True))
    headers = dict(value.split(": ") for name, value in options if name == "-H")
    [body] = [value for name, value in options if name == "-d"]
    path = url.removeprefix("http://127.0.0.1:8000")
    answer = service.http.post(path, content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def test_the_readmes_first_approval_works(service: Service) -> None:
    [curl] = commands(section("Your first approval"))
    run_id = post_with_curl(service, curl)
    card = service.card()
    assert service.link("ann@acme.eu")
    assert service.link("cy@acme.eu")
    assert service.click("U0BO", card, "Approve")["ephemeral"] == "You can't approve your own request."
    assert service.run(run_id)["status"] == "running"
    service.click("U0ANN", card, "Approve")
    assert service.ended(run_id)["result"]["by"] == "ann@acme.eu"
    service.eventually(lambda: "Approved by Ann Ode" in service.card()["text"])
    called = service.eventually(lambda: service.play("GET", "/http/requests"))
    assert [(call["name"], call["signature_valid"]) for call in called] == [("deploy-api", True)]


def test_the_readmes_first_workflow_works(installed: Service) -> None:
    text = section("Your first workflow")
    group, workflow, cases, _ = blocks(text, "toml")
    service = installed.start("--config", "config.example.toml")
    config = service.folder / "config.example.toml"
    config.write_text(config.read_text().replace("[groups]", f"[groups]\n{group.strip()} #"))
    (service.folder / "workflows/vendor.toml").write_text(workflow)
    service.eventually(lambda: "the configuration was reloaded" in service.log())

    simulate, curl = commands(text)
    simulated = subprocess.run(
        [sys.executable, "-m", "approvals_bot", *simulate[1:]], cwd=service.folder, capture_output=True, text=True
    )
    assert simulated.returncode == 0, simulated.stderr
    assert "cfo@acme.eu" in simulated.stdout
    (service.folder / "workflows/vendor.test.toml").write_text(cases)
    played = [sys.executable, "-m", "approvals_bot", "test", "workflows/vendor.toml", *simulate[3:5]]
    assert subprocess.run(played, cwd=service.folder, check=False).returncode == 0
    run_id = service.eventually(lambda: post_with_curl(service, curl))

    def card() -> Json | None:
        return next(iter(service.messages("#vendors")), None)

    service.click("U0CFO", service.eventually(card), "Approve")
    service.eventually(lambda: "ann@acme.eu" in service.run(run_id)["request"]["waiting_for"])
    service.click("U0ANN", service.eventually(card), "Approve")
    assert service.press(service.link("cy@acme.eu"), "approve").status_code == 200
    assert service.ended(run_id)["result"]["approved"] is True


def test_check_accepts_the_readmes_larger_file(tmp_path: Path) -> None:
    folder = with_samples(tmp_path)
    (folder / "workflows/deploy.toml").write_text(blocks(section("Your first workflow"), "toml")[3])
    named = re.findall(r"env:(\w+)", (folder / "config.example.toml").read_text())
    environment = {name: f"{name}, long enough for a key of the tests" for name in named}
    configuration = read_configuration(folder / "config.example.toml", environment)
    assert "deploy" in {definition.id for definition in configuration.workflows}


def test_the_readmes_python_workflow_works(installed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as on a terminal
    text = section("Your first workflow in Python")
    service = installed.start("--config", "config.example.toml")
    (service.folder / "workflows/refund.py").write_text(blocks(text, "python")[0])
    service.eventually(lambda: "the configuration was reloaded" in service.log())

    start, the_id, the_url, answer, read = commands(text)
    assert (the_id[0], the_url[0]) == ("RUN=run_…", "URL=http://127.0.0.1:8000/webhooks/…")
    run_id = post_with_curl(service, start)
    assert service.process is not None
    assert service.process.stdout is not None
    printed = re.fullmatch(r"Refund A-17\? Answer at (.+)\n", service.process.stdout.readline())
    assert printed, "the step prints the webhook's URL where `make run` is running"

    service.stop()
    service.start("--config", "config.example.toml")
    assert httpx2.post(printed[1], content=b"{").status_code == 202, "anybody who has the URL can send anything"
    answered = subprocess.run(with_variables(answer, URL=printed[1]), capture_output=True, text=True, check=True)
    assert answered.stderr == ""
    url = f"http://127.0.0.1:{service.port}"
    line = [word.replace("http://127.0.0.1:8000", url) for word in with_variables(read, RUN=run_id)]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    [promised] = re.findall(r"The last one answers `(.+?)`", text)
    assert promised in said


def with_variables(words: list[str], **variables: str) -> list[str]:
    """A command with its shell variables filled in, and without curl's progress meter."""
    for name, value in variables.items():
        words = [word.replace(f"${name}", value) for word in words]
    return [words[0], "--silent", "--show-error", "--fail", *words[1:]]
