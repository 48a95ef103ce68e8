"""Data owners and a dealer in one process, for the tests of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.dealer import Correlations, run_dealer
from mpc.engine import bind
from mpc.session import Session
from tests.harness import Run, run_parties

NAMES = ("lender", "platform", "shop")


def run_owners(bodies: list[Callable[[Session], Any]], **options: Any) -> Run:
    """Run one function per owner, each inside a bound session, with a dealer; results by owner name."""
    names = NAMES[: len(bodies)]

    def party(index: int) -> Callable[[Any], Any]:
        def body(channel: Any) -> Any:
            session = Session(channel, names, index, Correlations(channel, "dealer", index, len(names)))
            with bind(session):
                result = bodies[index](session)
            session.correlations.close()
            return result

        return body

    parties = {name: party(i) for i, name in enumerate(names)}
    return run_parties({**parties, "dealer": lambda channel: run_dealer(channel, names)}, **options)


def blocks(n: int, dims: list[int], seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Correlated standardised columns cut into blocks, and labels from a logistic model on all of them."""
    rng = np.random.default_rng(seed)
    d = sum(dims)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)))
    X = (X - X.mean(0)) / X.std(0)
    z = X @ rng.normal(0, 1.2 / np.sqrt(d), d) - 1
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return np.split(X, np.cumsum(dims)[:-1], axis=1), y
