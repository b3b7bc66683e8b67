"""A deterministic simulation of several processes that work on one store.

Real engines, the real core and the real SQL run on one thread in virtual time. A seed decides everything that is left
open elsewhere: whose turn it is, how long a write takes, who crashes, whose answers are lost, what people do when.

`python -m simulation --seed 17` plays one seed and tells what happened.
"""
