"""A whole job whose owners are killed right after one of their writes: it goes on, and comes to what a quiet one does."""

import numpy as np
import pytest

from mpc.dealer import run_dealer
from tests.harness import run_parties, try_parties
from tests.vertical.test_checkpoints import Dying, Killed, Memory
from tests.vertical.test_job import N, columns, data_of, plan
from vertical import job
from vertical.checkpoints import Owners
from vertical.resuming import AGREED, RESULT_PIECE, Keep, earlier, job_plan

NAMES = ("lender", "platform")
SIDES = (columns(0, 0, N), columns(1, 50, N + 60))
SESSION = b"session-of-test"


class EveryPass(Keep):
    """What is kept after every pass, however short."""

    def checkpoints(self, every=1, stage="training"):
        return super().checkpoints(1, stage)


def parties(stores, steps=None):
    """Both owners and a dealer; steps: what the owners report, if anybody wants to know."""

    def owner(me):
        def body(channel):
            keep, made = EveryPass(stores[me], job_plan(SESSION)), plan(me)
            before = earlier(keep, Owners(channel, NAMES, me), "dealer", "dealer")
            if before is not None:
                return before
            given = data_of(made, SIDES[me], ("email",))
            told = [] if steps is None else steps
            return job.run(
                made,
                given,
                channel,
                SESSION,
                lambda *step: told.append((NAMES[me], *step)),
                keep,
                lambda trained: trained.result | {"part": 1},
            )

        return body

    return {**{name: owner(i) for i, name in enumerate(NAMES)}, "dealer": lambda channel: run_dealer(channel, NAMES)}


@pytest.fixture(scope="module")
def quiet():
    stores = [Memory(), Memory()]
    results = run_parties(parties(stores)).results
    for store in stores:
        assert store.writes == ["rows.00000001", *(f"training.{i:08d}" for i in range(1, 5)), RESULT_PIECE, AGREED]
    return results


def assert_same(given, quiet):
    for name in NAMES:
        one, other = given[name], quiet[name].result
        assert (one["rows"], one["part"]) == (other["rows"], 1)
        assert abs(float(one["auc"]) - float(other["auc"])) < 0.01
        weights = [[float(i["coefficient"]) for i in result["model"]["inputs"]] for result in (one, other)]
        assert np.abs(np.subtract(*weights)).max() < 1e-3


@pytest.mark.parametrize("victim", NAMES)
@pytest.mark.parametrize("writes", [1, 2, 5, 6, 7])
def test_an_owner_is_killed(quiet, victim, writes):
    """After the rows, the first and the last pass, its result, and after all that it writes."""
    stores, steps = [Memory(), Memory()], []
    dying = [Dying(store, writes) if name == victim else store for name, store in zip(NAMES, stores, strict=True)]
    first = try_parties(parties(dying))
    assert isinstance(first.errors[victim], Killed)
    if any(store.get(AGREED) for store in stores):
        alone = {name: Keep(store, job_plan(SESSION)).alone() for name, store in zip(NAMES, stores, strict=True)}
        assert_same({name: finished.result for name, finished in alone.items()}, quiet)
        used = [{kind: vars(usage) for kind, usage in finished.used.items()} for finished in alone.values()]
        assert used[0].keys() == used[1].keys() == quiet["lender"].used.keys()
        return
    again = run_parties(parties(stores, steps)).results
    assert_same({name: again[name].result for name in NAMES}, quiet)
    matched = [step for step in steps if step[1] == "align" and step[2] > 0]
    assert not matched or writes == 1, "rows that both owners have were matched again"
    passes = [step for step in steps if step[:2] == ("lender", "train")]
    assert len(passes) <= 4 - max(0, min(writes, 5) - 2) + 1
