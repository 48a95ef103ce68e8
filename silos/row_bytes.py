"""Rows as bytes: one well-defined byte string for each row of a data set, made many rows at a time.

A row is the header, then a fixed part for each column in order, then the bytes of its variable values in column order.

    header     SHA-256 over a domain, the number of rows, and each column's name and kind, each after its length
    fixed      one byte, 1 for a value and 0 for none, then the value: little-endian and as wide as its kind, zeros for
               none; of a variable value the length of its bytes, in 32 bits
    variable   text as UTF-8, binary as it is, and a value of a nested type as JSON with sorted keys

A CSV file's columns are all text, as they are written: whatever type a job reads them as comes from that.  Parquet files and
queries have types, and the kinds are those that silos.queries.ContentHash names.  The header is in every row, so a leaf says
of which columns and of how many rows it is one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from silos import queries
from silos.errors import CatalogueError
from silos.tables import Stream, stream_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from silos.catalogue import Dataset

NESTED = "json"
VARIABLE = frozenset({"text", "binary", NESTED})
_DOMAIN = b"accord: a row of a data set, version 1\n"
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Header:
    """What every row says of its data set.  columns: pairs of name and kind."""

    rows: int
    columns: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> bytes:
        """32 bytes; see the module."""
        whole = hashlib.sha256(_DOMAIN + _u64(self.rows) + _u64(len(self.columns)))
        for column in self.columns:
            for text in column:
                whole.update(_u64(len(text.encode())) + text.encode())
        return whole.digest()


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def open_rows(dataset: Dataset, scratch: Path | None = None) -> tuple[Header, Stream]:
    """The header of a data set and all its columns in row order, as a worker reads them.  Raises: CatalogueError."""
    names = [column.name for column in dataset.columns]
    stream = stream_columns(dataset, names, as_text=names, scratch=scratch)
    with ExitStack() as unless_opened:
        unless_opened.callback(stream.close)
        header = Header(dataset.rows, tuple((field.name, kind_of(field)) for field in stream.schema))
        unless_opened.pop_all()
    return header, stream


def kind_of(field: pa.Field) -> str:
    """How the values of a column become bytes: a kind of silos.queries.ContentHash, or "json"."""
    try:
        return queries.kind_of(field)
    except CatalogueError:
        return NESTED


def encode(header: Header, batch: pa.RecordBatch) -> Iterator[bytes]:
    """The bytes of each row of a batch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not batch.num_rows:
        return iter(())
    fixed: list[Any] = []
    variable: list[Any] = []
    kinds = [kind for _, kind in header.columns]
    columns = [as_json(c) if kind == NESTED else c for kind, c in zip(kinds, batch.columns, strict=True)]
    for kind, column in zip(kinds, columns, strict=True):
        parts = queries.parts_of(column)
        valid, values = next(parts), next(parts)
        fixed += [valid.reshape(len(column), 1), np.ascontiguousarray(values).view(np.uint8).reshape(len(column), -1)]
        if kind in VARIABLE:
            variable.append(_as_binary(column))
    block = np.hstack(fixed).tobytes()
    width, start = len(block) // batch.num_rows, header.digest
    heads = (start + block[at : at + width] for at in range(0, len(block), width))
    if not variable:
        return heads
    joined = (
        variable[0] if len(variable) == 1 else pc.binary_join_element_wise(*variable, pa.scalar(b"", pa.large_binary()))
    )
    return (head + tail for head, tail in zip(heads, joined.to_pylist(), strict=True))


def _as_binary(column: pa.Array) -> pa.Array:
    """Text as its bytes, and nothing where there is no value."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).fill_null(b"")


def as_json(column: pa.Array) -> pa.Array:
    """Values of a nested type as JSON with sorted keys."""
    import pyarrow as pa

    texts = [None if v is None else json.dumps(v, sort_keys=True, default=str) for v in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def split(header: Header, row: bytes) -> list[bytes | None]:
    """The bytes of each value of an encoded row.  Raises: ValueError if it is not one."""
    at, lengths, values = 32, [], list[bytes | None]()
    if row[:at] != header.digest:
        raise ValueError("the row has another header")
    for _, kind in header.columns:
        width = _LENGTH_BYTES if kind in VARIABLE else width_of(kind)
        there, value, at = row[at : at + 1], row[at + 1 : at + 1 + width], at + 1 + width
        if there not in (b"\0", b"\1") or len(value) != width or (there == b"\0" and any(value)):
            raise ValueError("the row is not well-formed")
        values.append(value if there == b"\1" else None)
        lengths.append(int.from_bytes(value, "little") if kind in VARIABLE else -1)
    for place, length in enumerate(lengths):
        if length >= 0 and values[place] is not None:
            values[place], at = row[at : at + length], at + length
    if at != len(row):
        raise ValueError("the row is not well-formed")
    return values


def join(header: Header, values: Sequence[bytes | None]) -> bytes:
    """The inverse of `split`.  Raises: ValueError if a value does not have the width of its kind."""
    fixed, variable = [header.digest], []
    for (name, kind), value in zip(header.columns, values, strict=True):
        width = _LENGTH_BYTES if kind in VARIABLE else width_of(kind)
        if value is None:
            fixed.append(bytes(1 + width))
        elif kind in VARIABLE:
            fixed.append(b"\1" + len(value).to_bytes(width, "little"))
            variable.append(value)
        elif len(value) != width:
            raise ValueError(f"a value of column '{name}' has {len(value)} bytes, expected {width}")
        else:
            fixed.append(b"\1" + value)
    return b"".join([*fixed, *variable])


def width_of(kind: str) -> int:
    """Bytes of a value of a kind that is not variable.  Raises: ValueError if there is no such kind."""
    if kind == "bool":
        return 1
    if kind.startswith("timestamp[") or kind in ("double", "date64[ms]"):
        return 8
    if kind.startswith("decimal128("):
        return 16
    if kind.startswith("decimal256("):
        return 32
    widths = {"halffloat": 2, "float": 4, "date32[day]": 4}
    widths |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
    widths |= {f"time{bits}[{unit}]": bits // 8 for bits, unit in ((32, "s"), (32, "ms"), (64, "us"), (64, "ns"))}
    if kind not in widths:
        raise ValueError(f"'{kind}' is no kind of value")
    return widths[kind]


def shown(kind: str, value: bytes | None) -> str:
    """A value for people to read."""
    if value is None:
        return "(none)"
    if kind in VARIABLE:
        return value.hex() if kind == "binary" else value.decode()
    if kind == "bool":
        return "true" if value[0] else "false"
    if kind in ("float", "double", "halffloat"):
        return str(np.frombuffer(value, {2: "<f2", 4: "<f4", 8: "<f8"}[len(value)])[0].item())
    number = int.from_bytes(value, "little", signed=not kind.startswith("uint"))
    if kind.startswith("decimal"):
        scale = int(kind.rstrip(")").rsplit(",", 1)[1])
        text = f"{abs(number):0{scale + 1}d}"
        sign = "-" if number < 0 else ""
        return sign + (f"{text[:-scale]}.{text[-scale:]}" if scale > 0 else text)
    if kind == "date32[day]":
        return str(np.datetime64(number, "D"))
    if kind.startswith("timestamp["):
        return str(np.datetime64(number, kind[10:].split(",")[0].rstrip("]")))  # type: ignore[call-overload]
    return str(number)
