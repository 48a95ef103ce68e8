"""Comparison with zero is right for every word, costs what it says, and opens nothing but uniform words."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpc import _bits
from mpc.compare import (
    AnyBit,
    Chain,
    Digits,
    PackedBits,
    is_zero,
    less_than,
    less_than_within,
    less_than_zero,
    open_any,
    plan_is_zero,
    plan_less_than,
    plan_less_than_within,
    plan_less_than_zero,
    plan_reveal_less_than,
    plan_reveal_negative,
    reveal_less_than,
    reveal_negative,
)
from mpc.correlations import MAX_WORDS
from mpc.dealer import run_dealer
from mpc.engine import bind, from_words, mpc_tensor, reveal
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import NAMES, joined, play, results, split

SIGN = (plan_less_than_zero, less_than_zero)
ZERO = (plan_is_zero, is_zero)
TAGS = ("compare/mask", "compare/join", "compare/bit")
EDGES = [0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 2**63 - 2, -(2**63) + 1, 2**62, -(2**62), 1 << 20, -(1 << 20)]
POWERS = [s * (1 << k) + e for k in range(63) for s in (1, -1) for e in (-1, 0, 1)]


def compared(test, n_parties: int, x: np.ndarray, sharing: int = 5):
    """The protocol on shares of signed values; returns (run, opened result)."""
    plan, protocol = test
    shares = split(x.astype(np.int64).view(np.uint64), n_parties, sharing)

    def body(session):
        return protocol(session, session.correlations.plan(plan(x.size)), shares[session.me])

    run = play(n_parties, body)
    return run, joined(results(run))


@pytest.fixture
def known_keys(monkeypatch):
    """The dealer's keys, fixed: every run of a test sees the same transcript."""
    counter = itertools.count()
    monkeypatch.setattr("mpc.dealer.fresh_key", lambda: hashlib.sha256(b"dealer/%d" % next(counter)).digest())


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_the_edges_of_the_ring_are_exact(n_parties):
    x = np.repeat(np.array(EDGES + POWERS, dtype=np.int64), 5)
    np.testing.assert_array_equal(compared(SIGN, n_parties, x)[1], (x < 0).astype(np.uint64))
    np.testing.assert_array_equal(compared(ZERO, n_parties, x)[1], (x == 0).astype(np.uint64))


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_many_values_of_every_magnitude_are_exact(n_parties):
    rng = np.random.default_rng(n_parties)
    x = rng.integers(-(2**63), 2**63, 100_000) >> rng.integers(0, 64, 100_000)
    assert (x == 0).sum() > 500
    np.testing.assert_array_equal(compared(SIGN, n_parties, x)[1], (x < 0).astype(np.uint64))
    np.testing.assert_array_equal(compared(ZERO, n_parties, x)[1], (x == 0).astype(np.uint64))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.sampled_from(EDGES), max_size=130),
    st.sampled_from([2, 3, 5]),
    st.integers(0, 2**32),
)
@example([], 2, 0)
@example([0] * 64, 3, 0)
@example([-1] * 65, 2, 1)
def test_any_words_and_any_sharing(values, n_parties, seed):
    x = np.array(values, dtype=np.int64)
    np.testing.assert_array_equal(compared(SIGN, n_parties, x, seed)[1], (x < 0).astype(np.uint64))
    np.testing.assert_array_equal(compared(ZERO, n_parties, x, seed)[1], (x == 0).astype(np.uint64))


@pytest.mark.parametrize("test", [SIGN, ZERO])
def test_the_shape_is_kept_and_the_share_untouched(test):
    x = np.arange(-6, 6).reshape(2, 2, 3)
    _, out = compared(test, 2, x)
    np.testing.assert_array_equal(out, x < 0 if test is SIGN else x == 0)

    def body(session):
        share = np.array(5 + session.me, dtype=np.uint64)
        out = test[1](session, session.correlations.plan(test[0](1)), share)
        return share.item(), out.shape

    assert results(play(2, body)) == [(5, ()), (6, ())]


@pytest.mark.parametrize("n", [0, 1, 64, 65, 1000])
@pytest.mark.parametrize(("test", "opened", "dealt"), [(SIGN, 280, 2688), (ZERO, 168, 2360)])
def test_the_cost_is_the_stated_one_and_depends_on_the_size_only(test, opened, dealt, n):
    m = -(-n // 64)
    rng = np.random.default_rng(n)
    shapes = []
    for x in (np.zeros(n), rng.integers(-(2**63), 2**63, n)):
        run, _ = compared(test, 3, x)
        shapes.append(run.shape())
        for sender, receiver in itertools.permutations(NAMES[:3], 2):
            sent = [msg for msg in run.transcript if (msg.sender, msg.receiver) == (sender, receiver)]
            assert [msg.tag for msg in sent] == [TAGS[0], TAGS[1], TAGS[1], TAGS[2]]  # a message each way: a round
            assert sum(msg.size for msg in sent) == 8 * n + opened * m
        from_dealer = [msg for msg in run.transcript if msg.sender == "dealer" and msg.tag == "dealer/correction"]
        assert {msg.receiver for msg in from_dealer} <= {"a"}
        assert sum(msg.size for msg in from_dealer) == 8 * n + dealt * m
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
@pytest.mark.parametrize("test", [SIGN, ZERO])
def test_everything_opened_is_uniform_whatever_the_value(test, value, known_keys):
    run, _ = compared(test, 2, np.full(32_000, value, dtype=np.int64))
    for tag in TAGS:
        from_a, from_b = (
            np.concatenate([np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.sender, m.tag) == (s, tag)])
            for s in "ab"
        )
        opened = from_a + from_b if tag == TAGS[0] else from_a ^ from_b
        for words in (from_a, from_b, opened):
            uniform_bytes(words)


def uniform_bytes(words: np.ndarray) -> None:
    """Chi-square of the bytes, and of the exclusive or of neighbouring words: 12 standard deviations of room.

    Also no bit of a word is one more often than another, to 6 standard deviations.
    """
    ones = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(len(words))
    for sample in (words, words[1:] ^ words[:-1]):
        counts = np.bincount(sample.view(np.uint8), minlength=256)
        expected = sample.size * 8 / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 12 * np.sqrt(2 * 255)


def test_a_mask_that_is_not_used_would_be_noticed():
    with pytest.raises(AssertionError):
        uniform_bytes(np.full(1000, 7, dtype=np.uint64))


def test_tickets_fit_one_comparison_once_and_in_order():
    word = np.zeros(70, dtype=np.uint64)

    def planned(plan, n, *, order=slice(None), share=word, twice=False):
        def body(session):
            tickets = session.correlations.plan(plan(n))[order]
            for _ in range(2 if twice else 1):
                less_than_zero(session, tickets, share)

        return body

    cases = [
        (planned(plan_less_than_zero, 71), "not for this comparison of 70 words"),
        (planned(plan_is_zero, 70), "not for this comparison"),
        (planned(plan_less_than_zero, 70, order=slice(3)), "not for this comparison"),
        (planned(plan_less_than_zero, 70, order=slice(None, None, -1)), "not for this comparison"),
        (planned(plan_less_than_zero, 70, share=word.view(np.int64)), "not for this comparison"),
        (planned(plan_less_than_zero, 70, share=word.astype(np.uint32)), "not for this comparison"),
        (planned(plan_less_than_zero, 70, twice=True), "already used"),
    ]
    for body, why in cases:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body)

    def second_first(session):
        session.correlations.plan(plan_less_than_zero(70))
        less_than_zero(session, session.correlations.plan(plan_less_than_zero(70)), word)

    with pytest.raises(LocalProtocolError, match="out of order"):
        play(2, second_first)


@pytest.mark.parametrize("nth", range(4))
def test_a_short_message_is_the_senders_error(nth):
    seen = itertools.count()

    def shorten(message):
        ours = message.sender == "b" and message.tag in TAGS
        return replace(message, body=message.body[:-8]) if ours and next(seen) == nth else message

    def party(me):
        from mpc.dealer import Correlations
        from mpc.session import Session

        def run(channel):
            session = Session(channel, ("a", "b"), me, Correlations(channel, "dealer", me, 2))
            less_than_zero(session, session.correlations.plan(plan_less_than_zero(3)), np.zeros(3, dtype=np.uint64))

        return run

    parties = {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ("a", "b"))}
    with pytest.raises(RemoteProtocolError, match="b") as caught:
        run_parties(parties, tamper=shorten)
    assert caught.value.party == "b"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"kind": "digits", "n": -1, "signed": True}, "malformed"),
        ({"kind": "digits", "n": 1, "signed": 1}, "malformed"),
        ({"kind": "digits", "n": MAX_WORDS + 1, "signed": True}, "malformed"),
        ({"kind": "digits", "n": MAX_WORDS, "signed": True}, "over the dealer's limit"),
        ({"kind": "chain", "groups": 1, "m": 1, "order": False, "equality": False}, "malformed"),
        (
            {"kind": "chain", "groups": 1 << 20, "m": 1 << 20, "order": True, "equality": True},
            "over the dealer's limit",
        ),
        ({"kind": "chain", "groups": 1, "m": 1, "order": True}, "malformed"),
        ({"kind": "packed-bits", "n": 1.0}, "malformed"),
        ({"kind": "packed-bits", "n": 1, "value": 1}, "malformed"),
    ],
)
def test_the_dealer_refuses_senseless_requests(raw, why):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    with pytest.raises(RemoteProtocolError, match=why):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})


def drawn(request, n_parties: int):
    """The shares that every party has of a correlation: (drawn, derived), per party."""
    return results(play(n_parties, lambda session: session.correlations.draw(request)))


def together(shares):
    return np.bitwise_xor.reduce(shares)


@pytest.mark.parametrize("signed", [False, True])
def test_digits_are_products_of_the_bits_of_the_mask(signed):
    request = Digits(n=130, signed=signed)
    shares = drawn(request, 3)
    r = [int(word) << (1 if signed else 0) for word in joined([d[0] for d, _ in shares])]
    planes = together([s[0] for _, s in shares])
    table = together([request.load(s[0], me) for me, (_, s) in enumerate(shares)])
    for e, digit, chosen in itertools.product((0, 63, 64, 129), range(16), range(16)):
        value = r[e] >> 4 * digit & 15
        assert int(table[chosen, digit, e // 64]) >> e % 64 & 1 == (value & chosen == chosen)
    if signed:
        np.testing.assert_array_equal(_bits.unpacked(planes[0], 130), [word >> 64 for word in r])


@pytest.mark.parametrize(("order", "equality"), [(True, True), (True, False), (False, True)])
def test_a_chain_has_products_of_its_masks(order, equality):
    shares = drawn(Chain(groups=2, m=3, order=order, equality=equality), 2)
    p3, p2, p1, *tails = together([d[0] for d, _ in shares])
    expected = [p2 & p1, p3 & p1, p3 & p2, p3 & p2 & p1]
    if order:
        g2, g1, g0, *tails = tails
        expected += [g2 & p3, g1 & p2, g1 & p3, g1 & p3 & p2]
        expected += [g0 & p for p in (p1, p2, p2 & p1, p3, p3 & p1, p3 & p2, p3 & p2 & p1)]
    if equality:
        (p0,) = tails
        expected += [p0 & p for p in (p1, p2, p2 & p1, p3, p3 & p1, p3 & p2, p3 & p2 & p1)]
    np.testing.assert_array_equal(together([s[0] for _, s in shares]), np.stack(expected))


def test_packed_bits_are_the_same_bits_as_words():
    shares = drawn(PackedBits(n=70, rows=2), 3)
    bits = _bits.unpacked_rows(together([d[0] for d, _ in shares]), 70)
    np.testing.assert_array_equal(joined([s[0] for _, s in shares]), bits)
    assert 20 < bits.sum() < 120


@pytest.mark.parametrize("n", [0, 1, 64, 65, 64 * _bits.BLOCK_WORDS, 64 * _bits.BLOCK_WORDS + 3])
def test_planes_hold_one_bit_of_every_word(n):
    words = np.random.default_rng(n).integers(0, 2**64, n, dtype=np.uint64)
    planes = _bits.planes(words)
    assert planes.shape == (64, -(-n // 64))
    for b in range(64):
        np.testing.assert_array_equal(_bits.unpacked(planes[b], n), words >> np.uint64(b) & np.uint64(1))
    if n % 64:
        assert not (planes[:, -1] >> np.uint64(n % 64)).any()


def test_cryptens_comparisons_are_these():
    x = np.array([[3, -3], [0, -(2**63)]], dtype=np.int64)
    shares = split(x.view(np.uint64), 3)

    def body(session):
        with bind(session):
            t = mpc_tensor(from_words(shares[session.me], 0))
            return reveal(t < 0), reveal(t == 0), reveal(t != 0)

    run = play(3, body)
    for negative, zero, other in results(run):
        np.testing.assert_array_equal(negative, x < 0)
        np.testing.assert_array_equal(zero, x == 0)
        np.testing.assert_array_equal(other, x != 0)
    tags = [m.tag for m in run.transcript if (m.sender, m.receiver) == ("b", "a")]
    each = [TAGS[0], TAGS[1], TAGS[1], TAGS[2], "crypten/result"]
    assert [tag for tag in tags if tag != "crypten/next-key"] == each * 3


def thresholds_of(n_parties, x, plan, protocol, *arguments):
    """A protocol with further arguments on shares of signed values; returns (run, results)."""
    shares = split(x.astype(np.int64).view(np.uint64), n_parties)
    run = play(n_parties, lambda s: protocol(s, s.correlations.plan(plan), shares[s.me], *arguments))
    return run, results(run)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**62), 2**62) | st.integers(-3, 3), max_size=130),
    st.lists(st.integers(-(2**62) + 1, 2**62 - 1) | st.integers(-3, 3), min_size=1, max_size=4),
    st.sampled_from([2, 3, 5]),
)
@example([0] * 64, [0, 0], 2)
@example([-1] * 65, [1 - 2**62, 0, 2**62 - 1], 3)
def test_one_mask_serves_any_number_of_thresholds(values, thresholds, n_parties):
    x, k = np.array(values, dtype=np.int64), len(thresholds)
    right = np.array([x < t for t in thresholds])
    _, shares = thresholds_of(n_parties, x, plan_less_than(x.size, k), less_than, thresholds)
    np.testing.assert_array_equal(joined(shares), right)
    _, shown = thresholds_of(n_parties, x, plan_reveal_less_than(x.size, k), reveal_less_than, thresholds)
    for bits in shown:
        np.testing.assert_array_equal(bits, right)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_revealed_signs_are_exact_and_known_to_all(n_parties):
    x = np.array(EDGES + POWERS, dtype=np.int64)[: 13 + 6 * 57].reshape(5, -1)
    run, shown = thresholds_of(n_parties, x, plan_reveal_negative(x.size), reveal_negative)
    for bits in shown:
        np.testing.assert_array_equal(bits, x < 0)
    assert "compare/bit" not in {m.tag for m in run.transcript}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-6, 6), max_size=130),
    st.lists(st.tuples(st.integers(-6, 0), st.integers(1, 6)), min_size=1, max_size=3),
    st.sampled_from([2, 3]),
)
@example([-(2**63), 2**63 - 1], [(-5, 5)], 2)
@example([2**63 - 5], [(-5, 5)], 2)  # just opposite the range
def test_whether_anything_is_outside_is_exact_for_every_word(values, ranges, n_parties):
    x = np.array(values, dtype=np.int64)

    def protocol(session, tickets, share):
        bits, words = less_than_within(session, tickets, share, (2,), ranges)
        return bits, open_any(session, words)

    _, out = thresholds_of(n_parties, x, plan_less_than_within(x.size, 1, len(ranges)), protocol)
    small = np.abs(x.astype(object)) < 2**62
    np.testing.assert_array_equal(joined([bits for bits, _ in out])[0][small.astype(bool)], (x < 2)[small.astype(bool)])
    for _, outside in out:
        np.testing.assert_array_equal(outside, [bool(((x < lo) | (x >= hi)).any()) for lo, hi in ranges])


@pytest.mark.parametrize("n", [0, 1, 64, 65, 1000])
@pytest.mark.parametrize("k", [1, 3])
def test_the_cost_of_thresholds_is_the_stated_one(n, k):
    m, q, T = -(-n // 64), 2, range(k)
    within = lambda s, t, x: open_any(s, less_than_within(s, t, x, T, [(-9, 9)] * q)[1])  # noqa: E731
    for plan, protocol, arguments, rounds, each, dealt in (
        (plan_less_than(n, k), less_than, (T,), 4, 0, 8 * k * n),
        (plan_reveal_less_than(n, k), reveal_less_than, (T,), 4, 0, 0),
        (plan_less_than_within(n, k, q), within, (), 5, (560 * m + 8) * q, (1648 * m + 8) * q + 8 * k * n),
    ):
        shapes = []
        for value in (0, -(2**40)):
            run, _ = thresholds_of(3, np.full(n, value), plan, protocol, *arguments)
            shapes.append(run.shape())
            for sender, receiver in itertools.permutations(NAMES[:3], 2):
                sent = [msg.size for msg in run.transcript if (msg.sender, msg.receiver) == (sender, receiver)]
                assert (len(sent), sum(sent)) == (rounds, 8 * n + 280 * k * m + each)
            from_dealer = sum(msg.size for msg in run.transcript if msg.tag == "dealer/correction")
            assert from_dealer == dealt + (1864 + 824 * k) * m
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [0, -1, 2**61, 5])
def test_everything_opened_for_thresholds_is_uniform(value, known_keys):
    x = np.full(32_000, value, dtype=np.int64)
    call = lambda s, t, w: less_than_within(s, t, w, (0, 6), [(-1, 6)])  # noqa: E731
    run, _ = thresholds_of(2, x, plan_less_than_within(x.size, 2), call)
    for tag in TAGS:
        from_a, from_b = (
            np.concatenate([np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.sender, m.tag) == (s, tag)])
            for s in "ab"
        )
        for words in (from_a, from_b, from_a + from_b if tag == TAGS[0] else from_a ^ from_b):
            uniform_bytes(words)


def test_shares_of_revealed_bits_are_fresh(known_keys):
    run, _ = thresholds_of(2, np.full(64_000, -1), plan_reveal_negative(64_000), reveal_negative)
    for sender in "ab":
        sent = [
            np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.sender, m.tag) == (sender, "compare/reveal")
        ]
        uniform_bytes(np.concatenate(sent))


def test_any_bit_is_the_sum_of_the_words_of_its_mask():
    shares = drawn(AnyBit(m=3), 3)
    mask, words = (together([d[i] for d, _ in shares]) for i in range(2))
    chosen = words[_bits.unpacked(mask, 192)]
    np.testing.assert_array_equal(together([s[0] for _, s in shares]), [np.bitwise_xor.reduce(chosen)])


def test_tickets_of_thresholds_fit_their_number():
    x = np.zeros(70)
    for plan, protocol, arguments in (
        (plan_less_than(70, 2), less_than, ((1,),)),
        (plan_less_than(70, 1), less_than, ((1, 2),)),
        (plan_reveal_negative(70), less_than, ((0,),)),
        (plan_less_than_within(70, 1), less_than_within, ((1,), [(0, 1), (0, 2)])),
        (plan_less_than_zero(70), reveal_negative, ()),
    ):
        with pytest.raises(LocalProtocolError, match="not for this comparison of 70 words"):
            thresholds_of(2, x, plan, protocol, *arguments)
