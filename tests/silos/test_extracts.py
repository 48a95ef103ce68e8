"""Results as Parquet: whole or not at all, private, and row for row what was asked."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silos import extracts, queries
from silos.checkpoint_files import SpillError
from silos.errors import CatalogueError
from silos.extracts import take_rows, write_table
from silos.tables import Source

ROWS = 5000
TABLE = pa.table(
    {
        "email": [None if i % 7 == 0 else f"u{i}@x" for i in range(ROWS)],
        "amount": pa.array(np.arange(ROWS) / 4),
        "since": pa.array(np.arange(ROWS, dtype=np.int32), pa.int32()).cast(pa.date32()),
    }
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    pq.write_table(TABLE, path, row_group_size=700)
    return Source("loans", "parquet", str(path))


def test_a_table_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    batches = TABLE.to_batches(max_chunksize=999)
    rows, sha256 = write_table(path, batches, TABLE.schema)
    assert (rows, sha256) == (ROWS, hashlib.sha256(path.read_bytes()).hexdigest())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pq.read_table(path).equals(TABLE)
    assert write_table(path, [], TABLE.schema)[0] == 0  # in place of the other
    assert pq.read_table(path).equals(TABLE.schema.empty_table())
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.parquet"
    write_table(path, TABLE.to_batches(), TABLE.schema)

    def broken() -> Iterator[pa.RecordBatch]:
        yield TABLE.to_batches()[0]
        raise CatalogueError("gone")

    with pytest.raises(CatalogueError, match="gone"):
        write_table(path, broken(), TABLE.schema)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SpillError, match=r"out\.parquet cannot be written: No space left on device"):
        write_table(path, [], TABLE.schema)
    monkeypatch.undo()
    with pytest.raises(SpillError, match="cannot be written: No such file or directory"):
        write_table(tmp_path / "none" / "out.parquet", [], TABLE.schema)
    assert pq.read_table(path).equals(TABLE)
    assert list(tmp_path.iterdir()) == [path]


row = st.integers(0, ROWS - 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(row, max_size=60) | st.lists(row, max_size=30).map(sorted), window=st.sampled_from([1, 7, 1 << 18])
)
def test_rows_are_taken_as_arrow_takes_them(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], window: int
) -> None:
    monkeypatch.setattr(extracts, "WINDOW_ROWS", window)
    taken, score = np.array(rows, np.int64), np.arange(len(rows)) * 0.5
    path = tmp_path / "out.parquet"
    n, _ = take_rows(source, taken, ["amount", "email"], path, {"score": score, "row": taken})
    expected = TABLE.select(["amount", "email"]).take(pa.array(taken))
    found = pq.read_table(path)
    assert found.column_names == ["score", "row", "amount", "email"]
    assert n == len(rows)
    assert found.select(["amount", "email"]).equals(expected)
    assert np.array_equal(found.column("score").to_numpy(), score)
    assert np.array_equal(found.column("row").to_numpy(), taken)


@pytest.mark.parametrize("fmt", ["parquet", "csv", "sql"])
def test_every_row_in_any_order_of_every_kind_of_data_set(source: Source, tmp_path: Path, fmt: Any) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    columns, path = ["email", "amount"], tmp_path / "out.parquet"
    if fmt == "csv":
        lines = (f"{e or ''},{a}\n" for e, a in zip(*(TABLE.column(c).to_pylist() for c in columns)))
        (tmp_path / "d.csv").write_text("email,amount\n" + "".join(lines))
        source = Source("loans", "csv", str(tmp_path / "d.csv"))
    elif fmt == "sql":
        query = Source("loans", "sql", "", f"FROM '{source.path}'")
        source = Source("loans", "sql", "", query.sql, queries.evaluate(query).sha256)
    rows = np.random.default_rng(3).permutation(ROWS).astype(np.int64)
    take_rows(source, rows, columns, path, {}, scratch)
    assert pq.read_table(path).equals(TABLE.select(columns).take(pa.array(rows)))
    assert list(scratch.iterdir()) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_query_that_gives_other_rows_makes_no_result(source: Source, tmp_path: Path) -> None:
    changed = Source("loans", "sql", "", f"FROM '{source.path}'", "0" * 64)
    with pytest.raises(CatalogueError, match="gives other rows than when it was registered"):
        take_rows(changed, np.array([0]), ["email"], tmp_path / "out.parquet", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "columns", "extra", "error", "sentence"),
    [
        ([ROWS], ["email"], {}, CatalogueError, f"data set 'loans' has {ROWS} rows, row {ROWS} was asked for"),
        ([0, -1], ["email"], {}, ValueError, "not negative"),
        ([0.5], ["email"], {}, ValueError, "one array of int64"),
        ([0], ["mail"], {}, CatalogueError, "has no column 'mail'; did you mean 'email'"),
        ([0], ["email"], {"x": [1, 2]}, ValueError, "each extra column has 1 values"),
        ([0], ["email"], {"email": [1]}, ValueError, "would have column 'email' twice"),
    ],
)
def test_what_does_not_fit_is_refused(
    source: Source, tmp_path: Path, rows: Any, columns: Any, extra: Any, error: type[Exception], sentence: str
) -> None:
    arrays = {name: np.array(values) for name, values in extra.items()}
    with pytest.raises(error, match=sentence):
        take_rows(source, np.array(rows), columns, tmp_path / "out.parquet", arrays)
    assert list(tmp_path.iterdir()) == []
