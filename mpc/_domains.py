"""Where a function of shared values is right, what happens elsewhere, and how long vectors are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import open_any
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.session import Session

Words = npt.NDArray[Any]
Plan = list[Correlation]
CHUNK = 1 << 17
"""Words worked on at once: the comparison holds some hundred bytes for each."""


@dataclass(frozen=True)
class Domain:
    """Fixed-point values x with 2^low <= x < 2^high; for `exp`, those with 2^low <= e^x < 2^high.

    low, high: even.  frac_bits: of x and of the result.  checked: whether to make sure; without it a value outside gives
    a meaningless result and nobody can tell.  what: the tensor's name, for the error.  tag: of the message by which all learn
    whether a value is outside.
    """

    low: int = -8
    high: int = 8
    frac_bits: int = 20
    checked: bool = True
    what: str = "x"
    tag: str = "compare/any"

    def __post_init__(self) -> None:
        if self.low % 2 or self.high % 2 or not self.low < self.high <= self.low + 24:
            raise LocalProtocolError(f"a domain has 2 to 24 octaves between even powers, not {self.low} to {self.high}")
        if not 2 <= self.frac_bits <= 30 or self.low + self.frac_bits < 0 or self.high + self.frac_bits > 40:
            raise LocalProtocolError(f"{self.frac_bits} fractional bits cannot hold 2^{self.low} to 2^{self.high}")

    @property
    def pieces(self) -> int:
        """Intervals of a factor of 4."""
        return (self.high - self.low) // 2

    @property
    def unit_bits(self) -> int:
        """Fractional bits of the value that is brought into [1, 4)."""
        return self.high + self.frac_bits - 2

    @property
    def edges(self) -> list[int]:
        """The ends of the pieces as words: 2^low, 2^(low+2), ..., 2^high."""
        return [1 << e + self.frac_bits for e in range(self.low, self.high + 1, 2)]

    @property
    def allowed(self) -> str:
        """The domain in words."""
        return f"at least 2^{self.low} and below 2^{self.high}"


@dataclass(frozen=True)
class Range:
    """How a smooth function is evaluated.

    frac_bits: of x.  out_bits: of the result; with the fit's own (26 for those here) the last round falls away.  checked:
    whether to make sure that x is in the fit's interval.  what, operation: the tensor's and the function's name.  tag: as in
    `Domain`.
    """

    frac_bits: int = 20
    out_bits: int = 20
    checked: bool = True
    what: str = "x"
    operation: str = "a fitted function"
    tag: str = "compare/any"


def chunks(n: int) -> list[slice]:
    """The pieces in which n words are worked on."""
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def planned(n: int, plan: Callable[[int], Sequence[Correlation]]) -> Plan:
    """The correlations of all chunks, from those of one of a given size."""
    return [request for part in chunks(n) for request in plan(part.stop - part.start)]


def in_chunks(
    session: Session,
    tickets: Sequence[Ticket],
    plan: Plan,
    x: Words,
    body: Callable[[Sequence[Ticket], slice], tuple[Words, Words | None]],
    error: OutOfRange,
    tag: str,
) -> Words:
    """Run `body` on every chunk; it returns the result and, where checked, the word that says if a value is outside."""
    parts = chunks(x.size)
    each = len(plan) // max(1, len(parts))
    if [ticket.request for ticket in tickets] != plan or x.dtype != np.uint64:
        raise LocalProtocolError(f"these correlations are not for a function of {x.size} words")
    out, any_word = np.empty(x.size, dtype=np.uint64), None
    for i, part in enumerate(parts):
        out[part], word = body(tickets[each * i : each * (i + 1)], part)
        if word is not None:
            any_word = word if any_word is None else any_word ^ word
    if any_word is not None and open_any(session, any_word, tag).any():
        raise error
    return out.reshape(x.shape)
