"""What a passive owner can make of what it receives: nothing here, and the label where gradients of rows are shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mpc.errors import RemoteProtocolError
from mpc.ring import decode
from mpc.wire import Kind
from tests.vertical.helpers import NAMES, run_owners
from vertical.network import Settings, batches, first_weights, train
from vertical.network_scales import WEIGHT_BITS

N, HIDDEN = 1200, (4, 2)
SETTINGS = Settings(hidden=HIDDEN, epochs=4, batch=N)


def data(seed=0):
    X = np.random.default_rng(seed).normal(size=(N, 6))
    y = (X @ [1, -1, 0.5, 1, 1, -0.5] + X[:, 0] * X[:, 3] > 1.5).astype(float)
    return [X[:, :3], X[:, 3:]], y


def fit(parts, y, settings=SETTINGS, **options):
    bodies = [lambda s, i=i: train(s, parts[i], y if i == 0 else None, settings) for i in (0, 1)]
    return run_owners(bodies, **options)


def per_row(messages):
    """Every column of numbers in these messages that belongs to the rows of the one batch."""
    columns = []
    for message in messages:
        words = np.frombuffer(message.body, dtype=np.uint32 if message.kind == Kind.WORDS32 else np.uint64)
        width = len(words) // N
        if width:
            columns.append(words[: N * width].reshape(N, width).astype(float))
    return np.hstack(columns)


def test_no_message_helps_to_guess_a_label():
    parts, y = data()
    run = fit(parts, y)
    tags = ("matrix/vector", "fourier/turn", "products/open", "truncation/open")
    seen = [m for m in run.transcript if m.receiver == NAMES[1] and m.sender == NAMES[0] and m.tag in tags]
    received = per_row(seen)
    assert received.shape[1] > 100
    label = y[batches(SETTINGS, N)[0]]
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    guess = cross_val_predict(model, received, label, cv=4, method="predict_proba")[:, 1]
    deviation = 1 / np.sqrt(12 * min(label.sum(), (1 - label).sum()))
    assert abs(roc_auc_score(label, guess) - 0.5) < 5 * deviation


def test_gradients_of_rows_would_give_the_label_away():
    """The same network split in the middle, as split learning does: what the passive owner would get back."""
    parts, y = data()
    shape = SETTINGS.shape((3, 3))
    w = [torch.tensor(decode(layer, WEIGHT_BITS)) for layer in shape.split(first_weights(SETTINGS, shape))]
    z = (torch.tensor(np.hstack(parts)) @ w[0][:-1]).requires_grad_()
    out = torch.tanh(torch.tanh(z) @ w[1][:-1]) @ w[2][:-1]
    torch.nn.functional.binary_cross_entropy_with_logits(out[:, 0], torch.tensor(y), reduction="sum").backward()
    gradients = z.grad.numpy()
    known = gradients[np.flatnonzero(y == 1)[0]]  # one positive that the attacker knows of
    cosine = gradients @ known / np.linalg.norm(gradients, axis=1)
    assert roc_auc_score(y, cosine) > 0.95


def test_a_batch_never_shares_its_mask_with_other_rows():
    """Two fits over other rows: the masked inputs of each owner look unrelated, and every block has its own words."""
    parts, y = data()
    run = fit(parts, y, replace(SETTINGS, batch=200, epochs=1))
    masked = [m.body for m in run.transcript if m.tag == "matrix/mask" and m.sender == NAMES[0]]
    assert len(masked) == 6
    assert len({body[:64] for body in masked}) == 6
    same = np.zeros((N, 3))
    run = fit([same, same], y, replace(SETTINGS, batch=200, epochs=1))
    masked = [np.frombuffer(m.body, dtype=np.uint64) for m in run.transcript if m.tag == "matrix/mask"]
    assert len(np.unique(np.concatenate(masked))) == 2 * N * 3


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"rows":1200,"inputs":0,"label":false}', b'{"rows":1200,"inputs":3.0,"label":false}', b"x"]
)
def test_a_malformed_first_message_names_its_sender(body):
    parts, y = data()

    def tamper(message):
        return replace(message, body=body) if message.tag == "network/shape" and message.sender == NAMES[1] else message

    with pytest.raises(RemoteProtocolError, match=f"^{NAMES[1]} broke the protocol at step 'network/shape'"):
        fit(parts, y, tamper=tamper)
