"""Selection in secret against the same selection in the clear, and what it shows."""

import numpy as np
import pytest
from scipy.stats import f as f_distribution

from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from tests.vertical.helpers import NAMES, run_owners
from vertical.stepwise import Settings, select

OPTIONS = {"argnames": "direction", "argvalues": ["forward", "backward", "both"]}


def table(n, dims, seed, noise=2.0):
    """Correlated columns, of which every second one matters."""
    rng = np.random.default_rng(seed)
    d = sum(dims)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d)))
    y = X @ np.where(np.arange(d) % 2, rng.normal(size=d), 0.0) + noise * rng.normal(size=n) + 3
    return np.split(X, np.cumsum(dims)[:-1], axis=1), y


def rss(X, y, chosen):
    design = np.column_stack([np.ones(len(y)), X[:, sorted(chosen)]])
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


def plain(X, y, settings):
    """The textbook's algorithm; returns the columns in order of entry, and the smallest distance of an F from its border."""
    n, d = X.shape
    chosen = list(range(d)) if settings.direction == "backward" else []
    trace = []
    while True:
        base = rss(X, y, chosen)
        if settings.direction != "forward" and chosen:
            df = n - 1 - len(chosen)
            F = [(rss(X, y, set(chosen) - {c}) - base) / (base / df) for c in chosen]
            if min(F) < f_distribution.isf(settings.remove, 1, df):
                trace.append(("leave", chosen.pop(int(np.argmin(F)))))
                continue
        left = [c for c in range(d) if c not in chosen]
        if settings.direction == "backward" or not left:
            return chosen, trace
        df = n - 2 - len(chosen)
        gains = [base - rss(X, y, [*chosen, c]) for c in left]
        best = int(np.argmax(gains))
        if gains[best] / ((base - gains[best]) / df) < f_distribution.isf(settings.enter, 1, df):
            return chosen, trace
        chosen.append(left[best])
        trace.append(("enter", left[best]))


def run(parts, y, settings, active=0, **options):
    bodies = [lambda s, i=i: select(s, parts[i], y if i == active else None, settings) for i in range(len(parts))]
    return run_owners(bodies, **options)


def traced(done, dims):
    """The steps as places in the joined table, from what each owner says of its own columns."""
    ends = np.cumsum([0, *dims])
    steps = [done.results[name].steps for name in NAMES[: len(dims)]]
    public = [[(s.action, s.owner, s.number) for s in each] for each in steps]
    assert all(each == public[0] for each in public)
    assert all((s.column is None) == (s.owner != i) for i, each in enumerate(steps) for s in each)
    return [(s.action, int(ends[s.owner]) + steps[s.owner][i].column) for i, s in enumerate(steps[0])]


@pytest.mark.parametrize(**OPTIONS)
@pytest.mark.parametrize("dims", [[4, 4], [2, 3, 2]])
def test_the_same_columns_are_chosen_as_in_the_clear(direction, dims):
    settings = Settings(direction)
    parts, y = table(400, dims, 19)
    done = run(parts, y, settings, active=1)
    chosen, trace = plain(np.hstack(parts), y, settings)
    assert traced(done, dims) == trace
    ends = np.cumsum([0, *dims])
    own = [ends[i] + c for i, name in enumerate(NAMES[: len(dims)]) for c in done.results[name].own]
    assert sorted(own) == sorted(chosen)
    assert sum(done.results["lender"].counts) == len(chosen)


def test_a_column_that_others_replace_leaves_again():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 800))
    both = a + b + 0.3 * rng.normal(size=800)
    y = a + b + 0.3 * rng.normal(size=800)
    parts = [np.column_stack([a, rng.normal(size=800)]), np.column_stack([both, b])]
    settings = Settings("both", enter=0.01, remove=0.02)
    done = run(parts, y, settings)
    trace = plain(np.hstack(parts), y, settings)[1]
    assert traced(done, [2, 2]) == trace
    assert trace[0] == ("enter", 2)


@pytest.mark.parametrize(**OPTIONS)
def test_columns_that_repeat_others_are_put_aside(direction):
    parts, y = table(500, [3, 3], 12, noise=0.5)
    parts[1][:, 2] = parts[0][:, 1] - parts[1][:, 1]
    parts[0][:, 2] = parts[0][:, 1] * -2 + 1
    done = run(parts, y, Settings(direction))
    chosen = [3 * i + c for i, name in enumerate(NAMES[:2]) for c in done.results[name].own]
    X = np.hstack(parts)[:, sorted(chosen)]
    assert np.linalg.cond(np.corrcoef(X.T)) < 1e3
    best, _ = plain(np.hstack([parts[0][:, :2], parts[1][:, :2]]), y, Settings(direction))
    assert rss(np.hstack(parts), y, chosen) < 1.02 * rss(np.hstack([parts[0][:, :2], parts[1][:, :2]]), y, best)


def test_noise_is_not_chosen_and_at_most_so_many_columns_are():
    parts, _ = table(300, [3, 3], 13)
    nothing = run(parts, np.random.default_rng(1).normal(size=300), Settings("forward", enter=1e-6, remove=1e-6))
    assert nothing.results["lender"].steps == ()
    assert nothing.results["lender"].counts == (0, 0)
    _, y = table(300, [3, 3], 13, noise=0.1)
    assert sum(run(parts, y, Settings("forward", most=2)).results["lender"].counts) == 2


def test_messages_depend_on_sizes_and_steps_only():
    parts, y = table(300, [2, 2], 14)
    runs = [run([p * scale for p in parts], y, Settings("forward", most=1)) for scale in (1.0, 5.0)]
    assert runs[0].shape() == runs[1].shape()


def test_what_does_not_fit_is_refused():
    parts, y = table(200, [2, 2], 15)
    with pytest.raises(Refused, match="takes 500 rows"):
        run(parts, y, Settings(minimum=500))
    with pytest.raises(LocalProtocolError, match="does not vary"):
        run([np.ones((200, 2)), parts[1]], y, Settings())
    with pytest.raises(RemoteProtocolError, match="other rows"):
        run([parts[0], parts[1][:-1]], y, Settings())
    with pytest.raises(RemoteProtocolError, match="exactly one owner"):
        run(parts, None, Settings())
    for wrong in ({"enter": 0.2}, {"direction": "up"}, {"most": 0}, {"minimum": 3}, {"enter": 0.0}):
        with pytest.raises(LocalProtocolError):
            Settings(**wrong)
