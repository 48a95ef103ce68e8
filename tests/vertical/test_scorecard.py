"""Columns' contributions against the encoder, points against their definition, and the reasons for few points."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mpc.errors import LocalProtocolError
from tests.vertical.test_stability import FEATURES, columns
from vertical.contributions import Category, Number, table, terms
from vertical.encoding import Feature, fit
from vertical.scorecard import Scale, points_of, reasons, scorecard
from vertical.stability import Reference

N = 600


def owned(seed=1, **options):
    made = columns(N, seed, **options)
    made["age"][3] = 1e9  # beyond the limit
    everything = np.ones(N, dtype=bool)
    encoder = fit(made, FEATURES, everything, winsorise_sd=4, rare_category=5)
    weights = np.random.default_rng(seed).normal(0, 1, len(encoder.inputs))
    return made, encoder, weights, Reference.of(made, FEATURES, everything)


def test_the_columns_add_up_to_the_part_of_the_score():
    made, encoder, weights, _ = owned()
    found = terms(encoder, weights)
    assert [term.column for term in found] == ["age", "city"]
    assert np.abs(table(found, made).sum(axis=1) - encoder.transform(made) @ weights).max() < 1e-9
    other = columns(200, 5, cities=("basel", "unheard", None, "missing"))
    assert np.abs(table(found, other).sum(axis=1) - encoder.transform(other) @ weights).max() < 1e-9


def test_numbers_limited_to_quantiles_and_one_that_only_is_missing():
    made = columns(N, 6)
    made["flat"] = np.where(np.arange(N) % 3 == 0, np.nan, 7.0)
    features = [*FEATURES, Feature("flat", "number")]
    encoder = fit(made, features, np.ones(N, dtype=bool), winsorise_sd=3, rare_category=5, winsorise_quantile=0.1)
    weights = np.random.default_rng(2).normal(0, 1, len(encoder.inputs))
    made["age"][:5] = [-1e9, 1e9, np.nan, 30.0, np.inf]
    assert np.abs(table(terms(encoder, weights), made).sum(axis=1) - encoder.transform(made) @ weights).max() < 1e-9


def test_text_has_no_table():
    made = {"words": np.array(["good fit", "bad fit", "too small", None] * 20, dtype=object)}
    encoder = fit(made, [Feature("words", "text")], np.ones(80, dtype=bool), winsorise_sd=8, rare_category=5)
    with pytest.raises(LocalProtocolError, match="is text"):
        terms(encoder, np.zeros(len(encoder.inputs)))


def test_levels_that_are_pooled_and_values_that_are_all_there():
    made = columns(N, 2, cities=("basel", "bern", *(f"village {i}" for i in range(200))))
    made["age"] = np.nan_to_num(made["age"], nan=40.0)
    everything = np.ones(N, dtype=bool)
    encoder = fit(made, FEATURES, everything, winsorise_sd=8, rare_category=9)
    weights = np.random.default_rng(4).normal(0, 1, len(encoder.inputs))
    found = terms(encoder, weights)
    assert isinstance(found[0], Number)
    assert isinstance(found[1], Category)
    assert np.abs(table(found, made).sum(axis=1) - encoder.transform(made) @ weights).max() < 1e-9
    for term in found:
        values = term.of(made[term.column])
        assert term.smallest <= values.min() <= values.max() <= term.largest
    with pytest.raises(LocalProtocolError, match="do not have"):
        terms(encoder, weights[1:])


@pytest.mark.parametrize("good", [0, 1])
def test_points_are_linear_in_the_log_odds_and_double_them(good):
    scale = Scale(base_points=500, base_odds=20, pdo=30, good=good, decimals=6)
    p = 1 / (1 + 20) if good == 0 else 20 / 21
    assert scale.of_probability(np.array([p]))[0] == pytest.approx(500)
    odds = 40
    p = 1 / (1 + odds) if good == 0 else odds / (1 + odds)
    assert scale.of_probability(np.array([p]))[0] == pytest.approx(530)
    made, encoder, weights, _ = owned()
    eta = encoder.transform(made) @ weights - 0.7
    total = scale.base(-0.7) + points_of(scale, terms(encoder, weights), made).sum(axis=1)
    assert np.abs(total - scale.of_probability(1 / (1 + np.exp(-eta)))).max() < 1e-4


def test_every_line_of_the_card_has_the_points_that_rows_get():
    made, encoder, weights, reference = owned()
    found, scale = terms(encoder, weights), Scale(decimals=2)
    lines = scorecard(scale, found, 0.25, reference)
    assert (lines[0].column, lines[0].points) == ("", round(scale.base(0.25), 2))
    assert scorecard(scale, found, None, reference) == lines[1:]
    city = {line.attribute: line.points for line in lines if line.column == "city"}
    assert set(city) == {"basel", "bern", "missing", "any other"}
    points = points_of(scale, found, made)
    for row in range(20):
        assert points[row, 1] == pytest.approx(
            city["missing" if made["city"][row] is None else made["city"][row]], abs=0.011
        )
    age = [line for line in lines if line.column == "age"]
    assert age[0].attribute.startswith("-inf to ")
    assert age[-1].attribute == "missing"
    for line in age[1:-2]:
        low, high = (float(x) for x in line.attribute.split(" to "))
        inside = (made["age"] >= low) & (made["age"] < high)
        ends = sorted((line.points, line.to))
        assert inside.any()
        assert ((points[inside, 0] >= ends[0] - 0.05) & (points[inside, 0] <= ends[1] + 0.05)).all()
    numbers = [line.points for line in lines] + [line.to for line in lines if line.to is not None]
    assert all(math.isfinite(x) for x in numbers)


def test_reasons_are_the_columns_that_cost_most():
    made, encoder, weights, _ = owned()
    scale, found = Scale(decimals=3), terms(encoder, weights)
    points = points_of(scale, found, made)
    names = [term.column for term in found]
    for row, found_reasons in enumerate(reasons(scale, found, made)):
        expected = [names[i] for i in np.argsort(points[row], kind="stable") if points[row, i] < -1e-3]
        assert found_reasons == expected
    assert all(len(each) <= 1 for each in reasons(scale, found, made, most=1))
    best = reasons(scale, found, made, against="best")
    top = [max(scale.factor * t.largest, scale.factor * t.smallest) for t in found]
    for row, found_reasons in enumerate(best):
        assert set(found_reasons) == {n for n, p, t in zip(names, points[row], top) if t - p > 1e-3}


def test_scales_and_questions_without_a_meaning_are_refused():
    for wrong in ({"pdo": 0.0}, {"base_odds": -1.0}, {"decimals": 9}):
        with pytest.raises(LocalProtocolError, match="are positive"):
            replace(Scale(), **wrong)
    made, encoder, weights, _ = owned()
    with pytest.raises(LocalProtocolError, match="1 to 10 reasons"):
        reasons(Scale(), terms(encoder, weights), made, most=0)
