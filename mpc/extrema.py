"""The largest or smallest of every row of shared values, and where it is, without opening anything: a tournament.

Four values play at a time: all six comparisons c_ij = [x_i < x_j], i < j, are made in one call.  Value j wins if it is above
all before it and not below any behind it,

    w_j = product over i < j of c_ij  times  product over l > j of (1 - c_jl),

three bits, whose product takes two rounds; then the winner is the sum of w_j x_j, and its place the sum of w_j times the
places, in one more.  So the lowest index wins a tie, and a group of fewer than four is filled up with copies of its first
value, which can never win from behind.

A level of four takes 7 rounds for 2 bits of the place; of three 6 for 1.6 bits, of two 5 for 1 bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than_zero, plan_less_than_zero
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.products import multiply, plan_multiply
from mpc.session import Session

Words = npt.NDArray[Any]
FAN_IN = 4


def _levels(k: int) -> list[tuple[int, int]]:
    """Per level, (how many values play in a group, how many groups)."""
    out = []
    while k > 1:
        fan_in = min(FAN_IN, k)
        k = -(-k // fan_in)
        out.append((fan_in, k))
    return out


def _plan_level(rows: int, fan_in: int, groups: int, with_index: bool) -> list[Correlation]:
    duels = fan_in * (fan_in - 1) // 2
    bits = (fan_in, rows, groups)
    products = [plan_multiply(bits) for _ in range(fan_in - 2)]
    chosen = plan_multiply((1, *bits), (1 + with_index, *bits))
    return [*plan_less_than_zero(duels * rows * groups), *products, chosen]


def plan_argmax(rows: int, k: int) -> list[Correlation]:
    """What the largest of k values, and its index, in each of `rows` rows ask of the dealer."""
    levels = enumerate(_levels(k))
    return [c for i, level in levels for c in _plan_level(rows, *level, with_index=i > 0)]


def argmax(session: Session, tickets: Sequence[Ticket], share: Words) -> tuple[Words, Words]:
    """Shares of the largest value of every row and of its index; the lowest index among equals.

    tickets: for `plan_argmax(rows, k)`.  share: (rows, k) words, k >= 1, of one scale; two values of a row must not
    differ by 2^63 or more, so |x| < 2^62 will do.  Returns (rows,) words of that scale, and (rows,) of scale 1.
    `mpc.groups.one_hot` turns the index into a row of bits, in one round.

    Reveals: nothing; every opened word is uniform.
    Cost: a level of fan-in f = min(4, values left) leaves g = ceil(values / f) values in each row: f + 3 rounds, that is
    5, 6 or 7; comparing f (f - 1) / 2 rows g words as `less_than_zero`; then to every other party 8 rows g f bytes
    2 (f - 2) + 3 times, at the first level 2 (f - 2) + 2 times; the dealer sends 8 rows g f for each product, f of them, at
    the first level f - 1.
    Security: semi-honest parties; the dealer does not collude.
    Source: Damgard et al., TCC 2006 (comparisons in parallel for fewer rounds); Knott et al., "CrypTen", NeurIPS 2021
    (the all-pairs and the tree form of argmax, here joined).
    Raises: LocalProtocolError if the tickets are not for an array of this shape, or are taken out of order.
    """
    if share.ndim != 2 or share.shape[1] < 1 or share.dtype != np.uint64:
        raise LocalProtocolError(f"the largest of rows of shape {share.shape} and type {share.dtype} is not defined")
    rows, k = share.shape
    if [ticket.request for ticket in tickets] != plan_argmax(rows, k):
        raise LocalProtocolError(f"these correlations are not for the largest of {k} values in {rows} rows")
    played = np.zeros((2, rows, k), dtype=np.uint64)
    played[0] = share
    if session.me == 0:
        played[1] = np.arange(k)  # only a row of one value gets its place from here
    rest = list(tickets)
    for level, (fan_in, groups) in enumerate(_levels(k)):
        count = len(_plan_level(rows, fan_in, groups, with_index=level > 0))
        played = _play(session, rest[:count], _grouped(played, fan_in, groups), with_index=level > 0)
        rest = rest[count:]
    return played[0, :, 0], played[1, :, 0]


def argmin(session: Session, tickets: Sequence[Ticket], share: Words) -> tuple[Words, Words]:
    """Shares of the smallest value of every row and of its index; everything else as `argmax`."""
    largest, index = argmax(session, tickets, np.negative(share))
    return np.negative(largest), index


def _grouped(played: Words, fan_in: int, groups: int) -> Words:
    """(2, rows, k) as (2, fan_in, rows, groups): neighbours in one group, the last filled up with copies of its first."""
    short = groups * fan_in - played.shape[2]
    if short:
        filler = played[:, :, (groups - 1) * fan_in, None]
        played = np.concatenate([played, np.repeat(filler, short, axis=2)], axis=2)
    grouped = played.reshape(2, played.shape[1], groups, fan_in)
    return np.ascontiguousarray(np.moveaxis(grouped, 3, 1))


def _play(session: Session, tickets: Sequence[Ticket], values: Words, *, with_index: bool) -> Words:
    """One level: (2, fan_in, rows, groups) to (2, rows, groups)."""
    fan_in = values.shape[1]
    duels = list(combinations(range(fan_in), 2))
    compared = len(tickets) - (fan_in - 1)
    differences = np.stack([values[0, i] - values[0, j] for i, j in duels])
    less = less_than_zero(session, tickets[:compared], differences)
    one = np.uint64(1 if session.me == 0 else 0)
    lost: list[list[Words]] = [[] for _ in range(fan_in)]
    for (i, j), bit in zip(duels, less, strict=True):
        lost[j].append(bit)
        lost[i].append(one - bit)
    wins = np.stack([bits[0] for bits in lost])
    for i, ticket in enumerate(tickets[compared:-1], start=1):
        wins = multiply(session, ticket, wins, np.stack([bits[i] for bits in lost]))
    chosen = multiply(session, tickets[-1], wins[None], np.ascontiguousarray(values[: 1 + with_index]))
    out: Words = chosen.sum(axis=1, dtype=np.uint64)
    if with_index:
        return out
    # At the first level the places are public: (fan_in, groups) of them, the same in every row.
    places = np.arange(fan_in * wins.shape[2], dtype=np.uint64).reshape(wins.shape[2], fan_in).T
    return np.stack([out[0], (wins * places[:, None, :]).sum(axis=0, dtype=np.uint64)])
