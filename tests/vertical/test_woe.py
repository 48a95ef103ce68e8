"""Weights of evidence against their definition, the floor under every bin, and what is refused."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.wire import send_json
from tests.vertical.helpers import NAMES, run_owners
from vertical import woe, woe_counts
from vertical.binning import Binner
from vertical.encoding import Feature
from vertical.woe import ABSENT, Evidence, Settings, evidence, joined
from vertical.woe_counts import Shape, own_cells

FEATURES = [Feature("income", "number"), Feature("city", "category"), Feature("noise", "number")]


def columns(n, seed):
    rng = np.random.default_rng(seed)
    income = rng.gamma(3.0, 10.0, n)
    income[rng.random(n) < 0.1] = np.nan
    city = np.array(
        [("basel", "bern", "chur", "genf", None)[i] for i in rng.choice(5, n, p=[0.4, 0.3, 0.2, 0.07, 0.03])]
    )
    return {"income": income, "city": city, "noise": rng.normal(size=n)}


def label(tables, seed, base=-1.0):
    rng = np.random.default_rng(seed)
    z = base + sum(0.05 * (np.nan_to_num(t["income"], nan=45.0) - 30) + 0.8 * (t["city"] == "bern") for t in tables)
    return (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float)


def binned_of(table, bins=8):
    binner = Binner.fit(table, FEATURES, np.ones(len(table["noise"]), dtype=bool), bins)
    return binner, binner.transform(table)


def run(tables, y, settings=None, active=0, bins=8, **options):
    sides = [binned_of(t, bins) for t in tables]
    bodies = [
        lambda s, i=i: evidence(s, *sides[i], y if i == active else None, settings or Settings())
        for i in range(len(tables))
    ]
    return run_owners(bodies, **options), sides


def check(found, binned, y, floor):
    """Every number that an owner keeps of a column, from its definition."""
    P, Q = y.sum(), (1 - y).sum()
    for column, codes in zip(found.columns, binned.codes.T):
        groups = np.array(column.groups)[codes]
        value = 0.0
        for g, (rows, positives, weight) in enumerate(zip(column.rows, column.positives, column.weights)):
            here = groups == g
            assert (rows, positives) == (here.sum(), y[here].sum())
            assert min(positives, rows - positives) >= floor
            p, q = positives / P, (rows - positives) / Q
            assert weight == pytest.approx(np.log(p / q), abs=1e-12)
            value += (p - q) * weight
        assert column.value == pytest.approx(value, abs=1e-12)
        assert sum(column.rows) == len(y)


@pytest.mark.parametrize("owners", [2, 3])
@pytest.mark.parametrize("merge", ["none", "similar", "monotone"])
def test_weights_are_what_their_definition_says(owners, merge):
    tables = [columns(1500, seed) for seed in range(owners)]
    y = label(tables, 7)
    done, sides = run(tables, y, Settings(merge=merge, tell=True), active=1)
    for i, name in enumerate(NAMES[:owners]):
        found = done.results[name]
        check(found, sides[i][1], y, 10)
        income, city, noise = found.columns
        if merge == "none":
            assert len(income.rows) == 8
            assert len(city.rows) >= 4
        else:
            assert income.value > 0.1 > noise.value
        if merge == "monotone":
            known = income.weights[1:] if income.groups[0] == 0 and income.groups[1] != 0 else income.weights
            assert (np.diff(known) > 0).all() or (np.diff(known) < 0).all()
        for j, other in enumerate(NAMES[:owners]):
            assert found.told[j] == pytest.approx([c.value for c in done.results[other].columns], abs=5e-5)


def shown(cells, bins):
    """The bins of each node that is left and has rows, and its positives."""
    shape, out = Shape(1, bins), []
    for height, (rows, left, positives) in enumerate(
        zip(*map(shape.by_level, (cells.rows, cells.shown, cells.positives)))
    ):
        for node in np.flatnonzero(left[0] & (rows[0] > 0)):
            out.append((np.flatnonzero(shape.places >> height == node).tolist(), int(positives[0, node])))
    return sorted(out)


def test_bins_below_the_floor_are_pooled_with_their_neighbours_and_with_no_other():
    codes = np.repeat(np.arange(5, dtype=np.uint8), 100)[:, None]
    counts = np.array([30, 20, 2, 40, 50])
    y = (np.arange(500) % 100 < np.repeat(counts, 100)).astype(float)
    assert shown(own_cells(codes, y, 5, 2), 5) == [([i], c) for i, c in enumerate(counts)]
    assert shown(own_cells(codes, y, 5, 10), 5) == [([0, 1, 2], 52), ([3], 40), ([4], 50)]
    assert shown(own_cells(codes, y, 5, 45), 5) == [([0, 1, 2], 52), ([3, 4], 90)]
    assert shown(own_cells(codes, y, 5, 60), 5) == [([0, 1, 2, 3, 4], 142)]


@pytest.mark.parametrize("floor", [5, 20, 60])
def test_the_floor_in_secret_is_the_floor_in_the_clear(floor):
    tables = [columns(900, seed) for seed in (3, 4)]
    y = label(tables, 8, base=-3.0)
    settings = Settings(floor=floor, share=0.0, merge="none")
    done, sides = run(tables, y, settings)
    check(done.results["platform"], sides[1][1], y, floor)
    swapped, _ = run(tables[::-1], y, settings, active=0)  # the same columns at the owner of the label
    assert done.results["platform"].columns == swapped.results["lender"].columns


def test_columns_are_worked_on_a_few_at_a_time(monkeypatch):
    tables = [columns(800, seed) for seed in (1, 2)]
    y = label(tables, 9)
    whole, _ = run(tables, y)
    monkeypatch.setattr(woe_counts, "WORDS_AT_ONCE", 800 * 10)
    pieces, _ = run(tables, y)
    assert pieces.results["platform"] == whole.results["platform"]
    assert len([m for m in pieces.transcript if m.tag == "matrix/mask" and m.sender == "platform"]) == 3


def test_the_owner_of_the_label_needs_no_columns():
    table = columns(600, 1)
    y = label([table], 2)
    empty = Binner(8, ()), binned_of(table)[1]
    bare = type(empty[1])(empty[1].codes[:, :0], 8, (), ())
    side = binned_of(table)
    done = run_owners(
        [lambda s: evidence(s, empty[0], bare, y, Settings()), lambda s: evidence(s, *side, None, Settings())]
    )
    assert done.results["lender"].columns == ()
    check(done.results["platform"], side[1], y, 10)


def test_inputs_are_standardised_weights_and_a_document_keeps_them():
    tables = [columns(1000, seed) for seed in (5, 6)]
    y = label(tables, 10)
    done, sides = run(tables, y)
    found = done.results["platform"]
    inputs = found.inputs(sides[1][1])
    assert inputs.shape == (1000, len(found.used))
    assert np.abs(inputs.mean(axis=0)).max() < 1e-9
    assert np.abs(inputs.std(axis=0) - 1).max() < 1e-9
    again = Evidence.from_document(found.document())
    assert again.columns == found.columns
    new = columns(50, 99)
    new["city"][:] = "unknown"
    other = sides[1][0].transform(new)
    assert (again.inputs(other) == found.inputs(other)).all()
    if found.columns[1].groups[other.codes[0, 1]] == ABSENT:
        assert (found.weights(other)[:, 1] == 0).all()
    for wrong in (None, [{}], [{**found.document()[0], "rows": [0]}], [{**found.document()[0], "weights": ["inf"]}]):
        with pytest.raises(LocalProtocolError, match="cannot be read"):
            Evidence.from_document(wrong)
    with pytest.raises(LocalProtocolError, match="other columns"):
        found.weights(type(other)(other.codes, 8, ("a", "b", "c"), other.missing))


def test_joining_leaves_neighbours_that_differ():
    leaves = [([0], 100, 10), ([1], 100, 11), ([2], 100, 50), ([3], 100, 48), ([4], 100, 20)]
    assert [m for m, _, _ in joined(leaves, monotone=False)] == [[0, 1], [2, 3], [4]]
    rising = joined(leaves, monotone=True)
    assert [m for m, _, _ in rising] == [[0, 1], [2, 3, 4]]
    assert joined(leaves[:1], monotone=True) == leaves[:1]


def test_messages_depend_on_sizes_only_and_cost_what_is_stated():
    done = []
    for seed in (1, 2):
        tables = [columns(640, seed), columns(640, seed + 10)]
        for t in tables:
            t["city"] = np.array(["a", "b"] * 320, dtype=object)
        done.append(run(tables, label(tables, seed), Settings(share=0.0))[0])
    sizes = [[(m.sender, m.receiver, m.tag, m.size) for m in d.transcript if m.tag != "woe/shape"] for d in done]
    assert sizes[0] == sizes[1]
    sent = [(m.tag, m.size) for m in done[0].transcript if (m.sender, m.receiver) == ("platform", "lender")]
    assert sum(size for tag, size in sent if tag == "matrix/mask") == 4 * 640 * 3 * 8
    back = [m.size for m in done[0].transcript if m.tag == "matrix/vector"]
    assert back == [4 * 640]


def test_what_does_not_fit_is_refused():
    tables = [columns(300, seed) for seed in (1, 2)]
    y = label(tables, 3)
    with pytest.raises(Refused, match="take 200 positives"):
        run(tables, y, Settings(floor=200))
    with pytest.raises(LocalProtocolError, match="0 or 1"):
        run(tables, y * 2)
    with pytest.raises(RemoteProtocolError, match="other rows"):
        run([tables[0], columns(299, 2)], y)
    with pytest.raises(RemoteProtocolError, match="exactly one owner"):
        run(tables, None, active=5)
    for wrong in ({"floor": 1}, {"share": 0.9}, {"merge": "all"}):
        with pytest.raises(LocalProtocolError):
            Settings(**wrong)


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"asked": []}, "other weights"),
        ({"sizes": [300, 0, 8]}, "no columns"),
        ({"sizes": [300, 3]}, "no columns"),
        ({"sizes": [300, 3, 1]}, "no columns"),
        ({"sizes": [301, 3, 8]}, "other rows"),
        ({"positives": 5}, "exactly one owner"),
    ],
)
def test_sizes_that_cannot_be_are_refused(stated, why):
    table = columns(300, 1)
    side, y = binned_of(table), label([table], 2)

    def liar(session):
        value = {"asked": [10, "0.05", "similar", False], "sizes": [300, 3, 8], "positives": None, **stated}
        send_json(session.channel, "lender", "woe/shape", value)

    with pytest.raises(RemoteProtocolError, match=why):
        run_owners([lambda s: evidence(s, *side, y, Settings()), liar])


@pytest.mark.parametrize("told", [[1, 2], [1, 2, "3"], None])
def test_information_values_that_cannot_be_are_refused(told, monkeypatch):
    tables = [columns(400, seed) for seed in (1, 2)]
    y = label(tables, 3)
    honest = woe.send_json

    def lies(channel, peer, tag, value):
        honest(channel, peer, tag, told if tag == "woe/values" else value)

    monkeypatch.setattr(woe, "send_json", lies)
    with pytest.raises(RemoteProtocolError, match="other information values"):
        run(tables, y, Settings(tell=True))


def test_what_is_opened_is_the_positives_and_nothing_else():
    tables = [columns(900, seed) for seed in (3, 4)]
    y = label(tables, 8, base=-3.0)
    done, _ = run(tables, y, Settings(floor=40, share=0.0, merge="none"))
    to_owner = [m for m in done.transcript if m.tag == "woe/bins"]
    assert {(m.sender, m.receiver) for m in to_owner} == {("lender", "platform")}
    assert sum(m.size for m in to_owner) == 16 * 3 * 15  # a bit and a count for each node of three trees of 8 leaves
    tags = {m.tag for m in done.transcript if m.receiver == "lender" and m.sender == "platform"}
    assert tags == {"woe/shape", "matrix/mask", "compare/mask", "compare/join", "compare/bit", "products/open"} | {
        tag for tag in tags if "key" in tag
    }


def test_a_small_group_does_not_keep_large_ones_together():
    rng = np.random.default_rng(1)
    levels = np.array([("many", "some", "few")[i] for i in rng.choice(3, 800, p=[0.55, 0.38, 0.07])], dtype=object)
    tables = [columns(800, 1), {**columns(800, 2), "city": levels}]
    y = ((rng.random(800) < np.where(levels == "some", 0.6, 0.1)) & (levels != "few")).astype(float)
    done, sides = run(tables, y, Settings(merge="none"))
    city = done.results["platform"].columns[1]
    check(done.results["platform"], sides[1][1], y, 10)
    assert len(city.rows) == 2
    assert city.groups[2] == city.groups[3] != city.groups[1]
