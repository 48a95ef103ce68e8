"""Play a protocol: n compute parties and a dealer, through the harness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.dealer import Correlations, run_dealer
from mpc.session import Session
from tests.harness import Run, run_parties

NAMES = ("a", "b", "c", "d", "e")


def play(n_parties: int, body: Callable[[Session], Any]) -> Run:
    """Run `body(session)` at every compute party, with a dealer; the results are under NAMES."""
    names = NAMES[:n_parties]

    def party(i: int) -> Callable[[Any], Any]:
        def run(channel: Any) -> Any:
            session = Session(channel, names, i, Correlations(channel, "dealer", i, len(names)))
            result = body(session)
            session.correlations.close()
            return result

        return run

    parties = {name: party(i) for i, name in enumerate(names)}
    return run_parties({**parties, "dealer": lambda channel: run_dealer(channel, names)})


def results(run: Run) -> list[Any]:
    """What the compute parties returned, in party order."""
    return [run[name] for name in NAMES if name in run]


def split(words: np.ndarray, n_parties: int, seed: int = 5) -> list[np.ndarray]:
    """Additive shares of ring words."""
    rng = np.random.default_rng(seed)
    shares = [rng.integers(0, 2**64, words.shape, dtype=np.uint64) for _ in range(n_parties - 1)]
    last = words.copy()
    for share in shares:
        last -= share
    return [*shares, last]


def joined(shares: list[np.ndarray]) -> np.ndarray:
    """The ring words that additive shares stand for."""
    total = shares[0].copy()
    for share in shares[1:]:
        total += share
    return total
