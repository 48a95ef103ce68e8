"""The parts of losses against NumPy, and what they cost."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import run_owners
from vertical import losses
from vertical.losses import FRAC_BITS, LOSS_BITS, MEAN_BITS, at_least, in_units, probabilities, sum_of_squares
from vertical.probability_fits import LOSS, PROBABILITY
from vertical.scores import Scores


def opened(z, body, owners=2, frac_bits=FRAC_BITS):
    """What `body(session, share)` gives, opened; shares of numbers that all owners have a part of."""
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 1 << 64, len(z), dtype=np.uint64) for _ in range(owners - 1)]
    first = np.rint(z * 2.0**frac_bits).astype(np.int64).view(np.uint64) - sum(parts, np.zeros(len(z), dtype=np.uint64))

    def owner(i):
        def run(session):
            out = body(session, [first, *parts][i])
            return [session.open_words("test/open", np.asarray(word)).view(np.int64) for word in out]

        return run

    run = run_owners([owner(i) for i in range(owners)])
    return run["lender"], run


def test_the_series_are_as_close_as_they_say():
    z = np.linspace(-16, 16, 10_001)
    assert np.abs(PROBABILITY(z) - 1 / (1 + np.exp(-z))).max() < 3e-8
    assert np.abs(LOSS(z) + z / 2 - np.logaddexp(0, z)).max() < 4e-9


@pytest.mark.parametrize(("bound", "owners"), [(16.0, 2), (40.0, 2), (40.0, 3)])
def test_probabilities_and_losses(bound, owners):
    z = np.linspace(-bound, bound, 501)
    (p, loss), _ = opened(z, lambda s, x: probabilities(s, Scores(x, FRAC_BITS, bound)), owners)
    limited = 1 / (1 + np.exp(-np.clip(z, -16, 16)))
    assert np.abs(p * 2.0**-MEAN_BITS - limited).max() < PROBABILITY.error
    assert np.abs(loss * 2.0**-LOSS_BITS - np.logaddexp(0, z)).max() < LOSS.error
    assert abs((p * 2.0**-MEAN_BITS - limited).mean()) < 1e-7


@pytest.mark.parametrize(("bound", "more"), [(16.0, 0), (17.0, 40 * 640 + 560 * 10)])
def test_probabilities_cost_what_they_say(bound, more, monkeypatch):
    monkeypatch.setattr(losses, "CALL", 200)
    run = opened(np.zeros(640), lambda s, x: probabilities(s, Scores(x, FRAC_BITS, bound)))[1]
    tags = ("compare/", "products/", "fourier/", "truncation/")
    sent = [m.size for m in run.transcript if m.sender == "lender" and m.tag.startswith(tags)]
    assert sum(sent) == 20 * 640 + more
    assert len(sent) == 2 * 4 + (5 if more else 0)


@pytest.mark.parametrize(("frac_bits", "whole_bits"), [(24, 3), (36, 0), (6, 8)])
def test_sums_of_squares(frac_bits, whole_bits):
    x = np.random.default_rng(2).uniform(-(2.0**whole_bits), 2.0**whole_bits, 300)
    bits = []

    def body(session, share):
        total, kept = sum_of_squares(session, share, frac_bits, whole_bits)
        bits.append(kept)
        return [total]

    ((total,),), _ = opened(x, body, frac_bits=frac_bits)
    exact = (np.rint(x * 2.0**frac_bits) / 2.0**frac_bits) ** 2
    assert total * 2.0 ** -bits[0] == pytest.approx(exact.sum(), rel=1e-5)


def test_values_too_large_for_a_sum_of_squares_are_refused():
    with pytest.raises(LocalProtocolError, match="too large for a sum of squares"):
        opened(np.zeros(300), lambda s, x: sum_of_squares(s, x, 24, 26)[:1])


def test_the_larger_of_a_value_and_a_limit():
    z = np.array([-3.0, -2.0, -1.9999, 0.0, 7.5])
    (got,), _ = opened(z, lambda s, x: [at_least(s, x, -(2 << FRAC_BITS))])
    assert np.allclose(got * 2.0**-FRAC_BITS, np.maximum(z, -2), atol=2.0**-FRAC_BITS)


@pytest.mark.parametrize(("frac_bits", "exponent"), [(24, 0), (30, 0), (10, 3), (24, 7)])
def test_scores_in_other_units(frac_bits, exponent):
    z = np.array([-3.0, 0.25, 7.5])

    def body(session, share):
        scaled = in_units(session, Scores(share, frac_bits, 8.0), exponent)
        assert scaled.frac_bits == FRAC_BITS
        assert scaled.bound >= 8.0 / 2**exponent
        return [scaled.words]

    (got,), _ = opened(z, body, frac_bits=frac_bits)
    assert np.allclose(got * 2.0**-FRAC_BITS, z / 2**exponent, atol=2.0**-FRAC_BITS)


@pytest.mark.parametrize(("shape", "bound"), [((3, 2), 8.0), ((3,), 2.0**37), ((3,), 0.0)])
def test_scores_of_no_sensible_size_are_refused(shape, bound):
    with pytest.raises(LocalProtocolError, match="too large, or not one a row"):
        run_owners([lambda s: in_units(s, Scores(np.zeros(shape, dtype=np.uint64), 24, bound), 0)] * 2)
