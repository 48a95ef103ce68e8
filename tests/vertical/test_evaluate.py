"""AUC on shares against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import run_owners
from vertical.evaluate import auc


def secure_auc(parts, y, active=0, period=64):
    def owner(i):
        return lambda session: auc(session, parts[i], y if i == active else None, active, period)

    return run_owners([owner(i) for i in range(len(parts))])


@pytest.mark.parametrize(
    ("n", "rate", "shift", "spread", "active"),
    [(6000, 0.22, 1.0, 1.0, 0), (400, 0.5, 0.3, 2.0, 1), (20_000, 0.01, 1.5, 0.8, 0), (3000, 0.3, 0.0, 0.6, 1)],
)
def test_auc_is_within_its_stated_error(n, rate, shift, spread, active):
    rng = np.random.default_rng(n)
    y = (rng.random(n) < rate).astype(float)
    z = rng.normal(0, spread, n) + shift * y - 2
    first = rng.normal(0, 1, n)
    parts = [np.clip(first, -8, 8), np.clip(z - first, -8, 8)]
    run = secure_auc(parts, y, active)
    assert run.results["lender"] == run.results["platform"]
    assert run.results["lender"] == pytest.approx(roc_auc_score(y, parts[0] + parts[1]), abs=1e-3)


def test_three_owners():
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=1000) for _ in range(3)]
    y = (rng.random(1000) < 1 / (1 + np.exp(-sum(parts)))).astype(float)
    run = secure_auc(parts, y)
    assert run.results["shop"] == pytest.approx(roc_auc_score(y, sum(parts)), abs=1e-3)


def test_too_few_of_a_class_is_refused_by_the_owner_of_the_label():
    y = np.zeros(100)
    y[:9] = 1
    with pytest.raises(LocalProtocolError, match="fewer than 10 held-out rows"):
        secure_auc([np.zeros(100), np.zeros(100)], y)


def test_messages_have_the_stated_size_and_nothing_opens_a_class():
    y = np.tile([0.0, 1.0], 500)
    z = np.linspace(-4, 4, 1000)
    shapes = [secure_auc([z, z], labels).shape() for labels in (y, np.sort(y))]
    assert shapes[0] == shapes[1]
    angles = [size for sender, receiver, tag, _, size in shapes[0] if tag == "fourier/angle" and sender == "lender"]
    assert sum(angles) == 4 * 1000
