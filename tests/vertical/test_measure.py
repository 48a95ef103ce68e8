"""Measuring and the gate before a matching, in one process: what is opened, and what stops them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, Refused
from mpc.matching.hashes import identify
from mpc.measure import Column
from tests.harness import run_parties, try_parties
from vertical.align import Identifiers, Terms
from vertical.batches import column
from vertical.measure import Data, Plan, Summed, gate, run

OWNERS = ("lender", "platform")
PEOPLE = {"lender": range(60), "platform": range(20, 100)}  # 40 in common
SUMMED = (
    Summed("lender", Column("amount", -1000, 100_000), 2),
    Summed("platform", Column("visits", 0, 100), 0),
)


def terms(me: int, minimum: int = 1) -> Terms:
    return Terms(OWNERS, me, "hidden", (("email/v1", None),), "first", minimum)


def data(me: int, more: int = 0) -> Data:
    numbers = list(PEOPLE[OWNERS[me]])
    own = Identifiers((("email/v1", None),))
    mails = [f"p{i}@example.org" for i in numbers] + ["p0@example.org"] * more
    batches = own.add([[column(pa.array(mails))]])
    values = np.array([[i * 10 - 5 if me == 0 else i % 7] for i in [*numbers, *[0] * more]], dtype=np.int64)
    present = np.ones(values.shape, dtype=np.bool_)
    if me == 1:  # one of those who match, and one who does not
        values[[5, 70]], present[[5, 70]] = 0, False
    return Data(own, batches, values, present)


def measured(**settings):
    plans = [
        Plan(**{
            "terms": terms(me, settings.get("minimum", 1)), "randomness": "dealer", "dealer": "dealer", "summed": SUMMED,
            "round_to": None, "epsilon": None, "release": ("matches", "sums"),
            **{k: v for k, v in settings.items() if k != "minimum"},
        })
        for me in (0, 1)
    ]  # fmt: skip
    owner = lambda me: lambda channel: run(plans[me], data(me), channel, b"session", lambda *_: None)  # noqa: E731
    return {"lender": owner(0), "platform": owner(1), "dealer": lambda channel: run_dealer(channel, OWNERS)}


def test_matches_and_sums_are_exact_and_nothing_else_is_told() -> None:
    done = run_parties(measured())
    common = range(20, 60)
    cents = sum(i * 10 - 5 for i in common)
    for owner in OWNERS:
        result = done[owner].result
        assert set(result) == {"matches", "sums", "own"}
        assert result["matches"] == 40
        assert result["sums"] == [
            {"silo": "lender", "column": "amount", "sum": f"{cents // 100}.{cents % 100:02d}"},
            {"silo": "platform", "column": "visits", "sum": str(sum(i % 7 for i in common if i != 25))},
        ]
    assert done["platform"].result["own"]["without a number"] == {"visits": 2}
    assert done["lender"].result["own"]["without a number"] == {"amount": 0}
    assert done["lender"].used == done["platform"].used or set(done["lender"].used) == set(done["platform"].used)


@pytest.mark.parametrize(("step", "told"), [(25, 50), (100, 0), (7, 42)])
def test_the_number_is_told_to_the_nearest_multiple(step: int, told: int) -> None:
    done = run_parties(measured(round_to=step, release=("matches",), summed=()))
    assert [done[owner].result["matches"] for owner in OWNERS] == [told, told]


def test_noise_of_a_large_epsilon_is_small() -> None:
    done = run_parties(measured(epsilon="64", release=("matches",), summed=()))
    assert done["lender"].result["matches"] == done["platform"].result["matches"]
    assert abs(done["lender"].result["matches"] - 40) <= 2


def test_counting_without_randomness() -> None:
    done = run_parties({k: v for k, v in measured(randomness=None, dealer=None, release=("matches",), summed=()).items()
                        if k != "dealer"})  # fmt: skip
    assert [done[owner].result["matches"] for owner in OWNERS] == [40, 40]


def test_too_few_matches_open_nothing() -> None:
    parties = try_parties(measured(minimum=41))
    assert all(isinstance(parties.errors[owner], Refused) for owner in OWNERS)
    assert not [m for m in parties.transcript if m.tag in ("measure/count", "measure/rounded", "measure/sums")]


def test_a_value_out_of_its_range_is_an_error_of_its_owner() -> None:
    parties = try_parties(measured(summed=(Summed("lender", Column("amount", 0, 10), 2), SUMMED[1])))
    error = parties.errors["lender"]
    assert isinstance(error, LocalProtocolError)
    assert str(error) == "column 'amount' has values that are not from 0 to 10"


def test_a_missing_number_adds_nothing_even_if_zero_is_out_of_range() -> None:
    """A zero in its place would be refused, and stop the job."""
    from_one = Summed("platform", Column("visits", 1, 100), 0)
    parties = measured(summed=(SUMMED[0], from_one))
    given = data(1)
    values = np.where(given.present, given.values + 1, 0)
    plan = Plan(terms(1), "dealer", "dealer", (SUMMED[0], from_one), None, None, ("matches", "sums"))
    shifted = Data(given.identifiers, given.batches, values, given.present)
    parties["platform"] = lambda channel: run(plan, shifted, channel, b"session", lambda *_: None)
    done = run_parties(parties)
    expected = sum(i % 7 + 1 for i in range(20, 60) if i != 25)
    assert done["lender"].result["sums"][1]["sum"] == str(expected)


def test_a_sum_that_may_wrap_is_refused_before_anything_is_opened() -> None:
    wide = Summed("platform", Column("visits", 0, (1 << 61) - 1), 0)
    parties = try_parties(measured(summed=(SUMMED[0], wide)))
    for owner in OWNERS:
        assert "the sum of column 'visits' over 60 rows may be too large" in str(parties.errors[owner])
    assert not [m for m in parties.transcript if m.tag.startswith("measure/")]


def test_a_peer_with_more_columns_than_agreed_is_stopped_at_once() -> None:
    parties = measured()
    parties["platform"] = measured(summed=(SUMMED[1],))["platform"]
    errors = try_parties(parties).errors
    assert str(errors["platform"].why) == "expected 0 columns, got 1"


def test_with_noise_the_gate_opens_nothing_about_the_exact_number(monkeypatch) -> None:
    """40 match, and 41 are asked for; noise of 3 is what lets them go on, and what is told."""
    monkeypatch.setattr("mpc.measure.discrete_laplace", lambda *_: drawn.pop())
    settings = {"minimum": 41, "epsilon": "0.5", "release": ("matches",), "summed": ()}
    drawn = [1, 2]
    done = run_parties(measured(**settings))
    assert [done[owner].result["matches"] for owner in OWNERS] == [43, 43]
    drawn = [1, -1]
    parties = try_parties(measured(**settings))
    assert all(isinstance(parties.errors[owner], Refused) for owner in OWNERS)


@pytest.mark.parametrize("minimum", [40, 41])
def test_the_gate_opens_one_bit(minimum: int) -> None:
    points = [
        identify([b"%d" % i for i in PEOPLE[owner]], b"s").words for owner in OWNERS
    ]  # with the sentinel, which is in both
    owner = lambda me: lambda channel: gate(terms(me, minimum + 1), ("dealer", "dealer"), points[me], b"s", channel)  # noqa: E731
    parties = try_parties(
        {"lender": owner(0), "platform": owner(1), "dealer": lambda channel: run_dealer(channel, OWNERS)}
    )
    if minimum == 40:
        assert not parties.errors
        assert set(parties["lender"]) == set(parties["platform"])
    else:
        assert all(isinstance(parties.errors[owner], Refused) for owner in OWNERS)
    opened = [m for m in parties.transcript if m.tag == "measure/few"]
    assert [m.size for m in opened] == [8, 8]
