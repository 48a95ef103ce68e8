"""Attacks on what is handed out: predictions, coefficients, an owner's part of a model.  Masks do not help against these."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError, Refused
from mpc.ring import decode
from tests.mpc.transcripts import fix_keys
from tests.vertical.helpers import NAMES, run_owners
from vertical import glm, network
from vertical.binning import Binner
from vertical.encoding import fit
from vertical.network_scales import WEIGHT_BITS
from vertical.score import Output, mean_of, predict
from vertical.scores import Scores
from vertical.trees.paths import goes_left
from vertical.trees.predict import scores as tree_scores
from vertical.trees.settings import Settings as Trees
from vertical.trees.train import train as train_trees

# --- solving for columns from probabilities (equality solving)


@cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images of digits, the coefficients and intercepts of a model of ten classes, and columns by falling variance."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(C=0.2, max_iter=300).fit(X, y)
    return X, model.coef_, model.intercept_, np.argsort(-X.var(axis=0))


def equations(p: np.ndarray, unknown: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What somebody who knows the model has of the other owner's columns: E (x - mean) = e for each row, one for each class
    but the likeliest.

    Source: Luo, Wu, Xiao, Ooi, "Feature inference attack on model predictions in vertical federated learning", ICDE 2021.
    """
    X, W, b, order = digits()
    theirs, mine = order[:unknown], order[unknown:]
    known = X[:, mine] @ W[:, mine].T + b + X[:, theirs].mean(axis=0) @ W[:, theirs].T
    first = np.argsort(-p, axis=1, kind="stable")
    top, others = first[:, :1], first[:, 1:]
    left = np.log(p) - known
    e = np.take_along_axis(left, others, axis=1) - np.take_along_axis(left, top, axis=1)
    return W[:, theirs][others] - W[:, theirs][top], e, X[:, theirs], np.take_along_axis(p, others, axis=1)


def solve(p: np.ndarray, unknown: int) -> float:
    """R2 of the other owner's columns if the equations are solved as they are."""
    E, e, x, _ = equations(p, unknown)
    found = x.mean(axis=0) + (np.linalg.pinv(E) @ e[:, :, None])[:, :, 0]
    return float(r2_score(x, found))


def weigh(p: np.ndarray, unknown: int, rounded: float, floor: float = 0.0025) -> float:
    """R2 if the attacker also knows how the columns vary and how wrong each equation may be: the best linear guess.

    rounded: deviation of the probabilities that it was told.
    """
    E, e, x, others = equations(p, unknown)
    prior = np.diag(x.var(axis=0))
    noise = np.eye(9) * ((rounded / np.maximum(others, floor)) ** 2)[:, None, :]
    gain = prior @ E.transpose(0, 2, 1) @ np.linalg.inv(E @ prior @ E.transpose(0, 2, 1) + noise)
    return float(r2_score(x, x.mean(axis=0) + (gain @ e[:, :, None])[:, :, 0]))


def told(output: Output, unknown: int) -> np.ndarray:
    """What the owner of the other columns tells of the digits by `vertical.score`."""
    X, W, b, order = digits()
    theirs, mine = order[:unknown], order[unknown:]
    parts = X[:, mine] @ W[:, mine].T + b, X[:, theirs] @ W[:, theirs].T
    columns = 64 - unknown, unknown
    bodies = [lambda s, i=i: predict(s, Scores.of_part(parts[i], 64, 2), output, columns[i]) for i in (0, 1)]
    return np.asarray(run_owners(bodies).results[NAMES[0]])


def probabilities() -> np.ndarray:
    X, W, b, _ = digits()
    return mean_of("softmax", X @ W.T + b)


@pytest.mark.parametrize("unknown", [5, 9])
def test_probabilities_would_give_as_many_columns_away_as_there_are_equations(unknown):
    assert solve(probabilities(), unknown) > 0.9999


@pytest.mark.parametrize("unknown", [1, 5, 9])
def test_such_probabilities_are_refused(unknown):
    with pytest.raises(Refused, match="solve them for its values"):
        told(Output("probability", (0,), link="softmax"), unknown)


@pytest.mark.parametrize(("unknown", "most"), [(10, 0.96), (15, 0.85), (30, 0.7)])
def test_probabilities_that_are_not_refused_do_not_give_the_columns_away(unknown, most):
    """But they tell much of them, and less the more columns there are: the refusal is for what can be solved exactly."""
    p = told(Output("probability", (0,), link="softmax"), unknown)
    assert solve(p, unknown) < most
    assert weigh(p, unknown, 1e-8) < most


@pytest.mark.parametrize("unknown", [5, 9])
def test_rounded_probabilities_of_ten_classes_do_not_give_columns_away(unknown):
    """Solving fails; who reckons with the rounding still gets more than nothing, so they are not offered either."""
    rounded = np.clip(np.round(probabilities(), 2), 0.0025, None)
    assert solve(rounded, unknown) < 0
    assert weigh(rounded, unknown, 0.003) < 0.6
    with pytest.raises(LocalProtocolError, match="with several classes there is no 'rounded'"):
        Output.rounded((0,), link="softmax")


def test_rounding_does_not_hide_a_single_column():
    """Two classes: one equation, and a rounded probability is close enough if there is but one unknown."""
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(4000, 6)), np.array([0.8, 0.6, -0.5, 0.4, 0.3, -0.2])
    q = np.clip(np.round(mean_of("logit", x @ w), 2), 0.005, 0.995)
    rest = np.log(q / (1 - q))
    assert r2_score(x[:, 0], (rest - x[:, 1:] @ w[1:]) / w[0]) > 0.99
    found = np.linalg.pinv(w[None, :3]) @ (rest - x[:, 3:] @ w[3:])[None]
    assert r2_score(x[:, :3], found.T) < 0.5


def test_the_most_likely_class_does_not_give_columns_away():
    """What may be asked for instead, where probabilities are refused: it tells what the class does."""
    decision = told(Output("decision", (0,), link="softmax"), 9)
    assert (decision == probabilities().argmax(axis=1)).all()
    guessed = np.where(decision[:, None] == np.arange(10), 0.95, 0.05 / 9)
    assert solve(guessed, 9) < 0
    assert weigh(guessed, 9, 0.02) < 0.3


# --- membership


def mix(name: str, n: int) -> tuple[list[np.ndarray], list, np.ndarray, int, np.ndarray]:
    """Both owners' encoded and binned columns of some rows of a real data set, labels, whose, and which half trains."""
    found = load(name)
    found = found.take(np.random.default_rng(1).permutation(len(found.y))[:n])
    members = np.arange(n) < n // 2
    owned = list(zip(found.columns, found.features, strict=True))
    encoded = [fit(c, f, members, winsorise_sd=8, rare_category=30).transform(c) for c, f in owned]
    bins = [Binner.fit(c, f, members, bins=16, rare_category=30).transform(c) for c, f in owned]
    return encoded, bins, found.y, found.active, members


def member_auc(z: np.ndarray, y: np.ndarray, members: np.ndarray) -> float:
    """AUC of guessing who was trained on, from the loss of each row (Yeom et al., CSF 2018); z: log-odds."""
    loss = np.logaddexp(0, -z * (2 * y - 1))
    return float(roc_auc_score(members, -loss))


def fitted_glm(encoded, y, active, members) -> list[glm.Fitted]:
    settings = glm.Settings(ridge=1.0, passes=30, inference=False)
    rows = [X[members] for X in encoded]
    run = run_owners(
        [lambda s, i=i: glm.train(s, rows[i], y[members] if i == active else None, settings) for i in (0, 1)]
    )
    return [run[name] for name in NAMES[:2]]


def fitted_trees(bins, y, active, members) -> list:
    settings = Trees(trees=4, depth=3)
    rows = [b.take(members) for b in bins]
    run = run_owners(
        [lambda s, i=i: train_trees(s, rows[i], y[members] if i == active else None, settings) for i in (0, 1)]
    )
    return [run[name] for name in NAMES[:2]]


@pytest.mark.parametrize("name", ["credit_default_taiwan", "adult"])
def test_scores_of_a_logistic_model_do_not_tell_who_was_trained_on(name):
    """.55 is .05 and seven deviations of a guess above one half, for 3000 members and as many others."""
    encoded, _, y, active, members = mix(name, 6000)
    parts = [f.part(X) for f, X in zip(fitted_glm(encoded, y, active, members), encoded, strict=True)]
    assert 0.47 < member_auc(sum(parts), y, members) < 0.55


def test_scores_of_shallow_trees_do_not_tell_who_was_trained_on():
    _, bins, y, active, members = mix("credit_default_taiwan", 6000)
    trees = fitted_trees(bins, y, active, members)
    run = run_owners([lambda s, i=i: tree_scores(s, trees[i], bins[i]) for i in (0, 1)])
    words = run[NAMES[0]].words + run[NAMES[1]].words
    assert 0.47 < member_auc(decode(words, run[NAMES[0]].frac_bits), y, members) < 0.55


def test_scores_of_a_model_that_knows_its_rows_by_heart_would_tell():
    encoded, _, y, _, members = mix("credit_default_taiwan", 6000)
    X = np.hstack(encoded)
    deep = DecisionTreeClassifier(random_state=0).fit(X[members], y[members])
    p = np.clip(deep.predict_proba(X)[:, 1], 0.01, 0.99)
    assert member_auc(np.log(p / (1 - p)), y, members) > 0.6


# --- completing an owner's part of a model with a few labels

DRAWS, LABELS = 40, 40


def with_few_labels(features: np.ndarray, y: np.ndarray, strength: float = 0.1) -> float:
    """AUC on the other rows of a model of these features from 40 labels; the mean of 40 draws."""
    out = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(y))
        some, rest = order[:LABELS], order[LABELS:]
        model = LogisticRegression(C=strength, max_iter=500).fit(features[some], y[some])
        out.append(roc_auc_score(y[rest], model.decision_function(features[rest])))
    return float(np.mean(out))


def crossed(n: int = 4000) -> tuple[list[np.ndarray], np.ndarray]:
    """Both owners' columns, and a label that hangs on the product of two of the passive owner's."""
    rng = np.random.default_rng(3)
    X, Z = rng.normal(size=(n, 4)), rng.normal(size=(n, 3))
    z = 1.6 * X[:, 0] * X[:, 1] + Z @ [1, -1, 0.5] + 0.3 * rng.normal(size=n)
    return [Z, X], (z > 0).astype(float)


def lower_half(parts: list[np.ndarray], y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The passive owner's half of a network that was trained by split learning, in the clear."""
    torch.manual_seed(0)
    Z, X, label = (torch.tensor(values, dtype=torch.float32) for values in (*parts, y))
    mine = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    theirs, top = torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(8, 1))
    steps = torch.optim.Adam([*mine.parameters(), *theirs.parameters(), *top.parameters()], lr=0.03)
    for _ in range(150):
        steps.zero_grad()
        out = top(torch.cat([mine(X), theirs(Z)], dim=1))[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(out, label).backward()
        steps.step()
    return lambda rows: mine(torch.tensor(rows, dtype=torch.float32)).detach().numpy()


def test_the_lower_half_of_a_split_network_would_give_labels_away():
    """Source: Fu et al., "Label inference attacks against vertical federated learning", USENIX Security 2022."""
    parts, y = crossed()
    half = lower_half([part[:2000] for part in parts], y[:2000])
    own = with_few_labels(parts[1][2000:], y[2000:])
    assert with_few_labels(half(parts[1][2000:]), y[2000:], strength=1.0) > own + 0.15


@pytest.mark.parametrize("keys", ["one", "two"])
def test_an_owners_share_of_a_network_does_not_help_to_guess_labels(keys, monkeypatch):
    """The weights that it keeps are shares: what they make of its columns is nothing of the model."""
    fix_keys(monkeypatch, keys)
    parts, y = crossed()
    settings = network.Settings(hidden=(8, 4), epochs=2, batch=500, learning_rate=0.2)
    rows = [part[:2000] for part in parts]
    run = run_owners([lambda s, i=i: network.train(s, rows[i], y[:2000] if i == 0 else None, settings) for i in (0, 1)])
    first = settings.shape((3, 4)).split(run[NAMES[1]].weights)[0]
    weights = decode(first[3:7], WEIGHT_BITS)
    X = parts[1][2000:]
    own = with_few_labels(X, y[2000:])
    for scale in (1.0, 1 / np.abs(weights).max()):
        embedded = np.tanh(X @ weights * scale)
        assert with_few_labels(embedded, y[2000:]) < own + 0.01
        assert with_few_labels(np.hstack([X, embedded]), y[2000:]) < own + 0.01


@pytest.mark.parametrize("kind", ["coefficients", "splits"])
def test_what_an_owner_is_given_helps_no_more_than_all_labels_would(kind):
    """Coefficients and splits are results that their owner may have, and they say what its columns have to do with the label.

    So with 40 labels they are worth more than its columns alone, and never more than its columns with all training labels.
    """
    encoded, bins, y, active, members = mix("adult", 6000)
    passive = 1 - active
    rest = y[~members]
    if kind == "coefficients":
        part = fitted_glm(encoded, y, active, members)[passive].part(encoded[passive])[~members]
        features = (part / part.std())[:, None]
    else:
        trees = fitted_trees(bins, y, active, members)[passive]
        nodes = zip(*np.nonzero(trees.owners == passive), strict=True)
        split = [(int(trees.feature[at]), int(trees.bins[at]), bool(trees.left[at])) for at in nodes]
        features = np.column_stack([goes_left(bins[passive].codes, *one) for one in split])[~members].astype(float)
    own = encoded[passive]
    all_labels = LogisticRegression(max_iter=1000).fit(own[members], y[members])
    ceiling = roc_auc_score(rest, all_labels.decision_function(own[~members]))
    assert with_few_labels(features, rest) < ceiling + 0.01
    assert with_few_labels(own[~members], rest) < with_few_labels(features, rest)
