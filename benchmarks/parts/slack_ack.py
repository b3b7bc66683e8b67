"""The part that runs `benchmarks.slack_ack`: Slack clicks while its API is down and a thousand cards wait."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.parts.part import ROOT, Figures, Scale, main, say

RESULT = re.compile(r"ack p50 ([\d.]+) ms, p99 ([\d.]+) ms")


def measure(scale: Scale) -> Figures:
    sizes = ["--waiting", str(scale(1000, 10)), "--clicks", str(scale(400, 10))]
    line = [sys.executable, "-m", "benchmarks.slack_ack", *sizes]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [(float(p50), float(p99)) for p50, p99 in RESULT.findall(done.stdout)]
    say(done.stdout.strip())
    if not found:
        raise RuntimeError(done.stderr[-1500:])
    if done.returncode:
        say(done.stderr.strip()[-300:])  # a target was missed, and the figures say which
    return {"slack_ack.p50_ms": max(p50 for p50, _ in found), "slack_ack.p99_ms": max(p99 for _, p99 in found)}


if __name__ == "__main__":
    main(measure)
