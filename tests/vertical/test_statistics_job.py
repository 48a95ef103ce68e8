"""The job of statistics as its owners run it, in one process: what each gets, and nothing more."""

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, Refused
from tests.harness import run_parties
from tests.vertical.test_job import data_of
from vertical.align import Terms
from vertical.encoding import Feature
from vertical.statistics_job import RELEASES, Plan, run

N = 500
OWNERS = ("lender", "platform")


def plan(me, release=RELEASES, **changed):
    settings = {"label": "y" if me == 0 else None, "features": (Feature("a", "number"), Feature("c", "category"))}
    return Plan(
        terms=Terms(OWNERS, me, "ecdh-psi", (("email/v1", None),), "refuse", 50),
        randomness="dealer", dealer="dealer", names=(("a", "c"), ("a", "c")),
        winsorise_sd=8, rare_category=5, release=release, **(settings | changed),
    )  # fmt: skip


def columns(me, first, last):
    rng = np.random.default_rng(20 + me)
    n = last - first
    a = rng.normal(size=n)
    made = {
        "email": np.array([f"p{i}@example.org" for i in range(first, last)], dtype=object),
        "a": a,
        "c": np.array([("x", "y", "z")[i] for i in rng.permutation(np.arange(n) % 3)], dtype=object),
    }
    if me == 0:
        made["y"] = (a + rng.normal(size=n) > 0.5).astype(float)
    return made


def run_job(release=RELEASES, sides=None, steps=None, **changed):
    sides = sides or (columns(0, 0, N), columns(1, 20, N + 30))

    def owner(me):
        chosen = plan(me, release, **changed)
        tell = (lambda *step: steps.append((me, *step))) if steps is not None else lambda *_step: None
        return lambda channel: run(chosen, data_of(chosen, sides[me], ("email",)), channel, b"session-of-test", tell)

    parties = {name: owner(me) for me, name in enumerate(OWNERS)}
    return run_parties({**parties, "dealer": lambda channel: run_dealer(channel, OWNERS)})


def test_each_owner_gets_its_part():
    steps = []
    done = run_job(steps=steps)
    lender, platform = (done.results[name].result for name in OWNERS)
    assert lender["rows"]["matched"] == platform["rows"]["matched"] == N - 20
    assert lender["inputs"] == ["a", "c=y", "c=z"] or len(lender["inputs"]) == 3
    assert float(lender["label_correlations"][0]) > 0.5
    assert np.shape(platform["own_correlations"]) == (3, 3)
    assert platform["correlations"][0]["silo"] == "lender"
    assert platform["correlations"][0]["inputs"] == ["a", "c=#1", "c=#2"]
    mirrored = np.array(platform["correlations"][0]["values"]).T
    assert (np.array(lender["correlations"][0]["values"]) == mirrored).all()
    assert all(1 <= float(v) < 2 for v in platform["vif"])
    assert [c["column"] for c in platform["woe"]] == ["a", "c"]
    assert sum(b["rows"] for b in platform["woe"][0]["bins"]) == N - 20
    assert lender["information_values"] == platform["information_values"]
    values = {(v["silo"], v["column"]): float(v["value"]) for v in lender["information_values"]}
    assert max(values, key=values.get) == ("lender", "a")
    assert lender["selection"]["steps"][0]["input"] == "a"
    assert platform["selection"]["steps"][0]["input"] is None
    assert lender["selection"]["counts"] == platform["selection"]["counts"]
    assert {step[1] for step in steps} == {"align", "statistics", "select", "woe"}


NAMES = {
    "label_correlations": {"inputs", "own_correlations", "label_correlations"},
    "correlations": {"inputs", "own_correlations", "correlations"},
    "vif": {"inputs", "own_correlations", "vif"},
    "woe": {"woe"},
    "information_values": {"information_values"},
    "selection": {"selection"},
    "counts": {"rows"},
}


@pytest.mark.parametrize("item", RELEASES)
def test_a_result_holds_what_is_released_and_nothing_else(item):
    done = run_job((item,))
    assert all(set(done.results[name].result) == NAMES[item] for name in OWNERS)


def test_columns_are_selected_for_a_logistic_regression_too():
    steps = []
    done = run_job(("selection", "vif", "woe"), steps=steps, logistic=True)
    lender, platform = (done.results[name].result["selection"] for name in OWNERS)
    assert lender["steps"][0]["input"] == "a"
    assert lender["counts"] == platform["counts"]
    assert {step[1] for step in steps} == {"align", "statistics", "train", "select", "woe"}


def test_no_number_in_a_result_is_a_float():
    def walk(value):
        assert not isinstance(value, float)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(run_job().results["platform"].result)


def test_no_level_of_a_category_is_told():
    sides = columns(0, 0, N), columns(1, 20, N + 30)
    sides[1]["c"] = np.array([("secretville", "hush", "quiet")[i % 3] for i in range(N + 10)], dtype=object)
    done = run_job(sides=sides)
    assert "secretville" in str(done.results["platform"].result)
    assert not any(word in str(done.results["lender"].result) for word in ("secretville", "hush", "quiet"))


def test_data_that_cannot_be_used_is_refused():
    with pytest.raises(LocalProtocolError, match="releases some of"):
        plan(0, ("everything",))
    with pytest.raises(Refused, match="take 1000 rows"):
        run_job(minimum=1000)
    sides = columns(0, 0, N), columns(1, 20, N + 30)
    sides[1]["a"] = np.ones(N + 10)
    sides[1]["c"] = np.array(["x"] * (N + 10), dtype=object)
    with pytest.raises(LocalProtocolError, match="no feature column of platform"):
        run_job(("vif",), sides)
    sides[0]["y"][100] = 2.0
    with pytest.raises(LocalProtocolError, match="0 or 1"):
        run_job(("woe",), sides)
