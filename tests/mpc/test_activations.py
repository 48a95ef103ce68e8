"""Activations and their derivatives against numpy, on and beyond their intervals."""

import numpy as np
import pytest

from mpc.activations import ACTIVATIONS, SLOPE_BITS, VALUE_BITS, plan_activation, split_bits, value_and_slope
from mpc.errors import LocalProtocolError
from mpc.ring import encode
from mpc.smooth import SIGMOIDS
from tests.mpc.playing import joined, play, results, split


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


REAL = {
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), 16, 0.005, 0.011),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 8, 0.0044, 0.018),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), 12, 0.025, 0.18),
}


def evaluate(name, x, frac_bits, parties=2):
    shares = split(encode(x, frac_bits), parties)

    def body(session):
        (ticket,) = session.correlations.plan([plan_activation(x.size, ACTIVATIONS[name])])
        return value_and_slope(session, ticket, shares[session.me], frac_bits, ACTIVATIONS[name])

    run = play(parties, body)
    values, slopes = (joined([pair[i] for pair in results(run)]).view(np.int64) for i in (0, 1))
    return values * 2.0**-VALUE_BITS, slopes * 2.0**-SLOPE_BITS, run


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("frac_bits", "parties"), [(30, 2), (37, 3)])
def test_values_and_slopes_are_those_of_the_function(name, frac_bits, parties):
    f, df, end, error, slope_error = REAL[name]
    x = np.linspace(-end, end, 4000).reshape(40, 100)
    values, slopes, _ = evaluate(name, x, frac_bits, parties)
    noise = 0.05 if name == "silu" else 0.02
    assert np.abs(values - f(x)).max() < error + noise
    assert np.abs(slopes - df(x)).max() < slope_error + noise
    fit = ACTIVATIONS[name].value
    assert abs((values - fit(x)).mean()) < 4 * noise / np.sqrt(x.size)  # rounding has no direction
    assert (values - fit(x)).std() < noise / 4


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_the_derivative_of_the_series_and_the_bounds_hold_everywhere(name):
    activation = ACTIVATIONS[name]
    x = np.linspace(0, activation.value.period, 20_001)
    step = 1e-5
    derivative = (activation.value(x + step) - activation.value(x - step)) / (2 * step)
    assert np.abs(activation.slope(x) - derivative).max() < 1e-6
    fine = np.abs(activation.slope(x)).max() * (x[1] - x[0])
    assert np.abs(activation.value(x)).max() + fine + 0.05 < activation.largest
    assert np.abs(activation.slope(x)).max() + 0.05 < activation.steepest


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_beyond_the_interval_it_is_the_same_periodic_function(name):
    activation = ACTIVATIONS[name]
    x = np.array([40.0, -300.5, 1e4, -5e4])
    values, slopes, _ = evaluate(name, x, 30)
    assert np.abs(values - activation.value(x)).max() < 0.06
    assert np.abs(slopes - activation.slope(x)).max() < 0.06


def test_it_costs_what_it_says():
    n = 5000
    x = np.zeros(n)
    for name, activation in ACTIVATIONS.items():
        harmonics = len(activation.value.cosines)
        run = evaluate(name, x, 30)[2]
        assert [m.size for m in run.transcript if (m.sender, m.tag) == ("a", "fourier/turn")] == [4 * n]
        dealt = sum(m.size for m in run.transcript if m.tag == "dealer/correction")
        assert dealt == 16 * harmonics * n


def test_a_ticket_for_something_else_is_refused():
    def body(session):
        (ticket,) = session.correlations.plan([plan_activation(4, ACTIVATIONS["tanh"])])
        value_and_slope(session, ticket, np.zeros(5, dtype=np.uint64), 30, ACTIVATIONS["tanh"])

    with pytest.raises(LocalProtocolError, match="not for this activation"):
        play(2, body)


def test_bits_are_divided_and_bounded():
    fit = split_bits(SIGMOIDS[64.0], 19)
    assert (fit.basis_bits, fit.coef_bits, fit.bits) == (8, 11, 19)
    for bits in (11, 27):
        with pytest.raises(LocalProtocolError):
            split_bits(SIGMOIDS[64.0], bits)
