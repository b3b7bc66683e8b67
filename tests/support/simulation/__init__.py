"""A deterministic simulation of several processes that work on one store.

Real engines, the real core and the real SQL run on one thread in virtual time. A seed decides everything that is left
open elsewhere: which process runs next, how long a write takes, which one crashes, which answers are lost, and what
people do when.

`python -m simulation --seed 17` plays one seed and prints its timeline.
"""
