"""Shuffled rows are the same rows in a uniform order, fresh shares of them, at the stated cost."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.shuffle import Permutation, permutation_of, plan_shuffle, shuffle
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import NAMES, joined, play, results, split
from tests.mpc.test_compare import known_keys, uniform_bytes  # noqa: F401


def shuffled(n_parties: int, rows: np.ndarray, sharing: int = 5):
    shares = split(rows, n_parties, sharing)

    def body(session):
        tickets = session.correlations.plan(plan_shuffle(*rows.shape, n_parties))
        return shuffle(session, tickets, shares[session.me])

    run = play(n_parties, body)
    return run, joined(results(run))


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)] if rows.shape[1] else rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70), st.integers(0, 4), st.sampled_from([2, 3, 5]), st.integers(0, 2**32))
def test_the_rows_stay_whole(n, m, n_parties, seed):
    rows = np.random.default_rng(seed).integers(0, 2**64, (n, m), dtype=np.uint64)
    out = shuffled(n_parties, rows, seed)[1]
    assert out.shape == rows.shape
    np.testing.assert_array_equal(in_order(out), in_order(rows))


@pytest.mark.parametrize("n_parties", [2, 3])
def test_every_order_is_as_likely_as_any_other(n_parties, known_keys):  # noqa: F811
    """All 24 orders of four rows, in many independent shuffles: chi-square with 12 standard deviations of room.

    The same for the orders of the last party alone: what a single honest party draws is uniform.
    """
    rows, turns = np.arange(4, dtype=np.uint64)[:, None], 2400

    def body(session):
        plan = plan_shuffle(4, 1, n_parties)
        tickets = session.correlations.plan(plan * turns)
        share = rows if session.me == 0 else np.zeros_like(rows)
        count = len(plan)
        return np.stack([shuffle(session, tickets[count * i : count * (i + 1)], share)[:, 0] for i in range(turns)])

    orders = joined(results(play(n_parties, body)))
    drawn = np.random.default_rng(0).integers(0, 2**64, (turns, 4, 2), dtype=np.uint64)
    for sample in (orders, np.stack([permutation_of(words) for words in drawn])):
        counts = Counter(map(tuple, sample.tolist()))
        assert len(counts) == 24
        expected = turns / 24
        assert sum((c - expected) ** 2 / expected for c in counts.values()) < 23 + 12 * np.sqrt(46)


def test_equal_words_are_decided_by_the_second_word_and_then_the_row():
    words = np.array([[5, 9], [5, 1], [2, 7], [5, 1]], dtype=np.uint64)
    np.testing.assert_array_equal(permutation_of(words), [2, 1, 3, 0])
    assert permutation_of(words[:0]).size == 0


def test_the_order_composes_one_permutation_of_each_party():
    def body(session):
        request = Permutation(n=6, m=1, owner=session.me)
        tickets = session.correlations.plan([Permutation(n=6, m=1, owner=party) for party in range(3)])
        pairs = [session.correlations.take(ticket) for ticket in tickets]
        assert tickets[session.me].request == request
        return pairs

    shares = results(play(3, body))
    for owner in range(3):
        masks = joined([shares[j][owner][0][0] for j in range(3) if j != owner])
        order = permutation_of(shares[owner][owner][0][0])
        np.testing.assert_array_equal(joined([s[owner][1][0] for s in shares]), masks[order])


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize(("n", "m"), [(0, 2), (1, 1), (100, 3), (3000, 2)])
def test_the_cost_is_the_stated_one_and_depends_on_the_shape_only(n_parties, n, m):
    shapes = []
    for rows in (np.zeros((n, m), dtype=np.uint64), np.arange(n * m, dtype=np.uint64).reshape(n, m)):
        run, _ = shuffled(n_parties, rows)
        shapes.append(run.shape())
        for sender, receiver in itertools.permutations(NAMES[:n_parties], 2):
            assert run.bytes_sent(sender, receiver) == 8 * n * m
        sent = [x for x in run.transcript if x.tag == "shuffle/mask"]
        assert len(sent) == n_parties * (n_parties - 1)  # to each party once, in its own round
        assert sum(x.size for x in run.transcript if x.tag == "dealer/correction") == 8 * n * m * n_parties
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [0, 1, 2**63])
def test_what_is_sent_and_the_new_shares_are_uniform(value, known_keys):  # noqa: F811
    run, _ = shuffled(2, np.full((8000, 2), value, dtype=np.uint64))
    for message in run.transcript:
        if message.tag == "shuffle/mask":
            uniform_bytes(np.frombuffer(message.body, np.uint64))
    for share in results(run):
        uniform_bytes(share.reshape(-1))


def test_wrong_tickets_and_arrays_are_refused():
    rows = np.zeros((5, 2), dtype=np.uint64)

    def body(plan, share=rows, order=slice(None)):
        return lambda session: shuffle(session, session.correlations.plan(plan)[order], share)

    good = plan_shuffle(5, 2, 2)
    for refused in (
        body(plan_shuffle(5, 1, 2)),
        body(plan_shuffle(4, 2, 2)),
        body(plan_shuffle(5, 2, 3)),
        body(good[:1]),
        body(good, order=slice(None, None, -1)),
        body(good, share=rows.view(np.int64)),
        body(good, share=rows[:, 0]),
    ):
        with pytest.raises(LocalProtocolError, match="not for shuffling"):
            play(2, refused)

    def again(session):
        tickets = session.correlations.plan(good)
        for _ in range(2):
            shuffle(session, tickets, rows)

    with pytest.raises(LocalProtocolError, match="already used"):
        play(2, again)


def test_a_short_message_is_the_senders_error():
    def party(me):
        def run(channel):
            session = Session(channel, ("a", "b"), me, Correlations(channel, "dealer", me, 2))
            shuffle(session, session.correlations.plan(plan_shuffle(3, 1, 2)), np.zeros((3, 1), dtype=np.uint64))

        return run

    parties = {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ("a", "b"))}
    with pytest.raises(RemoteProtocolError, match="b") as caught:
        run_parties(parties, tamper=lambda x: replace(x, body=x.body[8:]) if x.tag == "shuffle/mask" else x)
    assert caught.value.party == "b"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"kind": "permutation", "n": -1, "m": 1, "owner": 0}, "malformed"),
        ({"kind": "permutation", "n": 1 << 30, "m": 4, "owner": 0}, "over the dealer's limit"),
        ({"kind": "permutation", "n": 4, "m": 4, "owner": 1}, "there is no party 1"),
    ],
)
def test_the_dealer_refuses_senseless_requests(raw, why):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    with pytest.raises(RemoteProtocolError, match=why):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})
