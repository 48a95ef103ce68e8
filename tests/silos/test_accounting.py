"""What noise costs, the distribution that is drawn, and what a budget means as an epsilon."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter

from coordinator.statements import Spent
from mpc.noise import discrete_laplace, parse_epsilon
from mpc.rng import Prg
from silos.accounting import charges, epsilon_of, epsilon_of_limit, epsilon_of_noise, limit_of, rho_of
from silos.budget import Limit, decimal_text
from silos.disclosure import PROTOCOLS, load_reveals
from silos.policy_model import Budget
from tests.silos.world import MATCHERS, make_spec

MEASURE: dict[str, Any] = {
    "kind": "vertical.measure",
    "parties": MATCHERS,
    "align": {"protocol": "hidden", "minimum_matches": 100},
}


def test_noise_is_charged_to_both_owners_and_to_nobody_else() -> None:
    spec = make_spec(**MEASURE, epsilon="0.5", release=["matches"])
    assert charges(spec, "lender") == {"platform": Decimal("0.125")}
    assert charges(spec, "platform") == {"lender": Decimal("0.125")}
    assert charges(spec, "dealer") == {}
    assert charges(make_spec(**MEASURE, release=["matches"]), "lender") == {}
    assert charges(make_spec(), "lender") == {}


def test_every_noise_that_a_protocol_declares_is_charged() -> None:
    """What is revealed with noise is known here by name; a new one must be charged first.

    Whether the number reaches the minimum follows from the number with its noise.
    """
    noised = {
        (kind, reveal.name)
        for kind in PROTOCOLS
        for reveals in load_reveals(kind, "hidden" if kind == "vertical.measure" else "ecdh-psi", "dealer").values()
        for reveal in reveals
        if "noise" in f"{reveal.name} {reveal.what}"
    }
    assert noised == {("vertical.measure", "measure.noised"), ("vertical.measure", "measure.enough")}


def test_the_noise_that_is_drawn_has_the_privacy_that_is_charged() -> None:
    """Of the exact distribution: its losses keep to the epsilon, and to the rho at every order."""
    for text in ("0.1", "0.5", "2"):
        epsilon, q = float(Decimal(text)), math.exp(-float(Decimal(text)))
        p = [(1 - q) / (1 + q) * q ** abs(z) for z in range(-400, 401)]
        for order in (1.001, 1.5, 2, 8, 64):
            total = math.fsum(a * (a / b) ** (order - 1) for a, b in zip(p[1:], p[:-1], strict=True) if b)
            assert math.log(total) / (order - 1) <= float(rho_of(Decimal(text))) * order + 1e-9
        assert max(abs(math.log(a / b)) for a, b in zip(p[200:600], p[199:599], strict=True)) <= epsilon + 1e-9
        assert epsilon_of_noise({Decimal(text): 1}, Decimal("1e-9")) <= epsilon + 1e-3


def test_noise_is_drawn_from_that_distribution() -> None:
    prg, n, q = Prg(bytes(range(32))), 4000, math.exp(-0.5)
    drawn = [discrete_laplace(prg, parse_epsilon("0.5")) for _ in range(n)]
    for z in range(-3, 4):
        p = (1 - q) / (1 + q) * q ** abs(z)
        assert abs(drawn.count(z) - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_a_budget_is_told_as_epsilon_and_delta() -> None:
    delta, rho = Decimal("1e-6"), Decimal("0.125")
    by_hand = 0.125 + 2 * math.sqrt(
        0.125 * math.log(1e6)
    )  # Bun, Steinke, proposition 1.3; the library's bound is below
    assert 0.5 < epsilon_of_limit(rho, delta) < by_hand
    assert epsilon_of([], delta) == 0
    assert epsilon_of([rho], delta) == pytest.approx(0.5)  # one draw: adding up is less
    assert epsilon_of([rho] * 400, delta) == epsilon_of_limit(rho * 400, delta) < 200
    assert epsilon_of_noise({Decimal("0.5"): 40}, delta) < epsilon_of([rho] * 40, delta)


def test_a_limit_is_what_the_policy_says_and_fits_into_a_consent() -> None:
    assert limit_of(None) is None
    assert limit_of(Budget(rho="0.5", delta="1e-6")) == Limit(Decimal("0.5"), Decimal("0.000001"))
    smallest = limit_of(Budget(rho="999999.999999999", delta="1.999999999e-30"))
    assert smallest is not None
    for value in (smallest.rho, smallest.delta, rho_of(Decimal("63.999999"))):
        TypeAdapter(Spent).validate_python(decimal_text(value))
