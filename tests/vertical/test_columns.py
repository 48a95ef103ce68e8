"""The Gram matrix of all owners' columns, and the sources of randomness that can serve what is made of it."""

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.engine import bind
from mpc.session import Session
from mpc.supply import MODES, supply
from tests.harness import run_parties
from tests.vertical.helpers import NAMES, blocks, run_owners
from tests.vertical.test_statistics import plain_vif
from vertical.columns import joint_gram, plan_joint_gram
from vertical.statistics import Settings, statistics
from vertical.stepwise import Settings as Selection
from vertical.stepwise import select


@pytest.mark.parametrize("widths", [[3, 2], [1, 1], [4, 1, 2]])
def test_products_of_all_columns(widths):
    rng = np.random.default_rng(1)
    parts = [rng.integers(-(2**20), 2**20, size=(50, d)).astype(np.int32) for d in widths]

    def owner(i):
        def body(session):
            tickets = session.correlations.plan(plan_joint_gram(50, widths, 7))
            return joint_gram(session, tickets, parts[i], widths, 7)

        return body

    done = run_owners([owner(i) for i in range(len(widths))])
    total = sum(done.results[name] for name in NAMES[: len(widths)]).view(np.int64)
    X = np.hstack(parts).astype(np.int64)
    assert (total == X.T @ X).all()
    sent = [m.size for m in done.transcript if (m.sender, m.receiver) == ("platform", "lender") and "matrix" in m.tag]
    assert sum(sent) == 8 * 50 * widths[1] * (len(widths) - 1)


@pytest.mark.parametrize("mode", MODES)
def test_every_source_of_randomness_serves(mode):
    parts, y = blocks(200, [2, 2], 12)
    owners = NAMES[:2]

    def owner(i):
        def body(channel):
            correlations = supply(mode, channel, owners, None if mode == "ot" else "dealer", i)
            session = Session(channel, owners, i, correlations)
            with bind(session):
                found = statistics(session, parts[i], y if i == 0 else None, Settings(("vif",)))
                chosen = select(session, parts[i], y if i == 0 else None, Selection("forward", most=1), first=2)
            correlations.settle()
            correlations.close()
            return found.vif, chosen.counts

        return body

    dealers = {} if mode == "ot" else {"dealer": lambda channel: run_dealer(channel, owners)}
    done = run_parties({**{name: owner(i) for i, name in enumerate(owners)}, **dealers})
    vif = np.concatenate([done.results[name][0] for name in owners])
    assert vif == pytest.approx(plain_vif(np.hstack(parts)), rel=1e-3)
    assert done.results["lender"][1] == done.results["platform"][1]
