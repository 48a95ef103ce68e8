"""Every model: a training that is killed at a random pass goes on with new randomness, and comes to the same model."""

import numpy as np
import pytest

from mpc.dealer import Correlations, run_dealer
from mpc.engine import bind
from mpc.session import Session
from mpc.wire import Kind
from tests.harness import try_parties
from tests.vertical.helpers import NAMES, blocks
from tests.vertical.test_checkpoints import Killed, Memory
from vertical import glm, multinomial, network, network_parts
from vertical.binning import Binner
from vertical.checkpoints import Checkpoints
from vertical.encoding import Feature
from vertical.trees.settings import Settings as TreesSettings
from vertical.trees.train import train as train_trees

DIMS, ROWS = [3, 2], 400
PARTS, LABEL = blocks(ROWS, DIMS, seed=5)
CLASSES = (LABEL + (PARTS[1][:, 0] > 0.5)).astype(float)


def coefficients(results):
    """What both owners are given, one after the other."""
    both = [results[name] for name in NAMES[:2]]
    return np.concatenate([*(f.weights.reshape(-1) for f in both), np.atleast_1d(both[0].intercept)])


def standard_errors(results):
    both = [results[name] for name in NAMES[:2]]
    return np.concatenate([coefficients(results), *(f.inference.errors for f in both)])


def classes(results):
    both = [results[name] for name in NAMES[:2]]
    return np.concatenate([*(f.weights.reshape(-1) for f in both), both[0].intercepts])


def shared(results):
    """The weights behind the shares."""
    words = np.add.reduce([results[name].weights for name in NAMES[:2]])
    return words.view(np.int64) / 2.0**network.WEIGHT_BITS


def trees(results):
    """Which splits each owner knows, and the leaves behind the shares."""
    both = [results[name] for name in NAMES[:2]]
    leaves = np.add.reduce([f.leaves for f in both]).view(np.int64) / 2.0 ** both[0].frac_bits
    known = [array.reshape(-1) for f in both for array in (f.owners, f.feature, f.bins)]
    return np.concatenate([*known, leaves.reshape(-1)])


def binned(part):
    columns = {f"x{i}": part[:, i] for i in range(part.shape[1])}
    binner = Binner.fit(columns, [Feature(name, "number") for name in columns], np.ones(len(part), dtype=bool), 8)
    return binner.transform(columns)


def grow(session, inputs, *rest):
    return train_trees(session, binned(inputs), *rest)


MODELS = {
    # model: (train, settings, labels, steps, what it comes to, bound: some three times what two quiet runs differ by, because
    # each truncation may round either way; a standard error is 0.14 here)
    "logistic": (glm.train, glm.Settings(passes=40, ridge=1.0, inference=False), LABEL, 40, coefficients, 5e-4),
    "inference": (glm.train, glm.Settings(passes=20), LABEL, 21, standard_errors, 5e-4),
    "multinomial": (multinomial.train, multinomial.Settings(passes=30), CLASSES, 30, classes, 2e-4),
    "trees": (grow, TreesSettings(trees=6, depth=2), LABEL, 6, trees, 5e-4),
    "network": (
        network.train,
        network_parts.Settings(hidden=(4,), epochs=6, batch=128, learning_rate=0.1),
        LABEL,
        6,
        shared,
        4e-3,
    ),
}


def owners(bodies):
    """Two owners and a dealer, of whom any may die."""

    def party(i):
        def run(channel):
            session = Session(channel, NAMES[:2], i, Correlations(channel, "dealer", i, 2))
            with bind(session):
                result = bodies[i](session)
            session.correlations.close()
            return result

        return run

    parties = {name: party(i) for i, name in enumerate(NAMES[:2])}
    return try_parties({**parties, "dealer": lambda channel: run_dealer(channel, NAMES[:2])})


def attempt(model, stores, kill=(None, 0), told=None):
    """One attempt; the owner `kill[0]` dies when it has reported `kill[1]` steps.  Returns the run."""
    train, settings, labels = model[:3]
    victim, steps = kill

    def body(i):
        def run(session: Session):
            reports = []

            def progress(_done, _total):
                reports.append(None)
                if NAMES[i] == victim and len(reports) == steps:
                    raise Killed(victim)

            resumed = (lambda _step: None) if told is None else told.append
            checkpoints = Checkpoints(stores[i], "training", b"plan", every=2, resumed=resumed)
            return train(session, PARTS[i], labels if i == 0 else None, settings, progress, checkpoints)

        return run

    return owners([body(0), body(1)])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A model, and what it comes to when nothing happens."""
    chosen = MODELS[request.param]
    run = attempt(chosen, [Memory(), Memory()])
    assert not run.errors
    return chosen, chosen[4](run.results)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_training_that_is_killed_at_random_comes_to_the_same_model(model, seed):
    """Twice: each owner dies once, at a random step."""
    chosen, quiet = model
    steps, comes_to, bound = chosen[3:]
    rng, stores, told = np.random.default_rng(seed), [Memory(), Memory()], []
    at = [int(rng.integers(1, steps // 2)), int(rng.integers(1, steps // 2))]
    for victim, step in zip(rng.permutation(NAMES[:2]), at, strict=True):
        run = attempt(chosen, stores, (str(victim), step), told)
        assert isinstance(run.errors[str(victim)], Killed)
    run = attempt(chosen, stores, told=told)
    assert not run.errors
    if told:
        assert told[-1] >= sum(at) - 6, "more than a few steps were repeated"
        assert told[-1] % 2 == 0
    assert np.abs(comes_to(run.results) - quiet).max() < bound


def test_a_training_that_was_at_its_end_comes_to_it_again(model):
    chosen, quiet = model
    stores = [Memory(), Memory()]
    attempt(chosen, stores)
    told = []
    run = attempt(chosen, stores, told=told)
    assert not run.errors
    assert len(told) == 2
    assert np.abs(chosen[4](run.results) - quiet).max() < chosen[5]


def test_nothing_that_an_attempt_sent_is_sent_again(model):
    """The same step is gone on from twice; what is opened under masks and every share are other words each time."""
    chosen, _ = model
    stores = [Memory(), Memory()]
    attempt(chosen, stores, ("platform", 3))
    kept = [dict(store.pieces) for store in stores]
    runs = []
    for _ in range(2):
        for store, pieces in zip(stores, kept, strict=True):
            store.pieces.clear()
            store.pieces.update(pieces)
        runs.append(attempt(chosen, stores))
    bodies = [{m.body for m in run.transcript if m.kind is not Kind.JSON and m.size >= 32} for run in runs]
    assert min(map(len, bodies)) > 20
    assert not bodies[0] & bodies[1]


def test_no_state_is_of_use_to_another_computation(model):
    """A state of another model has other arrays, and is refused by name instead of being used."""
    chosen, _ = model
    stores = [Memory(), Memory()]

    def body(i):
        def run(session: Session):
            checkpoints = Checkpoints(stores[i], "training", b"plan")
            if checkpoints.restore(session) is None:
                checkpoints.save(1, {"other": np.zeros(3, dtype=np.uint64)})

        return run

    owners([body(0), body(1)])
    run = attempt(chosen, stores)
    assert not run.results.keys() & set(NAMES)
    assert all("a kept state must have" in str(run.errors[name]) for name in NAMES[:2]), run.errors
