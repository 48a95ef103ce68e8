"""Runs of what stands under the protocols and on them: a checked dealer, transfers without a dealer, training, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import compare
from mpc.dealer import Correlations, run_dealer
from mpc.fourier import FourierTuple, odd_series
from mpc.matrix import mask_matrices, multiply
from mpc.ot import extension
from mpc.ot.products import HALVES, WHOLE, Transfers
from mpc.ot.source import CARRIES
from mpc.products import multiply_many, plan_multiply
from mpc.session import Session
from mpc.triples import BinaryTriple
from mpc.truncation import plan_truncation, truncate_many
from mpc.verified.source import Verified
from tests.harness import Run, run_parties
from tests.mpc.playing import NAMES
from tests.mpc.transcripts import ENDS, N, secret, shared
from tests.mpc.transfers import between
from tests.vertical.helpers import run_owners
from vertical.evaluate import quick_auc
from vertical.glm import Settings, train
from vertical.scores import Scores


def checked_run(body: Callable[[Session], Any]) -> Run:
    """Two parties who check their dealer."""

    def party(me: int) -> Callable[[Any], Any]:
        def run(channel: Any) -> None:
            source = Verified(Correlations(channel, "dealer", me, 2), channel, NAMES[:2], me, "dealer")
            body(Session(channel, NAMES[:2], me, source))
            source.close()

        return run

    parties = {name: party(i) for i, name in enumerate(NAMES[:2])}
    return run_parties({**parties, "dealer": lambda channel: run_dealer(channel, NAMES[:2])})


def of_checked_products(which: int) -> Run:
    x, y = (shared(secret(which, (N,), *ENDS, i), holder=i) for i in range(2))
    return checked_run(lambda s: multiply_many(s, [(s.correlations.plan([plan_multiply((N,))])[0], x[s.me], y[s.me])]))


def of_checked_matrices(which: int) -> Run:
    mine = secret(which, (1500, 3), -(2**15), 2**15 - 1).astype(np.int16)
    v = [shared(secret(which, (1500,), *ENDS, i), holder=1 - i) for i in range(2)]

    def body(s: Session) -> None:
        matrices = mask_matrices(s, [mine.shape] * 2, mine, 0)
        tickets = s.correlations.plan([m.request(transpose=True, vectors=1) for m in matrices])
        multiply(s, [(m, t, each[s.me]) for m, t, each in zip(matrices, tickets, v, strict=True)])

    return checked_run(body)


def of_checked_comparisons(which: int) -> Run:
    x = shared(secret(which, (N,), -(2**40), 2**40))

    def body(s: Session) -> None:
        compare.less_than_zero(s, s.correlations.plan(compare.plan_less_than_zero(N)), x[s.me])
        (ticket,) = s.correlations.plan([FourierTuple(n=12_000, harmonics=[1])])
        odd_series(s, ticket, np.resize(x[s.me], 12_000), 40, [1.0])

    return checked_run(body)


def of_checks(which: int) -> Run:
    """Many small checks: each has a sum in the ring, one over bits, and a digest of rows."""
    x = shared(secret(which, (2,), *ENDS))

    def body(s: Session) -> None:
        for _ in range(360):
            plan = [plan_multiply((1,)), BinaryTriple(shape0=(1,), shape1=(1,)), FourierTuple(n=2, harmonics=[1])]
            product, _bits, angle = tickets = s.correlations.plan(plan)
            multiply_many(s, [(product, x[s.me][:1], x[s.me][1:])])
            s.correlations.take(tickets[1])
            odd_series(s, angle, x[s.me], 64, [1.0])
            s.correlations.settle()

    return checked_run(body)


def of_transfers(which: int) -> Run:
    """Products of all kinds without a dealer, of chosen factors."""
    words = secret(which, (600,), *ENDS).view(np.uint64)

    def party(me: int) -> Callable[[Any], Any]:
        def run(channel: Any) -> None:
            transfers = Transfers(channel, NAMES[1 - me], me)
            for kind in (WHOLE, HALVES, CARRIES):
                transfers.elementwise(kind, words, words)
            transfers.and_planes(words, np.stack([words] * 3))

        return run

    return run_parties({name: party(me) for me, name in enumerate(NAMES[:2])})


def without_a_dealer(which: int) -> Run:
    x, y = (shared(secret(which, (N,), -(2**40), 2**40, i), holder=i) for i in range(2))

    def body(s: Session) -> None:
        plan = [plan_multiply((N,)), plan_truncation(N, 20), *compare.plan_less_than_zero(N)]
        product, drop, *rest = s.correlations.plan(plan)
        multiply_many(s, [(product, x[s.me], y[s.me])])
        truncate_many(s, [drop], [x[s.me]])
        compare.less_than_zero(s, rest, x[s.me])

    return between(body)


class Chosen:
    """A party's randomness in the set-up, except for what it chooses."""

    def __init__(self, stream: Any, which: int) -> None:
        self._stream, self._which, self._calls = stream, which, 0

    def words(self, shape: Any, dtype: Any) -> np.ndarray:
        """The stream's words; the third time, after key and nonce, all zeros or all ones, which decide every choice."""
        self._calls += 1
        out: np.ndarray = self._stream.words(shape, dtype)
        return np.full_like(out, -self._which % 256) if self._calls == 3 and self._which < 2 else out


def of_base_transfers(which: int) -> Run:
    """The set-up, several times."""
    fresh = extension.fresh_prg

    def party(me: int) -> Callable[[Any], Any]:
        return lambda channel: [extension.set_up(channel, NAMES[1 - me], me) for _ in range(5)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpc.ot.extension.fresh_prg", lambda: Chosen(fresh(), which))
        run = run_parties({name: party(me) for me, name in enumerate(NAMES[:2])})
    holes = {tuple(sender._holes) for name in NAMES[:2] for _, sender in run[name]}
    assert len(holes) == (1 if which < 2 else 10)
    return run


def of_training(which: int) -> Run:
    n = 2600
    parts = [secret(which, (n, d), -1000, 1000, d) / 1000 for d in (3, 2)]
    y = (np.arange(n) % 2, np.arange(n) < n // 3, parts[0][:, 0] > -0.4)[which].astype(float)
    settings = Settings(ridge=1.0, passes=3, hessians=1)
    return run_owners([lambda s, i=i: train(s, parts[i], y if i == 0 else None, settings) for i in range(2)])


def of_evaluation(which: int) -> Run:
    n = 5200
    parts = [secret(which, (n,), -8000, 8000, i) / 1000 for i in range(2)]
    y = (np.arange(n) % 2, np.arange(n) < 99, parts[0] > -4)[which].astype(float)

    def owner(i: int) -> Callable[[Session], float]:
        return lambda s: quick_auc(s, Scores.of_part(parts[i], 16.0, 2), y if i == 0 else None, 0)

    return run_owners([owner(i) for i in range(2)])
