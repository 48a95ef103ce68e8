"""What the noise of a job costs, and what a budget means as an epsilon.

The only noise is that of the number of matches (mpc.noise, mpc.measure): each owner adds its own draw of the discrete Laplace
distribution, P(z) proportional to exp(-epsilon |z|), to its share before anything is opened.  A counterparty knows its own draw
at most, so it learns the count with our whole noise on it.  Replacing one row of ours changes the count by one at most, so
that is epsilon-differentially private towards it, and with pure epsilon comes zCDP of rho = epsilon^2 / 2.

Source: Bun, Steinke, TCC 2016 (proposition 1.4: rho; proposition 1.3: epsilon of a rho and a delta); Ghosh, Roughgarden,
Sundararajan, STOC 2009 (the mechanism); Whitehouse, Ramdas, Rogers, Wu, ICML 2023 (a limit on the sum of rho holds also when
each question is chosen after the answers before it).  The conversions are those of Google's dp-accounting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from silos.budget import Limit
from silos.plan import plan

if TYPE_CHECKING:
    from silos.policy import Budget
    from silos.spec import Spec


def rho_of(epsilon: Decimal) -> Decimal:
    """The rho that goes with pure epsilon, exact."""
    return epsilon * epsilon / 2


def charges(spec: Spec, me: str) -> dict[str, Decimal]:
    """What a job takes of our data set's budget, as rho towards each silo that learns a figure with our noise on it."""
    taken: dict[str, Decimal] = {}
    if spec.party(me) is None:
        return taken
    for item in plan(spec).released:
        if item.epsilon is not None:
            for silo in item.recipients:
                if silo != me:
                    taken[silo] = taken.get(silo, Decimal(0)) + rho_of(Decimal(item.epsilon))
    return taken


def limit_of(budget: Budget | None) -> Limit | None:
    """The budget that a policy gives a data set."""
    return None if budget is None else Limit(Decimal(budget.rho), Decimal(budget.delta))


def epsilon_of(rhos: Sequence[Decimal], delta: Decimal) -> float:
    """The epsilon that all of these charges keep to, at this delta: by zCDP, or by adding up if that is less."""
    if not rhos:
        return 0.0
    return min(epsilon_of_limit(sum(rhos, Decimal(0)), delta), math.fsum(math.sqrt(2 * float(rho)) for rho in rhos))


def epsilon_of_limit(rho: Decimal, delta: Decimal) -> float:
    """The epsilon that anything of this rho keeps to, at this delta."""
    from dp_accounting import ZCDpEvent  # type: ignore[import-untyped]
    from dp_accounting.rdp import RdpAccountant  # type: ignore[import-untyped]

    accountant = RdpAccountant()
    accountant.compose(ZCDpEvent(float(rho)))
    return float(accountant.get_epsilon(float(delta)))


def epsilon_of_noise(epsilons: Mapping[Decimal, int], delta: Decimal) -> float:
    """The same of the very distribution that is drawn, by its privacy losses.

    epsilons: how often noise of each was drawn; they must not have been chosen after an answer.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld  # type: ignore[import-untyped]

    total = pld.identity()
    for epsilon, times in epsilons.items():
        total = total.compose(pld.from_discrete_laplace_mechanism(float(epsilon), sensitivity=1).self_compose(times))
    return float(total.get_epsilon_for_delta(float(delta)))
