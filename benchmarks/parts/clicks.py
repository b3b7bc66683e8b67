"""Clicks over real HTTP: webhook calls, votes over the API and clicks in Slack, sent by a loader in this process."""

from __future__ import annotations

import json

from benchmarks.loader import request
from benchmarks.measures import percentile
from benchmarks.parts.part import Figures, Scale, main, say
from benchmarks.parts.served import Served, of_load, served

COMMENT = b'{"approved": true, "comment": "fine"}'


def measure(scale: Scale) -> Figures:
    with served() as service:
        figures = webhooks(service, scale(6000, 50), scale(300, 10))
        say(f"webhooks: {figures['clicks.webhook.per_second']:,.0f}/s")
        figures |= votes(service, scale(300, 10))
        say(f"votes: {figures['clicks.vote.per_second']:,.0f}/s")
        figures |= slack(service, scale(300, 10))
        say(f"Slack clicks: {figures['clicks.slack.per_second']:,.0f}/s")
    return figures


def webhooks(service: Served, count: int, alone: int) -> Figures:
    calls = [
        request("POST", url, COMMENT, {"Content-Type": "application/json"}) for url in service.ask(f"webhooks {count}")
    ]
    service.load(calls[:5], 1, 202)
    slow = service.load(calls[5:alone], 1, 202)
    figures = of_load("clicks.webhook", service.load(calls[max(5, alone) :], 50, 202))
    return figures | {"clicks.webhook.alone_p50_ms": percentile([a.seconds for a in slow.answers], 0.5) * 1000}


def votes(service: Served, count: int) -> Figures:
    runs = service.open(count)
    service.ask(f"hooks {' '.join(runs)}")  # once all wait
    found = service.load([service.vote(run, number) for number, run in enumerate(runs)], 20, 201)
    verdicts = {json.loads(answer.body).get("verdict") for answer in found.answers}
    if len(verdicts) != 1:
        raise RuntimeError(f"not every vote decided: {verdicts}")
    return of_load("clicks.vote", found)


def slack(service: Served, count: int) -> Figures:
    runs = service.open(count)
    hooks = service.ask(f"hooks {' '.join(runs)}")
    return of_load("clicks.slack", service.load([service.click(hook, n) for n, hook in enumerate(hooks)], 20, 200))


if __name__ == "__main__":
    main(measure)
