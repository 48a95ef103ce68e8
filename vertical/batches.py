"""Identifiers of whole batches: what `Rule.item` gives row by row, for columns as Apache Arrow lays them out.

Most values of a customer file are plain ASCII, where a rule needs no Unicode tables.  Those are normalised by compiled
loops, which know a part of each rule and leave everything that they are not sure of.  What they leave goes through the
rule itself, one row at a time.  So there is one definition of every rule, in `vertical.identifiers`, and tests compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vertical import plain_numba
from vertical.emails import GMAIL_DOMAINS, PLUS_DOMAINS
from vertical.identifiers import RULES, Rule
from vertical.plain_numba import BLANK, DATE, DIGEST, DONE, EMAIL, LEFT, NAME, OTHER, POSTCODE, PROVIDER, TEXT
from vertical.values import Reason

Array = npt.NDArray[Any]

_PARTS: dict[str, tuple[int, ...]] = {
    "email/v1": (EMAIL,),
    "email-provider/v1": (PROVIDER,),
    "phone/v1": (OTHER,),
    "person/v1": (NAME, NAME, DATE, POSTCODE),
    "name-birth/v1": (NAME, NAME, DATE),
    "name-postcode/v1": (NAME, NAME, POSTCODE),
    "given-birth-postcode/v1": (NAME, DATE, POSTCODE),
    "family-birth-postcode/v1": (NAME, DATE, POSTCODE),
    "hashed-sha256/v1": (DIGEST,),
    "text/v1": (TEXT,),
}


@dataclass(frozen=True)
class Column:
    """One column of a batch.

    data: bytes of all values behind each other.  offsets: (n + 1,) int64, where each one starts in them.  valid: (n,), false
    where there is no value.  text: false if the values are neither text nor bytes; then data says nothing.
    """

    data: Array
    offsets: Array
    valid: Array
    text: bool = True

    def __len__(self) -> int:
        return len(self.valid)

    def __repr__(self) -> str:
        return f"Column(<{len(self)} values>)"

    def value(self, row: int) -> object:
        """What a rule gets for a row: None, bytes, or a number in place of whatever it is."""
        if not self.valid[row]:
            return None
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes() if self.text else 0


@dataclass(frozen=True)
class Items:
    """The identifiers of a batch.

    data: all items behind each other.  offsets: (k + 1,) int64, where each one starts.  rows: (k,) int64, the rows of the
    batch that they come from, ascending.  reasons: rows without a valid identifier, per reason that occurred.
    """

    data: Array
    offsets: Array
    rows: Array
    reasons: Counter[Reason]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Items(<{len(self)} items>)"

    def items(self) -> list[bytes]:
        """The items one by one."""
        data, ends = self.data.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(ends)]


def column(array: Any) -> Column:
    """A column from an Arrow array of any type.  Its bytes are not copied if they are text or binary already.

    array: a `pyarrow.Array`, or anything with its methods `buffers`, `cast` and `is_valid`; a ChunkedArray is none.
    """
    kind = str(array.type)
    if kind.startswith("dictionary"):
        array = array.dictionary_decode()
        kind = str(array.type)
    if kind in ("string_view", "binary_view"):
        kind = f"large_{kind.removesuffix('_view')}"
        array = array.cast(kind)
    n, at = len(array), array.offset
    if kind not in ("string", "large_string", "binary", "large_binary"):
        # None of its values is an identifier, so only what is missing has to be known.
        valid = np.asarray(array.is_valid().to_pylist(), dtype=np.bool_)
        return Column(np.empty(0, np.uint8), np.zeros(n + 1, np.int64), valid, text=False)
    validity, ends, data = array.buffers()
    width = np.int64 if kind.startswith("large") else np.int32
    offsets = np.frombuffer(ends, width)[at : at + n + 1].astype(np.int64) if n else np.zeros(1, np.int64)
    valid = np.ones(n, np.bool_)
    if validity is not None:
        bits = np.frombuffer(validity, np.uint8)[at // 8 : (at + n + 7) // 8]
        valid = np.unpackbits(bits, bitorder="little")[at % 8 : at % 8 + n].astype(np.bool_)
    return Column(np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8), offsets, valid)


def normalise(columns: Sequence[Column], rule: str, region: str | None = None, tag: bytes = b"") -> Items:
    """The items of a batch, exactly those of `Rule.item`, with `tag` in front of each.

    columns: one per role of the rule, in its order, of equal length.  region: as the rule asks.  No value raises.
    Raises: ValueError for an unknown rule, other columns than it takes, or a region that it cannot use.
    """
    if rule not in RULES:
        raise ValueError(f"unknown identifier rule '{rule}': expected one of {', '.join(sorted(RULES))}")
    chosen = RULES[rule]
    chosen.check(len(columns), region)
    if len({len(one) for one in columns}) > 1:
        raise ValueError("the columns of an identifier must be of equal length")
    parts = [_part(one, kind) for one, kind in zip(columns, _PARTS[rule], strict=True)]
    states = np.stack([state for _, _, state in parts])
    fast = np.all(states == DONE, axis=0)
    # In a single column a blank is a blank; in several, which reason counts is the rule's to say.
    blank = states[0] == BLANK if len(columns) == 1 else np.zeros_like(fast)
    slow = np.flatnonzero(~(fast | blank))
    slow_items, reasons = _by_rule(columns, chosen, region, slow)
    if blank.any():
        reasons[Reason.BLANK] += int(np.count_nonzero(blank))
    return _assembled(parts, chosen.prefix, tag, np.flatnonzero(fast), slow_items, reasons)


def warm_up() -> None:
    """Load or compile every loop."""
    one = Column(np.frombuffer(b"a", np.uint8), np.array([0, 1]), np.ones(1, np.bool_))
    normalise([one], "text/v1")


def _part(values: Column, kind: int) -> tuple[Array, Array, Array]:
    """A column's normal forms behind each other, where each one starts, and the state of each value."""
    n = len(values)
    size = int(values.offsets[-1] - values.offsets[0])
    out = np.empty(size + 2 * n + 1, np.uint8)  # a date may grow by its two dashes
    starts, states = np.zeros(n + 1, np.int64), np.full(n, LEFT, np.uint8)
    if values.text:
        domains = sorted(PLUS_DOMAINS)
        table = np.frombuffer("@".join([*domains, ""]).encode(), np.uint8)
        gmail = np.array([name in GMAIL_DOMAINS for name in domains])
        given = _readonly(values.data), _readonly(values.offsets), _readonly(values.valid)
        plain_numba.normal_forms(kind, *given, out, starts, states, table, gmail)
    else:
        states[~values.valid] = BLANK
    return out, starts, states


def _readonly(array: Array) -> Array:
    """The same array as one type, whoever made it: code is compiled for each type of arguments."""
    view = array.view()
    view.flags.writeable = False
    return view


def _by_rule(
    columns: Sequence[Column], rule: Rule, region: str | None, rows: Array
) -> tuple[dict[int, bytes], Counter[Reason]]:
    found, reasons = dict[int, bytes](), Counter[Reason]()
    for row in rows.tolist():
        item = rule.item([one.value(row) for one in columns], region)
        if isinstance(item, Reason):
            reasons[item] += 1
        else:
            found[row] = item
    return found, reasons


def _assembled(
    parts: Sequence[tuple[Array, Array, Array]],
    prefix: bytes,
    tag: bytes,
    fast: Array,
    slow: dict[int, bytes],
    reasons: Counter[Reason],
) -> Items:
    """Both kinds of items behind each other, in the order of their rows."""
    lengths = np.full(len(fast), len(tag) + len(prefix) + len(parts) - 1, np.int64)
    for _, starts, _ in parts:
        lengths += starts[fast + 1] - starts[fast]
    slow_rows = np.fromiter(slow, np.int64, len(slow))
    slow_ends = np.cumsum([0, *map(len, slow.values())], dtype=np.int64)
    rows = np.concatenate([fast, slow_rows])
    order = np.argsort(rows, kind="stable") if len(slow) else np.arange(len(rows))
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.concatenate([lengths, np.diff(slow_ends) + len(tag)])[order], out=offsets[1:])
    cursor = np.empty(len(rows), np.int64)
    cursor[order] = offsets[:-1]
    data = np.empty(int(offsets[-1]), np.uint8)
    for i, (out, starts, _) in enumerate(parts):
        lead = np.frombuffer(b"\0" if i else tag + prefix, np.uint8)
        plain_numba.append(data, cursor[: len(fast)], lead, out, starts, fast)
    blob = np.frombuffer(b"".join(slow.values()), np.uint8)
    plain_numba.append(data, cursor[len(fast) :], np.frombuffer(tag, np.uint8), blob, slow_ends, np.arange(len(slow)))
    return Items(data, offsets, rows[order], reasons)
