"""Figures from counts: plain arithmetic on a few numbers worked out by hand."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vertical.curves import (
    TOGETHER,
    binary_losses,
    calibration_table,
    confusion,
    curve_points,
    cuts,
    decimal,
    gains_table,
    group_table,
    spread,
)


def test_decimals():
    assert decimal(1, 3) == "0.3333"
    assert decimal(-1, 3, 2) == "-0.33"
    assert decimal(-1, 10**6) == "0.0000"
    assert decimal(0, 5) == "0.0000"
    assert decimal(3, 0) == "-"
    assert decimal(2**70, 2**71) == "0.5000"


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_bins_cover_all_rows_and_differ_by_one_at_most(n, bins):
    places = cuts(n, bins)
    sizes = [b - a for a, b in pairwise(places)]
    assert (places[0], places[-1]) == (0, n)
    assert max(sizes) - min(sizes) <= 1


def test_gains():
    first, second = gains_table(10, [0, 4, 10], [0, 3, 5])
    assert first == {
        "bin": 1,
        "rows": 4,
        "outcome": 3,
        "rate": "0.7500",
        "lift": "1.5000",
        "gain": "0.6000",
        "cumulative_lift": "1.5000",
    }
    assert (second["rate"], second["lift"], second["cumulative_lift"]) == ("0.3333", "0.6667", "1.0000")


def test_gains_of_nothing():
    assert gains_table(4, [0, 4], [0, 0])[0]["lift"] == "-"


def test_calibration():
    rows = calibration_table([0, 2, 4], [0, 1, 3], [0.0, 0.5, 2.0])
    assert [(row["predicted"], row["observed"]) for row in rows] == [("0.2500", "0.5000"), ("0.7500", "1.0000")]


def test_curve_points():
    middle = curve_points(10, [0, 5, 10], [0, 3, 4])[1]
    assert middle == {"rows": "0.5000", "true_positive_rate": "0.7500", "false_positive_rate": "0.3333"}


def test_confusion():
    got = confusion("0.5", 20, 8, 11, 2)
    assert [got[k] for k in ("true_positives", "false_positives", "false_negatives", "true_negatives")] == [6, 3, 2, 9]
    assert (got["accuracy"], got["precision"], got["recall"]) == ("0.7500", "0.6667", "0.7500")
    assert confusion("0.9", 20, 8, 20, 8)["precision"] == "-"


def test_losses_of_the_base_rate_explain_nothing():
    got = binary_losses(10, 5, 0.6931471805599453, 0.25, (5.0, 2.5))
    assert (got["r2"], got["discrimination"], got["brier"]) == ("0.0000", "0.0000", got["brier_of_base_rate"])


def test_a_union_of_groups_is_not_compared_with_groups():
    got = group_table(("a", "b", TOGETHER), ([10, 20, 5, 5, 10, 2], [5, 5, 5, 1, 2, 2]), None, None)
    assert [row["selection_rate"] for row in got["table"]] == ["0.5000", "0.7500", "0.0000"]
    assert got["demographic_parity_difference"] == "0.2500"
    assert got["equal_opportunity_difference"] == "0.0000"
    assert spread([0.5]) == "-"
