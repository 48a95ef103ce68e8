"""A passive owner looks for the label in what it sees of a training: it has to guess, and where masks are missing it finds it.

The interval for the AUC of a guess is .47 to .53.  An attacker is judged on 6144 rows, where the AUC of a guess has a
deviation of .0074: four of them are inside, so one guess in 20,000 is outside.  Keys are fixed: what passes once passes always.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mpc.matrix import MatrixProduct
from mpc.ring import decode
from tests.vertical.attack_runs import GLM, NETWORK, ROWS, data, seen
from tests.vertical.attacks import (
    ACTIVE,
    PASSIVE,
    Seen,
    by_row,
    deviation,
    gradients_in_the_clear,
    labels_from_gradients,
    learned_auc,
    norm_and_direction,
    opened,
)
from vertical.families import RESIDUAL_BITS, Logistic
from vertical.network import batches
from vertical.passes import GRADIENT_BITS

LOW, HIGH = 0.47, 0.53
SURE = 5.0
"""Deviations from .5 that hundreds of guesses hardly ever reach: one in 1.7 million does."""


@pytest.fixture(scope="module", autouse=True)
def forget():
    """The runs of this module are large."""
    yield
    seen.cache_clear()


def label_of(name: str) -> np.ndarray:
    """The label in the order in which messages have the rows."""
    y = data(0).y
    return y[batches(NETWORK, ROWS)[0]] if name == "network" else y


def test_the_interval_is_four_deviations_of_a_guess():
    assert 4 * deviation(data(0).y[ROWS // 4 :]) < min(HIGH - 0.5, 0.5 - LOW)


# --- learning from whatever belongs to a row


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        ("glm", 1000),
        ("glm with tests", 2000),
        ("weights of evidence", 10),
        ("linear", 10),
        ("trees", 400),
        ("network", 1000),
    ],
)
def test_the_label_cannot_be_learned_from_what_a_passive_owner_sees(name, fewest):
    columns = by_row(seen(name).everything(), ROWS)
    assert columns.shape[1] > fewest
    assert LOW < learned_auc(columns, label_of(name)) < HIGH


def test_the_label_can_be_learned_where_routing_is_revealed():
    """The same attack on the same trees, with the setting that tells every owner which rows go where."""
    columns = by_row(seen("trees with routing revealed").everything(), ROWS)
    assert learned_auc(columns, label_of("trees")) > 0.8


def residuals(name: str) -> tuple[Seen, list[np.ndarray]]:
    """A run, and the passive owner's shares of the residuals of every pass."""
    kept, real = [], Logistic.residual

    def residual(self, session, tickets, eta, rows, *, fine):
        out = real(self, session, tickets, eta, rows, fine=fine)
        if session.parties[session.me] == PASSIVE:
            kept.append(out.copy())
        return out

    with patch.object(Logistic, "residual", residual):
        return seen.__wrapped__(name), kept


def test_residuals_are_not_to_be_had_from_what_is_sent_and_ones_own_shares_unless_the_mask_is_missing():
    """The active owner sends its share of the residuals under a mask; the attacker adds its own share.

    The weak variant is the same message without its mask, which the test takes off again.
    """
    run, mine = residuals("glm")
    y = label_of("glm")
    sent = [words for words in run.received("matrix/vector") if words.size == ROWS]
    masks = [
        pieces[0][:, 0]
        for request, pieces in run.diaries[ACTIVE].kept
        if isinstance(request, MatrixProduct) and request.transpose and pieces and pieces[0].shape == (ROWS, 1)
        if request.owner == 1
    ]
    assert len(mine) == len(sent) == len(masks) == GLM.passes
    for share, message, mask in zip(mine, sent, masks, strict=True):
        weak = decode(message + mask + share, RESIDUAL_BITS)
        assert roc_auc_score(y, -weak) > 0.999
        for attempt in (message + share, message, share):
            assert abs(roc_auc_score(y, decode(attempt, RESIDUAL_BITS)) - 0.5) < SURE * deviation(y)
    weak_columns = by_row(
        [message + mask + share for share, message, mask in zip(mine, sent, masks, strict=True)], ROWS
    )
    assert learned_auc(weak_columns, y) > 0.99
    assert (
        LOW < learned_auc(by_row([message + share for share, message in zip(mine, sent, strict=True)], ROWS), y) < HIGH
    )


# --- solving for residuals from gradients


@pytest.mark.parametrize(("batch", "least"), [(8, 0.99), (16, 0.99), (64, 0.7)])
def test_gradients_of_batches_would_give_the_label_away(batch, least):
    """The design in which the passive owner is told its own block's gradient: as many equations as it has columns."""
    rng = np.random.default_rng(6)
    X, Z, y = rng.normal(size=(1024, 16)), data(0, 1024).Z, data(0, 1024).y
    guess = labels_from_gradients(X, gradients_in_the_clear(X, Z, y, batch))
    assert roc_auc_score(y, guess) > least


@pytest.mark.parametrize("name", ["glm", "glm with tests"])
def test_no_message_is_a_gradient_that_gives_the_label_away(name):
    """The same attack on every message and opening that has one word for each of the attacker's columns."""
    X, y, run = data(0).X, label_of(name), seen(name)
    d = X.shape[1]
    short = [words for words in run.everything() if words.dtype == np.uint64 and d <= words.size <= 2 * (d + d + 1)]
    assert len(short) > 10
    for words in short:
        gradient = decode(words.reshape(-1)[:d], GRADIENT_BITS)
        if np.abs(gradient).max() > 0:
            guess = labels_from_gradients(X, [(np.arange(ROWS), gradient)])
            assert abs(roc_auc_score(y, guess) - 0.5) < SURE * deviation(y)


# --- split learning: length and direction of a row's gradient


def test_length_and_direction_of_rows_gradients_would_give_the_label_away():
    """Split learning with a bias that fits the base rate: what the owner of the lower half gets back for each row."""
    d = data(1, 4096)
    embedded = np.hstack([d.X, d.Z]) @ (0.3 * np.random.default_rng(2).normal(size=(6, 8)))
    top = 0.3 * np.random.default_rng(3).normal(size=8)
    p = 1 / (1 + np.exp(-(embedded @ top + np.log(d.y.mean() / (1 - d.y.mean())))))
    by_norm, by_direction = norm_and_direction((p - d.y)[:, None] * top, d.y)
    assert by_norm > 0.99
    assert by_direction > 0.99


def test_nothing_that_a_network_shows_for_a_row_has_a_length_or_direction_that_tells_the_label():
    run, y = seen("network"), label_of("network")
    width = NETWORK.hidden[0]
    judged = 0
    for words in [*run.received(), *(words for _, words in opened(run.run))]:
        for columns in (width, NETWORK.hidden[1]):
            if words.size == ROWS * columns:
                signed = words.view(np.dtype(f"i{words.itemsize}")).astype(np.float64)
                for auc in norm_and_direction(signed.reshape(ROWS, columns), y):
                    assert abs(auc - 0.5) < SURE * deviation(y)
                    judged += 1
    assert judged > 20
