"""The compiled loops of `vertical.batches`: normal forms of values that are plain ASCII.

A function for one kind of value writes its normal form to `out` from `to` on and returns the number of its bytes, or -1
where the rule itself has to look.  The value has no spaces around it and is not empty.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mpc.compiled import compiled

__all__ = ["append", "normal_forms"]

TEXT, EMAIL, PROVIDER, DIGEST, NAME, DATE, POSTCODE, OTHER = range(8)
"""What is known of a column's rule; OTHER: only that a blank value is blank."""
DONE, BLANK, LEFT = range(3)
"""Of a value: its normal form is known, it is blank, or it is left to the rule."""


def _table(allowed: Iterable[int]) -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for c in allowed:
        table[c] = ord(chr(c).lower())
    return table


_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))

# The rules' limits, written out: code that was compiled and kept is made again only when this file has changed.
_AT, _DASH, _DOT, _PLUS = 64, 45, 46, 43
_MAX_TEXT, _MAX_LOCAL, _MAX_EMAIL, _MAX_LABEL, _MAX_NAME = 1024, 64, 254, 63, 256
# What a byte becomes in a value of some kind; 0 where it may not stand.  Branches on single bytes would cost more.
_LOCAL = _table(c for c in range(33, 127) if c not in b'"(),:;<>@[\\]')
_DOMAIN, _WORD, _HEX = (
    _table(b"-.0123456789" + _LETTERS),
    _table(b"0123456789" + _LETTERS),
    _table(b"0123456789abcdefABCDEF"),
)
_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@compiled
def append(data, cursor, lead, source, starts, which):  # type: ignore[no-untyped-def]
    """Append `lead` and one stretch of `source` to each item."""
    for i in range(len(which)):
        to = cursor[i]
        for c in lead:
            data[to] = c
            to += 1
        for j in range(starts[which[i]], starts[which[i] + 1]):
            data[to] = source[j]
            to += 1
        cursor[i] = to


@compiled
def _space(c):  # type: ignore[no-untyped-def]
    return c == 32 or 9 <= c <= 13 or 28 <= c <= 31


@compiled
def _digit(c):  # type: ignore[no-untyped-def]
    return 48 <= c <= 57


@compiled
def _text(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    if stop - start > _MAX_TEXT:
        return -1
    for i in range(start, stop):
        c = data[i]
        if c < 32 or c > 126:
            return -1
        out[to + i - start] = c
    return stop - start


@compiled
def _digest(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    if stop - start != 64:
        return -1
    for i in range(start, stop):
        c = _HEX[data[i]]
        if c == 0:
            return -1
        out[to + i - start] = c
    return 64


@compiled
def _email(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    if stop - start > _MAX_EMAIL:
        return -1
    at, before = start, _DOT
    while at < stop and data[at] != _AT:
        c = _LOCAL[data[at]]
        if c == 0 or (c == _DOT and before == _DOT):
            return -1
        out[to + at - start] = c
        before = c
        at += 1
    if at == stop or before == _DOT or at - start > _MAX_LOCAL:
        return -1
    out[to + at - start] = _AT
    label, dots = at + 1, 0
    for i in range(at + 1, stop + 1):
        if i == stop or data[i] == _DOT:
            n = i - label
            if n < 1 or n > _MAX_LABEL or data[label] == _DASH or data[i - 1] == _DASH:
                return -1
            if n >= 4 and data[label + 2] == _DASH and data[label + 3] == _DASH:
                return -1  # an encoded name, which has to be a valid one
            label = i + 1
            if i < stop:
                out[to + i - start] = _DOT
                dots += 1
        else:
            c = _DOMAIN[data[i]]
            if c == 0:
                return -1
            out[to + i - start] = c
    return stop - start if dots else -1


@compiled
def _provider(out, to, n, table, gmail):  # type: ignore[no-untyped-def]
    """One spelling for what a provider delivers to one mailbox; `table` has the providers, each with "@" behind it."""
    at = to
    while out[at] != _AT:
        at += 1
    start, which = 0, 0
    while which < len(gmail):
        stop = start
        while table[stop] != _AT:
            stop += 1
        same = stop - start == to + n - at - 1
        if same:
            for i in range(stop - start):
                if table[start + i] != out[at + 1 + i]:
                    same = False
                    break
        if same:
            break
        start, which = stop + 1, which + 1
    if which == len(gmail):
        return n
    kept = to
    for i in range(to, at):
        if out[i] == _PLUS:
            break
        if out[i] != _DOT or not gmail[which]:
            out[kept] = out[i]
            kept += 1
    if kept == to or out[kept - 1] == _DOT:
        return -1
    if gmail[which]:
        for c in b"@gmail.com":
            out[kept] = c
            kept += 1
    else:
        for i in range(at, to + n):
            out[kept] = out[i]
            kept += 1
    return kept - to


@compiled
def _name(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    n, letters = 0, 0
    for i in range(start, stop):
        c = data[i]
        if c < 32 or c > 126:
            return -1
        c = _WORD[c]
        out[to + n] = c  # the next one overwrites it if it is none
        n += c > 0
        letters += c >= 97
    return n if letters and n <= _MAX_NAME else -1


@compiled
def _date(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    dashed = stop - start == 10
    if not dashed and stop - start != 8:
        return -1
    if dashed and (data[start + 4] != _DASH or data[start + 7] != _DASH):
        return -1
    number, n = 0, 0
    for i in range(start, stop):
        if dashed and (i == start + 4 or i == start + 7):
            continue
        c = data[i]
        if not _digit(c):
            return -1
        number = 10 * number + (c - 48)
        if n == 4 or n == 7:
            out[to + n] = _DASH
            n += 1
        out[to + n] = c
        n += 1
    year, month, day = number // 10000, number // 100 % 100, number % 100
    if year < 1800 or year > 2199 or month < 1 or month > 12 or day < 1 or day > _DAYS[month - 1]:
        return -1
    if month == 2 and day == 29 and (year % 4 != 0 or (year % 100 == 0 and year % 400 != 0)):
        return -1
    return 10


@compiled
def _postcode(data, start, stop, out, to):  # type: ignore[no-untyped-def]
    n = 0
    for i in range(start, stop):
        c = data[i]
        if c == 32 or c == _DASH:
            continue
        c = _WORD[c]
        if c == 0 or n == 12:
            return -1
        out[to + n] = c - 32 if c >= 97 else c
        n += 1
    return n if n >= 2 else -1


@compiled
def normal_forms(kind, data, offsets, valid, out, starts, states, table, gmail):  # type: ignore[no-untyped-def]
    """Every value of a column: its normal form behind the others', and its state."""
    to = 0
    for row in range(len(valid)):
        starts[row] = to
        start, stop = offsets[row], offsets[row + 1]
        while start < stop and _space(data[start]):
            start += 1
        while start < stop and _space(data[stop - 1]):
            stop -= 1
        if not valid[row] or start == stop:
            states[row] = BLANK
            continue
        n = -1
        if kind == TEXT:
            n = _text(data, start, stop, out, to)
        elif kind in (EMAIL, PROVIDER):
            n = _email(data, start, stop, out, to)
            if kind == PROVIDER and n > 0:
                n = _provider(out, to, n, table, gmail)
        elif kind == DIGEST:
            n = _digest(data, start, stop, out, to)
        elif kind == NAME:
            n = _name(data, start, stop, out, to)
        elif kind == DATE:
            n = _date(data, start, stop, out, to)
        elif kind == POSTCODE:
            n = _postcode(data, start, stop, out, to)
        if n >= 0:
            states[row] = DONE
            to += n
    starts[len(valid)] = to
