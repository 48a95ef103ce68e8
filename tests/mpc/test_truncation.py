"""Division of shared integers: never off by more than one, for two and three parties, over the whole range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.truncation import Truncation, plan_truncation, truncate, truncate_many
from tests.mpc.playing import joined, play, results, split


def divided(n_parties: int, values: list[np.ndarray], divisors: list[int]):
    """What signed vectors become, all in one call; returns (run, signed results)."""
    shares = [split(v.astype(np.int64).view(np.uint64), n_parties) for v in values]

    def body(session: Session):
        requests = [Truncation(n=v.size, divisor=d) for v, d in zip(values, divisors, strict=True)]
        return truncate_many(session, session.correlations.plan(requests), [s[session.me] for s in shares])

    run = play(n_parties, body)
    return run, [joined(list(parts)).view(np.int64) for parts in zip(*results(run), strict=True)]


def edges(divisor: int) -> np.ndarray:
    """Values around every power of two, around multiples of the divisor, and at the ends of the range."""
    powers = [s * (1 << k) + e for k in range(62) for s in (1, -1) for e in (-1, 0, 1)]
    multiples = [m * divisor + e for m in (-3, -1, 0, 1, 2) for e in (-1, 0, 1)]
    limit = (1 << 62) - divisor
    ends = [s * (limit - e) for s in (1, -1) for e in (0, 1, 2)]
    return np.array([x for x in powers + multiples + ends if abs(x) <= limit], dtype=np.int64)


@pytest.mark.parametrize("n_parties", [2, 3])
def test_a_million_values_are_right_to_one_unit(n_parties):
    rng = np.random.default_rng(n_parties)
    x = rng.integers(-(1 << 61), (1 << 61) + 1, 1_000_000)
    x[::2] >>= rng.integers(0, 61, 500_000)  # every magnitude
    _, (y,) = divided(n_parties, [x], [1 << 20])
    error = y - (x >> 20)
    assert set(np.unique(error)) <= {0, 1}
    assert abs(error.mean() - np.mean((x & 0xFFFFF) / 2**20)) < 0.005  # rounding is unbiased


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("divisor", [2, 3, 7, 10, 1 << 16, 30_000, (1 << 20) + 1, (1 << 40) - 87, 1 << 61, 1 << 62])
def test_the_edges_of_the_range_are_right_to_one_unit(divisor, n_parties):
    x = np.repeat(edges(divisor), 8)
    _, (y,) = divided(n_parties, [x], [divisor])
    assert set(np.unique(y - np.floor_divide(x, divisor))) <= {0, 1}
    exact = x % divisor == 0
    assert (y[exact] == x[exact] // divisor).all()


@given(st.data(), st.integers(2, 1 << 62) | st.sampled_from([2, 1 << 20, 1 << 62]), st.sampled_from([2, 3, 5]))
def test_any_integer_by_any_divisor(data, divisor, n_parties):
    limit = (1 << 62) - divisor
    legal = st.integers(-limit, limit) | st.sampled_from([limit, -limit, 0])
    x = np.array(data.draw(st.lists(legal, max_size=12)), dtype=np.int64)
    _, (y,) = divided(n_parties, [x], [divisor])
    assert set(np.unique(y - np.floor_divide(x, divisor))) <= {0, 1}


def test_several_vectors_take_one_round_and_the_stated_bytes():
    rng = np.random.default_rng(1)
    values = [rng.integers(-1000, 1000, 5), rng.integers(-(1 << 50), 1 << 50, (3, 4)), np.zeros(0, dtype=np.int64)]
    run, out = divided(3, values, [2, 1 << 33, 8])
    assert [o.shape for o in out] == [(5,), (3, 4), (0,)]
    for x, y, d in zip(values, out, [2, 1 << 33, 8], strict=True):
        assert set(np.unique(y - np.floor_divide(x, d))) <= {0, 1}
    for sender, receiver in [(a, b) for a in "abc" for b in "abc" if a != b]:
        assert [m.size for m in run.transcript if (m.sender, m.receiver) == (sender, receiver)] == [8 * 17]
    corrections = [m.size for m in run.transcript if m.tag == "dealer/correction"]
    assert sum(corrections) == 16 * 17


def test_one_vector_and_none():
    def body(session: Session):
        assert truncate_many(session, [], []) == []
        (ticket,) = session.correlations.plan([plan_truncation(2, 4)])
        share = np.array([160, 32], dtype=np.uint64) if session.me == 1 else np.zeros(2, dtype=np.uint64)
        return truncate(session, share, ticket)

    assert joined(results(play(2, body))).tolist() == [10, 2]


def test_the_opened_words_do_not_depend_on_the_values():
    """What is opened for zeros is spread evenly over the ring: its top bytes are uniform."""
    run, _ = divided(2, [np.zeros(100_000, dtype=np.int64)], [1 << 20])
    sent = [np.frombuffer(m.body, dtype=np.uint64) for m in run.transcript if m.tag == "truncation/open"]
    counts = np.bincount((sent[0] + sent[1]) >> np.uint64(56), minlength=256)
    assert ((counts - 100_000 / 256) ** 2 / (100_000 / 256)).sum() < 255 + 12 * np.sqrt(2 * 255)


def test_misuse_is_refused():
    with pytest.raises(LocalProtocolError, match="drops 1 to 62 bits, not 63"):
        plan_truncation(3, 63)
    with pytest.raises(LocalProtocolError, match="not 0"):
        plan_truncation(3, 0)

    def wrong_size(session: Session):
        (ticket,) = session.correlations.plan([plan_truncation(3, 4)])
        truncate(session, np.zeros(2, dtype=np.uint64), ticket)

    def wrong_type(session: Session):
        (ticket,) = session.correlations.plan([plan_truncation(2, 4)])
        truncate(session, np.zeros(2, dtype=np.int64), ticket)

    def twice(session: Session):
        (ticket,) = session.correlations.plan([plan_truncation(2, 4)])
        for _ in range(2):
            truncate(session, np.zeros(2, dtype=np.uint64), ticket)

    for body, why in [(wrong_size, "not for truncating 2 words"), (wrong_type, "not for"), (twice, "already used")]:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body)


@pytest.mark.parametrize(
    "raw", [{"n": 1, "divisor": 1}, {"n": 1, "divisor": 1 << 63}, {"n": -1, "divisor": 2}, {"n": 1}]
)
def test_the_dealer_refuses_senseless_divisions(raw):
    from mpc.wire import send_json
    from tests.harness import run_parties

    def asker(channel):
        channel.recv("dealer", "dealer/key", 1, exact=32)
        send_json(channel, "dealer", "dealer/request", [{"kind": "truncation", **raw}])

    with pytest.raises(RemoteProtocolError, match="malformed request for 'truncation'"):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})


def test_sixty_seven_million_products_of_a_million_lose_at_most_one_unit():
    """2^26 divisions at |x| = 2^20 with 20 fractional bits, at the scale of a product: none is off by more than one."""
    rng = np.random.default_rng(26)
    worst = 0
    for batch in range(32):
        x = rng.integers(-(1 << 41), 1 << 41, 1 << 21) + (1 << 60) * (1 if batch % 2 else -1)
        _, (y,) = divided(2, [x], [1 << 20])
        y -= x >> 20
        assert int(y.min()) >= 0
        worst = max(worst, int(y.max()))
    assert worst == 1
