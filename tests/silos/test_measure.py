"""Columns as whole numbers, for a measurement: exact, and with what is missing told from what is zero."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from silos.errors import CatalogueError
from silos.measure import read_whole
from silos.spec_parts import Sum
from silos.tables import Source


def source(path: Path, **columns: pa.Array) -> Source:
    pq.write_table(pa.table(columns), path / "d.parquet")
    return Source(name="d", format="parquet", path=str(path / "d.parquet"))


def asked(column: str, decimals: int = 0) -> Sum:
    return Sum(column=column, decimals=decimals, lowest="1", highest="1000")


def test_numbers_of_every_type_are_whole_and_missing_ones_are_told_from_zeros(tmp_path: Path) -> None:
    given = source(
        tmp_path,
        whole=pa.array([3, None, 0, -7], pa.int32()),
        real=pa.array([0.25, float("nan"), None, -1.5]),
        exact=pa.array([Decimal("1.10"), Decimal("0.00"), None, Decimal("-2.35")]),
    )
    columns = (asked("whole"), asked("real", 2), asked("exact", 2))
    values, present = read_whole(given, columns, 4, "lender")
    assert values.T.tolist() == [[3, 0, 0, -7], [25, 0, 0, -150], [110, 0, 0, -235]]
    assert present.T.tolist() == [
        [True, False, True, True],
        [True, False, False, True],
        [True, True, False, True],
    ]


def test_without_columns_nothing_is_read(tmp_path: Path) -> None:
    values, present = read_whole(Source(name="d", format="parquet", path=str(tmp_path / "none")), (), 3, "lender")
    assert values.shape == present.shape == (3, 0)


@pytest.mark.parametrize(
    "cells",
    [["12", "x"], ["1e99999999", "1"], ["nan", "1"], [2.0**63, 1.0], [2**63, 1], [date(2026, 3, 1), None]],
)
def test_what_is_no_number_that_fits_is_an_error_without_the_value(tmp_path: Path, cells: list[object]) -> None:
    kind = pa.uint64() if isinstance(cells[0], int) else None
    given = source(tmp_path, c=pa.array(cells, kind))
    with pytest.raises(CatalogueError, match=r"^column 'c' of lender holds values that are not numbers of 0 decimals$"):
        read_whole(given, (asked("c"),), 2, "lender")
