"""Bins: how many rows each holds, what missing and unseen values become, and that the description is all there is."""

import json

import numpy as np
import pytest

from mpc.errors import LocalProtocolError
from vertical.binning import Binner
from vertical.encoding import Feature

RNG = np.random.default_rng(3)


def fit(values, kind="number", bins=8, train=None, **options):
    train = np.ones(len(values), dtype=bool) if train is None else train
    return Binner.fit({"x": values}, [Feature("x", kind)], train, bins, **options)


def codes(binner, values):
    return binner.transform({"x": values}).codes[:, 0]


def text(*values):
    return np.array(values, dtype=object)


def test_intervals_hold_about_as_many_rows_each():
    x = RNG.lognormal(size=1003)
    found = np.bincount(codes(fit(x, bins=16), x), minlength=16)
    assert found[0] == 0
    assert found[1:].min() >= 60
    assert found[1:].max() <= 70


def test_codes_keep_the_order_of_the_values():
    x = RNG.normal(size=300)
    found = codes(fit(x), x)
    assert (np.diff(found[np.argsort(x)].astype(int)) >= 0).all()


def test_few_different_values_get_a_bin_each():
    x = RNG.choice([0.0, 1.0, 2.0, 7.5], size=200)
    assert fit(x).edges(0) == (0.0, 1.0, 2.0)


def test_a_frequent_value_does_not_eat_the_other_bins():
    x = np.concatenate([np.zeros(900), RNG.normal(10, 1, 100)])
    found = np.bincount(codes(fit(x), x), minlength=8)
    assert found[1] == 900
    assert (found[2:] > 10).all()


def test_missing_values_have_bin_0_and_are_remembered():
    x = np.array([1.0, np.nan, 2.0, np.inf, 3.0])
    binner = fit(x)
    assert codes(binner, x).tolist() == [1, 0, 2, 0, 3]
    assert binner.transform({"x": x}).missing == (True,)
    assert fit(np.array([1.0, 2.0])).transform({"x": x}).missing == (False,)


def test_only_training_rows_count_and_unseen_numbers_go_to_the_nearest_interval():
    x = np.array([0.0, 1.0, 2.0, 3.0, -50.0, 50.0, 1.5])
    train = np.arange(7) < 4
    binner = fit(x, train=train)
    assert binner.edges(0) == (0.0, 1.0, 2.0)
    assert codes(binner, x).tolist() == [1, 2, 3, 4, 1, 4, 3]


def test_categories_are_ordered_by_frequency_and_rare_ones_are_pooled():
    x = text("b", "b", "b", "a", "a", "c", "c", "rare", None)
    binner = fit(x, "category", rare_category=2)
    assert binner.features[0].levels == ("b", "a", "c")
    assert codes(binner, x).tolist() == [1, 1, 1, 2, 2, 3, 3, 4, 0]
    assert codes(binner, text("new", "a", None)).tolist() == [4, 2, 0]


def test_more_levels_than_bins_are_pooled():
    x = text(*[f"level {i}" for i in range(50) for _ in range(50 - i)])
    binner = fit(x, "category", bins=8)
    assert binner.features[0].levels == tuple(f"level {i}" for i in range(6))
    assert codes(binner, x).max() == 7


@pytest.mark.parametrize("x", [np.full(5, 2.0), np.full(5, np.nan)])
def test_a_column_without_information_has_one_bin(x):
    found = codes(fit(x), x)
    assert len(set(found.tolist())) == 1


def test_256_bins_fit_a_byte():
    x = RNG.normal(size=5000)
    table = fit(x, bins=256).transform({"x": x})
    assert table.codes.dtype == np.uint8
    assert table.codes.max() == 255
    assert table.n_bins == 256


def test_the_description_is_everything():
    columns = {"x": np.append(RNG.normal(size=50), np.nan), "c": text(*["u", "v", None] * 17)}
    features = [Feature("x", "number"), Feature("c", "category")]
    binner = Binner.fit(columns, features, np.ones(51, dtype=bool), 6)
    again = Binner.from_document(json.loads(json.dumps(binner.describe())))
    assert again == binner
    assert np.array_equal(again.transform(columns).codes, binner.transform(columns).codes)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("n_bins"),
        lambda d: d.update(n_bins=2),
        lambda d: d.update(more=1),
        lambda d: d["features"][0].update(edges=["2.0", "1.0"]),
        lambda d: d["features"][0].update(edges=["nan"]),
        lambda d: d["features"][0].update(kind="word"),
        lambda d: d["features"][0].update(levels=["a"]),
        lambda d: d["features"][0].update(missing=1),
        lambda d: d["features"][0].update(edges=[repr(float(i)) for i in range(9)]),
    ],
)
def test_a_malformed_description_is_refused(change):
    document = fit(np.array([1.0, 2.0, 3.0])).describe()
    change(document)
    with pytest.raises(LocalProtocolError, match="malformed"):
        Binner.from_document(document)


def test_labels_of_bins_are_readable():
    number = fit(np.array([1.0, 2.0, 3.0])).features[0]
    assert [number.label(code) for code in range(4)] == ["missing", "x <= 1", "1 < x <= 2", "2 < x"]
    category = fit(text("a", "b", "a"), "category").features[0]
    assert [category.label(code) for code in range(4)] == ["missing", "a", "b", "any other"]


def test_no_training_rows_or_an_absurd_number_of_bins_is_refused():
    with pytest.raises(LocalProtocolError, match="no training row"):
        fit(np.array([1.0]), train=np.array([False]))
    for bins in (3, 257):
        with pytest.raises(LocalProtocolError, match="bins"):
            fit(np.array([1.0]), bins=bins)
