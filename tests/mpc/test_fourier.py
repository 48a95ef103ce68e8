"""Fourier tuples: the series of a shared value, and sums of sines and cosines, against numpy."""

import hashlib

import numpy as np
import pytest

from mpc import _fitted, fourier, ring_numba, ring_numpy
from mpc.correlations import MAX_WORDS
from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import SERIES_BITS, FourierTuple, fit_sigmoid, moments, odd_series, plan_series, series, series_many
from mpc.ring import decode, encode
from mpc.session import Session
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import joined, play, results, split

PERIOD = 64
UNITS = 40


def evaluate(z, n_parties, harmonics, use):
    """Share z among parties, run `use(session, ticket, share)`, add the results up."""
    rng = np.random.default_rng(3)
    words = encode(z, UNITS - 6)
    shares = [rng.integers(0, 2**64, z.shape, dtype=np.uint64) for _ in range(n_parties - 1)]
    shares.append(words - np.add.reduce(shares) if shares else words)
    names = tuple("abc"[:n_parties])

    def party(i):
        def body(channel):
            session = Session(channel, names, i, Correlations(channel, "dealer", i, len(names)))
            (ticket,) = session.correlations.plan([FourierTuple(n=len(z), harmonics=harmonics)])
            out = use(session, ticket, shares[i])
            session.correlations.close()
            return out

        return body

    bodies = {name: party(i) for i, name in enumerate(names)}
    run = run_parties({**bodies, "dealer": lambda channel: run_dealer(channel, names)})
    return decode(np.add.reduce([run.results[name] for name in names]), SERIES_BITS), run


@pytest.mark.parametrize("n_parties", [2, 3])
def test_sigmoid_is_within_its_stated_error(n_parties):
    z = np.linspace(-16, 16, 3001)
    harmonics, coefs, fit_error = fit_sigmoid(PERIOD, 12)
    assert fit_error < 4e-4
    got, run = evaluate(z, n_parties, harmonics, lambda s, t, x: odd_series(s, t, x, UNITS, coefs))
    error = np.abs(got - (1 / (1 + np.exp(-z)) - 0.5)).max()
    # the angle's step moves each harmonic's phase by at most k steps per party; basis and coefficients are rounded
    steps = n_parties * 2 * np.pi / 2**16 * np.abs(np.array(harmonics) * coefs).sum()
    assert error < fit_error + steps + 12 * (2.0**-13 + 2.0**-11)
    angles = [m.size for m in run.transcript if m.tag == "fourier/angle"]
    assert angles == [2 * len(z)] * (n_parties * (n_parties - 1))


def test_moments_are_sums_of_cosines_and_sines():
    z = np.random.default_rng(1).normal(0, 3, 5000)
    harmonics = [1, 3, 9, 31]
    got, _ = evaluate(z, 2, harmonics, lambda s, t, x: moments(s, t, x, UNITS))
    angle = 2 * np.pi / PERIOD * np.outer(harmonics, z)
    assert np.allclose(got / len(z), [np.cos(angle).mean(1), np.sin(angle).mean(1)], atol=2e-3)


def test_the_opened_angle_is_uniform_whatever_the_value():
    z = np.zeros(40_000)
    _, run = evaluate(z, 2, [1], lambda s, t, x: moments(s, t, x, UNITS))
    sent = [np.frombuffer(m.body, dtype=np.uint16) for m in run.transcript if m.tag == "fourier/angle"]
    opened = sent[0] + sent[1]
    counts = np.bincount(opened >> 8, minlength=256)
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi2 < 255 + 6 * np.sqrt(2 * 255)  # six standard deviations: fails once in 10^8 runs


def table() -> np.ndarray:
    return fourier._COARSE


def test_the_table_of_sines_is_exact():
    steps = np.arange(4096)
    np.testing.assert_allclose(
        table(), np.sin(steps * np.longdouble(2) * np.pi / 4096).astype(float), rtol=0, atol=1e-15
    )
    np.testing.assert_array_equal(table()[[0, 1024, 3072]], [0, 1, -1])
    assert hashlib.sha256(table().astype("<f8").tobytes()).hexdigest()[:16] == "9515f5ba03329295"


@pytest.mark.parametrize("n", [0, 1, 511, 512, 1500])
@pytest.mark.parametrize("step", [1, 2])
def test_both_kernels_turn_alike(n, step):
    rng = np.random.default_rng(n)
    r = rng.integers(0, 2**32, n, dtype=np.uint32)
    shares = rng.integers(-(2**63), 2**63, (14, n))
    coefs = rng.normal(0, 5, (2, 7)) * 2.0**19
    a, b = (kernels.waves(r, step, 7, 2.0**21, table()) for kernels in (ring_numba, ring_numpy))
    np.testing.assert_array_equal(a, b)
    k = 1 + step * np.arange(7)
    angle = 2 * np.pi * np.outer(k, r / 2.0**32)
    assert np.abs(a[0::2] - np.cos(angle) * 2.0**21).max(initial=0) < 0.51
    assert np.abs(a[1::2] - np.sin(angle) * 2.0**21).max(initial=0) < 0.51
    a, b = (kernels.combine(r, step, coefs, table(), shares) for kernels in (ring_numba, ring_numpy))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_several_series_share_a_round(n_parties):
    fit = _fitted.GELU
    xs = [np.linspace(-8, 8, n) for n in (0, 3, 600)]
    shares = [split(encode(x, 20), n_parties, i) for i, x in enumerate(xs)]

    def body(session):
        tickets = session.correlations.plan([plan_series(x.size, fit) for x in xs])
        return series_many(session, tickets, [s[session.me] for s in shares], 20, fit)

    run = play(n_parties, body)
    for i, x in enumerate(xs):
        got = decode(joined([r[i] for r in results(run)]), fit.bits)
        assert np.abs(got - fit(x)).max(initial=0) < fit.error
    sent = [m.size for m in run.transcript if m.tag == "fourier/turn"]
    assert sent == [4 * 603] * (n_parties * (n_parties - 1))
    dealt = sum(m.size for m in run.transcript if m.tag == "dealer/correction")
    assert dealt == 16 * len(fit.sines) * 603


@pytest.mark.parametrize("value", [0.0, -7.5, 8.0])
def test_the_opened_turn_is_uniform_whatever_the_value(value):
    shares = split(encode(np.full(40_000, value), 20), 2)
    fit = _fitted.GELU

    def body(session):
        return series(session, *session.correlations.plan([plan_series(40_000, fit)]), shares[session.me], 20, fit)

    run = play(2, body)
    a, b = (np.frombuffer(m.body, dtype=np.uint32) for m in run.transcript if m.tag == "fourier/turn")
    for sample in (a, b, a + b):
        counts = np.bincount(sample.view(np.uint8), minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 12 * np.sqrt(2 * 255)


def test_a_series_refuses_other_tickets():
    words = np.zeros(5, dtype=np.uint64)
    for request, share in (
        (plan_series(4, _fitted.ERF), words),
        (plan_series(5, _fitted.TANH), words),
        (plan_series(5, _fitted.ERF), words.astype(np.uint32)),
    ):
        with pytest.raises(LocalProtocolError, match="not for this series"):
            play(2, lambda s, r=request, x=share: series(s, *s.correlations.plan([r]), x, 20, _fitted.ERF))
    with pytest.raises(ValueError, match="more than 26 bits"):
        _fitted.GELU.slope_word(26)
    with pytest.raises(ValueError, match="too many"):
        _fitted.GELU.turns(45)


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "waves", "n": -1, "count": 1, "step": 1, "basis_bits": 12},
        {"kind": "waves", "n": 1, "count": 0, "step": 1, "basis_bits": 12},
        {"kind": "waves", "n": 1, "count": 1, "step": 3, "basis_bits": 12},
        {"kind": "waves", "n": 1, "count": 1, "step": 1, "basis_bits": 31},
        {"kind": "waves", "n": MAX_WORDS, "count": 256, "step": 1, "basis_bits": 12},
    ],
)
def test_the_dealer_refuses_senseless_waves(raw):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    with pytest.raises(RemoteProtocolError, match=r"malformed|over the dealer"):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})
