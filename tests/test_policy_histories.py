"""Random histories, attackers included, judged by `tallystone.policy` and by a naive second implementation.

Each step of each history must be judged alike. TALLYSTONE_HISTORIES says how many there are (1,600 by default, 4,800
with TALLYSTONE_LONG=1); with TALLYSTONE_SEED set, that one alone is told, with every step of it.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from policy_attacks import STATEMENTS, WRITINGS
from policy_histories import STEPS, History

LONG = bool(os.environ.get("TALLYSTONE_LONG"))
HISTORIES = int(os.environ.get("TALLYSTONE_HISTORIES", "4800" if LONG else "1600"))
SHARDS, ENOUGH = 4, 300
ALONE = os.environ.get("TALLYSTONE_SEED")


def step(history: History) -> None:
    """Somebody does something, honest or not."""
    what = history.chance.random()
    if what < 0.2:
        history.change_role()
    elif what < 0.55:
        said = history.propose()
        if history.state(said, said.kind):
            return
    elif what < 0.75:
        attack = history.chance.choice(STATEMENTS)
        history.state(attack(history, history.propose()), attack.__name__)
    elif what < 0.9:
        history.write(history.writing(history.way()), "write")
    else:
        bend = history.chance.choice(WRITINGS)
        history.write(bend(history, history.writing(history.way())), bend.__name__)


def tell(seed: int) -> Counter[tuple[str, bool]]:
    """One history. Says its seed if the two judges disagree."""
    history = History(seed)
    try:
        for _ in range(STEPS):
            step(history)
        history.compare()
    except Exception:
        print(*history.log[-3:], f"seed {seed}: run it alone with TALLYSTONE_SEED={seed}", sep="\n")
        raise
    if ALONE:
        print(*history.log, sep="\n")
    return history.counts


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_naive_second_implementation_agrees_over_random_histories(shard: int) -> None:
    seeds = range(int(ALONE), int(ALONE) + 1) if ALONE else range(shard, HISTORIES, SHARDS)
    counts = sum((tell(seed) for seed in seeds), Counter())
    if len(seeds) >= ENOUGH:  # or else the histories have become so tame, or so wild, that they prove little
        honest, attacks = ("grant", "revocation", "policy", "transfer", "write"), (*STATEMENTS, *WRITINGS)
        assert not [name for name in honest if not counts[name, True]]
        assert not [one.__name__ for one in attacks if not counts[one.__name__, False]]
