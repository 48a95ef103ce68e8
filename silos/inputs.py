"""What a worker reads of its silo's data: identifiers batch by batch, and the columns that are computed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from silos.errors import CatalogueError
from silos.tables import Tabular, load_table, stream_columns
from vertical.batches import Column, Items, column

if TYPE_CHECKING:
    from vertical.align import Identifiers


def read_identifiers(
    source: Tabular, keys: Sequence[Sequence[str]], into: Identifiers, scratch: Path | None = None
) -> Iterator[list[Items]]:
    """The identifiers of all keys, a batch of rows at a time, in the data set's row order.

    keys: for each key its columns.  into: counts rows and what is unusable.  Raises: CatalogueError.
    """
    names = list(dict.fromkeys(name for key in keys for name in key))
    with stream_columns(source, names, as_text=names, scratch=scratch) as stream:
        for batch in stream:
            read = {name: _texts(batch.column(name)) for name in names}
            yield into.add([[read[name] for name in key] for key in keys])


def _texts(array: pa.Array) -> Column:
    """A column as text.  A whole number that the file keeps as a float, because others are missing, has no fraction."""
    if pa.types.is_floating(array.type):
        texts = [None if v is None or v != v else str(int(v)) if v.is_integer() else str(v) for v in array.to_pylist()]
        array = pa.array(texts, pa.string())
    elif not _is_text(array.type):
        array = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    return column(array)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")


def read_columns(
    source: Tabular, numbers: Sequence[str], categories: Sequence[str], owner: str
) -> Mapping[str, npt.NDArray[Any]]:
    """Numbers as float64, NaN where there is none, and categories as text with None.  Raises: CatalogueError."""
    if not numbers and not categories:
        return {}
    table = load_table(source, [*numbers, *categories])
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in numbers:
        try:
            columns[name] = np.array(table.column(name).cast("float64").to_numpy(), dtype=np.float64)
        except pa.ArrowException:  # its text quotes the value
            raise CatalogueError(f"column '{name}' of {owner} holds values that are not numbers") from None
    for name in categories:
        levels = np.empty(table.num_rows, dtype=object)
        levels[:] = [v if v is None or isinstance(v, bytes) else str(v) for v in table.column(name).to_pylist()]
        columns[name] = levels
    return columns
