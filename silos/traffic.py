"""What each matching protocol sends, in bytes of message bodies: the formulas of their docstrings, from public sizes only.

Sizes and constants are taken from the protocols' own modules wherever these have them; `tests/silos/test_estimate.py` compares
every formula with what the protocols really send.  A link adds a header to each message, and TLS its own to each record:
together less than half a percent, except where hardly anything is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpc.delegated.protocol import DECOYS
from mpc.matching import buckets, code, cuckoo, okvs, tables, wide_code
from mpc.matching.buckets import BUCKET_POINTS, bucket_count_bits
from mpc.matching.consistency import ANSWER_BYTES, CHALLENGE_BYTES
from mpc.matching.malicious import NONCE_BYTES
from mpc.matching.parameters import SQUARE, TILE
from mpc.matching.protocol import HELLO_BYTES, PROOF_BYTES
from mpc.matching.vole import SHAPE
from mpc.matching.wide_vole import SHAPE as WIDE_SHAPE
from mpc.matching.wide_vole import TREES_BYTES, masked_columns
from mpc.tokens.rfc9497 import PROOF_BYTES as TOKENS_PROOF_BYTES
from mpc.tokens.ristretto import ELEMENT_BYTES
from mpc.tokens.roles import CHUNK_ITEMS
from mpc.tokens.sets import TOKEN_BYTES

ASSISTANT = -1
"""Stands for the helper or the dealer; owners are numbered in the job's order."""
KEY_BYTES = 32


@dataclass(frozen=True)
class Traffic:
    """sent: bytes by (from, to).  waits: messages that wait for each other; each of them takes a trip across the network."""

    sent: Mapping[tuple[int, int], int]
    waits: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(dict(Counter(self.sent) + Counter(other.sent)), self.waits + other.waits)

    @property
    def total(self) -> int:
        """Bytes on all links together."""
        return sum(self.sent.values())

    def by(self, sender: int) -> int:
        """Bytes that one participant sends."""
        return sum(n for (frm, _), n in self.sent.items() if frm == sender)

    def to(self, receiver: int) -> int:
        """Bytes that one participant receives."""
        return sum(n for (_, to), n in self.sent.items() if to == receiver)

    @property
    def busiest(self) -> int:
        """Bytes that go in and out at the participant that has most of them."""
        everybody = {who for pair in self.sent for who in pair}
        return max((self.by(who) + self.to(who) for who in everybody), default=0)


NOTHING = Traffic({}, 0)


def _two(first: int, second: int, waits: int) -> Traffic:
    """What the two owners send each other."""
    return Traffic({(0, 1): first, (1, 0): second}, waits)


def ecdh(n: int, m: int) -> Traffic:
    """`mpc.psi.intersect` of n and m identifiers."""
    return _two(33 + 32 * n + 20 * m, 33 + 32 * m + 20 * n, 5)


def ecdh_count(n: int, m: int) -> Traffic:
    """`mpc.psi.count` of n and m identifiers."""
    return _two(33 + 32 * n + 16 * m, 33 + 32 * m + 16 * n, 4)


def masked_bytes(columns: int) -> int:
    """Of the masked columns of a store, in the semi-honest form."""
    return columns // TILE * code.LENGTH * 64


def asked_bytes(columns: int) -> int:
    """What the asking end of `mpc.matching.oprf` sends for one batch, in the semi-honest form."""
    return 1 + masked_bytes(columns)


SET_UP_BYTES = (KEY_BYTES + SHAPE.sums_bytes, SHAPE.points_bytes)
"""Once for each pair of ends: of the asking end, and of the other one."""


def vole(n: int, m: int, security: str = "semi-honest", bucket_points: int = BUCKET_POINTS) -> Traffic:
    """`mpc.matching.protocol.match`: the first owner, who receives, has n points, the second m."""
    bits = bucket_count_bits(n, m, bucket_points)
    asked, sent = buckets.bound(n, bits) + 1, buckets.bound(m, bits) + 1
    columns, answer = okvs.columns(asked), -(-sent // 8) + PROOF_BYTES
    table = 8 * sent + tables.upper_bytes(sent)
    if security == "malicious":
        squares = masked_columns(columns) // SQUARE
        masked = 1 + NONCE_BYTES + squares * wide_code.LENGTH * wide_code.SYMBOL_BITS * 64 + ANSWER_BYTES
        first = HELLO_BYTES + KEY_BYTES + TREES_BYTES + 9 + (masked + answer << bits)
        table += CHALLENGE_BYTES + sent * tables.end_bytes(sent)
        return _two(first, HELLO_BYTES + WIDE_SHAPE.points_bytes + 1 + (table << bits), 5 + (4 << bits))
    asking, serving = SET_UP_BYTES
    first = HELLO_BYTES + asking + 9 + (asked_bytes(columns) + answer << bits)
    return _two(first, HELLO_BYTES + serving + 1 + (table << bits), 5 + (2 << bits))


def tokens(n: int, m: int) -> Traffic:
    """`mpc.tokens.intersect`: the first owner, who asks, has n identifiers, the second m."""
    asked = ELEMENT_BYTES * (n + 1)
    proofs = TOKENS_PROOF_BYTES * -(-(n + 1) // CHUNK_ITEMS)
    return _two(98 + asked + 4 * (min(n, m) + 1), 115 + TOKEN_BYTES * (m + 1) + asked + proofs, 6)


def helped(sizes: Sequence[int]) -> Traffic:
    """`mpc.delegated`: owners with so many identifiers each, and the helper."""
    sent = {(i, j): 64 for i in range(len(sizes)) for j in range(len(sizes)) if i != j}
    for i, n in enumerate(sizes):
        sent[i, ASSISTANT] = 24 + 16 * (n + DECOYS)
        sent[ASSISTANT, i] = 1 - (-(n + DECOYS) // 8)
    return Traffic(sent, 5)


def star(sizes: Sequence[int]) -> Traffic:
    """`mpc.matching.star`: three or more owners, the first one in the middle."""
    spokes = range(1, len(sizes))
    columns = okvs.columns(sizes[0] + 1)
    asking, serving = SET_UP_BYTES
    sent = {(i, j): 96 for i in spokes for j in spokes if i != j}
    for i in spokes:
        sent[0, i] = 145 + asking + asked_bytes(columns) + 8 * columns
        sent[i, 0] = 144 + serving + 8 * okvs.columns(sizes[i] + 1)
    return Traffic(sent, 7 + 2 * (len(sizes) // 2 - 1))


def hidden_join(n: int, m: int, sender_columns: int) -> Traffic:
    """`mpc.matching.hidden.join` up to the comparison of its bins: the first owner has n points, the second m with columns."""
    asking, serving = SET_UP_BYTES
    bins, hello = cuckoo.n_bins(n), 24 + 32
    first = hello + 1 + asking + asked_bytes(okvs.columns(bins + 1))
    hint = KEY_BYTES + 8 * (sender_columns + 1) * okvs.columns(cuckoo.CHOICES * m + 1)
    return _two(first, hello + serving + hint, 5)


def linkage(items: int, listed: tuple[int, int] | None = None) -> Traffic:
    """`vertical.linkage.link` of so many matched items.  listed: rows behind them at each side, with "expand"."""
    if listed is None:
        return _two(4 * items + 17, 4 * items + 17, 2)
    first, second = (4 * items + 4 * rows + 17 for rows in listed)
    return _two(first, second, 3)
