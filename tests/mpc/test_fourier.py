"""Fourier tuples: the series of a shared value, and sums of sines and cosines, against numpy."""

import numpy as np
import pytest

from mpc.dealer import Correlations, run_dealer
from mpc.fourier import SERIES_BITS, FourierTuple, fit_sigmoid, moments, odd_series
from mpc.ring import decode, encode
from mpc.session import Session
from tests.harness import run_parties

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
