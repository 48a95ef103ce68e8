"""A data set that is a query: one SELECT over local files or a DuckDB database, and a digest of what it gives.

What a query may touch.  It runs in an engine of its own, in memory.  Its database is attached for reading only.  Of the
file system the engine may open the files that the query names as the first argument of a reader, or as a table, and
nothing else: neither another file that a view stands for, nor the network.  Then the settings are locked.

The order.  Row numbers are what a match gives, so a query must give its rows in one order.  Its result is digested with
the order, it is evaluated twice before it is registered, with two threads and with one, and whoever reads it to the end
compares the digest of the very rows that were read.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from silos.errors import CatalogueError
from silos.tables import BATCH_ROWS, MEMORY_MIB, Source, Tabular, batches_of, connect, quoted_text, unknown

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MAX_QUERY_CHARS = 100_000
_READERS = {"read_parquet", "parquet_scan", "read_csv", "read_csv_auto", "read_json", "read_json_auto"}
_SUFFIXES = (".parquet", ".csv", ".tsv", ".json", ".csv.gz", ".tsv.gz", ".json.gz")
_WILD = "*?["
_DOMAIN = b"accord: the content of a query's result, version 1\n"


@dataclass(frozen=True)
class Query:
    """A checked query.  sql: with absolute paths.  files: those that it names."""

    sql: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a query gave.  columns: pairs of name and SQL type."""

    columns: tuple[tuple[str, str], ...]
    rows: int
    sha256: str


class ContentHash:
    """SHA-256 of a table's content: names, types, and values in row order, however it is cut into batches.

    Each column is three byte strings: one byte per row, 1 for a value and 0 for none; one fixed-width little-endian value
    per row, zero for none; and for text and binary columns the bytes one after the other, where the value is the length
    in 32 bits.  The digest is over the domain, the number of rows and of columns, and for each column its name and type,
    each after its length, and the SHA-256 of its three strings.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._names = [field.name for field in schema]
        self._kinds = [kind_of(field) for field in schema]
        self._hashes = [[hashlib.sha256() for _ in range(3)] for _ in schema]
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        self.rows += batch.num_rows
        for hashes, column in zip(self._hashes, batch.columns, strict=True):
            for digest, part in zip(hashes, parts_of(column), strict=True):
                digest.update(part)

    def hexdigest(self) -> str:
        """Of all rows so far."""
        whole = hashlib.sha256(_DOMAIN + _u64(self.rows) + _u64(len(self._names)))
        for name, kind, hashes in zip(self._names, self._kinds, self._hashes, strict=True):
            for text in (name, kind):
                whole.update(_u64(len(text.encode())) + text.encode())
            for digest in hashes:
                whole.update(digest.digest())
        return whole.hexdigest()


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def kind_of(field: pa.Field) -> str:
    """What a digest calls the type of a column.  Raises: CatalogueError if it cannot be in one."""
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    t = pa.types
    if t.is_string(kind) or t.is_large_string(kind):
        return "text"
    if t.is_binary(kind) or t.is_large_binary(kind):
        return "binary"
    if t.is_timestamp(kind):
        return f"timestamp[{kind.unit}{', UTC' if kind.tz else ''}]"
    if t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_date(kind):
        return str(kind)
    if t.is_time(kind):
        return str(kind)
    raise CatalogueError(f"column '{field.name}' of the query has a type that cannot be registered; cast it to text")


def parts_of(column: pa.Array) -> Iterator[Any]:
    """The three byte strings of a piece of a column; see ContentHash.  A nested type has none."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    n, start = len(column), column.offset
    valid = np.ones(n, np.uint8) if not column.null_count else column.is_valid().to_numpy(zero_copy_only=False)
    yield valid.view(np.uint8)
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    if wide or pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        if column.null_count:
            text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            column = column.fill_null("" if text else b"")  # so that no byte of a slot without a value counts
            start = column.offset
        _, offsets, data = column.buffers()
        ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[start : start + n + 1]
        yield np.diff(ends).astype("<u4")
        yield memoryview(data)[ends[0] : ends[-1]] if data is not None and n else b""
        return
    if pa.types.is_boolean(column.type):
        column, start = column.cast(pa.uint8()), 0
        start = column.offset
    width = column.type.bit_width // 8
    values = np.frombuffer(column.buffers()[1], np.uint8)[start * width : (start + n) * width].reshape(n, width)
    yield np.ascontiguousarray(values * valid.view(np.uint8)[:, None] if column.null_count else values)
    yield b""


def check_query(sql: str, folder: Path) -> Query:
    """Is this one SELECT that reads local files only?  Relative paths in it become absolute.

    folder: what they are relative to.  Raises: CatalogueError.
    """
    with tempfile.TemporaryDirectory(prefix="accord-") as scratch, connect(scratch) as db:
        return _checked(db, sql, folder)


def _checked(db: duckdb.DuckDBPyConnection, sql: str, folder: Path) -> Query:
    import duckdb

    if len(sql) > MAX_QUERY_CHARS:
        raise CatalogueError(f"a query has at most {MAX_QUERY_CHARS} characters, got {len(sql)}")
    try:
        statements = db.extract_statements(sql)
    except duckdb.Error as exc:
        raise CatalogueError(f"the query is not well-formed: {_first_line(exc)}") from exc
    if len(statements) != 1:
        raise CatalogueError(f"a query is one SELECT statement, got {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise CatalogueError(f"a query is one SELECT statement, got {statements[0].type.name}")
    tree = _tree(db, sql)
    if tree.get("error", True):
        raise CatalogueError("a query is one plain SELECT statement, this one is of another form")
    places = list(_file_places(tree))
    files = [_absolute(place[field], folder) for place, field in places]
    if any(place[field] != file for (place, field), file in zip(places, files, strict=True)):
        for (place, field), file in zip(places, files, strict=True):
            place[field] = file
        ((sql,),) = db.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
        if {place[field] for place, field in _file_places(_tree(db, sql))} != set(files):
            raise CatalogueError("the relative paths of the query cannot be made absolute; write them absolute")
    return Query(sql, tuple(sorted(set(files))))


def _tree(db: duckdb.DuckDBPyConnection, sql: str) -> Any:
    ((text,),) = db.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    return json.loads(text)


def _file_places(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where in a parsed query the name of a file stands: a dictionary and its key, or a list that a table's name is in."""
    if isinstance(node, list):
        for below in node:
            yield from _file_places(below)
        return
    if not isinstance(node, dict):
        return
    if node.get("type") == "BASE_TABLE" and str(node.get("table_name", "")).lower().endswith(_SUFFIXES):
        yield node, "table_name"
        path = node.get("qualified_name", {}).get("path")
        if isinstance(path, list) and len(path) == 1:
            yield path, 0  # type: ignore[misc]
    if node.get("type") == "TABLE_FUNCTION" and node["function"].get("function_name") in _READERS:
        arguments = node["function"].get("arguments", node["function"].get("children", []))
        yield from _constants(arguments[:1])
    for below in node.values():
        yield from _file_places(below)


def _constants(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every text constant of an expression."""
    if isinstance(node, list):
        for below in node:
            yield from _constants(below)
    elif isinstance(node, dict):
        if node.get("class") == "CONSTANT":
            for holder, field in ((node.get("literal"), "text"), (node.get("value"), "value")):
                if isinstance(holder, dict) and isinstance(holder.get(field), str):
                    yield holder, field
        else:
            yield from _constants(list(node.values()))


def _absolute(file: str, folder: Path) -> str:
    if "://" in file:
        raise CatalogueError(f"the query reads '{file}'; only local files can be read")
    return str(folder.absolute() / Path(file).expanduser())


def _first_line(exc: BaseException) -> str:
    return str(exc).splitlines()[0].rstrip(".!") if str(exc) else type(exc).__name__


@contextmanager
def _sandbox(source: Tabular, scratch: Path | None, memory_mib: int, threads: int = 2) -> Iterator[Any]:
    """An engine that can run the query and nothing else; see the module."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="accord-", dir=scratch) as spill, connect(spill, memory_mib, threads) as db:
        files = _checked(db, source.sql, Path("/")).files
        folders = sorted({_fixed(f) for f in files if any(c in f for c in _WILD)})
        if source.path:
            try:
                db.execute(f"ATTACH {quoted_text(source.path)} AS source (READ_ONLY, TYPE duckdb)")
            except duckdb.Error as exc:
                raise CatalogueError(
                    f"the database {source.path} cannot be opened as DuckDB: {_first_line(exc)}"
                ) from exc
            db.execute("USE source")
        db.execute("SET TimeZone = 'UTC'")  # what a time is as text does not depend on the machine
        db.execute(f"SET allowed_paths = [{', '.join(map(quoted_text, files))}]")
        db.execute(f"SET allowed_directories = [{', '.join(map(quoted_text, folders))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        yield db


def _fixed(pattern: str) -> str:
    """The directory that all files of a pattern are under."""
    first = min(pattern.index(c) for c in _WILD if c in pattern)
    return pattern[: pattern.rindex("/", 0, first) + 1]


@contextmanager
def _evaluated(source: Tabular) -> Iterator[None]:
    """Turn the engine's errors into sentences; those about the query's text as they are, others may quote a value."""
    import duckdb
    import pyarrow as pa

    about_text = (
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.ParserException,
        duckdb.PermissionException,
        duckdb.SyntaxException,
    )
    try:
        yield
    except about_text as exc:
        raise CatalogueError(f"the query of data set '{source.name}' cannot be evaluated: {_first_line(exc)}") from exc
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        why = type(exc).__name__
        raise CatalogueError(f"the query of data set '{source.name}' failed while it ran ({why})") from None


def query_rows(
    source: Tabular, columns: Sequence[str], scratch: Path | None, batch_rows: int, memory_mib: int
) -> Generator[Any, None, None]:
    """For silos.tables.stream_columns: first the schema, then the batches.  Raises: CatalogueError."""
    with _evaluated(source), _sandbox(source, scratch, memory_mib) as db:
        batches = batches_of(db.sql(source.sql), batch_rows)
        for column in columns:
            if column not in batches.schema.names:
                raise CatalogueError(unknown("column", column, f"data set '{source.name}'", batches.schema.names))
        content = ContentHash(batches.schema)
        yield batches.schema.empty_table().select(columns).schema
        for batch in batches:
            content.update(batch)
            yield batch.select(columns)
    if source.sha256 and content.hexdigest() != source.sha256:
        raise CatalogueError(f"the query of data set '{source.name}' gives other rows than when it was registered")


def evaluate(source: Tabular, scratch: Path | None = None, threads: int = 2) -> Result:
    """Run a query to its end and digest what it gives, without keeping it.  Raises: CatalogueError."""
    with _evaluated(source), _sandbox(source, scratch, MEMORY_MIB, threads) as db:
        relation = db.sql(source.sql)
        names, types = list(relation.columns), [str(t) for t in relation.types]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise CatalogueError(f"the query of data set '{source.name}' gives column '{twice}' twice")
        batches = batches_of(relation, BATCH_ROWS)
        content = ContentHash(batches.schema)
        for batch in batches:
            content.update(batch)
    return Result(tuple(zip(names, types, strict=True)), content.rows, content.hexdigest())


def register(name: str, sql: str, database: Path | None = None, scratch: Path | None = None) -> tuple[Source, Result]:
    """Check a query and evaluate it twice: what it gives, and that it gives it again in the same order.

    Raises: CatalogueError.
    """
    if database is not None and not database.is_file():
        raise CatalogueError(f"the database {database} does not exist")
    path = "" if database is None else str(database.absolute())
    source = Source(name=name, format="sql", path=path, sql=check_query(sql, Path.cwd()).sql)
    first, second = evaluate(source, scratch), evaluate(source, scratch, threads=1)
    if first.sha256 != second.sha256:
        raise CatalogueError(
            f"the query of data set '{name}' gave other rows, or another order, when it was evaluated again; end it with "
            "ORDER BY over columns that are unique together, and use no random() or now()"
        )
    return source, first
