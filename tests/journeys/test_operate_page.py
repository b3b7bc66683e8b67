"""docs/operate.md, as an operator works through it: each of its commands, in order.

What a test can't have is stood in for: users (`runuser` just runs the command), systemd (a script that starts what the
unit says), Debian's PostgreSQL (one from a wheel), and the ports and paths of a machine of one's own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from approvals_bot.cli.commands import COMMANDS, load
from tests.support.commands import leaves
from tests.support.postgres_server import missing_server, postgres_server
from tests.support.site import moved_up

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operate.md").read_text()
SOURCE = ("approvals_bot", "deploy", "docs", "workflows")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock", "config.example.toml")

STAND_INS = {
    "useradd": "exit 0",
    "chown": "exit 0",
    "runuser": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
    "nginx": 'exec NGINX -c ROOT/etc/nginx/nginx.conf "$@"',
    "curl": 'exec CURL --connect-to approvals.acme.eu:443:127.0.0.1:HTTPS --max-time 20 "$@"',
    "systemctl": r"""
act=$1; shift; mkdir -p ROOT/pids
[ "$act" = daemon-reload ] && exit 0
[ "$1" = --now ] && { shift; act=start; }
for unit in "$@"; do
  if [ "$unit" = nginx ]; then nginx; continue; fi
  port=${unit#*@}; pid=ROOT/pids/$port
  case $act in stop|restart)
    kill -TERM "$(cat "$pid")"
    while [ -d "/proc/$(cat "$pid")" ]; do sleep 0.1; done
    rm "$pid";;
  esac
  case $act in start|restart)
    line=$(sed -n 's/^ExecStart=//p' ROOT/etc/systemd/system/approvals-bot@.service | sed "s/%i/$port/")
    (cd ROOT/var/lib/approvals; exec setsid $line) >>ROOT/service.log 2>&1 </dev/null &
    echo $! > "$pid"
    for try in $(seq 50); do
      approvals-bot health --ready --url "http://127.0.0.1:$port" >/dev/null 2>&1 && break
    done;;
  esac
  if [ "$act" = reload ]; then kill -HUP "$(cat "$pid")"; fi
done
""",
}


class Block(NamedTuple):
    """A shell block of the page."""

    line: int
    kind: str
    text: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"^```(sh\b.*|bash.*|console.*)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE):
        yield Block(PAGE.count("\n", 0, found.start()) + 1, found[1], found[2])


def test_each_block_runs_or_is_checked() -> None:
    found = list(blocks())
    assert len(found) > 15
    for block in found:
        assert re.fullmatch(r"sh (run|check=(bash|systemd-analyze|promtool))", block.kind), block
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    assert sum(block.kind == "sh run" for block in found) > len(found) / 2


def test_each_command_and_option_exists() -> None:
    known = {
        name: {option for each in command.params for option in each.opts}
        for name, command in (each for first in COMMANDS for each in leaves(load(first), first))
    }
    lines = [line for block in blocks() for line in block.text.splitlines()]
    used = [match[1] for line in lines for match in re.finditer(r"approvals-bot ([a-z].*?)(?:;|\||\)|&&|$)", line)]
    assert len(used) > 15
    for call in used:
        words = shlex.split(call)
        name = next((each for each in (" ".join(words[:2]), words[0]) if each in known), None)
        assert name is not None, call
        assert {word for word in words if word.startswith("--")} <= known[name], call


def test_troubles_are_named_in_the_words_of_the_code() -> None:
    sources = " ".join(path.read_text() for path in sorted((ROOT / "approvals_bot").rglob("*.py")))
    sources = re.sub(r'"\s*\n?\s*f?"', "", sources)
    rows = [row for row in PAGE.partition("## Troubleshooting")[2].splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 15
    quoted = [words for row in rows for words in re.findall(r'(?<![`\w])"([^"]+)"(?!`)', row)]
    events = [name for row in rows for name in re.findall(r"`([a-z]+_[a-z_]+)`", row)]
    assert len(quoted) >= 15
    assert [words for words in quoted if words not in sources] == []
    assert [name for name in events if name not in sources] == []


def test_the_site_shows_blocks_as_shell() -> None:
    assert moved_up("```sh run\nls\n```\n```sh check=bash\nls\n```") == "```sh\nls\n```\n```sh\nls\n```"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machine:
    """A folder in the place of a machine: the page's paths begin with it, and its ports are free ones."""

    def __init__(self, root: Path, sockets: str, relay: int, programs: str) -> None:
        self.root = root
        self.source = root / "source"
        self._sockets, self._relay = sockets, relay
        self._ports = {"8000": free_port(), "8001": free_port(), "443": free_port(), "80": free_port()}
        self._environment = os.environ | {
            "PATH": f"{root}/usr/local/bin:{root}/stand-ins:{programs}:{os.environ['PATH']}:/usr/sbin",
            "PGHOST": sockets,
            "PGUSER": "postgres",
        }
        self._furnish()

    def _furnish(self) -> None:
        for folder in ("etc/systemd/system", "etc/nginx/conf.d", "etc/ssl", "usr/local/bin", "opt", "var/log/nginx"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "etc/nginx/nginx.conf").write_text(
            f"pid {self.root}/nginx.pid; error_log {self.root}/nginx.log; events {{}}\n"
            f"http {{ access_log off; include {self.root}/etc/nginx/conf.d/*.conf; }}\n"
        )
        for folder in SOURCE:
            shutil.copytree(ROOT / folder, self.source / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.source / name)
        for path in (self.source / "deploy/nginx.conf", self.source / "deploy/approvals-bot.service"):
            path.write_text(self.here(path.read_text()))
        (self.root / "stand-ins").mkdir()
        tools = {each.upper(): str(shutil.which(each) or f"/usr/sbin/{each}") for each in ("nginx", "curl")}
        meanings = {"ROOT": str(self.root), "HTTPS": str(self._ports["443"]), **tools}
        for name, script in STAND_INS.items():
            path = self.root / "stand-ins" / name
            for word, meant in meanings.items():
                script = script.replace(word, meant)
            path.write_text(f"#!/bin/bash\n{script}\n")
            path.chmod(0o755)

    def here(self, text: str) -> str:
        """Return text of the page, or of a file in deploy/, with this machine's paths and ports."""
        text = text.replace("/var/run/postgresql", self._sockets).replace("port     = 25|", f"port = {self._relay}|")
        text = re.sub(r".*listen \[::\].*\n", "", text)
        text = re.sub(r"(?<=listen )(80|443)\b|\b(8000|8001)\b", lambda m: str(self._ports[m[1] or m[2]]), text)
        return re.sub(r"(?<![\w/.])/(?=(opt|etc|var|usr/local)/)", f"{self.root}/", text)

    def run(self, block: Block) -> str:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(block.text)],
            cwd=self.source,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        said = f"line {block.line} of docs/operate.md:\n{block.text}\n{ran.stdout}"
        assert ran.returncode == 0, said
        return ran.stdout

    def stop(self) -> None:
        for path in [*self.root.glob("pids/*"), self.root / "nginx.pid"]:
            if path.exists():
                os.kill(int(path.read_text()), signal.SIGTERM)


@contextmanager
def machine(root: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server())
        server.execute("ALTER SYSTEM SET fsync = on")  # `doctor` fails without it
        server.execute("SELECT pg_reload_conf()")
        relay = Controller(Sink(), hostname="127.0.0.1", port=free_port())
        relay.start()
        stack.callback(relay.stop)
        made = Machine(root, server.url.partition("host=")[2], relay.port, str(server.programs))
        stack.callback(made.stop)
        yield made


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_page_leads_from_nothing_to_two_replicas(tmp_path: Path) -> None:
    if (why := missing_server()) is not None or shutil.which("nginx", path="/usr/sbin") is None:
        pytest.skip(why or "nginx is not installed")
    said: dict[int, str] = {}
    with machine(tmp_path / "m") as here:
        for block in blocks():
            tool = block.kind.partition("check=")[2]
            if block.kind == "sh run" or (tool != "bash" and shutil.which(tool)):
                said[block.line] = here.run(block)
    everything = "\n".join(said.values())
    assert '"replicas":2' in everything
    assert "1 open run continues" in everything
    assert "Backed up 1 run" in everything
