"""What commands need to start, and how soon the service is ready: at its start, and again after `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measures import cpu_of
from benchmarks.parts.part import ROOT, Figures, Scale, main, say

KEY = "a-key-of-the-benchmark-that-has-32-bytes!"
CI_KEY = "the-key-that-opens-requests-has-32-bytes"
ENVIRONMENT = os.environ | {"KEY": KEY, "CI_KEY": CI_KEY, "PYTHONPATH": str(ROOT)}
CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
workflows = "workflows"
[api_keys]
ci = "env:CI_KEY"
desk = { key = "env:KEY", may_vote = true }
"""
SLACK = """
[slack]
bot_token = "env:KEY"
signing_secret = "env:KEY"
"""
WORKFLOW = """
[workflow]
id = "deploy"
title = "Deploy {{ version }}"
request = ["*", "app:ci"]
[fields]
version = { type = "string", pinned = true }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
"""
LARGE_WORKFLOW = """
[workflow]
id = "deploy-%(number)d"
title = "Deploy {{ service }} {{ version }} to {{ env }}"
request = ["@everybody", "app:ci"]
[fields]
service = "string"
version = { type = "string", pinned = true }
env = { type = "enum", values = ["staging", "prod"] }
risk = { type = "enum", values = ["low", "normal", "high"], default = "normal" }
cost = { type = "money", currency = "EUR" }
[[auto]]
when = 'env == "staging" and risk != "high"'
decision = "approve"
[[stage]]
id = "go"
  [[stage.seat]]
  need = 1
  from = ["@group-%(group)d"]
  [[stage.seat]]
  when = 'risk == "high"'
  need = 2
  from = ["@group-%(next_group)d"]
[[stage]]
id = "finance"
when = 'cost >= 1000 or (env == "prod" and cost >= 500)'
from = ["@group-%(group)d"]
[clock]
deadline = "4h"
remind = ["30m", "2h"]
[[escalate]]
after = "1h"
to = ["person-0@acme.eu"]
"""
WORKFLOWS = 200
PEOPLE = 1_000
OF_GROUP = 20
SERVE = ("-m", "approvals_bot", "serve", "--port")
IMPORTS = "import approvals_bot.cli, approvals_bot.app.service, approvals_bot.cli.serving"


def measure(scale: Scale) -> Figures:
    tries = scale(5, 2)
    with tempfile.TemporaryDirectory() as folder:
        service, slack, large = (Path(folder) / name for name in ("service", "slack", "large"))
        write(service)
        write(slack, SLACK)
        write_large(large, scale(WORKFLOWS), scale(PEOPLE, OF_GROUP * 2))
        commands = {
            "bare": ("-c", "pass"),
            "click": ("-c", "import click"),
            "help": ("-m", "approvals_bot", "--help"),
            "imports": ("-c", IMPORTS),
            "check": ("-m", "approvals_bot", "check"),
        }
        found: dict[str, list[float]] = {name: [] for name in (*commands, "ready", "cpu", "slack", "restart")}
        for _ in range(tries):  # in turn, so that each ratio is of one moment
            for name, line in commands.items():
                found[name].append(cpu_seconds(line, large))
            seconds, cpu = ready(service)
            found["ready"].append(seconds)
            found["cpu"].append(cpu)
            found["slack"].append(ready(slack)[1])
        found["restart"] = restarts(service, tries)
    took = {name: median(values) for name, values in found.items()}
    say(f"check {took['check']:.2f} CPU s, serve {took['cpu']:.2f} CPU s, again after {took['restart']:.2f} s")
    return {
        "startup.ready_s": took["ready"],
        "startup.cpu_s": took["cpu"],
        "startup.slack_cpu_s": took["slack"],
        "startup.imports_cpu_s": took["imports"] - took["bare"],
        "startup.help_cpu_s": took["help"],
        "startup.help_ratio": took["help"] / took["click"],
        "startup.check_cpu_s": took["check"],
        "startup.restart_s": took["restart"],
    }


def write(folder: Path, more: str = "") -> None:
    (folder / "workflows").mkdir(parents=True)
    (folder / "workflows" / "deploy.toml").write_text(WORKFLOW)
    (folder / "config.toml").write_text(CONFIG + more)


def write_large(folder: Path, workflows: int, people: int) -> None:
    """Write a configuration of many people, in groups, and of workflows that use all that costs time to check."""
    (folder / "workflows").mkdir(parents=True)
    names = [f"person-{number}@acme.eu" for number in range(people)]
    groups = [names[at : at + OF_GROUP] for at in range(0, people, OF_GROUP)]
    text = CONFIG
    for number, name in enumerate(names):
        text += f'[people."{name}"]\nname = "Person {number}"\n'
        text += f'manager = "{names[number // 10]}"\n' if number else ""
    text += "[groups]\n" + "".join(f"group-{at} = {json.dumps(group)}\n" for at, group in enumerate(groups))
    text += "everybody = " + json.dumps(names, indent=1) + "\n"
    (folder / "config.toml").write_text(text)
    for number in range(workflows):
        some = {"number": number, "group": number % len(groups), "next_group": (number + 1) % len(groups)}
        (folder / "workflows" / f"deploy-{number}.toml").write_text(LARGE_WORKFLOW % some)


def cpu_seconds(line: Sequence[str], folder: Path) -> float:
    """Run Python with these arguments. Returns its seconds of CPU, user and system."""
    process = subprocess.Popen([sys.executable, *line], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)} exited with {process.returncode}")
    return used.ru_utime + used.ru_stime


@contextmanager
def serving(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the service, from when it says that it is ready until it is killed."""
    line = [sys.executable, *SERVE, str(port)]
    with subprocess.Popen(line, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            printed = service.stdout.readline()
            if "http" not in printed:
                raise RuntimeError(f"it printed {printed!r}")
            yield service
        finally:
            service.send_signal(signal.SIGKILL)


def ready(folder: Path) -> tuple[float, float]:
    """Start the service. Returns the seconds, and the seconds of CPU, until it is ready."""
    began = time.perf_counter()
    with serving(folder, 0) as service:
        return time.perf_counter() - began, cpu_of(service.pid)


def restarts(folder: Path, tries: int) -> list[float]:
    """Kill the service with open requests. Returns the seconds from each start until a vote is answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with serving(folder, port):
        asked = [{"workflow": "deploy", "input": {"version": str(number)}} for number in range(tries)]
        runs = [call(port, "/api/runs", body, CI_KEY)["run_id"] for body in asked]
    found = []
    for run in runs:
        began = time.perf_counter()
        with serving(folder, port):
            call(port, f"/api/runs/{run}/votes", {"by": "ann@acme.eu", "choice": "approve"}, KEY)
            found.append(time.perf_counter() - began)
    return found


def call(port: int, path: str, body: dict[str, Any], key: str) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{path} answered {answer.status}: {text!r}")
    return json.loads(text)


if __name__ == "__main__":
    main(measure)
