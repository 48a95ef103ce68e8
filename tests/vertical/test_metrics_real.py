"""Figures of logistic models of real data, against scikit-learn and NumPy as the benchmark computes them."""

import numpy as np
import pytest

from benchmarks.evaluation import BOUND, GROUPS, THRESHOLDS, parts_of, plain, printed
from tests.vertical.helpers import run_owners
from vertical.metrics import Group, Settings, evaluate
from vertical.scores import Scores


@pytest.mark.parametrize(("name", "rows"), [("heart", None), ("credit_default_taiwan", 1500)])
def test_every_printed_digit_is_that_of_the_computation_in_the_clear(name, rows):
    given = parts_of(name, rows)
    active = int(given["active"])

    def owner(i):
        groups = []
        if "group" in given:
            own = given["group"].astype(object) if given["owner"] == i else None
            groups = [Group(GROUPS[name], int(given["owner"]), own)]
        y = given["y"] if i == active else None
        scores = Scores.of_part(given["parts"][i], BOUND, 2)
        return lambda session: evaluate(session, scores, y, active, Settings(thresholds=THRESHOLDS), groups)

    figures = run_owners([owner(0), owner(1)])["platform"]
    clear = plain(given, len(figures["gains"]), THRESHOLDS)
    assert abs(float(figures["auc"]) - clear.pop("real_auc")) < 5e-4
    for key, value in printed(figures).items():
        assert np.array(value).astype(str).tolist() == np.array(clear[key]).astype(str).tolist(), key
