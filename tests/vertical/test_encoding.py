"""The owner's encoding: against numpy and pandas-free expectations, missing values, rare levels, constants."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError
from vertical.encoding import Feature, fit

TRAIN = np.array([True] * 8 + [False] * 2)


def encode(columns, features, **settings):
    options = {"winsorise_sd": 8, "rare_category": 2, **settings}
    encoder = fit(columns, [Feature(*f) for f in features], TRAIN, **options)
    return encoder, encoder.transform(columns)


def test_numbers_are_standardised_by_the_training_rows():
    x = np.arange(10.0)
    _, X = encode({"x": x}, [("x", "number")])
    assert np.allclose(X[:, 0], (x - x[:8].mean()) / x[:8].std())


def test_missing_numbers_become_the_training_mean_and_an_indicator():
    x = np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, np.nan, 2.0])
    encoder, X = encode({"x": x}, [("x", "number")])
    assert [i.name for i in encoder.inputs] == ["x", "x=missing"]
    assert X[1, 0] == pytest.approx(0.0, abs=1e-12)
    assert X[8, 0] == pytest.approx(0.0, abs=1e-12)
    assert X[1, 1] == X[8, 1] > 0 > X[0, 1]


def test_a_number_missing_only_outside_training_adds_no_indicator():
    x = np.array([*range(8), np.nan, np.nan], dtype=float)
    encoder, X = encode({"x": x}, [("x", "number")])
    assert [i.name for i in encoder.inputs] == ["x"]
    assert X[9, 0] == pytest.approx(0.0, abs=1e-12)


def test_categories_leave_out_the_most_frequent_level_and_pool_rare_and_unseen_ones():
    c = np.array(["a", "a", "a", "b", "b", "c", None, None, "d", "b"], dtype=object)
    encoder, X = encode({"c": c}, [("c", "category")])
    assert encoder.levels["c"] == ("a", "b", "missing", "other")
    assert [i.name for i in encoder.inputs] == ["c=b", "c=missing", "c=other"]
    raw = X * [i.sd for i in encoder.inputs] + [i.mean for i in encoder.inputs]
    assert np.array_equal(np.rint(raw[:, 0]), [0, 0, 0, 1, 1, 0, 0, 0, 0, 1])
    assert np.array_equal(np.rint(raw[:, 1]), [0, 0, 0, 0, 0, 0, 1, 1, 0, 0])
    assert np.array_equal(np.rint(raw[:, 2]), [0, 0, 0, 0, 0, 1, 0, 0, 1, 0])


def test_outliers_are_winsorised():
    x = np.array([0.0, 1, 0, 1, 0, 1, 0, 1, 1e9, -1e9])
    _, X = encode({"x": x}, [("x", "number")], winsorise_sd=3)
    assert X[8, 0] == 3
    assert X[9, 0] == -3


def test_constant_columns_are_left_out_by_name():
    columns = {"x": np.full(10, 4.0), "c": np.array(["k"] * 10, dtype=object), "z": np.arange(10.0)}
    encoder, X = encode(columns, [("x", "number"), ("c", "category"), ("z", "number")])
    assert encoder.dropped == ("x",)
    assert X.shape == (10, 1)


def test_an_all_missing_number_is_left_out_not_an_error():
    columns = {"x": np.full(10, np.nan), "z": np.arange(10.0)}
    encoder, X = encode(columns, [("x", "number"), ("z", "number")])
    assert encoder.dropped == ("x", "x=missing")
    assert np.isfinite(X).all()


def test_nothing_to_fit_on_is_an_error():
    with pytest.raises(LocalProtocolError, match="no training row"):
        fit({"x": np.arange(2.0)}, [Feature("x", "number")], np.zeros(2, bool), winsorise_sd=8, rare_category=1)


def test_the_description_is_enough_to_encode_by_hand():
    columns = {"x": np.arange(10.0), "c": np.array(list("aabbaabbab"), dtype=object)}
    encoder, X = encode(columns, [("x", "number"), ("c", "category")])
    for j, item in enumerate(encoder.describe()):
        raw = columns["x"] if item["kind"] == "number" else (columns["c"] == item["level"]).astype(float)
        assert np.allclose((raw - item["mean"]) / item["sd"], X[:, j])
