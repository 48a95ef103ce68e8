"""Functions of shared fixed-point values: right on the whole domain, refused outside, as dear as they say, opening noise."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import _domains, _fitted
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.functions import (
    EXP_DOMAIN,
    SIGMOIDS,
    Domain,
    Range,
    divide,
    erf,
    exp,
    fit_function,
    gelu,
    guard,
    inverse_sqrt,
    log,
    period_for,
    plan_divide,
    plan_erf,
    plan_exp,
    plan_gelu,
    plan_guard,
    plan_inverse_sqrt,
    plan_log,
    plan_period_for,
    plan_reciprocal,
    plan_sigmoid,
    plan_sqrt,
    plan_tanh,
    plan_univariate,
    reciprocal,
    sigmoid,
    sqrt,
    tanh,
    univariate,
)
from mpc.ring import decode, encode
from tests.harness import try_parties
from tests.mpc.playing import NAMES, joined, play, results, split

UNIT = 2.0**-20
error_function = np.vectorize(math.erf, otypes=[float])

# name: plan, protocol, NumPy's, relative error, absolute error, domain, what the docstring says it costs:
# rounds, bytes to every other party per word, bytes of the dealer per word
SCALED = {
    "reciprocal": (plan_reciprocal, reciprocal, lambda x: 1 / x, 2.0**-13, 0.0, Domain(), (8, 52, 112)),
    "sqrt": (plan_sqrt, sqrt, np.sqrt, 2.0**-14, 0.0, Domain(), (8, 52, 80)),
    "inverse_sqrt": (plan_inverse_sqrt, inverse_sqrt, lambda x: x**-0.5, 2.0**-14, 0.0, Domain(), (8, 52, 96)),
    "log": (plan_log, log, np.log, 0.0, 2.0**-14, Domain(), (7, 36, 88)),
    "exp": (plan_exp, exp, np.exp, 2.0**-14 + 2.0**-21, 0.0, EXP_DOMAIN, (7, 36, 72)),
}
SMOOTH = {
    "sigmoid": (plan_sigmoid, sigmoid, lambda x: 1 / (1 + np.exp(-x)), 1.6e-3, 16, 7),
    "tanh": (plan_tanh, tanh, np.tanh, 1.7e-3, 8, 8),
    "erf": (plan_erf, erf, error_function, 1.6e-3, 4, 4),
    "gelu": (plan_gelu, gelu, lambda x: x * (1 + error_function(x / 2**0.5)) / 2, 1.2e-3, 8, 6),
}


def run(n_parties, plan, protocol, *words, sharing=5):
    """The protocol on shares of words; returns (run, opened result)."""
    shares = [split(w, n_parties, sharing + i) for i, w in enumerate(words)]

    def body(session):
        return protocol(session, session.correlations.plan(plan), *(s[session.me] for s in shares))

    played = play(n_parties, body)
    return played, joined(results(played))


def ends(name: str) -> tuple[int, int]:
    """The first and the last word of a scaled function's domain."""
    domain = SCALED[name][5]
    if name == "exp":
        first, last = (round(e * math.log(2) / UNIT) for e in (domain.low, domain.high))
        return first, last - 1
    return domain.edges[0], domain.edges[-1] - 1


def close(got, right, relative, absolute):
    """Within the stated bounds; cutting the result to its fractional bits may cost one unit."""
    assert (np.abs(got - right) <= relative * np.abs(right) + absolute + UNIT).all()


def scaled(name, words, n_parties, sharing=5):
    plan, protocol, plain, relative, absolute, domain, _ = SCALED[name]
    call = lambda s, t, x: protocol(s, t, x, domain)  # noqa: E731
    played, out = run(n_parties, plan(words.size, domain), call, words.view(np.uint64), sharing=sharing)
    close(decode(out, 20), plain(words * UNIT), relative, absolute)
    return played


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_function_is_within_its_bound_on_all_of_its_domain(name, n_parties):
    first, last = ends(name)
    spread = np.geomspace(first, last, 3000) if first > 0 else np.linspace(first, last, 3000)
    steps = [1 << k for k in range(12, 28)] if first > 0 else [round(e * math.log(2) / UNIT) for e in range(-12, 12)]
    edges = np.array([s + e for s in steps for e in (-1, 0, 1)])
    words = np.concatenate([np.rint(spread).astype(np.int64), np.clip(edges, first, last), [first, last]])
    scaled(name, np.clip(words, first, last), n_parties)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(SCALED)), st.data(), st.sampled_from([2, 3, 5]), st.integers(0, 2**32))
def test_any_values_of_the_domain_and_any_sharing(name, data, n_parties, seed):
    first, last = ends(name)
    values = data.draw(st.lists(st.integers(first, last) | st.sampled_from([first, last]), max_size=70))
    scaled(name, np.array(values, dtype=np.int64), n_parties, seed)


@pytest.mark.parametrize(
    "domain", [Domain(-4, 4, 16), Domain(0, 2, 8), Domain(-12, 12, 12), Domain(-14, 10, 30), Domain(2, 20)]
)
@pytest.mark.parametrize("name", SCALED)
def test_other_domains_have_the_same_bounds(name, domain):
    if name == "exp" and domain.low > 0:
        domain = Domain(-6, 10)  # below 1 the result of the other one has no bits to drop
    plan, protocol, plain, relative, absolute, _, _ = SCALED[name]
    if name == "exp":
        relative += 2.0 ** -(domain.frac_bits + 1)
        first, last = (round(e * math.log(2) * 2.0**domain.frac_bits) for e in (domain.low, domain.high))
        words = np.linspace(first, last - 1, 700)
    else:
        words = np.geomspace(domain.edges[0], domain.edges[-1] - 1, 700)
    words = np.rint(words).astype(np.int64)
    call = lambda s, t, x: protocol(s, t, x, domain)  # noqa: E731
    _, out = run(2, plan(700, domain), call, words.view(np.uint64))
    right, f = plain(words * 2.0**-domain.frac_bits), domain.frac_bits
    assert (np.abs(decode(out, f) - right) <= relative * np.abs(right) + absolute + 2.0**-f).all()


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_quotients_are_within_their_bound(n_parties):
    rng = np.random.default_rng(n_parties)
    x = np.concatenate([np.rint(np.geomspace(1 << 12, (1 << 28) - 1, 4000)).astype(np.int64), [1 << 12, (1 << 28) - 1]])
    for size in (1, 1000, (1 << 18) - 1):  # of the quotient
        y = np.rint(rng.uniform(-1, 1, x.size) * np.minimum(size * x, 2.0**50)).astype(np.int64)
        _, out = run(n_parties, plan_divide(x.size), divide, y.view(np.uint64), x.view(np.uint64))
        close(decode(out, 20), y / x, 2.0**-12, 0)


@pytest.mark.parametrize("n_parties", [2, 3])
def test_a_quotient_that_does_not_fit_is_noticed_by_everybody(n_parties):
    x = np.full(70, 3 << 19, dtype=np.int64)
    limit = 3 << 37  # 2^18 times x
    for place, bad in itertools.product((0, 69), (limit + 1, -limit - 1, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)):
        y = np.zeros(70, dtype=np.int64)
        y[place] = bad
        errors = raised_by_quotients(y, x, n_parties)
        assert [str(e) for e in errors] == [
            "'x' left the range of a division: it must be at least 2^-8 and below 2^8, and the quotient at most 2^18"
        ] * n_parties
    y[:3] = limit, -limit, 0
    y[place] = 1
    assert raised_by_quotients(y, x, n_parties) == [None] * n_parties


def raised_by_quotients(y, x, n_parties):
    """The error of every party that divides these words."""
    shares = [split(w.view(np.uint64), n_parties, seed) for seed, w in enumerate((y, x))]

    def body(session):
        tickets = session.correlations.plan(plan_divide(x.size))
        try:
            divide(session, tickets, *(share[session.me] for share in shares))
        except OutOfRange as exc:
            return exc
        return None

    return results(play(n_parties, body))


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("out_bits", "checked"), [(26, False), (20, True)])
def test_a_smooth_function_is_within_its_bound_on_all_of_its_range(name, n_parties, out_bits, checked):
    plan, protocol, plain, error, bound, _ = SMOOTH[name]
    use = Range(out_bits=out_bits, checked=checked)
    x = np.concatenate([np.linspace(-bound, bound, 4001), [-bound, bound, 0, UNIT, -UNIT]])
    words = encode(x, 20)
    _, out = run(n_parties, plan(x.size, use), lambda s, t, w: protocol(s, t, w, use), words)
    assert np.abs(decode(out, out_bits) - plain(decode(words, 20))).max() <= error + (UNIT if out_bits == 20 else 0)


@pytest.mark.parametrize("fit", [n for n in dir(_fitted) if n.isupper()])
def test_the_fits_are_as_good_as_they_say(fit):
    plain = {
        "RECIPROCAL": lambda x: (1 / x, 1 / x), "SQRT": lambda x: (np.sqrt(x), np.sqrt(x)),
        "INVERSE_SQRT": lambda x: (x**-0.5, x**-0.5), "LOG": lambda x: (np.log(x), 1), "EXP": lambda x: (np.exp(x), np.exp(x)),
        "SIGMOID": lambda x: (1 / (1 + np.exp(-x)), 1), "SIGMOID_32": lambda x: (1 / (1 + np.exp(-x)), 1),
        "TANH": lambda x: (np.tanh(x), 1), "ERF": lambda x: (error_function(x), 1),
        "GELU": lambda x: (x * (1 + error_function(x / 2**0.5)) / 2, 1),
    }[fit]  # fmt: skip
    made = getattr(_fitted, fit)
    x = np.linspace(made.lo, made.hi, 20_011)
    right, scale = plain(x)
    assert (np.abs(made(x) - right) / scale).max() < made.error


def test_a_fitted_function_of_ones_own():
    fit = fit_function(lambda x: 1 / (1 + x * x), (-3, 3), 1e-3)
    use = Range(out_bits=fit.bits)
    x = np.linspace(-3, 3, 1001)
    call = lambda s, t, w: univariate(s, t, w, fit, use)  # noqa: E731
    _, out = run(3, plan_univariate(x.size, fit, use), call, encode(x, 20))
    assert np.abs(decode(out, fit.bits) - 1 / (1 + x * x)).max() <= 1e-3 + 2 * UNIT
    shorter = fit_function(lambda x: 1 / (1 + x * x), (-3, 3), 1e-2)
    assert len(shorter.sines) < len(fit.sines)
    with pytest.raises(ValueError, match="no series"):
        fit_function(np.sign, (-1, 1), 1e-3, form="odd")
    with pytest.raises(ValueError, match="no series"):
        fit_function(np.sin, (-1, 1), 1e-5, form="odd", bits=12)


def raised(plan, protocol, words, n_parties=2):
    """What every party raises."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session

    shares, names = split(words, n_parties), NAMES[:n_parties]

    def party(me):
        def body(channel):
            session = Session(channel, names, me, Correlations(channel, "dealer", me, n_parties))
            try:
                return protocol(session, session.correlations.plan(plan), shares[me])
            finally:
                session.correlations.close()

        return body

    parties = {name: party(i) for i, name in enumerate(names)}
    played = try_parties({**parties, "dealer": lambda channel: run_dealer(channel, names)})
    return [played.errors.get(name) for name in names]


@pytest.mark.parametrize("name", [*SCALED, *SMOOTH])
def test_a_single_value_outside_is_noticed_by_everybody(name):
    if name in SCALED:
        plan, protocol, _, _, _, domain, _ = SCALED[name]
        (first, last), use = ends(name), domain
    else:
        plan, protocol, _, _, bound, _ = SMOOTH[name]
        first, last, use = -bound << 20, bound << 20, Range()
    call = lambda s, t, w: protocol(s, t, w, use)  # noqa: E731
    fine = np.full(70, (first + last) // 2, dtype=np.int64)
    for place, bad in itertools.product((0, 69), (first - 1, last + 1, -(2**63), 2**63 - 1)):
        words = fine.copy()
        words[place] = bad
        for error in raised(plan(70, use), call, words.view(np.uint64), 2 + place % 2):
            assert isinstance(error, OutOfRange)
            assert error.what == "x"
    fine[:2] = first, last
    assert raised(plan(70, use), call, fine.view(np.uint64)) == [None, None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-6, 6), max_size=70),
    st.integers(-5, 0),
    st.integers(0, 5),
    st.sampled_from([2, 3]),
)
def test_the_guard_is_right_for_every_word(values, low, high, n_parties):
    words = np.array(values, dtype=np.int64)
    use = Range(frac_bits=0, what="the weights", operation="a test")
    call = lambda s, t, w: guard(s, t, w, (low, high), use)  # noqa: E731
    errors = raised(plan_guard(words.size), call, words.view(np.uint64), n_parties)
    if ((words < low) | (words > high)).any():
        assert all(isinstance(e, OutOfRange) for e in errors)
        assert str(errors[0]) == f"'the weights' left the range of a test: it must be at least {low} and at most {high}"
    else:
        assert errors == [None] * n_parties


def test_how_many_and_which_are_outside_does_not_show():
    opened = set()
    for sharing, outside in itertools.product(range(8), (1, 2, 64)):
        words = np.zeros(64, dtype=np.int64)
        words[:outside] = 9
        played = one_guard(words, sharing)
        (value,) = {int(np.bitwise_xor(*(np.frombuffer(m.body, np.uint64) for m in played))[0])}
        opened.add(value)
    assert len(opened) == 24  # uniform words: two alike have probability 2^-56
    assert min(v & -v for v in opened) == 1


def one_guard(words, sharing):
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session

    shares = split(words.view(np.uint64), 2, sharing)

    def party(me):
        def body(channel):
            session = Session(channel, ("a", "b"), me, Correlations(channel, "dealer", me, 2))
            try:
                guard(session, session.correlations.plan(plan_guard(64)), shares[me], (-1, 1), Range(frac_bits=0))
            finally:
                session.correlations.close()

        return body

    played = try_parties({"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ("a", "b"))})
    return [m for m in played.transcript if m.tag == "compare/any"]


@pytest.mark.parametrize(("largest", "period"), [(0.0, 32), (15.9, 32), (16.0, 64), (31.9, 64), (-40.0, 128)])
def test_the_smallest_period_that_holds_everything(largest, period):
    x = encode(np.array([0.5, largest, -1.0]), 20)
    played, _ = play_plain(
        lambda s, t, w: period_for(s, t, w, (32, 64, 128), Range()), plan_period_for(3, (32, 64, 128)), x
    )
    assert results(played) == [period, period]


def play_plain(protocol, plan, words):
    shares = split(words, 2)
    played = play(2, lambda s: protocol(s, s.correlations.plan(plan), shares[s.me]))
    return played, results(played)


def test_the_sigmoid_of_the_period_that_was_found():
    x = np.linspace(-20, 31, 500)

    def body(session, tickets, share):
        period = period_for(session, tickets, share, tuple(SIGMOIDS), Range())
        use = Range(out_bits=26, checked=False)
        plan = plan_univariate(share.size, SIGMOIDS[period], use)
        return univariate(session, session.correlations.plan(plan), share, SIGMOIDS[period], use)

    _, shares = play_plain(body, plan_period_for(500, tuple(SIGMOIDS)), encode(x, 20))
    assert np.abs(decode(joined(shares), 26) - 1 / (1 + np.exp(-x))).max() < 1.7e-3


def test_no_period_holds_a_value_that_is_too_large():
    call = lambda s, t, w: period_for(s, t, w, (32, 64), Range(what="logits"))  # noqa: E731
    for error in raised(plan_period_for(2, (32, 64)), call, encode(np.array([0.0, 32.0]), 20)):
        assert isinstance(error, OutOfRange)
        assert "'logits'" in str(error)


def spent(played, n_parties):
    """(rounds, bytes to each other party, bytes of the dealer) of a run."""
    per_link = set()
    for sender, receiver in itertools.permutations(NAMES[:n_parties], 2):
        sent = [m for m in played.transcript if (m.sender, m.receiver) == (sender, receiver)]
        per_link.add((len(sent), sum(m.size for m in sent)))  # a message each way: a round
    ((rounds, size),) = per_link
    return rounds, size, sum(m.size for m in played.transcript if m.tag == "dealer/correction")


@pytest.mark.parametrize("n", [1, 64, 1000])
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("name", [*SCALED, "divide"])
def test_the_cost_is_the_stated_one_and_depends_on_the_size_only(name, checked, n):
    from dataclasses import replace

    domain = replace(SCALED[name][5] if name in SCALED else Domain(), checked=checked)
    rounds, each, dealt = SCALED[name][6] if name in SCALED else (9, 76, 136)
    plan, protocol = SCALED[name][:2] if name in SCALED else (plan_divide, divide)
    k, m, shapes = domain.pieces - 1, -(-n // 64), []
    for word in (1 << 20, 3 << 19):
        words = np.full(n, word, dtype=np.uint64)
        args = (words, words) if name == "divide" else (words,)
        played, _ = run(3, plan(n, domain), lambda s, t, *x: protocol(s, t, *x, domain), *args)
        shapes.append(played.shape())
        quotient = (4, 16 * n + 280 * -(-n // 32), 2688 * -(-n // 32) + 8) if name == "divide" else (0, 0, 0)
        assert spent(played, 3) == (
            rounds + checked * (1 + quotient[0]),
            each * n + 280 * k * m + checked * (560 * m + 8 + quotient[1]),
            (8 * k + dealt) * n + (1864 + 824 * k) * m + checked * (1648 * m + 8 + quotient[2]),
        )
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_function_costs_what_it_says(name):
    plan, protocol, _, _, _, K = SMOOTH[name]
    n, m = 1000, 16
    for use, expected in (
        (Range(out_bits=26, checked=False), (1, 4 * n, 16 * K * n)),
        (Range(out_bits=20, checked=False), (2, 12 * n, (16 * K + 16) * n)),
        (Range(), (7, 20 * n + 560 * m + 8, (16 * K + 16) * n + 3512 * m + 8)),
    ):
        words = np.zeros(n, dtype=np.uint64)
        played, _ = run(3, plan(n, use), lambda s, t, x, u=use: protocol(s, t, x, u), words)
        assert spent(played, 3) == expected


def test_long_vectors_go_in_pieces(monkeypatch):
    monkeypatch.setattr(_domains, "CHUNK", 100)
    x = np.linspace(1, 200, 250)
    played, out = run(2, plan_sqrt(250), sqrt, encode(x, 20))
    close(decode(out, 20), np.sqrt(decode(encode(x, 20), 20)), 2.0**-14, 0)
    assert spent(played, 2)[0] == 3 * 8 + 1
    use = Range(checked=False)
    played, out = run(2, plan_tanh(250, use), lambda s, t, w: tanh(s, t, w, use), encode(x / 100, 20))
    assert np.abs(decode(out, 20) - np.tanh(x / 100)).max() < 1.8e-3
    assert spent(played, 2)[0] == 2
    bad = encode(np.where(np.arange(250) == 130, 1e3, 1.0), 20)
    assert all(isinstance(e, OutOfRange) for e in raised(plan_log(250), log, bad))


@pytest.mark.parametrize("value", [1 << 12, 1 << 20, (1 << 28) - 1])
def test_everything_opened_is_uniform_whatever_the_value(value, monkeypatch):
    counter = itertools.count()
    monkeypatch.setattr("mpc.dealer.fresh_key", lambda: hashlib.sha256(b"dealer/%d" % next(counter)).digest())
    words = np.full(20_000, value, dtype=np.uint64)
    played, _ = run(2, plan_divide(words.size), divide, words, words)
    tags = {m.tag for m in played.transcript if m.sender in "ab" and m.receiver in "ab"}
    assert len(tags) == 7
    for tag in tags - {"compare/any"}:
        sent = [
            np.concatenate(
                [np.frombuffer(m.body, np.uint8) for m in played.transcript if (m.sender, m.tag) == (s, tag)]
            )
            for s in "ab"
        ]
        width = {"fourier/turn": np.uint32}.get(tag, np.uint64)
        both = np.bitwise_xor if tag in ("compare/join", "compare/bit") else np.add
        opened = both(*(np.ascontiguousarray(b).view(width) for b in sent)).view(np.uint8)
        for sample in (*sent, opened):
            counts = np.bincount(sample, minlength=256)
            expected = sample.size / 256
            assert ((counts - expected) ** 2 / expected).sum() < 255 + 12 * np.sqrt(2 * 255)


def test_shapes_and_shares_are_kept():
    x = np.full((2, 3), 4 << 20, dtype=np.uint64)
    _, out = run(2, plan_sqrt(6), sqrt, x)
    assert out.shape == (2, 3)
    for n in (0, 1):
        empty = np.full(n, 1 << 20, dtype=np.uint64)
        assert run(2, plan_log(n), log, empty)[1].shape == (n,)
        assert run(2, plan_sigmoid(n), sigmoid, empty)[1].shape == (n,)


def test_tickets_fit_one_call_once():
    words = np.full(4, 1 << 20, dtype=np.uint64)

    def planned(plan, protocol, share=words):
        return lambda session: protocol(session, session.correlations.plan(plan), share)

    for body in (
        planned(plan_sqrt(5), sqrt),
        planned(plan_log(4), sqrt),
        planned(plan_sqrt(4), sqrt, words.view(np.int64)),
        planned(plan_tanh(4), sigmoid),
        planned(plan_sigmoid(3), sigmoid),
        planned([], sigmoid),
        planned(plan_divide(4), lambda s, t, x: divide(s, t, x[:3], x)),
    ):
        with pytest.raises(LocalProtocolError):
            play(2, body)

    def twice(session):
        tickets = session.correlations.plan(plan_sqrt(4))
        return sqrt(session, tickets, words), sqrt(session, tickets, words)

    with pytest.raises(LocalProtocolError, match="already used"):
        play(2, twice)


@pytest.mark.parametrize("wrong", [(-7, 8, 20), (8, 8, 20), (-20, 8, 20), (-8, 8, 4), (0, 24, 20), (-16, 16, 20)])
def test_a_domain_must_fit_its_words(wrong):
    with pytest.raises(LocalProtocolError):
        Domain(*wrong)


@pytest.mark.parametrize(
    ("fit", "growth"), [("RECIPROCAL", 22), ("SQRT", 12), ("INVERSE_SQRT", 12), ("EXP", 24), ("LOG", 4)]
)
def test_products_stay_where_truncation_is_right(fit, growth):
    # of the widest domain, 24 octaves: what is truncated must stay below 2^62, with room for the error
    assert getattr(_fitted, fit).bits + growth <= 61
