"""What the commands share: options, an engine beside the service, and its clock.

Commands start quickly, because their modules import what only some of them need (the engine, rules, HTTP, Slack, mail)
inside the functions that use it. A test checks that.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from approvals_bot.cli.terminal import quiet_logs

if TYPE_CHECKING:
    from approvals_bot.approvals.acts import Actor
    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine import Engine, RunRecord, TimeSource
    from approvals_bot.durable.engine.clock import Settles

T = TypeVar("T")

FILE = click.Path(path_type=Path)

config_option = click.option(
    "--config", type=FILE, default="config.toml", metavar="FILE", help="The service's configuration."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
run_argument = click.argument("run", help="A run's ID.")
input_option = click.option("--input", default="{}", metavar="JSON", help="The input, as a JSON object.")
shown_reason_option = click.option(
    "--reason", default="", show_default=False, help="The reason, shown to everyone involved."
)
on_behalf_of_option = click.option("--on-behalf-of", metavar="ADDRESS", help="The person the request is for.")


def fail(text: str) -> NoReturn:
    """Print this on standard error and exit with 1."""
    click.echo(text, err=True)
    raise click.exceptions.Exit(1)


def misuse(text: str) -> NoReturn:
    """Print this on standard error and exit with 2, as click does for arguments that can't be right."""
    click.echo(text, err=True)
    raise click.exceptions.Exit(2)


def this_user() -> Actor:
    """Return the operating system's user, as the actor of what a command does.

    By the process's own id, because anybody can set LOGNAME.
    """
    from approvals_bot.approvals.acts import Actor

    try:
        import pwd

        return Actor("cli", pwd.getpwuid(os.getuid()).pw_name)
    except (ImportError, KeyError):  # Windows has no such module, and a container may have no such user
        return Actor("cli", f"uid:{os.getuid()}" if hasattr(os, "getuid") else os.environ.get("USERNAME", "unknown"))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python's collector off for the block.

    What commands import and read stays until they end. Looking through it again and again took a tenth of the CPU of
    `check`, and an eighth of that of `serve` until it is ready (`benchmarks/parts/startup.py`).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_json(text: str, option: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        misuse(f"{option} is not JSON: {error}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"there is no {word} in JSON")


def read_object(text: str, option: str) -> dict[str, Any]:
    value = read_json(text, option)
    if not isinstance(value, dict):
        misuse(f'{option} must be a JSON object, like \'{{"version": "2.1"}}\'')
    return value


def read_pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Parse the `name=value` texts of a repeated option."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            misuse(f"Write {option} name=value, not {text!r}")
        pairs[name] = value
    return pairs


def identity(text: str, service: ServiceSettings, option: str) -> str:
    """Return whom an option names: a person by the address they are compared by, or an app."""
    from approvals_bot.people import AddressError

    if text.startswith("app:"):
        return text
    try:
        return service.rules.canonical(text)
    except AddressError as error:
        misuse(f"{option}: {error}")


def with_engine(
    config: Path,
    use: Callable[[Engine, ServiceSettings], Coroutine[Any, Any, T]],
    *,
    upgrade: bool = True,
    to_read: bool = False,
) -> T:
    """Run `use` with an engine on the service's database that can start and resume runs but executes none.

    Without `upgrade`, the database's schema is left alone, and a missing or outdated one is refused; `to_read`, nothing
    is written at all. Only config.toml is read, so people can look at a run even while a workflow file is invalid.
    """
    from approvals_bot.config.load import load_service

    quiet_logs()
    service = load_service(config, os.environ)

    async def run() -> T:
        async with _engine_of(service, clock_of(config), upgrade=upgrade, to_read=to_read) as engine:
            return await use(engine, service)

    return asyncio.run(run())


@asynccontextmanager
async def _engine_of(
    service: ServiceSettings, clock: TimeSource, *, upgrade: bool, to_read: bool
) -> AsyncIterator[Engine]:
    from approvals_bot.durable.engine import Engine
    from approvals_bot.durable.engine.executor import Executor
    from approvals_bot.durable.store import connect
    from approvals_bot.durable.store.chain import ChainKey
    from approvals_bot.durable.tokens import Tokens

    store = await connect(service.server.database.get_secret_value(), upgrade=upgrade, to_read=to_read)
    keys = [key.get_secret_value() for key in service.server.signing_keys]
    tokens = Tokens(keys, installation=store.installation)
    grace = service.server.cancel_grace.total_seconds()
    seed = service.audit.seed
    engine = Engine(
        store,
        tokens=tokens,
        base_url=str(service.server.base_url),
        clock=clock,
        executor=Executor(limits=service.step_limits),
        cancel_grace=grace,
        max_waiting=service.hook.max_waiting,
        audit_key=None if seed is None else ChainKey.derive(seed),
    )
    async with engine.running(work=False):
        yield engine


def clock_of(config: Path) -> TimeSource:
    """Return the service's clock, which a playground may have moved."""
    from approvals_bot.durable.engine import SystemClock

    moved = config.parent / "clock.json"
    return PlaygroundClock(moved) if moved.exists() else SystemClock()


async def record_of(engine: Engine, run: str) -> RunRecord:
    """Return the run with this ID. Raises RunNotFoundError."""
    from approvals_bot.errors import RunNotFoundError
    from approvals_bot.service.read import find_record

    record = await find_record(engine, run)
    if record is None:
        raise RunNotFoundError(run)
    return record


class PlaygroundClock:
    """Real time plus the offset set in the playground, which the file `memory` keeps across restarts."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._offset = timedelta(seconds=json.loads(memory.read_text("utf-8"))) if memory.exists() else timedelta()
        self._engines: list[Settles] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    async def advance(self, text: str) -> datetime:
        """Advance by this duration, stopping whenever an engine has something to do. Raises ValueError."""
        from approvals_bot.durable.core.durations import parse_duration

        target = self.now() + parse_duration(text)
        while True:
            wakes = [wake for engine in self._engines if (wake := await engine.next_wake()) is not None]
            following = min((wake for wake in wakes if wake > self.now()), default=None)
            if following is None or following > target:
                break
            self._move(following)
            await self._settle()
        self._move(target)
        await self._settle()
        return self.now()

    def attach(self, engine: Settles) -> None:
        self._engines.append(engine)

    def detach(self, engine: Settles) -> None:
        self._engines.remove(engine)

    def _move(self, to: datetime) -> None:
        self._offset += max(timedelta(), to - self.now())
        write_whole(self._memory, json.dumps(self._offset.total_seconds()))

    async def _settle(self) -> None:
        for engine in self._engines:
            await engine.settle()


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically, readable by its owner alone, since it may be a secret."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text(text, "utf-8")
    beside.replace(file)
