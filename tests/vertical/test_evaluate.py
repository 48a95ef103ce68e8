"""AUC on shares against scikit-learn's."""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import run_owners
from vertical.evaluate import auc, quick_auc
from vertical.scores import Scores


def secure_auc(parts, y, active=0, bound=64.0, how=auc, **options):
    def owner(i):
        def body(session):
            scores = Scores.of_part(parts[i], bound, len(parts))
            return how(session, scores, y if i == active else None, active)

        return body

    return run_owners([owner(i) for i in range(len(parts))], **options)


@pytest.mark.parametrize(
    ("n", "rate", "shift", "spread", "active"),
    [(2000, 0.22, 1.0, 1.0, 0), (400, 0.5, 0.3, 2.0, 1), (3000, 0.01, 1.5, 0.8, 0), (1000, 0.3, 0.0, 1e-5, 1)],
)
def test_auc_is_exact_however_scores_are_spread(n, rate, shift, spread, active):
    rng = np.random.default_rng(n)
    y = np.zeros(n)
    y[rng.permutation(n)[: int(rate * n)]] = 1
    z = rng.normal(0, spread, n) + spread * shift * y
    first = rng.normal(0, 1, n)
    run = secure_auc([first, z - first], y, active)
    assert run["lender"] == run["platform"]
    assert run["lender"] == pytest.approx(roc_auc_score(y, z), abs=1.1e-4)


def test_equal_scores_count_one_half():
    rng = np.random.default_rng(5)
    parts = [rng.integers(0, 4, 600) / 4.0 for _ in range(2)]
    y = (rng.random(600) < 0.2 + 0.2 * sum(parts)).astype(float)
    assert secure_auc(parts, y)["lender"] == round(roc_auc_score(y, sum(parts)), 4)


def test_all_scores_equal_is_one_half():
    assert secure_auc([np.zeros(60)] * 2, np.tile([0.0, 1.0], 30))["platform"] == 0.5


def test_a_perfect_score_is_one():
    y = np.tile([0.0, 1.0, 0.0], 20)
    assert secure_auc([y, np.zeros(60)], y)["platform"] == 1.0


def test_three_owners():
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=500) for _ in range(3)]
    y = (rng.random(500) < 1 / (1 + np.exp(-sum(parts)))).astype(float)
    assert secure_auc(parts, y, active=2)["shop"] == pytest.approx(roc_auc_score(y, sum(parts)), abs=1e-4)


def test_without_a_dealer_there_is_the_quick_area():
    rng = np.random.default_rng(3)
    parts, y = [rng.normal(size=1000) for _ in range(2)], np.tile([0.0, 1.0], 500)
    run = secure_auc(parts, y, bound=14.0, how=partial(auc, dealer=False))
    assert run["lender"] == pytest.approx(roc_auc_score(y, sum(parts)), abs=1e-3)
    assert not any(m.tag.startswith("shuffle") for m in run.transcript)


def test_the_quick_area_is_close():
    rng = np.random.default_rng(4)
    y = (rng.random(5000) < 0.3).astype(float)
    z = rng.normal(0, 1, 5000) + y
    parts = [np.clip(z / 2, -8, 8)] * 2
    run = secure_auc(parts, y, bound=16.0, how=quick_auc)
    assert run["lender"] == pytest.approx(roc_auc_score(y, sum(parts)), abs=1e-3)
    angles = [m.size for m in run.transcript if m.tag == "fourier/angle" and m.sender == "lender"]
    assert sum(angles) == 4 * 5000


@pytest.mark.parametrize("how", [auc, quick_auc])
def test_too_few_of_a_class_is_refused_by_the_owner_of_the_label(how):
    y = np.zeros(100)
    y[:9] = 1
    with pytest.raises(LocalProtocolError, match="fewer than 10 held-out rows"):
        secure_auc([np.zeros(100), np.zeros(100)], y, how=how)


def test_a_quick_area_needs_scores_of_a_sensible_size():
    with pytest.raises(LocalProtocolError, match="too large"):
        secure_auc([np.zeros(40)] * 2, np.tile([0.0, 1.0], 20), bound=2.0**40, how=quick_auc)


@pytest.mark.parametrize("stated", ['"0.99999"', '"nan"', "0.7", '"1.0001"'])
def test_an_area_that_is_none_is_noticed(stated):
    import dataclasses

    def tamper(message):
        if message.tag != "evaluate/auc":
            return message
        return dataclasses.replace(message, body=stated.encode())

    y = np.tile([0.0, 1.0], 20)
    with pytest.raises(RemoteProtocolError, match="states no area"):
        secure_auc([np.arange(40.0) / 4, y], y, tamper=tamper)


def test_the_passive_owner_is_sent_four_decimals_and_no_count():
    """Class sizes and pairs are opened to the owner of the label alone."""
    y = np.tile([0.0, 1.0, 1.0], 100)
    run = secure_auc([np.linspace(-4, 4, 300), y], y)
    last = [m for m in run.transcript if m.tag in ("evaluate/pairs", "evaluate/auc")]
    assert [(m.sender, m.tag) for m in last] == [("platform", "evaluate/pairs"), ("lender", "evaluate/auc")]
    assert last[1].size == len('"0.1234"')
