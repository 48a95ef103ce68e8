"""A small job in real processes with its correlated randomness from each of the places it can come from."""

import asyncio
import base64
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from coordinator.envelope import parse
from silos import results
from silos.demo.run import OWNERS, export, job_costs, run_job, world
from tests.e2e.test_failures import people, register, request

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PARTIES = [
    {"silo": "lender", "dataset": "left", "key": "email", "label": "label", "features": ["a", "b", "c"]},
    {"silo": "platform", "dataset": "right", "key": "email", "features": ["a", "b"]},
]
MODES = ("dealer", "verified-dealer", "ot")
N = 400


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True)) as made:
        strong = np.random.default_rng(6).normal(size=N)  # scores that spread: without a dealer the AUC is a series
        label = (strong + np.random.default_rng(7).normal(size=N) > 0).astype(int)
        register(made, "lender", "left", people(range(N)), label=label, extra={"c": strong})
        register(made, "platform", "right", people(range(50, N + 60)))
        yield made


@pytest.fixture(scope="module")
def ran(made, tmp_path_factory):
    """Run the job once per mode and matching: its spec, the final view, and what each owner was given."""

    @cache
    def run(mode, matching="ecdh-psi"):
        settings = {"randomness": mode, "dealer": None if mode == "ot" else "dealer", "evaluate": {"salt": "5a" * 16}}
        align = {"protocol": matching, "minimum_matches": 100}
        path = request(
            tmp_path_factory.mktemp("job"),
            "left",
            "right",
            train={"passes": 5},
            align=align,
            parties=PARTIES,
            **settings,
        )
        spec, view = asyncio.run(run_job(made, path))
        assert (view["state"], view["reason"]) == ("done", "")
        return spec, view, {o: results.read_result(made.home(o).result(spec.job))["result"] for o in OWNERS}

    return run


@pytest.mark.parametrize("mode", MODES)
def test_the_result_does_not_depend_on_where_randomness_comes_from(ran, mode):
    expected, given = ran("dealer")[2], ran(mode)[2]
    for owner in OWNERS:
        assert given[owner]["rows"] == expected[owner]["rows"]
        assert abs(float(given[owner]["auc"]) - float(expected[owner]["auc"])) <= 0.001
        pairs = zip(given[owner]["model"]["inputs"], expected[owner]["model"]["inputs"], strict=True)
        for mine, theirs in pairs:
            assert mine["input"] == theirs["input"]
            assert abs(float(mine["coefficient"]) - float(theirs["coefficient"])) < 2e-3


def test_the_result_does_not_depend_on_how_rows_are_matched(ran):
    """The rows are the same in another order, so training comes to the same model within rounding."""
    expected, given = ran("dealer")[2], ran("dealer", "vole-psi")[2]
    for owner in OWNERS:
        assert given[owner]["rows"] == expected[owner]["rows"]
        assert abs(float(given[owner]["auc"]) - float(expected[owner]["auc"])) <= 0.001


@pytest.mark.parametrize("mode", MODES)
def test_both_owners_report_the_randomness_they_used_and_agree_on_it(ran, mode):
    spec, view, _ = ran(mode)
    costs = job_costs(view)
    assert set(costs) == set(spec.participants)
    counts = {silo: {k: n["correlations"] for k, n in cost["randomness"].items()} for silo, cost in costs.items()}
    assert counts["lender"] == counts["platform"]
    assert counts["lender"]["fourier"] == spec.train.passes + (
        2 if mode == "ot" else 0
    )  # the AUC: two series, or sorting
    assert counts["lender"].keys() >= {"matrix-mask", "matrix-product", "truncation"}
    for owner in OWNERS:
        used = costs[owner]["randomness"]
        # a range check alone asks for the packed bits of no value
        assert all(n["words"] > 0 for kind, n in used.items() if (kind, mode) != ("packed-bits", "ot"))
    if spec.dealer is None:
        assert set(costs["lender"]["bytes_sent"]) == {"platform"}
    else:
        assert counts[spec.dealer] == {}
        assert all(costs[owner]["bytes_sent"][spec.dealer] > 0 for owner in OWNERS[:1])


@pytest.mark.parametrize("mode", MODES)
def test_only_who_takes_part_speaks_and_the_bundle_verifies(made, ran, mode, tmp_path):
    spec, view, _ = ran(mode)
    said = [parse(base64.b64decode(entry["envelope"])).statement for entry in view["entries"]]
    assert {s.silo for s in said} == set(spec.participants)
    report = export(made, spec, tmp_path / "bundle.zip")
    assert report.ok, report.reason
    assert report.summary.randomness == mode
