"""Ranks, areas and gaps of shared scores against NumPy and scikit-learn, ties included."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import run_owners
from vertical.ranking import MAX_ROWS, Ranking, concordance, key_bits, largest_gap, rank
from vertical.scores import Scores


def ranked(words, columns, body, owners=2, **options):
    """Run `body(session, ranking)` on scores and columns that the owners hold random shares of."""
    rng = np.random.default_rng(99)

    def split(x):
        parts = [rng.integers(0, 1 << 64, x.shape, dtype=np.uint64) for _ in range(owners - 1)]
        total = sum(parts, np.zeros_like(parts[0]))
        return [x.astype(np.int64).view(np.uint64) - total, *parts]

    z, c = split(words), split(columns)

    def owner(i):
        def run(session):
            ranking = rank(session, Scores(z[i], 24, 32.0), c[i])
            return session.open_words("test/open", body(session, ranking).reshape(-1)).view(np.int64)

        return run

    return run_owners([owner(i) for i in range(owners)], **options)["lender"]


def sample(n, values, seed):
    """Scores of which many are equal if there are few values, and two classes that depend on them."""
    rng = np.random.default_rng(seed)
    words = rng.integers(-values, values + 1, n) << 20
    y = (rng.random(n) < 0.2 + 0.3 * (words > 0)).astype(np.int64)
    y[:2] = 0, 1
    return words, y


@pytest.mark.parametrize(("n", "values"), [(2, 1), (3, 1), (17, 2), (64, 0), (100, 5), (257, 1000), (600, 20)])
def test_everything_is_exact(n, values):
    words, y = sample(n, values, n)
    P, N = int(y.sum()), int(n - y.sum())

    def body(session, ranking):
        area = concordance(session, ranking, [0], [1])
        return np.concatenate(
            [area, largest_gap(session, ranking, (0, 1), (P, N)), ranking.first([0, 1, n // 2, n])[:, 2]]
        )

    index = np.arange(n)
    opened = ranked(words, np.column_stack([y, 1 - y, index]), body)
    assert 0.5 + opened[0] / (2 * P * N) == pytest.approx(roc_auc_score(y, words), abs=1e-12)
    fpr, tpr, _ = roc_curve(y, words, drop_intermediate=False)
    assert opened[1] / (P * N) == pytest.approx(np.abs(tpr - fpr).max(), abs=1e-12)
    order = np.argsort(-words, kind="stable")
    assert opened[2:].tolist() == [0, order[0], order[: n // 2].sum(), index.sum()]


def test_areas_within_groups():
    words, y = sample(400, 6, 1)
    group = np.random.default_rng(0).integers(0, 3, 400)
    columns = np.column_stack([c for g in range(3) for c in ((group == g) & (y == 1), (group == g) & (y == 0))])
    opened = ranked(words, columns, lambda s, r: concordance(s, r, [0, 2, 4], [1, 3, 5]))
    for g in range(3):
        own, z = y[group == g], words[group == g]
        pairs = own.sum() * (1 - own).sum()
        assert 0.5 + opened[g] / (2 * pairs) == pytest.approx(roc_auc_score(own, z), abs=1e-12)


def test_three_owners():
    words, y = sample(90, 4, 3)
    opened = ranked(words, np.column_stack([y, 1 - y]), lambda s, r: concordance(s, r, [0], [1]), owners=3)
    pairs = y.sum() * (1 - y).sum()
    assert 0.5 + opened[0] / (2 * pairs) == pytest.approx(roc_auc_score(y, words), abs=1e-12)


def test_scores_that_do_not_fit_a_key_are_refused():
    assert key_bits(Scores(np.zeros(1000, dtype=np.uint64), 24, 32.0), 1000) == 24 + 6 + 1
    for rows, bound in ((1000, 2.0**30), (MAX_ROWS + 1, 32.0)):
        with pytest.raises(LocalProtocolError, match="too many or too large"):
            key_bits(Scores(np.zeros(2, dtype=np.uint64), 24, bound), rows)


@pytest.mark.parametrize("shape", [(1,), (5, 2)])
def test_one_row_or_several_scores_a_row_are_refused(shape):
    def owner(session):
        scores = Scores(np.zeros(shape, dtype=np.uint64), 24, 32.0)
        return rank(session, scores, np.zeros((shape[0], 1), dtype=np.uint64))

    with pytest.raises(LocalProtocolError, match="two or more rows with one score each"):
        run_owners([owner, owner])


def test_too_many_rows_for_a_gap_are_refused():
    ranking = Ranking(np.zeros((MAX_ROWS + 1, 2), dtype=np.uint64), np.zeros(MAX_ROWS + 1, dtype=np.uint64))
    with pytest.raises(LocalProtocolError, match="does not fit a sort key"):
        run_owners([lambda s: largest_gap(s, ranking, (0, 1), (1, 1))] * 2)


@pytest.mark.parametrize(("n", "pairs"), [(64, 1), (101, 3)])
def test_the_area_costs_what_it_says(n, pairs):
    """Rows that are in order already, so that nothing random is in the count."""
    columns = np.tile(np.arange(n)[:, None] % 2, (1, 2 * pairs)).astype(np.uint64)
    ranking = Ranking(columns, np.zeros(n, dtype=np.uint64))
    own = list(range(0, 2 * pairs, 2))
    run = run_owners([lambda s: concordance(s, ranking, own, [i + 1 for i in own])] * 2)
    sizes = [m.size for m in run.transcript if m.sender == "lender" and m.tag == "products/open"]
    assert len(sizes) == 2 * int(np.log2(n)) + 2
    assert 0.9 < sum(sizes) / (8 * n * (10 * pairs + 4)) <= 1
    assert run.bytes_sent("dealer") <= 8 * n * (6 * pairs + 1) + 200 * len(sizes)


def test_what_is_sent_does_not_depend_on_scores_or_labels():
    """Among those to the other owner: the comparisons of a sort are random in number, whatever the scores."""
    shapes = []
    for seed in (1, 2):
        _, y = sample(64, 3, seed)
        columns = np.column_stack([y, 1 - y]).astype(np.uint64)
        ranking = Ranking(columns, np.zeros(64, dtype=np.uint64))
        shapes.append(run_owners([lambda s, r=ranking: concordance(s, r, [0], [1])] * 2).shape())
    assert shapes[0] == shapes[1]
