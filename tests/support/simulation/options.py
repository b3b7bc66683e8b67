"""How a seed's world is: calm or rough, small or large. Each seed turns some faults off, so that no fault hides behind
another."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Options:
    """Probabilities are per call of the store, times in virtual seconds."""

    nodes: int
    shuffled: bool  # more disorder than asyncio allows
    crash_at_write: float
    stall_at_write: float  # it comes back as a zombie, and writes
    lost_reply: float
    refused: float  # the store says no before it has done anything
    slow_call: float
    mishap_every: float  # kill, stop, stall, outage; 0: none
    skew: float  # how far the nodes' clocks may be apart
    doubled: float  # how often people ask twice, at different nodes
    troubled: float  # how long faults happen
    poll: float

    @classmethod
    def drawn(cls, random: Random) -> Options:
        def some(most: float, chance: float = 0.5) -> float:
            return random.random() * most if random.random() < chance else 0.0

        return cls(
            nodes=random.choice((1, 2, 2, 3, 3)),
            shuffled=random.random() < 0.4,
            crash_at_write=some(0.06, 0.7),
            stall_at_write=some(0.03, 0.4),
            lost_reply=some(0.08, 0.6),
            refused=some(0.05),
            slow_call=some(0.05),
            mishap_every=random.uniform(4, 20) if random.random() < 0.6 else 0.0,
            skew=some(3.0, 0.3),
            doubled=some(1.0, 0.7),
            troubled=random.uniform(8, 30),
            poll=random.choice((2.0, 4.0)),
        )
