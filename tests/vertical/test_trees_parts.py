"""What a model of trees is kept as, how training goes on from a checkpoint, and the bounds that its arithmetic rests on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.engine import bind
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.ring import decode, encode
from mpc.session import Session
from mpc.supply import supply
from tests.harness import run_parties
from tests.vertical import trees_reference
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.tree_runs import fit_all, labels, layout_of, score_all, table
from vertical.binning import Binned
from vertical.checkpoints import Checkpoints
from vertical.trees import fits, objective
from vertical.trees.model import Fitted
from vertical.trees.predict import scores
from vertical.trees.settings import Settings, candidates, scale_for
from vertical.trees.train import train


class Memory:
    """A store that outlives a run."""

    def __init__(self):
        self.pieces = {}

    def put(self, name, body):
        self.pieces[name] = body

    def get(self, name):
        return self.pieces.get(name)

    def names(self):
        return sorted(self.pieces)

    def drop(self, name):
        self.pieces.pop(name, None)


class Killed(Exception):
    """A worker died."""


@pytest.mark.parametrize("patience", [0, 3])
def test_training_goes_on_after_a_kill(patience):
    blocks = table(500, (3, 3), seed=2)
    y = labels(blocks)
    settings = Settings(trees=5, depth=3, patience=patience, validation=0.25 if patience else 0.0)
    whole = score_all(fit_all(blocks, y, settings), blocks)[0]
    stores, resumed = [Memory(), Memory()], []

    def kept():
        return [Checkpoints(store, "training", b"trees", resumed=resumed.append) for store in stores]

    def die(done, _total):
        if done == 3:
            raise Killed

    first = kept()
    owners = [lambda s, i=i: train(s, blocks[i], y if i == 0 else None, settings, die, first[i]) for i in range(2)]
    with pytest.raises(Killed):
        run_owners(owners)
    again = score_all(fit_all(blocks, y, settings, checkpoints=kept()), blocks)[0]
    assert resumed == [3, 3]
    assert np.abs(again - whole).max() < 2e-3


def test_a_state_of_another_model_is_refused():
    blocks = table(200, (3, 3), seed=2)
    y = labels(blocks)
    stores = [Memory(), Memory()]
    fit_all(
        blocks,
        y,
        Settings(trees=1, depth=2),
        checkpoints=[Checkpoints(store, "training", b"trees") for store in stores],
    )
    again = [Checkpoints(store, "training", b"trees") for store in stores]
    with pytest.raises(LocalProtocolError, match="a kept state must have"):
        fit_all(blocks, y, Settings(trees=2, depth=3), checkpoints=again)


@pytest.fixture(scope="module")
def small():
    blocks = table(200, (3, 3), seed=2)
    return blocks, fit_all(blocks, labels(blocks), Settings(trees=2, depth=2))


def test_the_document_is_everything(small):
    _, run = small
    for name in NAMES[:2]:
        part = run.results[name]
        again = Fitted.from_document(json.loads(json.dumps(part.document())))
        assert again.document() == part.document()
        assert again.leaves.tobytes() == part.leaves.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("leaves"),
        lambda d: d.update(more=1),
        lambda d: d.update(me=2),
        lambda d: d.update(depth=3),
        lambda d: d.update(bound="-1.0"),
        lambda d: d.update(objective="guess"),
        lambda d: d.update(names=["c0"]),
        lambda d: d["leaves"].update(dtype="int64"),
        lambda d: d["leaves"].update(data="!"),
        lambda d: d["owners"].update(shape=[3, 2]),
        lambda d: d.update(owners=d["feature"]),
    ],
)
def test_a_malformed_document_is_refused(small, change):
    document = json.loads(json.dumps(small[1].results["lender"].document()))
    change(document)
    with pytest.raises(LocalProtocolError, match="malformed"):
        Fitted.from_document(document)


def test_rows_with_other_columns_and_owners_that_disagree_are_refused(small):
    blocks, run = small
    parts = [run.results[name] for name in NAMES[:2]]
    other = Binned(blocks[0].codes, 8, ("x", "y", "z"), blocks[0].missing)
    with pytest.raises(LocalProtocolError, match="other columns"):
        run_owners([lambda s: scores(s, parts[0], other), lambda s: scores(s, parts[1], blocks[1])])
    short = blocks[1].take(np.arange(9))
    with pytest.raises(RemoteProtocolError, match="other rows"):
        run_owners([lambda s: scores(s, parts[0], blocks[0]), lambda s: scores(s, parts[1], short)])


def test_scoring_works_in_pieces(small, monkeypatch):
    blocks, run = small
    whole, _ = score_all(run, blocks)
    monkeypatch.setattr("vertical.trees.predict.CHUNK_WORDS", 100)
    pieces, _ = score_all(run, blocks)
    assert np.array_equal(whole, pieces)


@pytest.mark.parametrize("mode", ["verified-dealer", "ot"])
def test_every_source_of_correlations_will_do(mode):
    blocks = [b.take(np.arange(60)) for b in table(60, (3, 3), seed=2)]
    y = labels(blocks)
    settings, names = Settings(trees=1, depth=1), NAMES[:2]

    def party(me):
        def body(channel):
            source = supply(mode, channel, names, None if mode == "ot" else "dealer", me)
            session = Session(channel, names, me, source)
            with bind(session):
                found = scores(session, train(session, blocks[me], y if me == 0 else None, settings), blocks[me])
                source.settle()
            source.close()
            return found.words

        return body

    parties = {name: party(i) for i, name in enumerate(names)}
    dealer = {} if mode == "ot" else {"dealer": lambda channel: run_dealer(channel, names)}
    run = run_parties({**parties, **dealer})
    found = (run["lender"] + run["platform"]).view(np.int64) * 2.0**-24
    assert np.abs(found - score_all(fit_all(blocks, y, settings), blocks)[0]).max() < 2e-3


@pytest.mark.parametrize("bound", [16, 32, 64])
def test_the_series_are_as_close_as_they_say(bound):
    x = np.linspace(-bound, bound, 20001)
    p = 1 / (1 + np.exp(-x))
    mean, weight, softplus = (getattr(fits, f"{name}_{bound}") for name in ("MEAN", "WEIGHT", "SOFTPLUS"))
    assert np.abs(mean(x) - p).max() <= mean.error < 2e-4
    assert np.abs(weight(x) - p * (1 - p)).max() <= weight.error < 3e-4
    assert weight(x).min() >= 0
    assert np.abs(softplus(x) - (np.logaddexp(0, x) - x / 2)).max() <= softplus.error < 1e-3


@pytest.mark.parametrize("kind", ["logistic", "squared", "poisson"])
@pytest.mark.parametrize("n", [100, 10_000, 1_000_000])
def test_sums_of_gradients_fit_their_words(kind, n):
    blocks = table(100, (3, 3), seed=1)
    settings = Settings(objective=kind)
    layout = layout_of(blocks, labels(blocks, kind), settings)
    layout = layout.__class__(n, *(getattr(layout, f) for f in ("blocks", "active", "exponent", "top")))
    scale = scale_for(settings, layout)
    bound = settings.bound(settings.trees)
    largest = {"logistic": 1.0, "squared": bound + 1, "poisson": max(np.exp(bound - 0.7), 2.0**layout.top)}[kind]
    assert n * largest * scale.unit < 2**30
    assert (scale.total + 2 * scale.reg_lambda) * scale.unit <= 2**30 * 1.001
    assert (scale.least + scale.reg_lambda) / scale.total >= 2.0**-17.6


def test_candidates_cover_every_way_to_cut():
    blocks = table(100, (2, 3), seed=1)
    layout = layout_of(blocks, np.arange(100) % 2.0, Settings())
    found = candidates(layout, Settings(), 0)
    plain = [c for c in zip(found.owner, found.feature, found.bins, found.left) if c[1] != 1]
    assert plain == [(0, 0, b, True) for b in range(1, 7)] + [(1, f, b, True) for f in (0, 2) for b in range(1, 7)]
    gaps = [(c[2], c[3]) for c in zip(found.owner, found.feature, found.bins, found.left) if c[:2] == (0, 1)]
    assert gaps == [(b, True) for b in range(1, 7)] + [(b, False) for b in range(1, 8)]
    assert found.starts == [0, 19]


def test_sampled_columns_are_as_many_in_every_tree():
    blocks = table(100, (4, 5), seed=1)
    settings = Settings(colsample=0.5)
    layout = layout_of(blocks, np.arange(100) % 2.0, settings)
    chosen = [candidates(layout, settings, t).columns for t in range(6)]
    assert {(len(a), len(b)) for a, b in chosen} == {(2, 2)}
    assert len({tuple(a) + tuple(b) for a, b in chosen}) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "ranking"},
        {"trees": 0},
        {"depth": 9},
        {"learning_rate": 0.0},
        {"reg_lambda": 0.0},
        {"max_leaf": 9.0},
        {"subsample": 0.0},
        {"colsample": 1.1},
        {"monotone": (("c0", 2),)},
        {"validation": 0.2},
        {"patience": 2},
        {"routing": "open"},
        {"seed": -1},
        {"trees": 2000, "learning_rate": 0.5, "max_leaf": 4.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(LocalProtocolError):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("kind", "y"),
    [
        ("logistic", [0.0, 1.0, 2.0]),
        ("logistic", [1.0, 1.0]),
        ("squared", [1.0, np.nan]),
        ("squared", [1e9, 1.0]),
        ("squared", [1e9, 1e9 + 1]),
        ("poisson", [-1.0, 2.0]),
        ("poisson", [0.0, 0.0]),
    ],
)
def test_labels_that_do_not_fit_the_objective_are_refused(kind, y):
    with pytest.raises(LocalProtocolError, match="label"):
        objective.label_scale(Settings(objective=kind), np.array(y))


def test_a_label_of_which_rounding_would_leave_nothing_is_refused():
    y = np.append(np.zeros(999), 100.0)
    settings = Settings(objective="squared", trees=90, depth=1)
    layout = layout_of(table(1000, (1, 1), seed=1), y, settings)
    fine = scale_for(settings, layout)
    assert np.allclose(objective.in_units(settings, layout, fine, y), (y - 0.1) / 128)
    with pytest.raises(LocalProtocolError, match="too close beside its range"):
        objective.in_units(settings, layout, replace(fine, bits=6), y)


@pytest.mark.parametrize("kind", ["logistic", "squared", "poisson"])
def test_losses_and_gradients_are_those_of_the_objective(kind):
    n, settings = 300, Settings(objective=kind)
    blocks = table(n, (3, 3), seed=1)
    y = labels(blocks, kind)
    layout = layout_of(blocks, y, settings)
    scale, y = scale_for(settings, layout), y * 2.0**-layout.exponent
    z = np.random.default_rng(0).uniform(-0.7, 0.9, n)
    share = np.random.default_rng(1).integers(0, 2**63, n, dtype=np.uint64)
    words = [encode(z, 24) - share, share]

    def owner(me):
        def body(session):
            mine = y if me == 1 else None
            asked = [objective.plan_gradients(settings, layout, scale, 3), objective.plan_loss(settings, layout, n, 3)]
            first, second = (session.correlations.plan(plan) for plan in asked)
            both = objective.gradients(session, first, words[me], mine, settings, scale, 3)
            return both, objective.loss(session, second, words[me], mine, settings, 3)

        return body

    run = run_owners([owner(0), owner(1)])
    both, loss = (np.add.reduce([run.results[name][i] for name in NAMES[:2]]) for i in range(2))
    g, h = trees_reference.gradients(settings, z, y)
    near = 0.005 if kind == "poisson" else 0.002
    assert np.abs(decode(both, scale.bits) - [g, h]).max() < near * max(1, np.abs(g).max())
    assert decode(both[1], scale.bits).min() >= 0
    plain = {"logistic": np.logaddexp(0, z) - y * z, "squared": (z - y) ** 2, "poisson": np.exp(z) - y * z}[kind]
    bits = {"logistic": 36, "squared": 24, "poisson": 34}[kind]
    assert decode(loss, bits)[0] == pytest.approx(plain.sum(), abs=near * n)
