"""The data sets a silo has registered, read through DuckDB: CSV and Parquet files and queries, never copied or changed.

catalogue.toml keeps what was seen at registration (columns with types, row count, and a SHA-256: of a file its bytes, of a
query the content of its result), so a job is checked before any data is read, and data that changed since is noticed
before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from silos import queries, tables
from silos.errors import CatalogueError
from silos.spec_parts import DatasetName, Party
from silos.tables import Format, Tabular, unknown
from silos.validation import Frozen, read_document, validate, write_private

ColumnType = Literal["number", "boolean", "text", "time", "other"]

_NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL(\(.*\))?)$")


class ColumnInfo(Frozen):
    """One column as it was registered."""

    name: str
    type: ColumnType


class Dataset(Frozen):
    """One registered file or query.  key: the column that identifies a row's subject.

    path: the file; for a query the DuckDB database it runs on, or nothing.  sql: the query, or nothing.
    """

    name: DatasetName
    path: str
    format: Format
    sql: str = Field(default="", max_length=queries.MAX_QUERY_CHARS)
    key: str
    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    columns: tuple[ColumnInfo, ...]

    @model_validator(mode="after")
    def _file_or_query(self) -> Dataset:
        if (self.format == "sql") != bool(self.sql):
            raise ValueError("a data set has a query exactly if its format is sql")
        return self

    def column(self, name: str) -> ColumnInfo:
        """Raises: CatalogueError naming the column, the data set and what is spelt like it."""
        found = next((c for c in self.columns if c.name == name), None)
        if found is None:
            raise CatalogueError(unknown("column", name, f"data set '{self.name}'", [c.name for c in self.columns]))
        return found

    def check(self, party: Party) -> None:
        """Can this data set play its part in a job?  Columns and their types only; values are the worker's business.

        Raises: CatalogueError.
        """
        for column in (*party.join_columns, *party.output_columns):
            self.column(column)
        for column in party.number_columns:
            self._must_be_number(column)
        for column in party.category_columns:
            if self.column(column).type == "other":
                raise CatalogueError(f"column '{column}' of data set '{self.name}' cannot be a category")

    def _must_be_number(self, name: str) -> None:
        kind = self.column(name).type
        if kind not in ("number", "boolean"):
            raise CatalogueError(f"column '{name}' of data set '{self.name}' is {kind}, it cannot be used as a number")


class Catalogue(Frozen):
    """All data sets of a silo."""

    version: Literal[1]
    datasets: tuple[Dataset, ...] = ()

    def dataset(self, name: str) -> Dataset:
        """Raises: CatalogueError naming the data set and what is spelt like it."""
        found = next((d for d in self.datasets if d.name == name), None)
        if found is None:
            raise CatalogueError(unknown("data set", name, "the catalogue", [d.name for d in self.datasets]))
        return found


def load(path: Path) -> Catalogue:
    """Read catalogue.toml; a silo that registered nothing has an empty one.  Raises: CatalogueError."""
    if not path.exists():
        return Catalogue(version=1)
    document = read_document(path, "the catalogue", CatalogueError)
    return validate(Catalogue, document, f"the catalogue {path}", CatalogueError)


def _as_toml(catalogue: Catalogue) -> str:
    """JSON strings and numbers are TOML strings and numbers, so no writer library is needed for this shape."""
    lines = ["# Written by 'accord dataset add'.", f"version = {catalogue.version}"]
    for d in catalogue.datasets:
        lines += ["", "[[datasets]]"]
        left_out = {"columns"} if d.sql else {"columns", "sql"}
        for field, value in d.model_dump(exclude=left_out).items():
            lines.append(f"{field} = {_quoted(value)}")
        lines += [
            "columns = [",
            *(f"  {{ name = {_quoted(c.name)}, type = {_quoted(c.type)} }}," for c in d.columns),
            "]",
        ]
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _column_type(sql_type: str) -> ColumnType:
    if _NUMBERS.match(sql_type):
        return "number"
    if sql_type == "BOOLEAN":
        return "boolean"
    if sql_type == "VARCHAR" or sql_type.startswith("ENUM"):
        return "text"
    if sql_type.startswith(("DATE", "TIME")):
        return "time"
    return "other"


def file_sha256(path: str) -> str:
    """Hex SHA-256 of a file's bytes.  Raises: CatalogueError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise CatalogueError(f"the data file {path} cannot be read: {exc.strerror}") from exc


def _checked_path(path: Path) -> tuple[str, Format]:
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("csv", "parquet"):
        raise CatalogueError(f"the data file {path} must end in .csv or .parquet")
    if not path.is_file():
        raise CatalogueError(f"the data file {path} does not exist")
    if any(c in str(path.absolute()) for c in "*?["):
        raise CatalogueError(
            f"the name of the data file {path} must not contain '*', '?' or '['"
        )  # DuckDB expands them
    return str(path.absolute()), "csv" if suffix == "csv" else "parquet"


def _dataset(source: Tabular, key: str, columns: Sequence[tuple[str, str]], rows: int, sha256: str) -> Dataset:
    fields = {f: getattr(source, f) for f in ("name", "path", "format", "sql")}
    described = [{"name": name, "type": _column_type(kind)} for name, kind in columns]
    document = {**fields, "key": key, "rows": rows, "sha256": sha256, "columns": described}
    dataset = validate(Dataset, document, "the data set", CatalogueError)
    dataset.column(key)
    return dataset


def describe(name: str, path: Path, key: str) -> Dataset:
    """Look at a file: its columns, types, rows and digest.

    Raises: CatalogueError if it is missing, unreadable, or lacks the key column.
    """
    import duckdb

    text, fmt = _checked_path(path)
    try:
        with tempfile.TemporaryDirectory(prefix="accord-") as scratch, tables.connect(scratch) as db:
            found = tables.scan(db, fmt, text)
            counted = db.execute(f"SELECT count(*) FROM {found.table}").fetchall()  # noqa: S608 - quoted
    except duckdb.Error as exc:
        raise CatalogueError(f"the data file {path} is not readable as {fmt}") from exc
    source = tables.Source(name=name, format=fmt, path=text)
    return _dataset(source, key, found.columns, counted[0][0], file_sha256(text))


def describe_query(name: str, sql: str, key: str, database: Path | None = None) -> Dataset:
    """Look at what a query gives: its columns, types, rows and the digest of its content; it is evaluated twice.

    database: a DuckDB file that it runs on; without one it reads the files that it names.
    Raises: CatalogueError if it is not one SELECT, cannot be evaluated, does not always give the same rows in the same
    order, or lacks the key column.
    """
    source, result = queries.register(name, sql, database)
    return _dataset(source, key, result.columns, result.rows, result.sha256)


def add(catalogue_path: Path, name: str, path: Path, key: str, *, replace: bool = False) -> Dataset:
    """Register a file under a name; `replace` registers it anew.  Raises: CatalogueError."""
    _check_free(catalogue_path, name, replace)
    return _enter(catalogue_path, describe(name, path, key))


def add_query(
    catalogue_path: Path, name: str, sql: str, key: str, *, database: Path | None = None, replace: bool = False
) -> Dataset:
    """Register a query under a name; `replace` registers it anew.  Raises: CatalogueError."""
    _check_free(catalogue_path, name, replace)
    return _enter(catalogue_path, describe_query(name, sql, key, database))


def _check_free(catalogue_path: Path, name: str, replace: bool) -> None:
    if not replace and any(d.name == name for d in load(catalogue_path).datasets):
        raise CatalogueError(f"a data set is called '{name}' already; use --replace to register it anew")


def _enter(catalogue_path: Path, dataset: Dataset) -> Dataset:
    others = tuple(d for d in load(catalogue_path).datasets if d.name != dataset.name)
    write_private(catalogue_path, _as_toml(Catalogue(version=1, datasets=(*others, dataset))))
    return dataset


def content_sha256(source: Tabular, scratch: Path | None = None) -> str:
    """The digest that the data set has now: of a file's bytes, of the content of a query's result.

    scratch: where the evaluation of a query may spill.  Raises: CatalogueError if it cannot be read.
    """
    return queries.evaluate(source, scratch).sha256 if source.format == "sql" else file_sha256(source.path)


def verify_unchanged(dataset: Tabular, since: str = "it was registered", scratch: Path | None = None) -> None:
    """Raises: CatalogueError if the file, or what the query gives, is not what was registered."""
    if content_sha256(dataset, scratch) != dataset.sha256:
        what = "result of the query" if dataset.format == "sql" else "file"
        raise CatalogueError(f"the {what} of data set '{dataset.name}' has changed since {since}")
