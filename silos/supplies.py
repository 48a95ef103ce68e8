"""What a measurement on shares sends: the join, the results, and the correlated randomness for both, from any source.

A measurement is a list of steps.  Each says what it asks its supply for and how many bytes the owners open; what the supply
sends for that follows from the requests themselves (`mpc.dealer`, docs/protocols/verified-dealer.md,
docs/protocols/oblivious-transfer.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import measure
from mpc.compare import Chain, Digits, PackedBits, plan_is_zero
from mpc.correlations import Correlation, Source, Ticket
from mpc.dealer import corrected
from mpc.errors import LocalProtocolError
from mpc.matching import cuckoo
from mpc.matching.hidden import PART_BINS, Hidden
from mpc.ot.kernels_numpy import TILE
from mpc.ot.products import WHOLE
from mpc.ot.source import CARRIES, SINGLE_BITS
from mpc.rng import KEY_BYTES
from mpc.triples import Triple
from mpc.verified.source import Verified
from mpc.wire import Kind
from silos.traffic import ASSISTANT, NOTHING, Traffic, hidden_join

Words = npt.NDArray[Any]
OT_SET_UP_BYTES = 64 + 8192 + 4096
CHOICE_BYTES = 256
DIGITS, DIGIT_BITS = 16, 4
"""Of a word, in a comparison."""
SETTLE_BYTES = 56


def n_words(bits: int) -> int:
    """Words that so many bits are packed into."""
    return -(-bits // 64)


@dataclass(frozen=True)
class Step:
    """One plan of a session, and its use.

    requests: what is asked for at once.  opened: bytes that each owner sends the other one.  waits: messages in a row.
    settles: how many times the requests are checked, in equal parts.
    """

    requests: tuple[Correlation, ...]
    opened: int
    waits: int
    settles: int = 1


@dataclass(frozen=True)
class Asked:
    """What is measured.  columns: how many each owner has, whose sums are told.  matches: whether their number is, with what
    rounding; noise changes no byte.
    """

    columns: tuple[int, int] = (0, 0)
    matches: bool = True
    round_to: int | None = None


def steps(n: int, m: int, asked: Asked) -> list[Step]:
    """The steps of a measurement, after the join's first part: the comparison, the gate, and each result."""
    bins = cuckoo.n_bins(n)
    parts = [min(PART_BINS, bins - at) for at in range(0, bins, PART_BINS)]
    compared = tuple(request for part in parts for request in plan_is_zero(part))
    opened = sum(8 * part + 168 * n_words(part) for part in parts)
    out = [Step(compared, opened, 4 * len(parts), len(parts)), Step(measure.plan_enough(), 4 + 8 + 280 + 8, 6)]
    joined = _joined(n, m, bins, asked.columns)
    if asked.matches and asked.round_to is not None:
        plan = tuple(measure.plan_rounded_count(joined, asked.round_to))
        digits = [request.rows for request in plan if isinstance(request, PackedBits)]
        out.append(Step(plan, 8 + sum(8 + 280 * d for d in digits), 4 * len(digits) + 1))
    elif asked.matches:
        out.append(Step((), 8, 1))
    k = sum(asked.columns)
    if k:
        out.append(Step((measure.plan_sums(joined),), 8 * (k + 1) * bins + 8 * k, 2))
    return out


def _joined(n: int, m: int, bins: int, columns: tuple[int, int]) -> Hidden:
    """A join of those sizes without its content."""
    zero = np.zeros(1, dtype=np.uint64)
    shapes = ((bins,), (bins, columns[0]), (bins, columns[1]))
    matched, first, second = (np.broadcast_to(zero[0], shape) for shape in shapes)
    return Hidden(0, n, m, matched, first, second)


def measured(n: int, m: int, asked: Asked, randomness: str) -> Traffic:
    """All that a measurement sends.  randomness: as in the job's spec."""
    plan = steps(n, m, asked)
    total = hidden_join(n, m, asked.columns[1])
    for step in plan:
        total += Traffic({(0, 1): step.opened, (1, 0): step.opened}, step.waits)
    if randomness == "ot":
        return total + _transferred(plan)
    if randomness == "dealer":
        return total + _dealt([step.requests for step in plan])
    return total + _verified(plan)


# --- a dealer


def _dealt(plans: Sequence[Sequence[Correlation]]) -> Traffic:
    """What the dealer sends, and what it is asked for: in one message for each plan, unless that is a very long one."""
    sent = {(ASSISTANT, 0): KEY_BYTES, (ASSISTANT, 1): KEY_BYTES, (0, ASSISTANT): len("[]")}
    for requests in plans:
        if requests:
            text = json.dumps([request.model_dump() for request in requests], separators=(",", ":"))
            sent[0, ASSISTANT] += len(text)
        for piece in (piece for request in requests for piece in request.derived()):
            for me in (0, 1):
                own = corrected(piece, 2, me)
                sent[ASSISTANT, me] += (own.stop - own.start) * np.dtype(piece.dtype).itemsize
    return Traffic(sent, 1)


class _Listed(Source):
    """A supply that supplies nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(0)
        self.plans = list[list[Correlation]]()

    def settle(self) -> None:
        """Nothing was made."""

    def close(self) -> None:
        """Nothing is open."""

    def _planned(self, tickets: Sequence[Ticket]) -> None:
        self.plans.append([ticket.request for ticket in tickets])

    def _draws(self, ticket: Ticket) -> list[Words]:
        raise LocalProtocolError("this supply only counts")

    def _shares(self, ticket: Ticket) -> list[Words]:
        raise LocalProtocolError("this supply only counts")


class _Counting:
    """A channel that leads nowhere."""

    def __init__(self) -> None:
        self.size = 0

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        """Count the bytes."""
        self.size += len(body)

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        """Nothing comes."""
        raise LocalProtocolError("nothing comes over a channel that only counts")


def _verified(plan: Sequence[Step]) -> Traffic:
    """The same for a dealer that is checked: it deals something else, and the owners open what the checks take."""
    listed, coin = _Listed(), _Counting()
    supply, total = Verified(listed, coin, ("first", "second"), 0, "dealer"), NOTHING
    for step in plan:
        if not step.requests:
            continue
        supply.plan(step.requests)
        each = SETTLE_BYTES * step.settles + sum(map(_checked_bytes, step.requests))
        total += Traffic({(0, 1): each, (1, 0): each}, 2 * step.settles)
    return total + Traffic({(0, 1): coin.size}, 1) + _dealt(listed.plans)


def _checked_bytes(request: Correlation) -> int:
    """What each owner opens to check one correlation."""
    if isinstance(request, Digits):
        return 1024 * request.n + 24_576 * n_words(request.n)
    if isinstance(request, Chain):
        return 512 * (2 + len(request.tails)) * request.groups * request.m
    if isinstance(request, PackedBits):
        return 16 * request.n * request.rows
    if isinstance(request, Triple) and request.op == "matmul":
        return 16 * request.shape0[-1]
    raise LocalProtocolError(f"it is not known what checking '{request.kind}' takes")


# --- transfers between the owners


def _transferred(plan: Sequence[Step]) -> Traffic:
    total = Traffic({(0, 1): OT_SET_UP_BYTES, (1, 0): OT_SET_UP_BYTES}, 3)
    for step in plan:
        for request in step.requests:
            total += _made(request)
    return total


def _made(request: Correlation) -> Traffic:
    """What the owners send to make one correlation."""
    if isinstance(request, Digits):
        total = _one_way(request.n, CARRIES.size(1))
        for planes in _growing(DIGIT_BITS):
            total += _both(DIGITS * n_words(request.n), 8 * planes)
        return total
    if isinstance(request, Chain):
        total = NOTHING
        for planes in (*_growing(3), *((1 << k) - 1 for k in request.tails)):
            total += _both(request.groups * request.m, 8 * planes)
        return total
    if isinstance(request, PackedBits):
        return _one_way(request.rows * n_words(request.n), SINGLE_BITS.size(1))
    if isinstance(request, Triple) and request.op == "matmul" and len(request.shape0) == 2:
        (n, d), k = request.shape0, request.shape1[-1]
        return _both(min(n, k) * d, WHOLE.size(1) * max(n, k))
    raise LocalProtocolError(f"it is not known what making '{request.kind}' takes")


def _growing(factors: int) -> list[int]:
    """Planes in each step of a product of shared bits that grows factor by factor."""
    return [(1 << i) - 1 for i in range(1, factors)]


def _filled(words: int) -> int:
    return -(-words // TILE) * TILE


def _both(words: int, back: int) -> Traffic:
    """Both choose with so many words, and get `back` bytes for each."""
    each = _filled(words) * (CHOICE_BYTES + back)
    return Traffic({(0, 1): each, (1, 0): each}, 2)


def _one_way(words: int, back: int) -> Traffic:
    """One chooses with the first half of the words, the other one with the rest."""
    first, second = _filled(words // 2), _filled(words - words // 2)
    return Traffic({(0, 1): first * CHOICE_BYTES + second * back, (1, 0): second * CHOICE_BYTES + first * back}, 2)
