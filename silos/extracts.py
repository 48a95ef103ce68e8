"""Results as Parquet files: a table written batch by batch, and the matched rows of a data set of any size.

A file appears under its name only when it is whole, readable by its owner only.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from silos.checkpoint_files import disk_errors, replacing
from silos.errors import CatalogueError
from silos.tables import Stream, Tabular, stream_columns

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_ROWS = 1 << 18
_PLACE = "row of the output"

Rows = npt.NDArray[np.int64]


def write_table(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> tuple[int, str]:
    """Write batches of one schema as a Parquet file, in place of an earlier one.

    Returns the number of rows and the hex SHA-256 of the file's bytes.
    Raises: SpillError if the file cannot be written, and what the batches raise; then there is no new file.
    """
    import pyarrow.parquet as pq

    rows = 0
    with ExitStack() as stack:
        stack.enter_context(disk_errors(f"{path} cannot be written"))
        file = stack.enter_context(replacing(path))
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch)
                    rows += batch.num_rows
        file.seek(0)
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return rows, digest.hexdigest()


def take_rows(
    source: Tabular,
    rows: Rows,
    columns: Sequence[str],
    path: Path,
    extra: Mapping[str, npt.NDArray[Any]],
    scratch: Path | None = None,
) -> tuple[int, str]:
    """Write a Parquet file whose i-th row is the data set's row rows[i], and columns of the caller's.

    rows: (m,) row numbers in any order; one may occur several times.  extra: name to (m,) values; these columns come
    first.  scratch: a directory of the caller's for what does not fit into memory.
    Memory: the engine's, a few batches, two windows of WINDOW_ROWS rows of the result, and the arguments; the data set is
    streamed once, up to the last row that is asked for (a query to its end, to check its content), and not without columns.
    Returns the number of rows and the hex SHA-256 of the file's bytes.
    Raises: CatalogueError if the data set cannot be read, lacks a column or has fewer rows; SpillError if a file cannot be
    written; ValueError if the arguments do not fit together.
    """
    import pyarrow as pa

    taken = {name: pa.array(values) for name, values in extra.items()}
    if rows.ndim != 1 or rows.dtype != np.int64 or (len(rows) and rows.min() < 0):
        raise ValueError("row numbers are one array of int64 that are not negative")
    if any(len(values) != len(rows) for values in taken.values()):
        raise ValueError(f"each extra column has {len(rows)} values, one for each row")
    names = [*taken, *columns]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ValueError(f"the result would have column '{twice}' twice")
    if not columns:
        batch = pa.RecordBatch.from_pydict(taken)
        return write_table(path, [batch], batch.schema)
    with stream_columns(source, columns, scratch=scratch) as stream:
        schema = pa.schema([*(pa.field(n, v.type) for n, v in taken.items()), *stream.schema])
        picked = _picked(stream, source, rows)
        if len(rows) and (np.diff(rows) < 0).any():
            picked = _reordered(picked, stream.schema, len(rows), scratch)
        return write_table(path, _with_extra(picked, taken, schema), schema)


def _picked(stream: Stream, source: Tabular, rows: Rows) -> Iterator[tuple[pa.RecordBatch, Rows]]:
    """The asked rows in the data set's order, each batch with their places in the result."""
    import pyarrow as pa

    places = np.argsort(rows, kind="stable").astype(np.int64)
    ascending = rows[places]
    start = done = 0
    for batch in stream:
        end = start + batch.num_rows
        upto = int(np.searchsorted(ascending, end))
        if upto > done:
            yield batch.take(pa.array(ascending[done:upto] - start)), places[done:upto]
        start, done = end, upto
        if done == len(rows) and source.format != "sql":
            return
    if done < len(rows):
        raise CatalogueError(f"data set '{source.name}' has {start} rows, row {int(ascending[-1])} was asked for")


def _reordered(
    picked: Iterable[tuple[pa.RecordBatch, Rows]], schema: pa.Schema, n: int, scratch: Path | None
) -> Generator[tuple[pa.RecordBatch, Rows], None, None]:
    """The same rows in the order of their places: sorted into windows of the result on disk, then each in memory."""
    import pyarrow as pa

    schema = schema.append(pa.field(_PLACE, pa.int64()))
    windows = -(-n // WINDOW_ROWS)
    with tempfile.TemporaryDirectory(prefix="accord-", dir=scratch) as folder:
        files = [f"{folder}/{w}" for w in range(windows)]
        with ExitStack() as stack:
            writers = [stack.enter_context(pa.ipc.new_file(file, schema)) for file in files]
            for batch, places in picked:
                of = places // WINDOW_ROWS
                order = np.argsort(of, kind="stable")
                ends = np.cumsum(np.bincount(of, minlength=windows))
                whole = batch.append_column(_PLACE, pa.array(places)).take(pa.array(order))
                for w, (low, high) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
                    if high > low:
                        writers[w].write_batch(whole.slice(low, high - low))
        for file in files:
            with pa.memory_map(file) as mapped:
                table = pa.ipc.open_file(mapped).read_all()
                order = np.argsort(table.column(_PLACE).to_numpy())
                table = table.take(pa.array(order)).combine_chunks()
                for batch in table.to_batches():
                    yield batch.drop_columns([_PLACE]), batch.column(batch.num_columns - 1).to_numpy()


def _with_extra(
    picked: Iterable[tuple[pa.RecordBatch, Rows]], extra: Mapping[str, pa.Array], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch, places in picked:
        at = pa.array(places)
        yield pa.RecordBatch.from_arrays(
            [*(values.take(at) for values in extra.values()), *batch.columns], schema=schema
        )
