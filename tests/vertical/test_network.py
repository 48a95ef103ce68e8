"""Networks on shares against PyTorch's in the clear, ranges that are enforced, and what the messages look like."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.datasets import load
from mpc.activations import ACTIVATIONS
from mpc.dealer import run_dealer
from mpc.engine import bind
from mpc.errors import LocalProtocolError, OutOfRange, RemoteProtocolError
from mpc.session import Session
from mpc.supply import supply
from tests.harness import run_parties
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.network_reference import in_the_clear
from vertical.checkpoints import Checkpoints
from vertical.encoding import fit
from vertical.network import Fitted, Settings, batches, order, scores, train
from vertical.network_scales import Rates, Shape, as_inputs, scales

SMALL = Settings(hidden=(12, 6), epochs=3, batch=100)


def rows(n, dims, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, sum(dims)))
    return np.split(X, np.cumsum(dims)[:-1], axis=1), X


def binary(n, dims, seed=0):
    parts, X = rows(n, dims, seed)
    return parts, (np.tanh(2 * X[:, 0] * X[:, -1]) + X[:, 1] + 0.5 * X[:, -2] > 0).astype(float)


def run(parts, y, settings, active=0, score=True, **options):
    def owner(i):
        def body(session):
            fitted = train(session, parts[i], y if i == active else None, settings)
            return fitted, scores(session, fitted, parts[i]) if score else None

        return body

    return run_owners([owner(i) for i in range(len(parts))], **options)


def opened(results, index):
    """What the owners hold together: weights (0) or scores (1)."""
    words = [r[index].weights if index == 0 else r[index].words for r in results]
    return sum(words).view(np.int64) / 2.0 ** (18 if index == 0 else results[0][1].frac_bits)


# --- against PyTorch


@pytest.mark.parametrize(
    ("dims", "active", "changes", "bound"),
    [
        ([4, 3], 0, {}, 0.01),
        ([2, 5], 1, {"activation": "sigmoid", "learning_rate": 0.3, "hidden": (12,)}, 0.04),
        ([2, 3, 2], 2, {"activation": "silu", "weight_decay": 0.05}, 0.03),
        ([4, 3], 0, {"hidden": (8, 6, 4), "momentum": 0.5}, 0.01),
    ],
)
def test_the_weights_are_those_of_pytorch(dims, active, changes, bound):
    parts, y = binary(730, dims)
    settings = replace(SMALL, **changes)
    out = run(parts, y, settings, active)
    results = [out[name] for name in NAMES[: len(dims)]]
    weights, outputs = in_the_clear(parts, y, settings)
    assert np.abs(opened(results, 0) - weights).max() < bound
    assert np.abs(opened(results, 1) - outputs[:, 0]).max() < 10 * bound
    assert [r[0].target is None for r in results] == [i != active for i in range(len(dims))]


def test_several_classes():
    parts, X = rows(600, [3, 3])
    y = np.argmax(np.column_stack([X[:, 0], X[:, 4], X[:, 1] + X[:, 5], X[:, 2] * X[:, 3]]), axis=1).astype(float)
    settings = replace(SMALL, task="multiclass", classes=4)
    out = run(parts, y, settings)
    results = [out[name] for name in NAMES[:2]]
    weights, outputs = in_the_clear(parts, y, settings)
    assert results[0][1].words.shape == (600, 4)
    assert np.abs(opened(results, 0) - weights).max() < 0.01
    assert np.abs(opened(results, 1) - outputs).max() < 0.1


def test_regression():
    parts, X = rows(600, [3, 3])
    y = 40 + 5 * np.sin(X[:, 0]) + 3 * X[:, 4]
    settings = replace(SMALL, task="regression")
    out = run(parts, y, settings, active=1)
    results = [out[name] for name in NAMES[:2]]
    weights, outputs = in_the_clear(parts, y, settings)
    assert np.abs(opened(results, 0) - weights).max() < 0.02
    assert np.abs(opened(results, 1) - outputs[:, 0]).max() < 0.1
    target = results[1][0].target
    assert (target.mean, target.sd) == (y.mean(), y.std())


def test_adult_in_small_has_the_auc_of_pytorch():
    adult = load("adult")
    adult = adult.take(np.random.default_rng(1).permutation(len(adult.y))[:3000])
    train_rows = np.ones(3000, dtype=bool)
    owned = zip(adult.columns, adult.features)
    parts = [fit(c, f, train_rows, winsorise_sd=8, rare_category=30).transform(c) for c, f in owned]
    settings = Settings(hidden=(16, 8), epochs=3, batch=256)
    out = run(parts, adult.y, settings, adult.active)
    auc = roc_auc_score(adult.y, opened([out[name] for name in NAMES[:2]], 1))
    _, outputs = in_the_clear(parts, adult.y, settings)
    assert auc > 0.85
    assert auc == pytest.approx(roc_auc_score(adult.y, outputs[:, 0]), abs=0.005)


@pytest.mark.parametrize("mode", ["verified-dealer", "ot"])
def test_other_sources_of_randomness_do_as_well(mode):
    parts, y = binary(60, [2, 2])
    settings, names = replace(SMALL, hidden=(4, 3), epochs=1, batch=30), NAMES[:2]

    def party(i):
        def body(channel):
            source = supply(mode, channel, names, None if mode == "ot" else "dealer", i)
            session = Session(channel, names, i, source)
            with bind(session):
                fitted = train(session, parts[i], y if i == 0 else None, settings)
                out = fitted, scores(session, fitted, parts[i])
            source.settle()
            source.close()
            return out

        return body

    parties = {name: party(i) for i, name in enumerate(names)}
    if mode != "ot":
        parties["dealer"] = lambda channel: run_dealer(channel, names)
    out = run_parties(parties)
    weights, outputs = in_the_clear(parts, y, settings)
    assert np.abs(opened([out[name] for name in names], 0) - weights).max() < 0.01
    assert np.abs(opened([out[name] for name in names], 1) - outputs[:, 0]).max() < 0.05


# --- ranges


def test_a_weight_over_its_limit_stops_everybody():
    parts, y = binary(400, [3, 3])
    settings = replace(SMALL, weight_limit=1.0, learning_rate=0.5)
    with pytest.raises(OutOfRange, match="'a weight' left the range of training a network") as caught:
        run(parts, y, settings, score=False)
    assert type(caught.value.others[NAMES[1]]) is OutOfRange


def test_a_residual_over_its_limit_stops_everybody():
    parts, X = rows(400, [3, 3])
    y = np.zeros(400)
    y[0] = 1.0  # 20 standard deviations, taken as 8: in range, but not of a network that overshoots
    y[1:] = X[1:, 0] * 1e-3
    with pytest.raises(OutOfRange, match=r"'a residual'|'a weight'"):
        run(parts, y, replace(SMALL, task="regression", learning_rate=3.0, epochs=10, batch=10), score=False)


@pytest.mark.parametrize("bias", [31, -31])
def test_scores_out_of_range_are_clipped_and_nothing_else_changes(bias):
    parts, y = binary(200, [2, 2])
    settings = Settings(hidden=(4,), epochs=1, batch=200)
    out = run(parts, y, settings, score=False)
    fitted = [out[name][0] for name in NAMES[:2]]
    large = fitted[0].weights.copy()
    # Some outputs pass the limit with this last bias, some do not.
    settings.shape((2, 2)).split(large)[1][-1] += np.int64(bias << 18).astype(np.uint64)
    changed = [replace(fitted[0], weights=large), fitted[1]]
    before, after = (
        run_owners([lambda s, m=m, p=p: (m, scores(s, m, p)) for m, p in zip(models, parts)])
        for models in (fitted, changed)
    )
    old, new = (opened([o[name] for name in NAMES[:2]], 1) for o in (before, after))
    assert (np.abs(new) >= 31.99).any()
    assert (np.abs(new) < 31.9).any()
    assert np.abs(new - np.clip(old + bias, -32, 32)).max() < 0.02
    assert np.abs(new).max() <= before[NAMES[0]][1].bound == 32


def test_inputs_are_rounded_to_twelve_bits():
    X = np.random.default_rng(2).normal(size=(50, 3))
    assert np.abs(as_inputs(X) / 2**12 - X).max() <= 2**-13
    assert as_inputs(np.array([[100.0, -100.0]])).tolist() == [[32767, -32767]]


def test_inputs_beyond_eight_deviations_count_as_eight():
    parts, y = binary(200, [2, 2])
    parts[0][0] = 1e9
    settings = Settings(hidden=(4,), epochs=1, batch=200, activation="sigmoid")
    out = run(parts, y, settings)
    parts[0][0] = 8.0
    _, outputs = in_the_clear(parts, y, settings)
    assert np.abs(opened([out[name] for name in NAMES[:2]], 1) - outputs[:, 0]).max() < 0.02


@pytest.mark.parametrize("hidden", [(4,), (64, 32), (128, 64, 32), (300,), (8, 8, 4, 4)])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_no_intermediate_can_wrap(hidden, task):
    """With everything at its limit, magnitudes computed forward and backward as a network would have them fit 62 bits."""
    activation, limit, size = ACTIVATIONS["tanh"], 2.0, 512
    shape = Shape((30, 20), hidden, 3 if task == "multiclass" else 1)
    found = scales(shape, task, activation, Rates(0.05, 0.9, 1e-4, limit), size)
    residual = 16.0 if task == "regression" else 1.01
    delta = np.full((1, shape.outputs), residual)
    bits = found.delta[-1]
    for i in reversed(range(1, len(shape.layers))):
        back = np.abs(delta) @ np.full((shape.layers[i][1], shape.layers[i][0] - 1), limit)
        assert back.max() * 2.0 ** (bits + 18) < 2**62
        bits = found.middle[i - 1] or bits + 18
        assert back.max() * 1.1 * 2.0 ** (bits + 18) < 2**62
        assert size * delta.max() * 1.1 * 2.0 ** found.gradient[i] < 2**62
        delta, bits = back * 1.1, found.delta[i - 1]
    assert size * delta.max() * 8 * 2.0 ** found.gradient[0] < 2**62
    move = 0.05 * (8 * delta.max() + 1e-4 * limit) / (1 - 0.9)
    assert move * 2.0 ** (18 + found.drop[0]) < 2**62
    assert min(found.drop) > 0


@pytest.mark.parametrize(
    "changes", [{"hidden": (4096, 4096), "weight_limit": 64.0}, {"learning_rate": 10.0, "momentum": 0.99}]
)
def test_a_network_that_might_wrap_is_refused_before_anything_is_sent(changes):
    settings = replace(SMALL, **{"activation": "silu", "weight_limit": 64.0, **changes})
    parts, y = binary(300, [2, 2])
    with pytest.raises(LocalProtocolError, match="might not fit"):
        run(parts, y, settings)


def test_a_learning_rate_that_cannot_be_told_from_zero_is_refused():
    parts, y = binary(300, [2, 2])
    with pytest.raises(LocalProtocolError, match=r"too small|slowly"):
        run(parts, y, replace(SMALL, learning_rate=1e-12))


# --- what is public, and what the messages look like


def test_batches_cover_every_row_once_and_every_epoch_takes_them_all():
    cut = batches(SMALL, 1234)
    assert sorted(np.concatenate(cut).tolist()) == list(range(1234))
    assert {len(c) for c in cut} <= {94, 95}
    orders = [order(SMALL, epoch, len(cut)) for epoch in range(3)]
    assert all(sorted(o) == list(range(len(cut))) for o in orders)
    assert len({tuple(o) for o in orders}) == 3


def test_messages_depend_on_sizes_only():
    shapes = [run(*binary(230, [3, 2], seed), replace(SMALL, epochs=2)).shape() for seed in (1, 2)]
    assert shapes[0] == shapes[1]


def test_rounds_and_bytes_are_as_stated():
    n, a, b = 300, 12, 6
    parts, y = binary(n, [3, 3])

    def sent(epochs):
        out = run(parts, y, replace(SMALL, epochs=epochs), score=False)
        tags = [m.tag for m in out.transcript if (m.sender, m.receiver) == NAMES[:2]]
        return out.bytes_sent(*NAMES[:2]), tags

    (two, tags_two), (three, tags_three) = sent(2), sent(3)
    steps = 3
    forward = [8 * 3 * a * steps, n * 4 * a, 8 * (n * a + steps * a * b), n * 4 * b, 8 * (n * b + steps * b), 4 * n]
    to_weights = 8 * (n * b + n) + 8 * (n * a + n * b)
    to_values = 8 * (n + steps * b) + 8 * (n * b + steps * a * b)
    slopes = (16 + 8) * n * (a + b)
    size = 7 * a + (a + 1) * b + b + 1
    guards = sum(8 * k + 560 * -(-k // 64) + 8 for k in (steps * size, n))
    assert three - two == sum(forward) + to_weights + to_values + slopes + 8 * n * a + 8 * steps * size + guards
    step_tags = ["matrix/vector", *["fourier/turn", "products/open"] * 2, "fourier/turn"]
    step_tags += [*["products/open", "products/open", "truncation/open"] * 2, "matrix/vector", "truncation/open"]
    assert len(step_tags) == 5 * 2 + 4
    added = tags_three[len(tags_two) :]
    # Neighbouring openings of one round may travel in several messages; a round has one tag.
    seen = [tag for tag, _ in itertools.groupby(t for t in added if not t.startswith(("compare", "network/range")))]
    wanted = [tag for tag, _ in itertools.groupby(step_tags * steps)]
    assert seen == wanted


def test_all_words_that_an_owner_sees_look_uniform():
    parts, y = binary(400, [3, 3])
    out = run(parts, y, replace(SMALL, epochs=2))
    body = b"".join(
        m.body for m in out.transcript if m.receiver == NAMES[1] and m.kind >= 3 and not m.tag.startswith("dealer")
    )
    counts = np.bincount(np.frombuffer(body, dtype=np.uint8), minlength=256)
    assert ((counts - counts.mean()) ** 2).sum() / counts.mean() < 255 + 6 * np.sqrt(2 * 255)


# --- what is kept


def test_a_part_survives_its_document_and_a_damaged_one_does_not():
    parts, y = binary(200, [2, 2])
    out = run(parts, y, replace(SMALL, epochs=1))
    for name in NAMES[:2]:
        fitted = out[name][0]
        again = Fitted.from_document(fitted.document())
        assert (again.weights == fitted.weights).all()
        assert replace(again, weights=fitted.weights) == fitted
    good = out[NAMES[0]][0].document()
    for key, value in [
        ("format", "x"),
        ("inputs", [2, -1]),
        ("place", 2),
        ("target", None),
        ("weights", {**good["weights"], "data": "AAAA"}),
        ("weights", None),
        ("settings", {**good["settings"], "hidden": [1]}),
        ("settings", {"epochs": 1}),
    ]:
        with pytest.raises(LocalProtocolError):
            Fitted.from_document({**good, key: value})


def test_a_share_alone_says_nothing():
    """Two fits of the same data: each owner's shares differ everywhere, what they add up to does not."""
    parts, y = binary(300, [2, 2])
    first, second = (run(parts, y, replace(SMALL, epochs=1), score=False) for _ in range(2))
    for name in NAMES[:2]:
        assert (first[name][0].weights != second[name][0].weights).mean() > 0.99
    sums = [opened([out[name] for name in NAMES[:2]], 0) for out in (first, second)]
    assert np.abs(sums[0] - sums[1]).max() < 5e-3


class Memory:
    """A store of checkpoints that forgets nothing but what it is told to."""

    def __init__(self):
        self.kept = {}

    def put(self, name, body):
        self.kept[name] = body

    def get(self, name):
        return self.kept.get(name)

    def names(self):
        return list(self.kept)

    def drop(self, name):
        self.kept.pop(name, None)


def test_training_goes_on_from_a_checkpoint():
    parts, y = binary(300, [2, 2])
    stores, seen = [Memory(), Memory()], []

    def body(i, epochs):
        def train_some(session):
            def stop_after(done, _total):
                seen.append(done)
                if done == epochs:
                    raise KeyboardInterrupt

            kept = Checkpoints(stores[i], "network", b"plan")
            return train(session, parts[i], y if i == 0 else None, SMALL, stop_after, kept), None

        return train_some

    with pytest.raises(KeyboardInterrupt):
        run_owners([body(0, 2), body(1, 2)])
    resumed = run_owners([body(0, 99), body(1, 99)])
    assert sorted(seen) == [1, 1, 2, 2, 3, 3]
    whole = run(parts, y, SMALL, score=False)
    results = [opened([out[name] for name in NAMES[:2]], 0) for out in (resumed, whole)]
    assert np.abs(results[0] - results[1]).max() < 5e-3


# --- bad input


def test_two_labels_or_none_are_refused():
    parts, y = binary(100, [2, 2])
    with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
        run_owners([lambda s: train(s, parts[0], y, SMALL), lambda s: train(s, parts[1], y, SMALL)])


def test_owners_with_other_rows_are_refused():
    parts, y = binary(100, [2, 2])
    with pytest.raises(RemoteProtocolError, match="states other rows"):
        run_owners([lambda s: train(s, parts[0], y, SMALL), lambda s: train(s, parts[1][:99], None, SMALL)])


@pytest.mark.parametrize("inputs", [np.full((100, 2), np.nan), np.zeros((0, 2)), np.zeros(100)])
def test_inputs_that_are_none_are_refused(inputs):
    parts, y = binary(100, [2, 2])
    with pytest.raises(LocalProtocolError, match="finite numbers"):
        run([parts[0], inputs], y, SMALL)


@pytest.mark.parametrize(
    ("task", "label"), [("binary", 2.0), ("binary", np.nan), ("multiclass", 0.5), ("regression", np.inf)]
)
def test_labels_that_are_none_are_refused(task, label):
    parts, y = binary(100, [2, 2])
    y[0] = label
    with pytest.raises(LocalProtocolError, match="label"):
        run(parts, y, replace(SMALL, task=task, classes=3 if task == "multiclass" else 2))


def test_anothers_part_does_not_score():
    parts, y = binary(100, [2, 2])
    out = run(parts, y, replace(SMALL, epochs=1), score=False)
    mine = [out[name][0] for name in NAMES[:2]]
    with pytest.raises(LocalProtocolError, match="another owner's"):
        run_owners([lambda s: scores(s, mine[1], parts[0]), lambda s: scores(s, mine[1], parts[1])])


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "ranking"},
        {"classes": 3},
        {"task": "multiclass", "classes": 15},
        {"hidden": ()},
        {"hidden": (1,)},
        {"activation": "relu"},
        {"epochs": 0},
        {"momentum": 1.0},
        {"learning_rate": 0.0},
        {"weight_limit": 100.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(LocalProtocolError):
        replace(SMALL, **changes)
