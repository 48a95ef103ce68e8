"""The oblivious function in batches, and programmed: values at shared points, randomness elsewhere, costs, faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.matching import okvs, opprf, vole
from mpc.matching.kernels import kernels
from mpc.matching.opprf import recv_hint, send_hint
from mpc.matching.oprf import Receiver, Sender
from tests.harness import run_parties, try_parties
from tests.mpc.test_matching import QuickTransfers

RNG = np.random.default_rng
SESSION = bytes(32)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        yield


def _points(seed: int, n: int) -> np.ndarray:
    words = RNG(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)
    return words[kernels.order(words)]


def _shared(n: int, m: int, common: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The receiver's points, the sender's, and where in the sender's each of the receiver's is (-1: nowhere)."""
    whole = RNG(7).integers(0, 2**64, (n + m - common, 2), dtype=np.uint64)
    x, y = whole[:n], whole[n - common :]
    x, y = x[kernels.order(x)], y[kernels.order(y)]
    place = {tuple(row): i for i, row in enumerate(y.tolist())}
    return x, y, np.array([place.get(tuple(row), -1) for row in x.tolist()], dtype=np.int64)


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_batches_have_different_functions_with_equal_values_at_both_ends(security: str) -> None:
    x, y, where = _shared(300, 500, 120)

    def receive(channel):
        function = Receiver(channel, "platform", SESSION, security=security)
        return [function.evaluate(x), function.evaluate(x[:100]), function.evaluate(x[:0])]

    def send(channel):
        function = Sender(channel, "lender", SESSION, security=security)
        return [function.serve(len(part)).evaluate(y) for part in (x, x[:100], x[:0])]

    run = run_parties({"lender": receive, "platform": send})
    for got, made, n in zip(run["lender"], run["platform"], (300, 100, 0), strict=True):
        assert got.shape == (n, 4)
        inside = where[:n] >= 0
        assert np.array_equal(got[inside], made[where[:n][inside]])
        assert not np.intersect1d(got[~inside], made).size
    assert not np.intersect1d(run["lender"][0], run["lender"][1]).size


@pytest.mark.parametrize("k", [1, 3, 9])
def test_programmed_points_have_their_values_and_others_random_ones(k: int) -> None:
    x, y, where = _shared(200, 400, 80)
    values = RNG(8).integers(0, 2**64, (len(y), k), dtype=np.uint64)

    def receive(channel):
        outputs = Receiver(channel, "platform", SESSION).evaluate(x)
        return recv_hint(channel, "platform", x, outputs, (len(y), k))

    def send(channel):
        outputs = Sender(channel, "lender", SESSION).serve(len(x)).evaluate(y)
        send_hint(channel, "lender", y, outputs, values)

    run = run_parties({"lender": receive, "platform": send})
    inside = where >= 0
    assert np.array_equal(run["lender"][inside], values[where[inside]])
    assert not np.intersect1d(run["lender"][~inside], values).size
    hint = sum(len(m.body) for m in run.transcript if m.tag.startswith("matching/hint"))
    assert hint == 32 + 8 * k * okvs.columns(len(y))


def test_a_hint_is_uniform_whatever_it_holds() -> None:
    """Also where no row needs a column: the places of free columns would tell about the points."""
    y = _points(3, 2000)
    outputs, values = RNG(4).integers(0, 2**64, (2000, 4), dtype=np.uint64), np.zeros((2000, 1), dtype=np.uint64)
    run = run_parties(
        {"lender": lambda c: recv_hint(c, "platform", y[:0], outputs[:0], (2000, 1)),
         "platform": lambda c: send_hint(c, "lender", y, outputs, values)}
    )  # fmt: skip
    words = np.frombuffer(b"".join(m.body for m in run.transcript if m.tag == "matching/hint"), dtype=np.uint64)
    assert len(np.unique(words)) == len(words)
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(64 * len(words))


@pytest.mark.parametrize("tag", ["hint-key", "hint"])
@pytest.mark.parametrize("how", ["short", "long", "lost"])
def test_malformed_hints_are_the_senders_fault(tag: str, how: str) -> None:
    y, outputs = _points(3, 50), RNG(4).integers(0, 2**64, (50, 4), dtype=np.uint64)

    def change(m):
        if m.tag != f"matching/{tag}":
            return m
        return None if how == "lost" else replace(m, body=m.body[:-1] if how == "short" else m.body + b"x")

    run = try_parties(
        {"lender": lambda c: recv_hint(c, "platform", y, outputs, (50, 1)),
         "platform": lambda c: send_hint(c, "lender", y, outputs, outputs[:, :1])},
        tamper=change,
    )  # fmt: skip
    error = run.errors["lender"]
    assert isinstance(error, (PeerLost, RemoteProtocolError) if how == "lost" else RemoteProtocolError)
    assert error.party == "platform"


def test_points_that_cannot_be_encoded_are_our_own_fault(monkeypatch) -> None:
    monkeypatch.setattr(opprf.okvs, "solve", lambda *_: None)
    y, outputs = _points(3, 5), np.zeros((5, 4), dtype=np.uint64)
    run = try_parties({"lender": lambda _: None, "platform": lambda c: send_hint(c, "lender", y, outputs, outputs)})
    assert isinstance(run.errors["platform"], LocalProtocolError)
