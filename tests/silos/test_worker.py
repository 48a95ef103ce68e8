"""What a worker makes of its spec before it computes: whom it waits for how long, and how it accounts for randomness."""

from __future__ import annotations

from mpc.correlations import Usage
from silos.worker import patience, plan_of, randomness_used
from tests.silos.world import make_spec


def test_the_owner_next_to_a_silent_dealer_speaks_first() -> None:
    spec = make_spec(limits={"timeout_s": 10})
    assert patience("lender", spec) == {"platform": 15.0}
    assert set(patience("dealer", spec)) == {"lender", "platform"}


def test_without_a_dealer_nobody_waits_for_one() -> None:
    spec = make_spec(randomness="ot", dealer=None)
    assert patience("lender", spec) == patience("platform", spec) == {}


def test_the_plan_says_where_randomness_comes_from() -> None:
    for spec in (make_spec(), make_spec(randomness="verified-dealer"), make_spec(randomness="ot", dealer=None)):
        plan = plan_of(spec, "platform")
        assert (plan.randomness, plan.dealer) == (spec.randomness, spec.dealer)


def test_randomness_is_counted_by_kind_in_one_order() -> None:
    used = {"triple": Usage(2, 30), "fourier": Usage(1, 7)}
    counted = {"fourier": {"correlations": 1, "words": 7}, "triple": {"correlations": 2, "words": 30}}
    assert randomness_used(used) == counted
    assert list(randomness_used(used)) == ["fourier", "triple"]
