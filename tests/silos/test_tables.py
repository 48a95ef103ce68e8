"""Data files through DuckDB, a batch at a time: the order of the file, the types, and no more memory than asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from silos import tables
from silos.errors import CatalogueError
from silos.tables import Format, Source

ROWS = 400_000


def source(path: Path) -> Source:
    fmt: Format = "csv" if path.suffix == ".csv" else "parquet"
    return Source(name="loans", format=fmt, path=str(path))


def made(path: Path, sql: str, options: str) -> Path:
    with duckdb.connect() as db:
        db.execute(f"COPY ({sql}) TO {tables.quoted_text(str(path))} ({options})")
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small-groups.parquet", "FORMAT parquet, ROW_GROUP_SIZE 2048"),
        ("large-groups.parquet", "FORMAT parquet, ROW_GROUP_SIZE 200000"),
        ("plain.csv", "FORMAT csv, HEADER"),  # more than one of the 32 MiB pieces that threads read a CSV file in
    ],
)
def test_rows_come_in_the_order_of_the_file_with_two_threads(tmp_path: Path, name: str, options: str) -> None:
    text = "repeat(hash(i)::VARCHAR, 5)" if name == "plain.csv" else "hash(i)::VARCHAR"
    path = made(tmp_path / name, f"SELECT i * 7919 % {ROWS} AS n, {text} AS id FROM range({ROWS}) t(i)", options)  # noqa: S608
    if name == "plain.csv":
        assert path.stat().st_size > 33 << 20
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    start = 0
    with tables.stream_columns(source(path), ["n"], scratch=scratch, batch_rows=10_000) as stream:
        assert stream.schema.names == ["n"]
        for batch in stream:
            assert 0 < batch.num_rows <= 2 * 10_000
            wanted = np.arange(start, start + batch.num_rows) * 7919 % ROWS
            assert np.array_equal(batch.column("n").to_numpy(), wanted)
            start += batch.num_rows
    assert start == ROWS
    assert list(scratch.iterdir()) == []


CASES = {
    "comma": "id,x\nu1,1\nu2,2\n",
    "semicolon": 'id;x\n"a;b";1,5\nc;2,5\n',
    "tab": "id\tx\na\t1\nb\t2\n",
    "pipe": "id|x\na|1\nb|\n",
    "no header": "1,2\n3,4\n",
    "only numbers": "a,b\n1,2\n3,4\n",
    "only text": "email,name\na@x,Ann\nb@x,Bob\n",
    "dates": "id,born\na,01/02/1990\nb,25/03/1991\n",
    "times": "id,t,u\na,25/02/1990 10:00:01,10:00:00\nb,26/03/1991 11:11:00,11:00:00\n",
    "names": '"od""d; name",it\'s,x\n1,2,3\n"q ""x"" y",b,4\n',
    "only a header": "id,x\n",
    "windows": "id,x\r\na,1\r\nb,2\r\n",
    "byte order mark": "\ufeffid,x\na,1\n",
    "a name twice": "id,id,x\na,b,1\nc,d,2\n",
    "a line break": 'id,x\n"a\nb",1\nc,2\n',
    "one column": "email\na@x\n\nb@x\n",
    "comment": "# c\nid,x\na,1\n",
    "nothing": 'id,x\n,1\nb,\n"",3\n',
    "backslash": 'id,x\n"a\\"b",1\n"c",2\n',
    "zeros": "zip,x\n00042,1e5\n1067,2.50\n",
    "ragged": "id,x\na,1\nb\nc,3\n",
    "truth": "id,b\na,true\nb,false\n",
    "umlauts": "é,ü\nä,1\n",
    "no byte": "",
}


@pytest.mark.parametrize("name", CASES)
def test_a_csv_file_reads_as_duckdb_guesses_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"it's {name}.csv"
    path.write_text(CASES[name], newline="")
    with duckdb.connect() as db:
        guessed = db.read_csv(str(path), sample_size=-1).to_arrow_table()
    assert tables.load_table(source(path), guessed.column_names).equals(guessed)
    as_text = tables.load_table(source(path), guessed.column_names, as_text=guessed.column_names)
    assert {str(t) for t in as_text.schema.types} == {"string"}
    assert len(as_text) == len(guessed)


def test_text_of_a_csv_file_is_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("no,born,zip,x\n1e5,01/02/1990,1067,1\n2.50,03/04/1991,,2\n")
    with tables.stream_columns(source(path), ["zip", "no", "born", "x"], as_text=["no", "zip", "born"]) as stream:
        rows = [row for batch in stream for row in batch.to_pylist()]
    assert rows == [
        {"zip": "1067", "no": "1e5", "born": "01/02/1990", "x": 1},
        {"zip": None, "no": "2.50", "born": "03/04/1991", "x": 2},
    ]


def test_types_and_nulls_of_a_parquet_file_stay(tmp_path: Path) -> None:
    table = pa.table(
        {
            "email": ["a@x.org", None, ""],
            "raw": pa.array([b"\xff", None, b""], pa.binary()),
            "n": pa.array([1, None, 3], pa.int32()),
            "since": pa.array([1, 2, None], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "d.parquet")
    assert tables.load_table(source(tmp_path / "d.parquet"), ["since", "raw", "email", "n"]).equals(
        table.select(["since", "raw", "email", "n"])
    )


def test_what_is_missing_is_said_before_the_first_batch(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("email,x\na,1\n")
    with pytest.raises(CatalogueError, match="has no column 'Email'; did you mean 'email'"):
        tables.stream_columns(source(path), ["x", "Email"])
    with pytest.raises(CatalogueError, match=r"none\.csv is not readable as csv$"):
        tables.stream_columns(source(tmp_path / "none.csv"), ["x"])


def test_a_file_that_is_damaged_in_its_middle_ends_the_stream(tmp_path: Path) -> None:
    path = made(tmp_path / "d.parquet", "SELECT hash(i)::VARCHAR AS id FROM range(300000) t(i)", "FORMAT parquet")
    raw = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    raw[at : at + 4000] = bytes(4000)
    path.write_bytes(bytes(raw))
    with (
        pytest.raises(CatalogueError, match=r"d\.parquet is not readable as parquet$"),
        tables.stream_columns(source(path), ["id"], batch_rows=20_000) as stream,
    ):
        list(stream)


def test_text_that_is_not_unicode_is_a_sentence_without_it(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"email,x\n" + b"fran\xe7ois@x,1\n" * 3)
    with pytest.raises(CatalogueError, match=r"latin\.csv is not readable as csv$") as caught:
        tables.load_table(source(path), ["email"])
    assert "fran" not in str(caught.value)


def test_leaving_early_cleans_up(tmp_path: Path) -> None:
    path = made(tmp_path / "d.parquet", "SELECT i FROM range(500000) t(i)", "FORMAT parquet")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with tables.stream_columns(source(path), ["i"], scratch=scratch, batch_rows=5000) as stream:
        next(stream)
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []
    with pytest.raises(StopIteration):
        next(stream)


MEASURE = """
import resource, sys
from pathlib import Path
from silos import tables
import pyarrow
source = tables.Source("d", "parquet", sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with tables.stream_columns(source, ["n"], memory_mib=64) as stream:
    next(stream)  # what the engine needs at all
before, n = peak(), 0
for batch in tables.stream_columns(source, ["n", "id"], scratch=Path(sys.argv[2]), memory_mib=64):
    n += batch.num_rows
print(n, peak() - before)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """400 MB of text, which the file holds as one value's repetitions, through less than a third of that."""
    sql = "SELECT i AS n, repeat((i % 10)::VARCHAR, 200) AS id FROM range(2000000) t(i)"
    path = made(tmp_path / "d.parquet", sql, "FORMAT parquet, ROW_GROUP_SIZE 20000")
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(tmp_path)], capture_output=True, text=True, check=True
    )
    rows, grown_mib = map(int, ran.stdout.split())
    assert rows == 2_000_000
    assert grown_mib < 130


def test_a_source_is_made_of_what_the_node_says() -> None:
    document = {"name": "d", "path": "/x.csv", "format": "csv", "sha256": "ab", "key": "email"}
    assert Source.of(document) == Source("d", "csv", "/x.csv", sha256="ab")
    with pytest.raises(ValueError, match="a file is csv or parquet, got sql"), tables.connect("/tmp") as db:
        tables.scan(db, "sql", "/x")
