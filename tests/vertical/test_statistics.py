"""Correlations and variance inflation factors against NumPy and statsmodels, what they cost, and what is refused."""

import numpy as np
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.wire import send_json
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical.statistics import Settings, statistics


def run(parts, y=None, active=0, settings=None, **options):
    bodies = [
        lambda s, i=i: statistics(s, parts[i], y if i == active else None, settings or Settings())
        for i in range(len(parts))
    ]
    return run_owners(bodies, **options)


def plain_vif(X):
    X = np.column_stack([np.ones(len(X)), X])
    return np.array([variance_inflation_factor(X, j) for j in range(1, X.shape[1])])


@pytest.mark.parametrize("dims", [[4, 3], [2, 3, 2]])
def test_statistics_are_those_of_the_joined_table(dims):
    parts, y = blocks(700, dims, 3)
    parts = [part * 7 + 100 for part in parts]
    done = run(parts, y, active=1)
    R, ends = np.corrcoef(np.column_stack([*parts, y]).T), np.cumsum([0, *dims])
    vif = plain_vif(np.hstack(parts))
    for i, name in enumerate(NAMES[: len(dims)]):
        found, mine = done.results[name], slice(ends[i], ends[i + 1])
        assert np.abs(found.own - R[mine, mine]).max() < 1e-9
        assert np.abs(found.label - R[mine, -1]).max() < 1e-5
        assert sorted(found.cross) == [j for j in range(len(dims)) if j != i]
        for j, block in found.cross.items():
            assert np.abs(block - R[mine, ends[j] : ends[j + 1]]).max() < 1e-5
        assert found.vif == pytest.approx(vif[mine], rel=1e-3)


def test_columns_that_repeat_one_another_are_told_apart():
    parts, _ = blocks(900, [4, 3], 5)
    parts[0][:, 3] = parts[0][:, 0] - 2 * parts[0][:, 1]  # within one owner: exactly dependent
    parts[1][:, 2] = parts[1][:, 1] + 0.02 * np.random.default_rng(1).normal(size=900)
    left, right = (run(parts, settings=Settings(("vif", "correlations"))).results[n] for n in NAMES[:2])
    assert np.isinf(left.vif[[0, 1, 3]]).all()
    assert np.isfinite(left.vif[2])
    kept = plain_vif(np.hstack([parts[0][:, :3], parts[1]]))
    assert left.vif[2] == pytest.approx(kept[2], rel=1e-3)
    assert right.vif == pytest.approx(kept[3:], rel=1e-3)
    assert right.vif[1:].min() > 1000
    R = np.corrcoef(np.hstack(parts).T)
    assert np.abs(left.cross[1] - R[:4, 4:]).max() < 1e-5
    assert left.label is None


def test_a_factor_that_is_too_large_is_not_told():
    parts, _ = blocks(900, [3, 3], 6)
    parts[1][:, 1] = parts[0][:, 0] + 0.5 * parts[0][:, 2]
    left, right = (run(parts, settings=Settings(("vif",))).results[n] for n in NAMES[:2])
    assert np.isnan(left.vif[[0, 2]]).all()
    assert np.isnan(right.vif[1])
    assert right.vif[[0, 2]] == pytest.approx(plain_vif(np.hstack([parts[0], parts[1][:, [0, 2]]]))[[3, 4]], rel=1e-3)


@pytest.mark.parametrize("release", [("label_correlations",), ("correlations",), ("vif",)])
def test_nothing_is_shown_that_is_not_asked_for(release):
    parts, y = blocks(300, [2, 2], 7)
    done = run(parts, y, settings=Settings(release))
    for name in NAMES[:2]:
        found = done.results[name]
        assert (found.label is None) == ("label_correlations" not in release)
        assert (not found.cross) == ("correlations" not in release)
        assert (found.vif is None) == ("vif" not in release)
    masked = [m for m in done.transcript if m.tag == "matrix/mask" and m.sender == "lender"]
    assert sum(m.size for m in masked) == 8 * 300 * (2 + ("label_correlations" in release))


def test_messages_depend_on_sizes_only():
    shapes = []
    for seed in (1, 2):
        parts, y = blocks(200, [3, 2], seed)
        shapes.append(run(parts, y).shape())
    assert shapes[0] == shapes[1]


def test_what_does_not_fit_is_refused():
    parts, y = blocks(200, [3, 2], 8)
    with pytest.raises(Refused, match="take 300 rows"):
        run(parts, y, settings=Settings(minimum=300))
    with pytest.raises(Refused, match="take 210 rows"):
        run(parts, y, settings=Settings(rows_per_column=70))
    with pytest.raises(RemoteProtocolError, match="exactly one owner"):
        run(parts)
    with pytest.raises(LocalProtocolError, match="label does not vary"):
        run(parts, np.ones(200))
    with pytest.raises(LocalProtocolError, match="not a finite number"):
        run([parts[0], np.full((200, 2), np.nan)], y)
    with pytest.raises(RemoteProtocolError, match="other rows"):
        run([parts[0], parts[1][:-1]], y)
    for wrong in ({"release": ()}, {"release": ("all",)}, {"minimum": 5}, {"rows_per_column": 1}):
        with pytest.raises(LocalProtocolError):
            Settings(**wrong)


def test_owners_who_were_asked_for_other_statistics_stop():
    parts, y = blocks(200, [2, 2], 9)

    def body(i, release):
        return lambda s: statistics(s, parts[i], y if i == 0 else None, Settings(release))

    with pytest.raises(RemoteProtocolError, match="other statistics"):
        run_owners([body(0, ("vif",)), body(1, ("vif", "correlations"))])


def test_the_cost_is_what_is_stated():
    parts, y = blocks(1000, [12, 8], 10)
    limits = {"label_correlations": (0, 1), "correlations": (12, 20), "vif": (780, 860)}
    for item, (low, high) in limits.items():
        done = run(parts, y, settings=Settings((item,)))
        sent = [m for m in done.transcript if (m.sender, m.receiver) == ("lender", "platform")]
        masks = sum(m.size for m in sent if m.tag == "matrix/mask")
        assert masks == 8 * 1000 * (12 + (item == "label_correlations"))
        rest = sum(m.size for m in sent if m.tag not in ("matrix/mask", "statistics/shape") and "key" not in m.tag)
        assert low * 20**2 <= rest <= high * 20**2


@pytest.mark.parametrize(
    "stated", [{"rows": 201}, {"rank": 3}, {"columns": 10**6}, {"label": 1}, {"rank": 0}, {"asked": []}, {"more": 1}]
)
def test_sizes_that_cannot_be_are_refused(stated):
    parts, y = blocks(200, [2, 2], 11)
    honest = {"asked": [["correlations", "label_correlations", "vif"], 100, 10], "rows": 200, "columns": 2, "rank": 2}

    def liar(session):
        send_json(session.channel, "lender", "statistics/shape", {**honest, "label": False, **stated})

    with pytest.raises(RemoteProtocolError, match="platform broke the protocol"):
        run_owners([lambda s: statistics(s, parts[0], y, Settings()), liar])


@pytest.mark.parametrize("noise", [0.1, 0.05, 0.03])
def test_large_factors_are_right_or_not_told(noise):
    rng = np.random.default_rng(2)
    base = rng.normal(size=(2000, 2))
    parts = [base, np.column_stack([base[:, 0] + noise * rng.normal(size=2000), rng.normal(size=2000)])]
    found = np.concatenate([run(parts, settings=Settings(("vif",))).results[n].vif for n in NAMES[:2]])
    assert found == pytest.approx(plain_vif(np.hstack(parts)), rel=2e-3)
    assert found.max() > 0.9 / noise**2
