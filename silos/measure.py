"""The job kind "vertical.measure" at one owner: its identifiers and its columns as whole numbers, and then the computation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mpc.errors import LocalProtocolError
from mpc.measure import Column
from silos.errors import CatalogueError
from silos.spec import Measure
from silos.spec_parts import Sum
from silos.tables import Tabular, load_table
from silos.tasks import Done, Task

_NO_NUMBER = (pa.ArrowException, ArithmeticError, TypeError, ValueError)


def measure(task: Task) -> Done:
    """Count matches and add up columns, on shares; no rows are given out.

    Reveals: as the matching, mpc.measure and the supply of randomness declare.
    Raises: what `silos.tasks.perform` raises.
    """
    from vertical.measure import Data, Plan, Summed, run

    spec = task.spec
    if not isinstance(spec, Measure):
        raise LocalProtocolError("not a job that measures")
    summed = tuple(
        Summed(party.silo, Column(one.column, _steps(one.lowest, one), _steps(one.highest, one)), one.decimals)
        for party in spec.parties
        for one in party.sums
    )
    plan = Plan(task.terms, spec.randomness, spec.dealer, summed, spec.round_to, spec.epsilon, spec.release)
    task.progress("read", 0, 1)
    identifiers, batches = task.identifiers()
    own = next(party.sums for party in spec.parties if party.silo == task.me)
    values, present = read_whole(task.data, own, identifiers.n_rows, task.me)
    task.check_unchanged()
    channel = task.connect()
    done = run(plan, Data(identifiers, batches, values, present), channel, task.session, task.progress)
    return Done(channel, done.result, spec.release, done.used)


def _steps(bound: str, one: Sum) -> int:
    """A bound in units of the last digit that counts."""
    return int(Decimal(bound).scaleb(one.decimals).to_integral_value())


def read_whole(
    source: Tabular, columns: tuple[Sum, ...], n_rows: int, owner: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(rows, k): numbers in units of the last digit that counts, 0 where there is none; and whether there is one.

    Raises: CatalogueError if a column holds no numbers, or larger ones than fit.
    """
    values, present = np.zeros((n_rows, len(columns)), dtype=np.int64), np.ones((n_rows, len(columns)), dtype=np.bool_)
    if not columns:
        return values, present
    table = load_table(source, [one.column for one in columns])
    for place, one in enumerate(columns):
        column = table.column(one.column).combine_chunks()
        try:
            values[:, place], present[:, place] = _whole(column, one.decimals)
        except _NO_NUMBER:  # their text quotes the value
            raise CatalogueError(
                f"column '{one.column}' of {owner} holds values that are not numbers of {one.decimals} decimals"
            ) from None
    return values, present


def _whole(column: pa.Array, decimals: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Integers and decimals exactly; binary fractions to the nearest; 0 and False for missing ones."""
    if pa.types.is_floating(column.type):
        numbers = np.array(column.cast("float64").to_numpy(zero_copy_only=False), dtype=np.float64)
        present = ~np.isnan(numbers)
        scaled = np.rint(np.where(present, numbers, 0.0) * 10.0**decimals)
        if np.any(np.abs(scaled) >= 2.0**63):
            raise OverflowError
        return scaled.astype(np.int64), present
    given = column.to_pylist()
    whole = [0 if v is None else _exact(v, decimals) for v in given]
    return np.array(whole, dtype=np.int64), np.array([v is not None for v in given], dtype=np.bool_)


def _exact(value: Any, decimals: int) -> int:
    scaled = Decimal(value).scaleb(decimals).to_integral_value()
    if not abs(scaled) < 1 << 63:  # before it is written out: a few characters can stand for a very long number
        raise OverflowError
    return int(scaled)
