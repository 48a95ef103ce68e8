"""What a silo takes into account for a job, from its review to its end: uses of the rule, privacy budget, differencing.

    used, foresee -> (a person may look at it) -> admit -> consented -> started -> released
                                                      `-> ended: gives everything back unless the job has started

Everything that a consent reserves is one transaction of the ledger.  Each of these can be called again with the same result,
as a node does that was stopped on the way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from silos import differencing
from silos.accounting import charges, limit_of
from silos.budget import BudgetError, Ledger, Limit

if TYPE_CHECKING:
    from silos.catalogue import Dataset
    from silos.config import Home
    from silos.policy import Policy
    from silos.spec import Spec

log = logging.getLogger("accord.node")

VOID_BUSY_S = 5.0


def used(home: Home, job: str) -> dict[str, int]:
    """How many other jobs each rule has admitted.  Raises: BudgetError."""
    with Ledger(home) as ledger:
        return ledger.uses(but_not=job)


def foresee(home: Home, spec: Spec, me: str, rules: Policy, rule: str, dataset: Dataset | None) -> list[dict[str, str]]:
    """The consent's `budget` as `admit` would return it now; nothing of the job is written.

    rule: the name of the one that allows the job.  dataset: None for an assistant, which takes nothing.
    Raises: BudgetError, DifferencingRefused, CatalogueError: what `admit` would raise.
    """
    if dataset is None:
        return []
    with Ledger(home) as ledger:
        ledger.foresee_use(spec.job, rule, _uses(rules, rule))
        made = ledger.foresee(spec.job, dataset.name, charges(spec, me), _limit(rules, dataset))
    differencing.guard(home, spec, me, dataset, _floor(rules, rule))
    return [charge.document() for charge in made]


def admit(home: Home, spec: Spec, me: str, rules: Policy, rule: str, dataset: Dataset | None) -> list[dict[str, str]]:
    """Reserve what the job takes, all or nothing; called before the consent is said.  Returns the consent's `budget`.

    Of a node that was stopped between this and the consent, the last call counts: its rule and its version of the data.
    Raises: BudgetError, DifferencingRefused, CatalogueError: the reason to refuse.
    """
    if dataset is None:
        return []
    floor = _floor(rules, rule)
    compared = differencing.guard(home, spec, me, dataset, floor)  # reads the rows if a version is new
    with Ledger(home) as ledger, ledger.transaction():
        ledger.reserve_use(spec.job, rule, _uses(rules, rule))
        made = ledger.reserve(spec.job, dataset.name, charges(spec, me), _limit(rules, dataset))
        differencing.record(ledger, spec, me, dataset, floor, compared)
    return [charge.document() for charge in made]


def started(home: Home, job: str) -> None:
    """What the job takes stays spent; called before 'started' is said.  Raises: BudgetError if it was given back."""
    with Ledger(home) as ledger:
        ledger.start(job)


def released(home: Home, job: str) -> None:
    """The job has released its result here.  Raises: BudgetError."""
    with Ledger(home) as ledger:
        ledger.commit(job)


def ended(home: Home, job: str) -> bool:
    """The job is over here; what it took is given back if it has not started, and then True.

    A ledger that cannot be used, or that another one writes to for longer than VOID_BUSY_S, gives nothing back, which is safe,
    and does not keep a node from ending other jobs; `unstarted` tells of the job again.
    """
    try:
        with Ledger(home, busy_s=VOID_BUSY_S) as ledger:
            return ledger.void(job)
    except BudgetError as exc:
        log.warning("job %s: what it took of the privacy budget stays reserved: %s", job, exc)
        return False


def unstarted(home: Home) -> list[str]:
    """The jobs that have reserved something here and have not started; those of them that are over are to be `ended`.

    A node that was away, or could not write, when such a job was over asks this when it is connected again.
    Raises: BudgetError.
    """
    with Ledger(home) as ledger:
        return ledger.unstarted()


def dataset_of(home: Home, job: str) -> str:
    """The data set of ours that a job was admitted with.  Raises: BudgetError if there is none."""
    with Ledger(home) as ledger:
        found = ledger.execute("SELECT dataset FROM question WHERE job = ?", (job,))
    if not found:
        raise BudgetError(f"this silo has admitted no job {job} to its data")
    return str(found[0][0])


def _uses(rules: Policy, rule: str) -> int | None:
    return next((one.uses for one in rules.allow if one.name == rule), None)


def _floor(rules: Policy, rule: str) -> int:
    """The fewest rows in which two jobs may differ: the policy's minimum, or the rule's floor if that is higher."""
    return max([rules.minimum_matches, *(one.floor for one in rules.allow if one.name == rule)])


def _limit(rules: Policy, dataset: Dataset) -> Limit | None:
    terms = rules.datasets.get(dataset.name)
    return limit_of(None if terms is None else terms.budget)
