"""Data sets that are queries: what they may be, what they give, and that they give it again."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silos import catalogue, cli, queries, tables
from silos.config import init_home
from silos.errors import CatalogueError
from silos.queries import ContentHash
from silos.tables import Source

LOANS = pa.table({"email": ["c@x", "a@x", None, "b@x"], "amount": [3.5, None, 1.0, 2.0], "n": [1, 2, 3, 4]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with data, which is the current one."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(LOANS, tmp_path / "loans.parquet")
    (tmp_path / "towns.csv").write_text("email,town\na@x,Bern\nb@x,Basel\n")
    with duckdb.connect(str(tmp_path / "bank.duckdb")) as db:
        db.execute("CREATE TABLE loans AS FROM 'loans.parquet'; CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a")
        db.execute(f"CREATE VIEW elsewhere AS FROM read_parquet('{tmp_path}/loans.parquet')")
    return tmp_path


def rows_of(source: Any, columns: list[str], **kwargs: Any) -> list[dict[str, Any]]:
    with tables.stream_columns(source, columns, **kwargs) as stream:
        return [row for batch in stream for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("sql", "columns", "expected"),
    [
        (
            "SELECT * FROM 'loans.parquet' ORDER BY n DESC",
            {"email": "text", "amount": "number", "n": "number"},
            [4, 3, 2, 1],
        ),
        ("SELECT email, n FROM read_parquet('loans.parquet') WHERE n > 2;", {"email": "text", "n": "number"}, [3, 4]),
        (
            "-- both\nSELECT l.email, n, town FROM read_parquet(['loans.parquet']) l "
            "JOIN read_csv('towns.csv', delim = ',') t USING (email) ORDER BY n",
            {"email": "text", "n": "number", "town": "text"},
            [2, 4],
        ),
        (
            "WITH few AS (FROM 'loan*.parquet' LIMIT 2) SELECT email, sum(n) AS n FROM few GROUP BY email ORDER BY email",
            {"email": "text", "n": "number"},
            [2, 1],
        ),
        ("SELECT 'a' AS email, n FROM generate_series(1, 3) t(n)", {"email": "text", "n": "number"}, [1, 2, 3]),
    ],
)
def test_a_query_over_files(folder: Path, sql: str, columns: dict[str, str], expected: list[int]) -> None:
    dataset = catalogue.add_query(folder / "catalogue.toml", "loans", sql, "email")
    assert catalogue.load(folder / "catalogue.toml").dataset("loans") == dataset
    assert (dataset.format, dataset.path, dataset.rows) == ("sql", "", len(expected))
    assert {c.name: c.type for c in dataset.columns} == columns
    assert [row["n"] for row in rows_of(dataset, ["n"])] == expected
    catalogue.verify_unchanged(dataset)
    assert tables.load_table(Source.of(dataset.model_dump()), ["n", "email"]).column("n").to_pylist() == expected


def test_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT l.* FROM 'loans.parquet' l JOIN read_csv('./towns.csv') USING (email) ORDER BY n"
    dataset = catalogue.add_query(folder / "catalogue.toml", "loans", sql, "email")
    assert f"{folder}/loans.parquet" in dataset.sql
    assert f"{folder}/towns.csv" in dataset.sql
    monkeypatch.chdir("/")
    assert [row["n"] for row in rows_of(dataset, ["n"])] == [2, 4]
    absolute = f"select n, email from '{folder}/loans.parquet'  -- as it is"  # noqa: S608
    assert queries.check_query(absolute, Path("/")).sql == absolute


def test_a_query_on_a_database(folder: Path) -> None:
    sql = "SELECT email, n FROM loans, s.t WHERE n > a ORDER BY n"
    dataset = catalogue.add_query(folder / "c.toml", "loans", sql, "email", database=Path("bank.duckdb"))
    assert dataset.path == str(folder / "bank.duckdb")
    assert rows_of(dataset, ["email"]) == [{"email": "a@x"}, {"email": None}, {"email": "b@x"}]
    with duckdb.connect(dataset.path) as db:
        db.execute("UPDATE loans SET email = 'z@x' WHERE n = 4")
    with pytest.raises(
        CatalogueError, match=r"^the result of the query of data set 'loans' has changed since it was reg"
    ):
        catalogue.verify_unchanged(dataset)
    with pytest.raises(CatalogueError, match=r"gives other rows than when it was registered$"):
        rows_of(dataset, ["n"])  # although this column is what it was
    assert catalogue.content_sha256(dataset) != dataset.sha256


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("", "one SELECT statement, got 0 statements"),
        ("SELECT 1 AS email; SELECT 2", "one SELECT statement, got 2 statements"),
        ("COPY (SELECT 1) TO 'x.csv'", "one SELECT statement, got COPY"),
        ("ATTACH 'x.duckdb'", "one SELECT statement, got ATTACH"),
        ("INSTALL httpfs", "one SELECT statement, got LOAD"),
        ("PRAGMA version", "a query is one (plain )?SELECT statement"),
        ("SET threads = 1", "one SELECT statement, got SET"),
        ("CREATE TABLE x AS SELECT 1", "one SELECT statement, got CREATE"),
        ("DELETE FROM loans", "one SELECT statement, got DELETE"),
        ("SELECT (", "the query is not well-formed: Parser Error"),
        ("SELECT " + "1" * 100_000, "at most 100000 characters, got 100007"),
        ("FROM 'https://x.org/loans.parquet'", "reads 'https://x.org/loans.parquet'; only local files"),
        ("FROM read_parquet('s3://b/loans.parquet')", "only local files can be read"),
        ("FROM read_text('/etc/hostname')", "cannot be evaluated: Permission Error"),
        ("FROM glob('/etc/*')", "cannot be evaluated: Permission Error"),
        ("FROM read_csv('/etc/' || 'hostname')", "Permission Error"),
        ("SELECT email FROM elsewhere", "cannot be evaluated: Permission Error"),
        ("SELECT email FROM LOANS_TABLE", "cannot be evaluated: Catalog Error: Table with name LOANS_TABLE"),
        ("SELECT email FROM 'none.parquet'", "failed while it ran|cannot be evaluated"),
        ("SELECT mail FROM 'loans.parquet'", 'cannot be evaluated: Binder Error: Referenced column "mail" not found'),
        ("SELECT n FROM 'loans.parquet'", "data set 'q' has no column 'email'"),
        ("SELECT email, n, n FROM 'loans.parquet'", "gives column 'n' twice"),
        ("SELECT email, [n] AS l FROM 'loans.parquet'", "column 'l' of the query has a type that cannot be registered"),
        ("SELECT email, CAST(email AS INTEGER) FROM 'loans.parquet'", r"failed while it ran \(ConversionException\)$"),
        ("SELECT email, random() AS r FROM 'loans.parquet'", "gave other rows, or another order, when it was"),
        (
            "SELECT range AS email FROM range(1000) ORDER BY random()",
            "end it with ORDER BY over columns that are unique",
        ),
    ],
)
def test_what_is_no_data_set(folder: Path, sql: str, sentence: str) -> None:
    with pytest.raises(CatalogueError, match=sentence) as caught:
        catalogue.add_query(folder / "c.toml", "q", sql, "email", database=folder / "bank.duckdb")
    assert "a@x" not in str(caught.value)
    assert not (folder / "c.toml").exists()
    assert not list(folder.glob("x.*"))


def test_a_query_sees_no_variable_of_the_program(folder: Path) -> None:
    secret = LOANS
    assert len(secret) == 4
    with pytest.raises(CatalogueError, match="Table with name secret does not exist"):
        catalogue.describe_query("q", "SELECT * FROM secret", "email")


def test_a_database_that_is_none(folder: Path) -> None:
    for name, sentence in [("none.duckdb", "does not exist"), ("towns.csv", "cannot be opened as DuckDB: IO Error")]:
        with pytest.raises(CatalogueError, match=f"the database .*{name} {sentence}"):
            catalogue.describe_query("q", "SELECT 1 AS email", "email", database=folder / name)
    (folder / "s.sqlite").write_bytes(b"SQLite format 3\0" + bytes(84))
    with pytest.raises(CatalogueError, match=r"s\.sqlite cannot be opened as DuckDB"):
        catalogue.describe_query("q", "SELECT 1 AS email", "email", database=folder / "s.sqlite")


def test_a_sort_that_does_not_fit_into_memory_goes_to_the_scratch_directory(folder: Path) -> None:
    sql = "SELECT hash(range)::VARCHAR AS email FROM range(1500000) ORDER BY email"
    scratch = folder / "scratch"
    scratch.mkdir()
    source = Source("q", "sql", "", sql)
    n, last, spilled = 0, "", False
    with tables.stream_columns(source, ["email"], scratch=scratch, memory_mib=48) as stream:
        for batch in stream:
            spilled |= any(p.is_file() and p.stat().st_size for p in scratch.rglob("*"))
            values = batch.column(0)
            assert last <= values[0].as_py()
            n, last = n + len(values), values[-1].as_py()
    assert (n, spilled, list(scratch.iterdir())) == (1_500_000, True, [])


# --- the digest


def by_hand(table: pa.Table, kinds: list[str]) -> str:
    """What ContentHash says it is, value by value; for columns of int64 and of text."""
    whole = b"accord: the content of a query's result, version 1\n"
    whole += len(table).to_bytes(8, "little") + len(kinds).to_bytes(8, "little")
    for name, kind in zip(table.column_names, kinds):
        column = table.column(name).to_pylist()
        raw = [b"" if v is None else v.encode() for v in column] if kind == "text" else [b""] * len(column)
        fixed = [
            len(r).to_bytes(4, "little") if kind == "text" else (v or 0).to_bytes(8, "little", signed=True)
            for r, v in zip(raw, column)
        ]
        strings = [bytes(v is not None for v in column), b"".join(fixed), b"".join(raw)]
        for text in (name.encode(), kind.encode()):
            whole += len(text).to_bytes(8, "little") + text
        whole += b"".join(hashlib.sha256(s).digest() for s in strings)
    return hashlib.sha256(whole).hexdigest()


def digest(table: pa.Table, cuts: list[int] | None = None) -> str:
    content = ContentHash(table.schema)
    ends = sorted({min(c, len(table)) for c in cuts or []} | {len(table)})
    for low, high in zip([0, *ends[:-1]], ends):
        for batch in table.slice(low, high - low).to_batches():
            content.update(batch)
    return content.hexdigest()


values = st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=values, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_the_digest_is_what_it_says_however_it_is_cut(rows: list[tuple[Any, Any]], cuts: list[int]) -> None:
    schema = pa.schema([("name", pa.string()), ("n", pa.int64())])
    table = pa.Table.from_arrays([pa.array([r[i] for r in rows], schema.field(i).type) for i in (0, 1)], schema=schema)
    assert digest(table, cuts) == by_hand(table, ["text", "int64"])


def test_what_differs_has_another_digest() -> None:
    number = pa.array([1, 0, 1], pa.uint8())
    columns = {
        "text": pa.array(["a", "bc", None]),
        "shifted": pa.array(["ab", "c", None]),
        "empty": pa.array(["a", "bc", ""]),
        "order": pa.array(["bc", "a", None]),
        "binary": pa.array([b"a", b"bc", None]),
        "bool": pa.array([True, False, True]),
        "none": pa.array([True, None, True]),
        "uint8": number,
        "int8": number.cast(pa.int8()),
        "date": number.cast(pa.int32()).cast(pa.date32()),
        "seconds": number.cast(pa.int64()).cast(pa.timestamp("s")),
        "zone": number.cast(pa.int64()).cast(pa.timestamp("s", "UTC")),
        "micro": number.cast(pa.int64()).cast(pa.timestamp("us")),
        "decimal": pa.array([1, 0, 1], pa.decimal128(18, 2)),
        "wide": pa.array([1, 0, 1], pa.decimal128(19, 2)),
        "double": number.cast(pa.float64()),
    }
    found = {name: digest(pa.table({"x": column})) for name, column in columns.items()}
    found |= {
        "other name": digest(pa.table({"y": columns["text"]})),
        "fewer": digest(pa.table({"x": columns["text"][:2]})),
    }
    assert len(set(found.values())) == len(found)
    whole, large = columns["text"], columns["text"].cast(pa.large_string())
    for same in (large, whole.dictionary_encode(), pa.concat_arrays([pa.array(["z"]), whole])[1:]):
        assert digest(pa.table({"x": same})) == found["text"]


def test_bytes_behind_a_missing_value_do_not_count() -> None:
    shown = pa.array(["a", "hidden", "b"])
    hidden = pa.StringArray.from_buffers(
        3, shown.buffers()[1], shown.buffers()[2], pa.array([1, 0, 1]).cast("bool").buffers()[1]
    )
    assert digest(pa.table({"x": hidden})) == digest(pa.table({"x": ["a", None, "b"]}))
    numbers = pa.Array.from_buffers(
        pa.int64(), 2, [pa.array([True, False]).buffers()[1], pa.array([1, 9]).buffers()[1]]
    )
    assert digest(pa.table({"x": numbers})) == digest(pa.table({"x": pa.array([1, None])}))


# --- the catalogue's file and the command


def test_a_catalogue_from_before_queries_still_loads(folder: Path) -> None:
    home = folder / "catalogue.toml"
    catalogue.add(home, "towns", folder / "towns.csv", "email")
    assert "sql" not in tomllib.loads(home.read_text())["datasets"][0]  # as it was written then
    before = catalogue.load(home).dataset("towns")
    assert (before.sql, before.format) == ("", "csv")
    query = catalogue.add_query(home, "loans", "SELECT *\nFROM\t'loans.parquet' -- \"ü\" \\", "email")
    assert catalogue.load(home).datasets == (before, query)
    with pytest.raises(CatalogueError, match="a data set is called 'loans' already"):
        catalogue.add_query(home, "loans", "SELECT 1 AS email", "email")
    assert catalogue.add_query(home, "loans", "SELECT 1 AS email", "email", replace=True).rows == 1
    text = home.read_text()
    for old, new in [('format = "sql"', 'format = "csv"'), ('format = "csv"', 'format = "sql"')]:
        home.write_text(text.replace(old, new))
        with pytest.raises(CatalogueError, match="a data set has a query exactly if its format is sql"):
            catalogue.load(home)


def test_the_command_registers_a_query(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_home(folder / "lender", "lender")
    home = str(folder / "lender")
    sql = "SELECT email, n FROM loans ORDER BY n"

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["dataset", *arguments, "--home", home])
        return int(ended.value.code or 0), capsys.readouterr().out

    query = ("add", "loans", "--key", "email", "--sql", sql, "--database", "bank.duckdb")
    assert run(*query) == (0, "data set loans: 4 rows, 2 columns\n")
    code, said = run(*query, "--replace", "--json")
    assert (code, json.loads(said)["sql"]) == (0, sql)
    assert run("add", "pairs", "--key", "n", "--sql", "SELECT n FROM 'loans.parquet'")[0] == 0
    code, said = run("list")
    assert code == 0
    assert f"{folder}/bank.duckdb" in said
    assert "a query over files" in said
    for wrong in (
        ("add", "x", "--key", "email"),
        ("add", "x", "loans.parquet", "--key", "email", "--sql", sql),
        ("add", "x", "loans.parquet", "--key", "email", "--database", "bank.duckdb"),
    ):
        assert run(*wrong)[0] == 2
