"""What a matching or a measurement released to this silo: numbers, and perhaps a table of its own matched rows."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from silos.checkpoint_files import disk_errors, replacing
from silos.config import Home
from silos.errors import ConfigError
from silos.results import read_result

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Result:
    """A released result.

    document: as in the result file: `job`, `silo`, `spec_digest`, `salt` and `result`.  parquet: the table's file, None if
    there is no table.

        result = job.result()
        result.matched               # how many of our rows
        result.table()               # pyarrow.Table; row i is about the same person as row i at every partner
        result.to_pandas()
        result.write("matched.csv")
    """

    document: dict[str, Any]
    parquet: Path | None

    @classmethod
    def read(cls, home: Home, job: str) -> Result:
        """Raises: ConfigError if there is no readable result, or its table is gone."""
        document = read_result(home.result(job))
        has_table = isinstance(document["result"], dict) and "table" in document["result"]
        path = home.table(job) if has_table else None
        if path is not None and not path.exists():
            raise ConfigError(f"the table of job {job} is not in {path.parent} any more")
        return cls(document, path)

    @property
    def values(self) -> dict[str, Any]:
        """The released items by name."""
        values: dict[str, Any] = self.document["result"]
        return values

    @property
    def counts(self) -> dict[str, Any]:
        """What was counted about our own rows; empty if it was not released."""
        counts: dict[str, Any] = self.values.get("counts") or self.values.get("rows") or self.values.get("own") or {}
        return counts

    @property
    def matched(self) -> int:
        """How many of our rows matched, as far as it is told.  Raises: ConfigError if that was not released."""
        if "matches" in self.values:
            return int(self.values["matches"])
        if "matched" in self.counts:
            return int(self.counts["matched"])
        if self.parquet is not None:
            return int(self.values["table"]["rows"])
        raise ConfigError("the job did not release how many rows matched")

    @property
    def sums(self) -> dict[tuple[str, str], Decimal]:
        """Sums over the rows that matched, by silo and column; empty if none were asked for."""
        return {(one["silo"], one["column"]): Decimal(one["sum"]) for one in self.values.get("sums", ())}

    def table(self) -> pa.Table:
        """The table in memory.  Raises: ConfigError if there is none."""
        import pyarrow.parquet as pq

        return pq.read_table(self._table())

    def head(self, rows: int) -> pa.Table:
        """Its first rows, without reading the rest.  Raises: ConfigError if there is no table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._table()) as file:
            first = next(file.iter_batches(batch_size=max(1, rows)), None)
            batches = [] if first is None else [first.slice(0, rows)]
            return pa.Table.from_batches(batches, schema=file.schema_arrow)

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame.  Raises: ConfigError if there is no table, or pandas is not installed."""
        self._table()
        try:
            importlib.import_module("pandas")
        except ImportError as exc:
            raise ConfigError(
                "pandas is not installed; install it, or use table(), which gives a pyarrow.Table"
            ) from exc
        return self.table().to_pandas()

    def write(self, path: str | Path) -> Path:
        """Copy the table to a .parquet or .csv file that only we can read.

        Raises: ConfigError if there is no table or the name ends otherwise; SpillError if the file cannot be written.
        """
        source, to = self._table(), Path(path)
        if to.suffix.lower() not in (".parquet", ".csv"):
            raise ConfigError(f"the file {to} must end in .parquet or .csv")
        with disk_errors(f"{to} cannot be written"), replacing(to) as file:
            if to.suffix.lower() == ".parquet":
                with source.open("rb") as whole:
                    shutil.copyfileobj(whole, file)
            else:
                _write_csv(source, file)
        return to

    def _table(self) -> Path:
        if self.parquet is None:
            raise ConfigError("the job released no table of matched rows")
        return self.parquet


def _write_csv(source: Path, to: BinaryIO) -> None:
    """Batch by batch, so that a table of any size can be written."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    with pq.ParquetFile(source) as file, csv.CSVWriter(to, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            writer.write_batch(batch)
