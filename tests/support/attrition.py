"""Kill or stall replicas in the middle of their work, one after another, while people open requests and vote."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.replicas import Fleet, Replica, eventually

RUNS = 5  # that a replica is at work on when it is lost
PAUSE = 0.2  # seconds for which a person does nothing, between two requests
PATIENCE = 5.0  # seconds after which a person tries another replica
PEOPLE = "people"  # names of their threads
HELD_UP = 120.0  # seconds for what a very busy machine may hold up

SETTLED = ["run_created", "run_started", "step_created", "step_started", "step_completed", "hook_created"]
ENDED = [*SETTLED, "hook_received", "run_completed"]


@dataclass
class Tally:
    """What happened. A violation raises AssertionError where it is seen."""

    killed: int = 0
    stalled: int = 0
    takeovers: list[float] = field(default_factory=list)  # seconds from a replica's loss to its work going on
    fenced: int = 0  # writes of zombies that were refused
    asked: int = 0  # requests of people that were acknowledged, and ended as they were answered
    unanswered: int = 0  # how often people had to go to another replica
    lock: threading.Lock = field(default_factory=threading.Lock)

    def summary(self, within: float) -> str:
        took = sorted(self.takeovers)
        share = sum(1 for seconds in took if seconds <= within)
        return (
            f"{self.killed} kills, {self.stalled} stalls, {len(took)} runs taken over: "
            f"median {took[len(took) // 2]:.1f} s, longest {took[-1]:.1f} s, within {within:g} s {share}; "
            f"{self.fenced} writes of zombies refused; people: {self.asked} requests ended as they were answered, "
            f"{self.unanswered} times at another replica; 0 lost, 0 twice"
        )


class Attrition:
    """A fleet in which several lanes lose and replace replicas at the same time."""

    def __init__(self, fleet: Fleet, lanes: int) -> None:
        self.tally = Tally()
        self._fleet = fleet
        self._lanes = lanes
        self._healthy: list[Replica] = []
        self._numbers = itertools.count()

    def run(self, losses: int) -> Tally:
        """Lose this many replicas: every other one is killed, the rest are stalled."""
        self._healthy = self._fleet.start(self._lanes + 1)
        with self._people(), ThreadPoolExecutor(self._lanes) as lanes:
            turns = [lanes.submit(self._lose, number, is_kill=number % 2 == 0) for number in range(losses)]
            try:
                for turn in turns:
                    turn.result()
            finally:  # after a failure, or Ctrl-C, no more of them begin
                lanes.shutdown(wait=False, cancel_futures=True)
        return self.tally

    # ── losing replicas ──

    def _lose(self, number: int, *, is_kill: bool) -> None:
        victim = self._chosen()
        names = [f"work-{number}-{each}" for each in range(RUNS)]
        for name in names:
            self._fleet.hold(victim, name)
        held = {victim.start_run("toils", name=name): name for name in names}
        for name in names:
            eventually(lambda name=name: self._fleet.effects(name))
        victim.send(signal.SIGKILL if is_kill else signal.SIGSTOP)
        lost_at = time.time()
        for name in names:
            self._note_takeover(name, victim, lost_at)
        before = {run_id: self._settled(run_id) for run_id in held}
        for name in names:  # from now on a zombie's steps can end, and it tries to write what has come of them
            self._fleet.let_go(victim, name)
        if not is_kill:
            self._comes_back(victim, before)
        for run_id, name in held.items():
            self._ends(run_id, name, number)
        with self.tally.lock:
            self.tally.killed += is_kill
            self.tally.stalled += not is_kill
        self._healthy.append(self._fleet.start(1)[0] if is_kill else victim)

    def _chosen(self) -> Replica:
        """Take a healthy replica for this lane; people keep using it."""
        with self.tally.lock:
            return self._healthy.pop(0)

    def _note_takeover(self, name: str, victim: Replica, lost_at: float) -> None:
        first, second = eventually(lambda: (begun := self._fleet.effects(name))[1:] and begun[:2], HELD_UP)
        assert first.pid == victim.pid
        with self.tally.lock:
            self.tally.takeovers.append(second.at - lost_at)

    def _settled(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's log once it waits for its hook. (The replica that takes over may be lost, too.)"""

        def look() -> list[dict[str, Any]] | None:
            events = self._events(run_id)
            return events if [event["type"] for event in events] == SETTLED else None

        found: list[dict[str, Any]] = eventually(look, HELD_UP)
        return found

    def _comes_back(self, zombie: Replica, before: dict[str, list[dict[str, Any]]]) -> None:
        """Resume a stalled replica, and check that it can't write to the runs it has lost."""
        zombie.send(signal.SIGCONT)

        def refused() -> int:
            return sum(1 for pid, run_id in self._fleet.fenced() if pid == zombie.pid and run_id in before)

        eventually(lambda: refused() >= len(before), HELD_UP)
        eventually(lambda: zombie.http.get("/readyz").status_code == 200)
        for run_id, events in before.items():
            assert self._events(run_id) == events, "a zombie has written"
        with self.tally.lock:
            self.tally.fenced += refused()

    def _ends(self, run_id: str, name: str, number: int) -> None:
        """Resume the run's hook, and check that the run ends with that payload, each event once."""
        answer = f" {number}"
        headers = {"idempotency-key": f"end-{name}", "content-type": "application/json"}

        def resumed() -> bool:
            found = self._ask("POST", f"/api/hooks/{name}", content=json.dumps(answer), headers=headers)
            return found is not None and found.status_code in (200, 404)  # 404: an unheard answer was 200

        eventually(resumed, HELD_UP)
        found = eventually(lambda: self._ended(run_id), HELD_UP)
        assert (found["status"], found["result"]) == ("completed", name + answer)
        assert [event["type"] for event in self._events(run_id)] == ENDED, "each once"

    # ── people ──

    @contextmanager
    def _people(self, number: int = 4) -> Iterator[None]:
        """Let people open requests, answer them and check the results, while the block runs."""
        over = threading.Event()
        with ThreadPoolExecutor(number, PEOPLE) as threads:
            people = [threads.submit(self._person, person, over) for person in range(number)]
            try:
                yield
            finally:
                over.set()
                for person_ in people:
                    person_.result()

    def _person(self, person: int, over: threading.Event) -> None:
        while not over.wait(PAUSE):
            name = f"wish-{person}-{next(self._numbers)}"
            run_id = self._start(name)
            over.wait(PAUSE)
            self._settled(run_id)
            self._ends(run_id, name, person)
            with self.tally.lock:
                self.tally.asked += 1

    def _start(self, name: str) -> str:
        """Start a run, repeating the same key until it is accepted."""
        wish = {"workflow": "toils", "input": {"name": name}}
        headers = {"idempotency-key": name}
        answer = eventually(lambda: self._ask("POST", "/api/runs", json=wish, headers=headers), HELD_UP)
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["run_id"])

    # ── asking any replica ──

    def _ended(self, run_id: str) -> dict[str, Any] | None:
        answer = self._ask("GET", f"/api/runs/{run_id}", params={"wait": 2})
        found = answer.json() if answer is not None and answer.status_code == 200 else {}
        return found if found.get("status") not in (None, "pending", "running") else None

    def _events(self, run_id: str) -> list[dict[str, Any]]:
        answer = eventually(lambda: self._ask("GET", f"/api/runs/{run_id}/events"), HELD_UP)
        return list(answer.json()["events"])

    def _ask(self, method: str, path: str, **given: Any) -> httpx2.Response | None:
        """Send a request to a random replica.

        People may reach stalled replicas, too, since their load balancer doesn't know yet; lanes only use healthy ones.
        Returns None if there was no answer, or a 503.
        """
        with self.tally.lock:
            is_person = threading.current_thread().name.startswith(PEOPLE)
            alive = [r for r in self._fleet.replicas if r.process.poll() is None] if is_person else list(self._healthy)
        replica = random.choice(alive)  # noqa: S311
        headers = {**given.pop("headers", {}), "authorization": replica.http.headers["authorization"]}
        url = str(replica.http.base_url).rstrip("/") + path
        if not url.startswith("http"):
            return None  # it is just starting
        try:
            answer = httpx2.request(method, url, headers=headers, timeout=PATIENCE, trust_env=False, **given)
        except httpx2.TransportError:
            answer = None
        if answer is None or answer.status_code == 503:
            with self.tally.lock:
                self.tally.unanswered += 1
            return None
        assert answer.status_code < 500, answer.text
        return answer
