"""Joins with hidden membership for tests: two owners, any supply of randomness, rows that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.matching import hidden, vole
from mpc.matching.hidden import Hidden, join
from mpc.matching.kernels import kernels
from mpc.session import Session
from mpc.supply import supply
from tests.harness import Run, run_parties, try_parties
from tests.mpc.playing import NAMES, results
from tests.mpc.test_matching import QuickTransfers
from tests.mpc.transfers import cheap_set_up

OWNERS = NAMES[:2]
SESSION = b"session"
SUPPLIES = ("dealer", "verified-dealer", "ot")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Base transfers that cost nothing, for the matching and for the supply without a dealer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        patch.setattr("mpc.ot.products.set_up", cheap_set_up)
        yield


def between(body: Callable[[Session], Any], mode: str = "dealer", *, tamper: Any = None, every: bool = False) -> Run:
    """Run `body(session)` at both owners; every: also if some of them raise."""

    def party(me: int) -> Callable[[Any], Any]:
        def run(channel: Any) -> Any:
            dealer = None if mode == "ot" else "dealer"
            session = Session(channel, OWNERS, me, supply(mode, channel, OWNERS, dealer, me))
            result = body(session)
            session.correlations.settle()
            session.correlations.close()
            return result

        return run

    parties = {name: party(i) for i, name in enumerate(OWNERS)}
    if mode != "ot":
        parties["dealer"] = lambda channel: run_dealer(channel, OWNERS)
    return (try_parties if every else run_parties)(parties, tamper=tamper)


def sets(n: int, m: int, common: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Points of two owners, of which so many are common."""
    whole = np.random.default_rng(seed).integers(0, 2**64, (n + m - common, 2), dtype=np.uint64)
    x, y = whole[:n], whole[n - common :]
    return x[kernels.order(x)], y[kernels.order(y)]


def words(rows: int, columns: int, seed: int = 1, high: int = 1000) -> np.ndarray:
    """Columns of small whole numbers, positive and negative, as ring words."""
    return np.random.default_rng(seed).integers(-high, high, (rows, columns)).view(np.uint64)


class Rows:
    """Two owners' rows; the receiver is party `receiver`."""

    def __init__(self, points: tuple[np.ndarray, np.ndarray], k: tuple[int, int] = (2, 1), receiver: int = 0) -> None:
        self.points, self.receiver = points, receiver
        self.columns = tuple(words(len(p), width, i + 1) for i, (p, width) in enumerate(zip(points, k, strict=True)))

    def join(self, session: Session, session_id: bytes = SESSION) -> Hidden:
        """Our part."""
        mine = 0 if session.me == self.receiver else 1
        theirs = self.columns[1 - mine].shape[1]
        return join(session, self.points[mine], self.columns[mine], theirs, self.receiver, session_id)

    def places(self) -> dict[int, int]:
        """Which of the sender's rows each of the receiver's that matches belongs to."""
        x, y = ({tuple(p): i for i, p in enumerate(points.tolist())} for points in self.points)
        return {x[p]: y[p] for p in x if p in y}

    def matched(self) -> np.ndarray:
        """The joined columns, row by row as the receiver's points."""
        where = sorted(self.places().items())
        x, y = ([pair[i] for pair in where] for i in (0, 1))
        return np.concatenate([self.columns[0][x], self.columns[1][y]], axis=1)


def opened(joined: list[Hidden]) -> np.ndarray:
    """The bits that both owners' shares stand for."""
    return np.asarray(joined[0].matched + joined[1].matched)


def check(rows: Rows, joined: list[Hidden], kept: list[np.ndarray]) -> None:
    """Exactly the right bins matched, with the right columns, and everything else is zero."""
    bits, columns, places = opened(joined), kept[0] + kept[1], rows.places()
    held = joined[rows.receiver].rows
    assert joined[1 - rows.receiver].rows is None
    assert held is not None
    assert sorted(held[held >= 0].tolist()) == list(range(len(rows.points[0])))
    np.testing.assert_array_equal(bits, [row in places for row in held.tolist()])
    for at, row in enumerate(held.tolist()):
        right = [*rows.columns[0][row], *rows.columns[1][places[row]]] if row in places else 0
        np.testing.assert_array_equal(columns[at], right)


def with_kept(rows: Rows) -> Callable[[Session], tuple[Hidden, np.ndarray]]:
    """The join and its columns."""

    def body(session: Session) -> tuple[Hidden, np.ndarray]:
        joined = rows.join(session)
        (ticket,) = session.correlations.plan([hidden.plan_kept(joined)])
        return joined, hidden.kept(session, ticket, joined)

    return body


def check_run(rows: Rows, mode: str = "dealer") -> Run:
    """Play it, and compare with the rows."""
    run = between(with_kept(rows), mode)
    joined, kept = zip(*results(run), strict=True)
    check(rows, list(joined), list(kept))
    return run
