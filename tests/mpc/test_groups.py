"""Sums by group are exact for shared and owned keys, cost what they say, and send nothing but uniform words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import groups
from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.groups import (
    TurnedOneHot,
    group_sum,
    group_sum_by_owner,
    one_hot,
    plan_group_sum,
    plan_group_sum_by_owner,
    plan_one_hot,
)
from mpc.session import Session
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import NAMES, joined, play, results, split
from tests.mpc.test_compare import known_keys, uniform_bytes  # noqa: F401


def words(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int64).view(np.uint64)


def plain(key: np.ndarray, values: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts in the clear, modulo 2^64."""
    sums = np.zeros((n_groups, values.shape[1]), dtype=np.int64)
    np.add.at(sums, key, values)
    return sums.view(np.uint64), np.bincount(key, minlength=n_groups).astype(np.uint64)


def summed(n_parties: int, key: np.ndarray, values: np.ndarray, n_groups: int, sharing: int = 5):
    keys, shares = split(words(key), n_parties, sharing), split(words(values), n_parties, sharing + 1)

    def body(session):
        tickets = session.correlations.plan(plan_group_sum(*values.shape, n_groups))
        return group_sum(session, tickets, keys[session.me], shares[session.me], n_groups)

    run = play(n_parties, body)
    return run, *(joined([r[i] for r in results(run)]) for i in range(2))


def owned(n_parties: int, owner: int, key: np.ndarray, values: np.ndarray, n_groups: int, sharing: int = 5):
    shares = split(words(values), n_parties, sharing)

    def body(session):
        tickets = session.correlations.plan(plan_group_sum_by_owner(*values.shape, n_groups, owner))
        known = key if session.me == owner else None
        return group_sum_by_owner(session, tickets, shares[session.me], n_groups, known)

    run = play(n_parties, body)
    return run, joined(results(run))


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("n_groups", [1, 2, 3, 64, 100, 4096])
def test_sums_counts_and_one_hot_rows(n_parties, n_groups):
    rng = np.random.default_rng(n_groups)
    n = 150
    key, values = rng.integers(0, n_groups, n), rng.integers(-(2**63), 2**63, (n, 2))
    _, sums, counts = summed(n_parties, key, values, n_groups)
    expected = plain(key, values, n_groups)
    np.testing.assert_array_equal(sums, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    for owner in {0, n_parties - 1}:
        np.testing.assert_array_equal(owned(n_parties, owner, key, values, n_groups)[1], expected[0])
    shares = split(words(key), n_parties)

    def body(session):
        return one_hot(session, session.correlations.plan(plan_one_hot(n, n_groups)), shares[session.me], n_groups)

    rows = joined(results(play(n_parties, body)))
    np.testing.assert_array_equal(rows, key[:, None] == np.arange(n_groups))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 3),
    st.integers(1, 20),
    st.integers(0, 2**32),
    st.sampled_from([2, 3]),
    st.booleans(),
)
def test_any_sizes_and_sharing(n, m, n_groups, seed, n_parties, in_one):
    rng = np.random.default_rng(seed)
    key = rng.integers(0, n_groups, n) if not in_one else np.full(n, n_groups - 1)
    values = rng.integers(-(2**63), 2**63, (n, m))
    _, sums, counts = summed(n_parties, key, values, n_groups, seed)
    expected = plain(key, values, n_groups)
    np.testing.assert_array_equal(sums, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_array_equal(owned(n_parties, 1, key, values, n_groups, seed)[1], expected[0])


def test_rows_beyond_one_table_are_summed_in_one_round_too():
    rng = np.random.default_rng(1)
    n = 700
    key, values = rng.integers(0, 512, n), rng.integers(-(2**40), 2**40, (n, 1))
    plan = plan_group_sum(n, 1, 512)
    assert [c.n for c in plan] == [512, 188]
    run, sums, counts = summed(2, key, values, 512)
    expected = plain(key, values, 512)
    np.testing.assert_array_equal(sums, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    assert [m.tag for m in run.transcript if m.sender == "a" and m.receiver == "b"] == ["groups/key", "groups/values"]


def test_a_key_is_read_modulo_the_power_of_two():
    key = np.array([-1, 8, 9, 5, 6, 2**62 + 1])
    _, sums, counts = summed(3, key, np.ones((6, 1), dtype=np.int64), 6)
    np.testing.assert_array_equal(counts, [1, 2, 0, 0, 0, 1])  # 7 and 6 are in no group of 0 to 5
    np.testing.assert_array_equal(sums[:, 0], counts)


@pytest.mark.parametrize(("n", "m", "n_groups"), [(0, 1, 4), (1, 0, 1), (100, 1, 64), (300, 2, 33)])
def test_the_costs_are_the_stated_ones_and_depend_on_the_sizes_only(n, m, n_groups):
    power = 1 << (n_groups - 1).bit_length()
    shapes = []
    for key in (np.zeros(n, dtype=np.int64), np.random.default_rng(n).integers(0, n_groups, n)):
        values = np.full((n, m), 7) * key[:, None]
        run, _, _ = summed(3, key, values, n_groups)
        by_owner, _ = owned(3, 1, key, values, n_groups)
        shapes.append((run.shape(), by_owner.shape()))
        for sender, receiver in itertools.permutations(NAMES[:3], 2):
            sent = [x for x in run.transcript if (x.sender, x.receiver) == (sender, receiver)]
            assert sum(x.size for x in sent) == 2 * n + 8 * n * m
            assert {x.tag for x in sent} <= {"groups/key", "groups/values"}
            expected = 8 * (n + n_groups) if sender == "b" else 16 * (n + n_groups) * m if receiver == "b" else 0
            assert by_owner.bytes_sent(sender, receiver) == expected
        dealt = [sum(x.size for x in r.transcript if x.tag == "dealer/correction") for r in (run, by_owner)]
        assert dealt == [8 * n * (1 + m) * power, 16 * (n + n_groups) * m]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("key", [0, 5, 255])
def test_everything_opened_is_uniform_whatever_the_key(key, known_keys):  # noqa: F811
    n = 16_000
    run, _, _ = summed(2, np.full(n, key), np.full((n, 2), key), 256)
    for tag, kind in (("groups/key", np.uint16), ("groups/values", np.uint64)):
        from_a, from_b = (
            np.concatenate([np.frombuffer(m.body, kind) for m in run.transcript if (m.sender, m.tag) == (s, tag)])
            for s in "ab"
        )
        for sample in (from_a, from_b, from_a + from_b):
            # Keys are opened modulo 256: one byte of each word.
            low = np.ascontiguousarray(sample.astype(np.uint8)).view(np.uint64) if kind is np.uint16 else sample
            uniform_bytes(low)
        if kind is np.uint16:
            assert max(from_a.max(), from_b.max()) < 256


@pytest.mark.parametrize("key", [np.zeros(4000, dtype=np.int64), np.arange(4000) % 64])
def test_what_an_owner_groups_by_is_hidden(key, known_keys):  # noqa: F811
    """The masked values are uniform, and so are the orders the others see: no place has a tendency."""
    run, _ = owned(2, 0, key, np.repeat(key[:, None], 4, axis=1), 64)
    uniform_bytes(np.concatenate([np.frombuffer(m.body, np.uint64) for m in run.transcript if m.tag == "groups/mask"]))
    n = len(key) + 64
    for message in (m for m in run.transcript if m.tag == "groups/order"):
        order = np.frombuffer(message.body, np.uint32)
        np.testing.assert_array_equal(np.sort(order), np.arange(n))
        counts = np.bincount(order[: n // 2] * 16 // n, minlength=16)
        expected = n / 32
        assert ((counts - expected) ** 2 / expected).sum() < 15 + 12 * np.sqrt(30)
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 6 / np.sqrt(n)


def test_both_kernels_are_the_same():
    rng = np.random.default_rng(3)
    for n, m, g in ((0, 1, 4), (5, 0, 1), (130, 2, 8), (3, 1, 64)):
        shift = rng.integers(0, g, n).astype(np.uint16)
        e, T = rng.integers(-(2**63), 2**63, (n, m)), rng.integers(-(2**63), 2**63, (n, 1 + m, g))
        out = [np.ones((1 + m, g), dtype=np.int64) for _ in range(2)]
        groups.turned_sums(shift, e, T, out[0])
        groups.turned_sums_numpy(shift, e, T, out[1])
        np.testing.assert_array_equal(out[0], out[1])
    groups.warm_up()


def test_tables_are_one_hot_times_the_mask():
    shares = results(play(3, lambda session: session.correlations.draw(TurnedOneHot(n=50, m=2, groups=8))))
    r, b = (joined([d[i] for d, _ in shares]) for i in range(2))
    table = joined([s[0] for _, s in shares])
    hot = (r[:, None] % 8 == np.arange(8)).astype(np.uint64)
    np.testing.assert_array_equal(table[:, 0], hot)
    np.testing.assert_array_equal(table[:, 1:], b[:, :, None] * hot[:, None])


def test_wrong_tickets_and_arrays_are_refused():
    key, values = np.zeros(9, dtype=np.uint64), np.zeros((9, 2), dtype=np.uint64)
    known_key = np.zeros(9, dtype=np.int64)

    def shared(plan, key=key, values=values, n_groups=4):
        return lambda session: group_sum(session, session.correlations.plan(plan), key, values, n_groups)

    def known(plan, values=values, mine=known_key, theirs=None):
        def body(session):
            tickets = session.correlations.plan(plan)
            return group_sum_by_owner(session, tickets, values, 4, theirs if session.me else mine)

        return body

    good, by_owner = plan_group_sum(9, 2, 4), plan_group_sum_by_owner(9, 2, 4, 0)
    cases = [
        (shared(plan_group_sum(9, 1, 4)), "not for 2 columns of 9 rows"),
        (shared(plan_group_sum(9, 2, 8)), "not for 2 columns of 9 rows"),
        (shared([]), "not for 2 columns of 9 rows"),
        (shared(good, key=key[1:]), "does not group"),
        (shared(good, key=key.view(np.int64)), "does not group"),
        (shared(good, values=values[:, 0]), "does not group"),
        (shared(good, n_groups=0), "1 to 4096 groups"),
        (shared(good, n_groups=4097), "1 to 4096 groups"),
        (lambda session: one_hot(session, session.correlations.plan(good), key, 4), "not for 0 columns"),
        (lambda session: one_hot(session, session.correlations.plan(good), values, 4), "vector of words"),
        (known(good), "not for 4 groups"),
        (known(by_owner[:1]), "not for 4 groups"),
        (known(by_owner, values=values[:8]), "not for 4 groups"),
        (known(by_owner, mine=None), "nobody else"),
        (known(by_owner, theirs=np.zeros(9, dtype=np.int64)), "nobody else"),
        (known(by_owner, mine=np.full(9, 4)), "from 0 to 3"),
        (known(by_owner, mine=np.full(9, -1)), "from 0 to 3"),
        (known(by_owner, mine=np.zeros(8, dtype=np.int64)), "from 0 to 3"),
        (known(by_owner, mine=np.zeros(9)), "from 0 to 3"),
    ]
    for body, why in cases:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body)


def test_an_order_that_is_none_is_the_owners_error():
    def double(message):
        wrong = message.tag == "groups/order"
        return replace(message, body=message.body[4:] + message.body[4:8]) if wrong else message

    def party(me):
        def run(channel):
            session = Session(channel, ("a", "b"), me, Correlations(channel, "dealer", me, 2))
            tickets = session.correlations.plan(plan_group_sum_by_owner(5, 1, 2, 0))
            key = None if me else np.arange(5) % 2
            group_sum_by_owner(session, tickets, np.zeros((5, 1), dtype=np.uint64), 2, key)

        return run

    parties = {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ("a", "b"))}
    with pytest.raises(RemoteProtocolError, match="not one of all rows") as caught:
        run_parties(parties, tamper=double)
    assert caught.value.party == "a"


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "turned-one-hot", "n": 1, "m": 1, "groups": 3},
        {"kind": "turned-one-hot", "n": 1, "m": 1, "groups": 8192},
        {"kind": "turned-one-hot", "n": -1, "m": 1, "groups": 4},
    ],
)
def test_the_dealer_refuses_senseless_requests(raw):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    with pytest.raises(RemoteProtocolError, match="malformed"):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})
