"""The data sets a silo has registered, read through DuckDB: CSV and Parquet files, never copied, never changed.

catalogue.toml keeps what was seen at registration (columns with types, row count, SHA-256 of the file), so a job is
checked before any data is read, and a file that changed since is noticed before it is used.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from silos.errors import CatalogueError
from silos.spec import DatasetName, Party
from silos.validation import Frozen, read_document, validate, write_private

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Format = Literal["csv", "parquet"]
ColumnType = Literal["number", "boolean", "text", "time", "other"]

_READERS = {"csv": "read_csv(?, sample_size = -1)", "parquet": "read_parquet(?)"}
_NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL(\(.*\))?)$")


class ColumnInfo(Frozen):
    """One column as it was registered."""

    name: str
    type: ColumnType


class Dataset(Frozen):
    """One registered file.  key: the column that identifies a row's subject."""

    name: DatasetName
    path: str
    format: Format
    key: str
    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    columns: tuple[ColumnInfo, ...]

    def column(self, name: str) -> ColumnInfo:
        """Raises: CatalogueError naming the column, the data set and what is spelt like it."""
        found = next((c for c in self.columns if c.name == name), None)
        if found is None:
            raise CatalogueError(_unknown("column", name, f"data set '{self.name}'", [c.name for c in self.columns]))
        return found

    def check(self, party: Party) -> None:
        """Can this data set play its part in a job?  Columns and their types only; values are the worker's business.

        Raises: CatalogueError.
        """
        for column in party.key:
            self.column(column)
        if party.label is not None:
            self._must_be_number(party.label, "the label")
        for feature in party.features:
            if feature.as_ == "number":
                self._must_be_number(feature.column, "a number")
            elif self.column(feature.column).type == "other":
                raise CatalogueError(f"column '{feature.column}' of data set '{self.name}' cannot be a category")

    def _must_be_number(self, name: str, use: str) -> None:
        kind = self.column(name).type
        if kind not in ("number", "boolean"):
            raise CatalogueError(f"column '{name}' of data set '{self.name}' is {kind}, it cannot be used as {use}")


class Catalogue(Frozen):
    """All data sets of a silo."""

    version: Literal[1]
    datasets: tuple[Dataset, ...] = ()

    def dataset(self, name: str) -> Dataset:
        """Raises: CatalogueError naming the data set and what is spelt like it."""
        found = next((d for d in self.datasets if d.name == name), None)
        if found is None:
            raise CatalogueError(_unknown("data set", name, "the catalogue", [d.name for d in self.datasets]))
        return found


def _unknown(what: str, name: str, where: str, known: Iterable[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    hint = "; did you mean " + " or ".join(f"'{c}'" for c in close) + "?" if close else ""
    return f"{where} has no {what} '{name}'{hint}"


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
        for field, value in d.model_dump(exclude={"columns"}).items():
            lines.append(f"{field} = {_quoted(value)}")
        lines += [
            "columns = [",
            *(f"  {{ name = {_quoted(c.name)}, type = {_quoted(c.type)} }}," for c in d.columns),
            "]",
        ]
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _connect() -> duckdb.DuckDBPyConnection:
    """An in-memory engine that fetches nothing from anywhere by itself."""
    import duckdb

    return duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "2"}
    )


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


def describe(name: str, path: Path, key: str) -> Dataset:
    """Look at a file: its columns, types, rows and digest.

    Raises: CatalogueError if it is missing, unreadable, or lacks the key column.
    """
    import duckdb

    text, fmt = _checked_path(path)
    source = _READERS[fmt]
    try:
        with _connect() as db:
            described = db.execute(f"DESCRIBE SELECT * FROM {source}", [text]).fetchall()  # noqa: S608
            counted = db.execute(f"SELECT count(*) FROM {source}", [text]).fetchone()  # noqa: S608
    except duckdb.Error as exc:
        raise CatalogueError(f"the data file {path} is not readable as {fmt}") from exc
    dataset = validate(
        Dataset,
        {
            "name": name,
            "path": text,
            "format": fmt,
            "key": key,
            "rows": counted[0] if counted else 0,
            "sha256": file_sha256(text),
            "columns": [{"name": row[0], "type": _column_type(row[1])} for row in described],
        },
        "the data set",
        CatalogueError,
    )
    dataset.column(key)
    return dataset


def add(catalogue_path: Path, name: str, path: Path, key: str, *, replace: bool = False) -> Dataset:
    """Register a file under a name.

    Raises: CatalogueError if the name is taken and `replace` is not given, or the file is not acceptable.
    """
    catalogue = load(catalogue_path)
    if not replace and any(d.name == name for d in catalogue.datasets):
        raise CatalogueError(f"a data set is called '{name}' already; use --replace to register it anew")
    dataset = describe(name, path, key)
    others = tuple(d for d in catalogue.datasets if d.name != name)
    write_private(catalogue_path, _as_toml(Catalogue(version=1, datasets=(*others, dataset))))
    return dataset


def verify_unchanged(dataset: Dataset) -> None:
    """Raises: CatalogueError if the file is not the one that was registered."""
    if file_sha256(dataset.path) != dataset.sha256:
        raise CatalogueError(f"the file of data set '{dataset.name}' has changed since it was registered")


def commitment(salt: bytes, sha256: str) -> str:
    """Hex SHA-256 of the salt and the file's digest: binds a job to a file, tells nobody which without the salt.

    Raises: ValueError if the salt has fewer than 16 bytes.
    """
    if len(salt) < 16:
        raise ValueError(f"a salt has at least 16 bytes, got {len(salt)}")
    return hashlib.sha256(salt + bytes.fromhex(sha256)).hexdigest()


def load_columns(path: str, fmt: Format, columns: Sequence[str], as_text: Sequence[str] = ()) -> pa.Table:
    """Read the named columns in the file's row order, nulls kept; nothing else of the file is loaded.

    as_text: those of them that a CSV file gives as they are written.  A type that is guessed for "00042", "1e5" or
    "01/02/1990" makes another value of it, which is wrong for an identifier.
    Raises: CatalogueError if the file cannot be read or lacks a column.
    """
    import duckdb

    wanted = ", ".join('"' + c.replace('"', '""') + '"' for c in columns)
    source = _READERS[fmt]
    try:
        with _connect() as db:
            present = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {source}", [path]).fetchall()]  # noqa: S608
            for column in columns:
                if column not in present:  # DuckDB itself would accept another spelling in capitals
                    raise CatalogueError(_unknown("column", column, f"the data file {path}", present))
            parameters: list[Any] = [path]
            if as_text and fmt == "csv":
                source = source.replace("(?", "(?, types = ?")
                parameters.append(dict.fromkeys(as_text, "VARCHAR"))
            return db.sql(f"SELECT {wanted} FROM {source}", params=parameters).to_arrow_table()  # noqa: S608
    except duckdb.Error as exc:
        raise CatalogueError(f"the data file {path} is not readable as {fmt}") from exc
