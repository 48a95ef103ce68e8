"""Rows of a data set of any size, through DuckDB: in the data set's order, a batch at a time, in bounded memory.

The order.  A row's number is its running position.  DuckDB hands rows on in the order of the file as long as
`preserve_insertion_order` is set, whatever the number of threads; it is set here and not left to a default.  The order of
a query is the query's own business: see silos.queries.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from silos.errors import CatalogueError

if TYPE_CHECKING:
    from types import TracebackType

    import duckdb
    import pyarrow as pa

Format = Literal["csv", "parquet", "sql"]

BATCH_ROWS = 131_072
MEMORY_MIB = 256  # a scan of one thread needs about a row group of the asked columns; sorts beyond it go to disk


class Tabular(Protocol):
    """What must be known of a data set to read it: a silos.catalogue.Dataset, or a Source."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def format(self) -> Format:
        """How it is read."""

    @property
    def path(self) -> str:
        """The file; for a query the database it runs on, or nothing."""

    @property
    def sql(self) -> str:
        """The query, or nothing."""

    @property
    def sha256(self) -> str:
        """Of a file its bytes, of a query the content of its result (silos.queries.ContentHash); or nothing."""


@dataclass(frozen=True)
class Source:
    """A data set as far as it must be known to read it; see Tabular."""

    name: str
    format: Format
    path: str
    sql: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Source:
        """From the fields of a registered data set, as the node hands them to a worker; others are ignored."""
        fields = {k: document[k] for k in ("name", "format", "path", "sql", "sha256") if k in document}
        return cls(**fields)


@dataclass(frozen=True)
class Scan:
    """How a file is read.  table: the SQL table function.  columns: pairs of name and SQL type."""

    table: str
    columns: tuple[tuple[str, str], ...]


class Stream:
    """Batches of rows in order.  schema: of every batch.  Close it, or use it in a `with`, if it is not read to its end."""

    def __init__(self, generator: Generator[Any, None, None]) -> None:
        self._generator = generator
        self.schema: pa.Schema = next(generator)  # so a missing column is said now, and leaving cleans up

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._generator

    def __next__(self) -> pa.RecordBatch:
        return next(self._generator)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End reading; the engine's own files go."""
        self._generator.close()


def unknown(what: str, name: str, where: str, known: Iterable[str]) -> str:
    """A sentence about a name that is not there, with those that are spelt like it."""
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    hint = "; did you mean " + " or ".join(f"'{c}'" for c in close) + "?" if close else ""
    return f"{where} has no {what} '{name}'{hint}"


def quoted_name(name: str) -> str:
    """As an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """As an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def connect(scratch: Path | str, memory_mib: int = MEMORY_MIB, threads: int = 2) -> duckdb.DuckDBPyConnection:
    """An in-memory engine that fetches nothing from anywhere by itself and sees no variable of this program.

    scratch: where it puts what does not fit into memory_mib.
    """
    import duckdb

    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "preserve_insertion_order": "true",
            "threads": str(threads),
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": str(scratch),
        }
    )


def scan(db: duckdb.DuckDBPyConnection, fmt: Format, path: str, as_text: Sequence[str] = ()) -> Scan:
    """How a file is read.  A CSV file's types come from the whole of it, which is looked at for them once, here.

    as_text: columns that a CSV file gives as they are written.  Raises: duckdb.Error if the file is not readable.
    """
    if fmt == "parquet":
        table = f"read_parquet({quoted_text(path)})"
        described = db.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()  # noqa: S608 - quoted
        return Scan(table, tuple((row[0], row[1]) for row in described))
    if fmt != "csv":
        raise ValueError(f"a file is csv or parquet, got {fmt}")
    (found,) = db.execute(f"FROM sniff_csv({quoted_text(path)}, sample_size = -1)").fetchall()
    delimiter, quote, escape, new_line, comment, skip, header, columns, date, time = found[:10]
    options = {"delim": delimiter, "quote": quote, "escape": escape, "comment": comment}
    options = {name: "" if value == "(empty)" else value for name, value in options.items()}
    options |= {name: value for name, value in (("dateformat", date), ("timestampformat", time)) if value}
    if new_line in ("\\n", "\\r", "\\r\\n"):  # it has names for these, and none for a mixture
        options["new_line"] = new_line
    types = {c["name"]: "VARCHAR" if c["name"] in as_text else c["type"] for c in columns}
    parts = [f"{name} = {quoted_text(value)}" for name, value in options.items()]
    parts += [f"skip = {int(skip)}", f"header = {'true' if header else 'false'}"]
    parts += [f"columns = {{{', '.join(f'{quoted_text(c)}: {quoted_text(t)}' for c, t in types.items())}}}"]
    table = f"read_csv({quoted_text(path)}, auto_detect = false, {', '.join(parts)})"
    return Scan(table, tuple(types.items()))


def batches_of(relation: duckdb.DuckDBPyRelation, batch_rows: int) -> pa.RecordBatchReader:
    """Evaluate a relation while it is fetched; what `execute` returns would be held as a whole."""
    fetch = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # its name before DuckDB 1.5
    return fetch(batch_rows)


def stream_columns(
    source: Tabular,
    columns: Sequence[str],
    as_text: Sequence[str] = (),
    scratch: Path | None = None,
    batch_rows: int = BATCH_ROWS,
    memory_mib: int = MEMORY_MIB,
) -> Stream:
    """Read the named columns in row order, nulls kept, at most about batch_rows rows at a time.

    as_text: those that a CSV file gives as they are written: a type that is guessed for "00042", "1e5" or "01/02/1990" makes
    another value of it, which is wrong for an identifier.  scratch: a directory of the caller's for what the engine spills;
    without one the system's.  Memory: memory_mib for the engine, and a few batches.
    A query is evaluated as a whole and its columns picked from that, since with fewer columns it might be planned to
    give another order; at its end the content must be what was registered, if the source says that.
    Raises: CatalogueError if the data set cannot be read or lacks a column; while it is read, too.
    """
    if source.format == "sql":
        from silos.queries import query_rows

        return Stream(query_rows(source, columns, scratch, batch_rows, memory_mib))
    return Stream(_file_rows(source, columns, as_text, scratch, (batch_rows, memory_mib)))


def _file_rows(
    source: Tabular, columns: Sequence[str], as_text: Sequence[str], scratch: Path | None, sizes: tuple[int, int]
) -> Generator[Any, None, None]:
    """First the schema, then the batches."""
    import duckdb
    import pyarrow as pa

    batch_rows, memory_mib = sizes
    with tempfile.TemporaryDirectory(prefix="accord-", dir=scratch) as spill:
        try:
            with connect(spill, memory_mib) as db:
                found = scan(db, source.format, source.path, as_text)
                present = [name for name, _ in found.columns]
                for column in columns:
                    if column not in present:  # DuckDB itself would accept another spelling in capitals
                        raise CatalogueError(unknown("column", column, f"the data file {source.path}", present))
                wanted = ", ".join(quoted_name(c) for c in columns)
                relation = db.sql(f"SELECT {wanted} FROM {found.table}")  # noqa: S608 - quoted
                batches = batches_of(relation, batch_rows)
                yield batches.schema
                yield from batches
        except (duckdb.Error, pa.ArrowException, OSError):  # from None: their text may quote a value
            raise CatalogueError(f"the data file {source.path} is not readable as {source.format}") from None


def load_table(source: Tabular, columns: Sequence[str], as_text: Sequence[str] = ()) -> pa.Table:
    """All of the named columns at once, as stream_columns gives them.  Raises: CatalogueError."""
    import pyarrow as pa

    with stream_columns(source, columns, as_text) as stream:
        return pa.Table.from_batches(stream, stream.schema)
