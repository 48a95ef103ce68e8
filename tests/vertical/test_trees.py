"""Boosted trees on shares against the same trees in plain NumPy, and what is promised of them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.tree_runs import fit_all, labels, plain, score_all, table
from vertical.trees.settings import Settings
from vertical.trees.train import train

CASES = {
    "hidden": ((3, 4), 0, Settings(trees=3, depth=3)),
    "label at the second owner": ((3, 3), 1, Settings(trees=2, depth=3)),
    "revealed": ((3, 4), 0, Settings(trees=3, depth=3, routing="revealed")),
    "three owners": ((3, 3, 3), 2, Settings(trees=2, depth=3)),
    "three owners, revealed": ((3, 3, 3), 1, Settings(trees=2, depth=2, routing="revealed")),
    "one level": ((3, 3), 0, Settings(trees=4, depth=1)),
    "no columns at the owner of the label": ((4, 0), 1, Settings(trees=2, depth=2)),
    "sampled": ((3, 4), 0, Settings(trees=3, depth=2, subsample=0.6, colsample=0.5, seed=7)),
    "gamma and heavy children": (
        (3, 4),
        0,
        Settings(trees=2, depth=4, gamma=3.0, min_child_weight=7.5, reg_lambda=3.0),
    ),
    "small leaves": ((3, 4), 0, Settings(trees=2, depth=3, max_leaf=0.25)),
    "squared": ((3, 4), 0, Settings(objective="squared", trees=3, depth=3)),
    "squared with gamma": ((3, 4), 0, Settings(objective="squared", trees=2, depth=3, gamma=0.5)),
    "poisson": ((3, 4), 0, Settings(objective="poisson", trees=3, depth=3)),
    "poisson, many trees": ((3, 3), 0, Settings(objective="poisson", trees=12, depth=1)),
    "constrained": ((3, 4), 0, Settings(trees=3, depth=3, monotone=(("c0", 1), ("c3", -1)))),
}


@pytest.mark.parametrize("case", CASES)
def test_trees_are_those_of_the_plain_computation(case):
    dims, active, settings = CASES[case]
    blocks = table(1500, dims, seed=2)
    y = labels([b for b in blocks if b.names], settings.objective)
    run = fit_all(blocks, y, settings, active)
    reference, owners = plain(blocks, y, settings, active)
    for name in NAMES[: len(dims)]:
        assert np.array_equal(run.results[name].owners, owners)
    fresh = table(400, dims, seed=3)
    found, bound = score_all(run, fresh)
    expected = reference(fresh)
    assert np.abs(found - expected).max() < 2e-3 * max(1.0, expected.std())
    assert np.abs(found).max() <= bound


@pytest.mark.parametrize(("offset", "size"), [(1e5, 0.05), (-2015.0, 1.0), (1e5, 100.0)])
def test_a_label_far_from_zero_is_learnt_as_well_as_one_near_it(offset, size):
    settings = Settings(objective="squared", trees=3, depth=3)
    blocks = table(1500, (3, 4), seed=2)
    y = labels(blocks, "squared")
    near, _ = score_all(fit_all(blocks, y, settings), blocks)
    far, bound = score_all(fit_all(blocks, offset + size * y, settings), blocks)
    # In other units of the label the penalty of leaves is the same, and the last digits are not.
    assert np.abs((far - offset) / size - near).max() < 0.01
    assert np.abs(far).max() <= bound


def test_nodes_that_nothing_betters_are_not_split():
    blocks = table(300, (3, 3), seed=2)
    y = labels(blocks)
    run = fit_all(blocks, y, Settings(trees=2, depth=3, gamma=1e5))
    fitted = run.results["lender"]
    assert (fitted.owners == -1).all()
    assert (fitted.feature == -1).all()
    found, _ = score_all(run, blocks)
    assert np.ptp(found) < 1e-6


def test_an_owner_learns_its_own_splits_only():
    blocks = table(800, (3, 4), seed=2)
    run = fit_all(blocks, labels(blocks), Settings(trees=2, depth=3))
    parts = [run.results[name] for name in NAMES[:2]]
    for i, part in enumerate(parts):
        assert ((part.feature >= 0) == (part.owners == i)).all()
        assert sum(part.importance().values()) == (part.owners == i).sum() > 0
    leaves, own = (words.view(np.int64).astype(float) for words in (parts[0].leaves + parts[1].leaves, parts[0].leaves))
    assert np.abs(leaves).max() < 2**26 < np.abs(own).min()


def test_a_constrained_column_never_lowers_the_score():
    blocks = table(1200, (3, 3), seed=5)
    settings = Settings(trees=4, depth=4, monotone=(("c2", 1),))
    run = fit_all(blocks, labels(blocks), settings)
    base = table(100, (3, 3), seed=6)
    steps = []
    for code in range(1, 8):
        for block in base:
            block.codes[:, 2] = code
        steps.append(score_all(run, base)[0])
    assert (np.diff(steps, axis=0) >= -1e-6).all()
    assert np.ptp(steps, axis=0).max() > 0.1


def test_training_stops_when_held_back_rows_get_worse():
    blocks = table(300, (3, 3), seed=2)
    y = labels(blocks)
    settings = Settings(trees=30, depth=3, learning_rate=1.0, max_leaf=1.5, validation=0.4, patience=2, seed=3)
    run = fit_all(blocks, y, settings)
    fitted = run.results["lender"]
    held = settings.stream("validation").words(300) < np.uint64(int(0.4 * 2.0**53) << 11)
    losses = []
    for trees in range(1, fitted.trees + 1):
        parts = {n: _cut(run.results[n], trees) for n in NAMES[:2]}
        z = score_all(_Results(parts), blocks)[0][held]
        losses.append((np.logaddexp(0, z) - y[held] * z).sum())
    assert 1 <= fitted.trees < 30
    assert int(np.argmin(losses)) == fitted.trees - 1


class _Results:
    def __init__(self, results):
        self.results = results


def _cut(fitted, trees):
    arrays = {name: getattr(fitted, name)[:trees] for name in ("owners", "feature", "bins", "left", "leaves")}
    return replace(fitted, **arrays)


def test_bytes_are_those_of_the_docstring():
    n, depth = 500, 3

    def sent(trees, dims=(2, 2)):
        blocks = table(n, dims, seed=1)
        y = (blocks[0].codes[:, 0] > 3).astype(float)
        run = fit_all(blocks, y, Settings(trees=trees, depth=depth))
        out = dict.fromkeys(("matrix/mask", "matrix/vector"), 0)
        for message in run.transcript:
            if message.sender == "lender" and message.tag in out:
                out[message.tag] += message.size
        return out

    few, many = sent(1), sent(2)
    assert many["matrix/vector"] - few["matrix/vector"] == 4 * n * 2**depth
    assert many["matrix/mask"] == few["matrix/mask"] == 4 * n * 2 * 8
    assert sent(1, (6, 2))["matrix/vector"] == few["matrix/vector"]


def test_rounds_and_sizes_depend_on_shapes_only():
    shapes = []
    for seed in (1, 2):
        blocks = table(200, (3, 3), seed=seed)
        shapes.append(fit_all(blocks, labels(blocks, seed=seed), Settings(trees=2, depth=3)).shape())
    assert shapes[0] == shapes[1]


def test_no_message_helps_to_guess_a_label():
    """A strong classifier on everything the passive owner receives about the rows finds nothing."""
    n = 900
    blocks = table(n, (3, 3), seed=4)
    y = labels(blocks)
    run = fit_all(blocks, y, Settings(trees=2, depth=3))
    kinds = {
        "matrix/vector": np.uint32,
        "products/open": np.uint64,
        "fourier/turn": np.uint32,
        "truncation/open": np.uint64,
    }
    received = []
    for m in run.transcript:
        if m.receiver == "platform" and m.tag in kinds and m.sender == "lender":
            words = np.frombuffer(m.body, dtype=kinds[m.tag])
            if len(words) % n == 0:
                across = m.tag == "matrix/vector"
                received += list(words.reshape(n, -1).T if across else words.reshape(-1, n))
    received = [column.astype(float) for column in received]
    assert len(received) > 40
    guess = cross_val_predict(
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
        np.column_stack(received),
        y,
        cv=3,
        method="predict_proba",
    )[:, 1]
    deviation = 1 / np.sqrt(12 * min(y.sum(), (1 - y).sum()))  # of the AUC of a random score
    assert abs(roc_auc_score(y, guess) - 0.5) < 5 * deviation


def test_a_split_that_is_none_of_ours_is_refused():
    blocks = table(200, (3, 3), seed=2)
    y = labels(blocks)

    def tamper(message):
        if message.tag != "trees/split":
            return message
        words = np.frombuffer(message.body, dtype=np.uint64) + np.uint64(1 << 40)
        return message.__class__(message.sender, message.receiver, message.tag, message.kind, words.tobytes())

    with pytest.raises(RemoteProtocolError, match="none of our candidates"):
        fit_all(blocks, y, Settings(trees=1, depth=2), tamper=tamper)


def test_two_labels_or_none_are_refused():
    blocks = table(100, (3, 3), seed=1)
    for y in (labels(blocks), None):
        owners = [lambda s, i=i, y=y: train(s, blocks[i], y, Settings(trees=1)) for i in range(2)]
        with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
            run_owners(owners)


def test_owners_with_other_rows_or_settings_are_refused():
    blocks = table(100, (3, 3), seed=1)
    y = labels(blocks)
    short = blocks[1].take(np.arange(99))
    with pytest.raises(RemoteProtocolError, match="other rows"):
        run_owners([lambda s: train(s, blocks[0], y, Settings()), lambda s: train(s, short, None, Settings())])
    with pytest.raises(RemoteProtocolError, match="other settings"):
        run_owners(
            [lambda s: train(s, blocks[0], y, Settings()), lambda s: train(s, blocks[1], None, Settings(seed=1))]
        )


def test_a_constraint_on_a_column_of_somebody_else_is_refused():
    blocks = table(100, (3, 4), seed=1)
    settings = Settings(trees=1, monotone=(("c3", 1),))
    with pytest.raises(LocalProtocolError, match="none of ours"):
        run_owners([lambda s, i=i: train(s, blocks[i], None, settings) for i in range(2)])
