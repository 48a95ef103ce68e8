"""The whole path in real processes over real TLS: coordinator, two owners and a dealer, on the demonstration's data."""

import asyncio
import zipfile

import pytest
from rich.console import Console

from silos import results
from silos.demo import story
from silos.demo.reference import Reference, reference
from silos.demo.run import DATASETS, HERE, SILOS, export, job_costs, verify, world
from silos.request import load_request

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True)) as made:
        yield made


@pytest.fixture(scope="module")
def finished(made):
    spec = load_request(HERE / "job.toml")
    story.ask_a_person(made, "correct horse battery staple")
    view = asyncio.run(story.with_approval(made, spec, "correct horse battery staple"))
    assert view["state"] == "done", view["reason"]
    return spec, view


@pytest.fixture(scope="module")
def clear(finished) -> Reference:
    return reference(finished[0], {s: {"path": str(HERE / f), "format": "parquet"} for s, (_, f) in DATASETS.items()})


@pytest.fixture(scope="module")
def released(made, finished):
    return {silo: results.read_result(made.home(silo).result(finished[0].job))["result"] for silo in DATASETS}


def test_the_rows_are_the_intersection(released, clear):
    for silo in DATASETS:
        assert released[silo]["rows"]["matched"] == clear.matched
        assert released[silo]["rows"]["held_out"] == clear.held_out
    assert clear.matched == 21_680


def test_auc_is_that_of_scikit_learn_and_above_each_silo_alone(released, clear):
    aucs = {float(released[silo]["auc"]) for silo in DATASETS}
    assert len(aucs) == 1
    assert abs(aucs.pop() - clear.joint) < 0.002
    assert float(released["lender"]["auc"]) > max(clear.alone.values()) + 0.002


def test_the_coefficients_put_together_are_those_of_scikit_learn(released, clear):
    for silo in DATASETS:
        mine = {item["input"]: float(item["coefficient"]) for item in released[silo]["model"]["inputs"]}
        assert mine.keys() == clear.coefficients[silo].keys()
        assert max(abs(mine[name] - value) for name, value in clear.coefficients[silo].items()) < 1e-2
    assert abs(float(released["lender"]["model"]["intercept"]) - clear.intercept) < 1e-2
    assert released["platform"]["model"]["intercept"] is None


def test_each_owner_has_its_own_coefficients_and_nobody_elses(released):
    inputs = {silo: {i["column"] for i in released[silo]["model"]["inputs"]} for silo in DATASETS}
    assert not inputs["lender"] & inputs["platform"]


def test_the_costs_are_in_the_log(finished):
    costs = job_costs(finished[1])
    assert set(costs) == set(SILOS)
    assert costs["platform"]["bytes_sent"]["dealer"] < 1000
    assert min(costs["dealer"]["bytes_sent"].values()) > 1_000_000
    assert costs["dealer"]["randomness"] == {}
    assert costs["lender"]["rounds"] > 160


def test_a_request_for_another_purpose_is_refused_by_the_rule(made):
    view = asyncio.run(story.ask_for_too_much(made, HERE / "job.toml"))
    assert view["state"] == "refused"
    assert view["reason"].endswith("rule 'credit-model': purpose 'marketing' is not allowed (rule credit-model)")


def test_the_bundle_verifies_with_the_persons_yes(made, finished, tmp_path):
    path = tmp_path / "bundle.zip"
    honest = export(made, finished[0], path)
    assert honest.ok, honest.reason
    assert {check.name: check.detail for check in honest.checks}["approvals"] == "Ana Ruiz for lender"
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    assert not [name for name, content in members.items() if b"@example." in content]
    for name, forge in story.FORGERIES.items():
        story.tamper(path, tmp_path / "forged.zip", finished[0].job, forge)
        assert not verify(made, finished[0], tmp_path / "forged.zip").ok, name


def test_the_homes_are_private(made):
    for silo in SILOS:
        for path in made.home(silo).root.rglob("*"):
            if path.suffix in (".key", ".salt") or path.parent.name == "results":
                assert path.stat().st_mode & 0o077 == 0, path
