"""Stability indices against their definition, counts of scores that nobody sees, and what is refused."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, Refused
from tests.vertical.helpers import run_owners
from tests.vertical.test_score import BOUND, parts_of
from vertical import stability
from vertical.encoding import Feature
from vertical.scores import FRAC_BITS, Scores
from vertical.stability import Reference, quantiles, score_bands, stability_index, verdict

FEATURES = [Feature("age", "number"), Feature("city", "category")]


def columns(n, seed, shift=0.0, cities=("basel", "bern", None)):
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + shift, 10, n)
    age[:: max(1, n // 50)] = np.nan
    return {"age": age, "city": np.array([cities[i] for i in rng.integers(0, len(cities), n)], dtype=object)}


def test_the_index_is_its_definition_but_for_half_a_row():
    e, counts = np.array([0.2, 0.3, 0.5]), np.array([3000, 2000, 5000])
    a = counts / counts.sum()
    assert stability_index(e, counts) == pytest.approx(((a - e) * np.log(a / e)).sum(), abs=1e-4)
    assert stability_index(e, np.array([200, 300, 500])) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(stability_index(e, np.array([0, 0, 10])))
    assert [verdict(x) for x in (0.05, 0.1, 0.2, 0.25)] == ["stable", "shifted", "shifted", "different"]


def test_rows_of_the_same_kind_are_stable_and_others_are_not():
    train = columns(4000, 1)
    reference = Reference.of(train, FEATURES, np.ones(4000, dtype=bool))
    assert all(one.verdict == "stable" for one in reference.drift(columns(4000, 2)))
    moved = reference.drift(columns(4000, 3, shift=8))
    assert (moved[0].column, moved[0].verdict) == ("age", "different")
    new = {one.column: one for one in reference.drift(columns(4000, 4, cities=("basel", "chur", "genf")))}
    assert new["city"].verdict == "different"
    assert new["city"].found[new["city"].bands.index("other")] == pytest.approx(2 / 3, abs=0.05)
    assert len(moved[0].bands) == len(moved[0].expected) == len(moved[0].found) == stability.BANDS + 1


def test_bands_are_cut_on_training_rows_only_and_count_every_row_once():
    made = columns(1000, 1)
    made["age"][500:] += 1000
    reference = Reference.of(made, FEATURES, np.arange(1000) < 500)
    assert max(reference.bands[0].edges) < 200
    for bands in reference.bands:
        assert bands.counts(made[bands.column]).sum() == 1000
        assert len(bands.names) == len(bands.shares)


@pytest.mark.parametrize("values", [np.full(50, 3.0), np.full(50, np.nan), np.repeat([0.0, 1.0], 25)])
def test_numbers_of_few_values_have_fewer_bands(values):
    reference = Reference.of({"x": values}, [Feature("x", "number")], np.ones(50, dtype=bool))
    assert reference.drift({"x": values})[0].index == pytest.approx(0, abs=1e-9)


def test_a_reference_is_written_and_read_and_nothing_else_is():
    reference = Reference.of(columns(300, 1), FEATURES, np.ones(300, dtype=bool))
    document = reference.document()
    assert Reference.from_document(document) == reference
    for wrong in ({}, [], {"columns": [{}]}, {"columns": [{**document["columns"][0], "shares": ["1.0"]}]}):
        with pytest.raises(LocalProtocolError, match="not what a model keeps"):
            Reference.from_document(wrong)
    with pytest.raises(LocalProtocolError, match="no training row"):
        Reference.of(columns(10, 1), FEATURES, np.zeros(10, dtype=bool))
    with pytest.raises(LocalProtocolError, match="no rows"):
        reference.drift({name: values[:0] for name, values in columns(5, 1).items()})


Z = np.rint(np.random.default_rng(9).normal(-1, 1.5, 700) * 2.0**FRAC_BITS) / 2.0**FRAC_BITS


def owners_of(work, owners=2, z=Z):
    parts = parts_of(z, owners)
    return run_owners([lambda s, i=i: work(s, Scores.of_part(parts[i], BOUND, owners)) for i in range(owners)])


@pytest.mark.parametrize("owners", [2, 3])
def test_rows_of_secret_scores_are_counted_in_bands(owners, monkeypatch):
    monkeypatch.setattr(stability, "ROWS_AT_ONCE", 256)
    cuts = [-2.5, -1.0, 0.25]
    run = owners_of(lambda s, scores: score_bands(s, scores, cuts, 20), owners)
    expected = np.histogram(Z, [-np.inf, *cuts, np.inf])[0]
    assert all((run.results[name] == expected).all() for name in ("lender", "platform"))


def test_bands_with_few_rows_are_refused_before_a_count_is_opened():
    with pytest.raises(Refused, match="fewer than 20 rows"):
        owners_of(lambda s, scores: score_bands(s, scores, [-1.0, 8.0], 20))
    smallest = int(np.histogram(Z, [-np.inf, -3, -1, np.inf])[0].min())
    owners_of(lambda s, scores: score_bands(s, scores, [-3, -1], smallest))
    with pytest.raises(Refused):
        owners_of(lambda s, scores: score_bands(s, scores, [-3, -1], smallest + 1))


def test_the_cost_is_what_is_stated():
    run = owners_of(lambda s, scores: score_bands(s, scores, [-1.0, 0.0], 20))
    sent = sum(
        m.size for m in run.transcript if (m.sender, m.receiver) == ("lender", "platform") and "key" not in m.tag
    )
    assert sent == 8 * 700 + 280 * 2 * 11 + 16 * 3 + 288


@pytest.mark.parametrize("fractions", [[0.5], [i / 10 for i in range(1, 10)]])
def test_deciles_are_found_to_the_grid(fractions):
    run = owners_of(lambda s, scores: quantiles(s, scores, fractions, (-16.0, 16.0)))
    found, width = run.results["platform"], 32 / 2**stability.STEPS
    for fraction, value in zip(fractions, found):
        assert np.count_nonzero(value > Z) >= np.ceil(fraction * 700)
        assert np.count_nonzero(value - width > Z) < np.ceil(fraction * 700)


def test_wrong_cut_points_and_fractions_are_refused():
    for cuts in ([], [1.0, 1.0], [2.0, 1.0], [1e15]):
        with pytest.raises(LocalProtocolError, match="ascending cut points"):
            owners_of(lambda s, scores, cuts=cuts: score_bands(s, scores, cuts, 5))
    with pytest.raises(LocalProtocolError, match="between 0 and 1"):
        owners_of(lambda s, scores: quantiles(s, scores, [1.5], (-1, 1)))
