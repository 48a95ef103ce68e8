"""Shares of products between two parties, by transfers in both directions at once, in chunks of bounded memory.

Whoever's bits choose, the other's values are the messages.  A chunk is two messages: the corrections of the choices one way,
the masked values back.  Corrections run one chunk ahead, so that they travel while the chunk before is worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpc.channel import Channel
from mpc.ot.extension import CHOICE_TAG, MESSAGE_TAG, SEED_BYTES, Blocks, Words, kernels, set_up
from mpc.wire import recv_words, send_words

WORD_BITS = 64
CHUNK_WORDS = 4096
"""Choice words worked on at once: 2^18 transfers, 1 MiB of corrections, 4 MiB of blocks."""
FEWEST_WORDS = 512
"""Choice words worked on at once if each goes with a long vector."""
MESSAGE_WORDS = 8192
"""Products of whole words in one message: at most 2.4 MB."""

Values = Callable[[slice, slice], Words]
"""Our values for some of the peer's choice words and some columns: (1, 2 or 64 parts of the bits, columns, words)."""
Sink = Callable[[bool, slice, slice, Words], None]
"""Takes shares: whether we chose; which choice words; which columns; (n_out, columns, words)."""


@dataclass(frozen=True)
class Weights:
    """What becomes of the products of a choice word's bits.

    rows: (64, 3), for each bit the power of two its product is multiplied by, the bytes of it that travel, and which of
    `n_out` sums it belongs to.  width: length of the vector that each bit is multiplied by.  bitwise: bit r of a choice is
    multiplied by bit r of the value, instead of all of it.  guarded: columns 2 i and 2 i + 1 of values and shares are whole
    units and 8 further fractional bits, of which `rounded` makes shares of whole units.
    """

    rows: Words
    n_out: int = 1
    width: int = 1
    bitwise: bool = False
    guarded: bool = False

    def size(self, width: int) -> int:
        """Bytes of the messages for one choice word and some columns."""
        return int(kernels.message_bytes(self.rows, width, guarded=self.guarded))


def rounded(share: Words, me: int) -> Words:
    """Shares of whole units from those of guarded values, (..., width, n) to (..., width / 2, n).

    Each party drops the low bits of its share of a ring of 72 bits.  What falls away is less than two units, and that cannot
    wrap; one of the parties puts one unit back.
    """
    whole, rest = share[..., ::2, :], share[..., 1::2, :].view(np.int64) >> kernels.GUARD_BITS
    return np.asarray(whole + rest.view(np.uint64) + np.uint64(me))


def weights(
    shifts: Sequence[int | None],
    to: Sequence[int] | None = None,
    *,
    width: int = 1,
    bitwise: bool = False,
    ring_bits: int = WORD_BITS,
) -> Weights:
    """Weights 2^shift for the lowest bits of a choice word, none for a bit with None and for those behind.

    Of a product with 2^s only the low ring_bits - s bits matter, so only the bytes they are in travel.
    """
    sums = list(to or [0] * len(shifts))
    rows = [(0, 0, 0) if s is None else (s, (ring_bits - s + 7) // 8, k) for s, k in zip(shifts, sums, strict=True)]
    rows += [(0, 0, 0)] * (WORD_BITS - len(rows))
    return Weights(np.array(rows, dtype=np.int64), max(sums, default=0) + 1, width, bitwise)


WHOLE = weights(range(WORD_BITS))
"""The product of two words."""
HALVES = weights([*range(32), *range(32)], [0] * 32 + [1] * 32, ring_bits=32)
"""The products modulo 2^32 of both halves of a choice word."""


def _padded(words: Words) -> Words:
    """Words in tiles along the last axis: (..., n) to (..., tiles, 8), filled up with zeros."""
    n = words.shape[-1]
    tiles = -(-n // kernels.TILE)
    if n % kernels.TILE:
        out = np.zeros((*words.shape[:-1], tiles * kernels.TILE), dtype=np.uint64)
        out[..., :n] = words
        words = out
    return words.reshape(*words.shape[:-1], tiles, kernels.TILE)


def _to_tiles(words: Words) -> Words:
    """(..., n) to (tiles, ..., 8): what one tile needs lies together.

    Always a copy that can be written, as the compiler makes a second kernel for arrays that cannot.
    """
    return np.array(np.moveaxis(_padded(words), -2, 0), order="C")


def _from_tiles(words: Words, n: int) -> Words:
    return np.moveaxis(words, 0, -2).reshape(*words.shape[1:-1], -1)[..., :n]


def _parts(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def warm_up() -> None:
    """Load or compile the kernels, so that nobody in a session waits for another one's compiler."""
    leaves = np.zeros((kernels.TREES * kernels.LEAVES, SEED_BYTES), dtype=np.uint8)
    keys, key = kernels.prepared(leaves), kernels.prepared(leaves[:1])
    choice, delta = np.zeros(kernels.TILE, dtype=np.uint64), np.zeros(2, dtype=np.uint64)
    d, t = kernels.extend_receiver(keys, 0, choice)
    q = kernels.extend_sender(keys, 0, d, np.zeros(kernels.TREES, dtype=np.int64))
    one = np.zeros((1, 1, 1, kernels.TILE), dtype=np.uint64)
    kernels.ring_receive(t, key, choice, WHOLE.rows, kernels.ring_send(q, delta, key, one, WHOLE.rows, one), one)
    kernels.bits_receive(t, key, choice, kernels.bits_send(q, delta, key, one[0])[1])


class Transfers:
    """Both ends of both directions between us and one peer."""

    def __init__(self, channel: Channel, peer: str, me: int) -> None:
        self._channel, self._peer = channel, peer
        self.receiver, self.sender = set_up(channel, peer, me)

    def products(self, kind: Weights, choice: Words, n_send: int, values: Values, sink: Sink) -> None:
        """Shares of our choice words times the peer's values, and of our values times its choice words.

        choice: (n,) words, ours.  n_send: how many choice words the peer has; both may be zero.

        Reveals: nothing.
        Cost: per chunk two messages one after the other; for n choice words, rounded up to a multiple of 8,
        n (256 + kind.size(width)) bytes, the first term to the party whose values are used, the rest back.
        Security: semi-honest; AES as an ideal cipher.
        Source: Gilboa, CRYPTO 1999; Roy, CRYPTO 2022.
        Raises: RemoteProtocolError if a message is not of the expected size.
        """
        step = min(CHUNK_WORDS, max(FEWEST_WORDS, MESSAGE_WORDS // max(kind.width, 1) & -kernels.TILE))

        def columns(part: slice) -> list[slice]:
            return _parts(kind.width, max(2, MESSAGE_WORDS // max(part.stop - part.start, 1) & -2))

        def send(part: slice, blocks: Blocks) -> None:
            for cols in columns(part):
                a = _to_tiles(values(part, cols))
                share = np.zeros((len(a), kind.n_out, *a.shape[2:]), dtype=np.uint64)
                message = kernels.ring_send(
                    blocks.x,
                    self.sender.delta,
                    blocks.key,
                    a,
                    kind.rows,
                    share,
                    bitwise=kind.bitwise,
                    guarded=kind.guarded,
                    tweak=cols.start // 2,
                )
                send_words(self._channel, self._peer, MESSAGE_TAG, message)
                sink(False, part, cols, _from_tiles(share, part.stop - part.start))

        def receive(part: slice, blocks: Blocks, chosen: Words) -> None:
            for cols in columns(part):
                width = cols.stop - cols.start
                share = np.zeros((len(blocks.x), kind.n_out, width, kernels.TILE), dtype=np.uint64)
                message = recv_words(
                    self._channel, self._peer, MESSAGE_TAG, (chosen.size * kind.size(width),), np.uint8
                )
                kernels.ring_receive(
                    blocks.x,
                    blocks.key,
                    chosen,
                    kind.rows,
                    message,
                    share,
                    guarded=kind.guarded,
                    tweak=cols.start // 2,
                )
                sink(True, part, cols, _from_tiles(share, part.stop - part.start))

        self._run(choice, n_send, step, send, receive)

    def elementwise(self, kind: Weights, choice: Words, values: Words) -> tuple[Words, Words]:
        """Shares of products of single words: (n_out, n) of our choices, and (n_out, m) of our m values.

        Reveals, Cost, Security, Source, Raises: as `products`.
        """
        out = tuple(np.empty((kind.n_out, len(x)), dtype=np.uint64) for x in (values, choice))

        def sink(chosen: bool, part: slice, _: slice, share: Words) -> None:
            out[chosen][:, part] = share[:, 0]

        self.products(kind, choice, len(values), lambda part, _: values[None, None, part], sink)
        return out[1], out[0]

    def and_planes(self, choice: Words, table: Words) -> Words:
        """Shares by exclusive or of a shared word AND each of up to 64 shared words, for many at once.

        choice: our share (m,).  table: our shares (t, m).  Returns (t, m).

        Reveals, Security, Source, Raises: as `products`.
        Cost: per chunk two messages one after the other; (256 + 8 t) m bytes each way, m rounded up to a multiple of 8.
        """
        out = table & choice
        planes = len(table)

        def send(part: slice, blocks: Blocks) -> None:
            share, message = kernels.bits_send(blocks.x, self.sender.delta, blocks.key, _to_tiles(table[:, part]))
            send_words(self._channel, self._peer, MESSAGE_TAG, message)
            out[:, part] ^= _from_tiles(share, part.stop - part.start)

        def receive(part: slice, blocks: Blocks, chosen: Words) -> None:
            shape = (len(blocks.x), planes, kernels.TILE)
            message = recv_words(self._channel, self._peer, MESSAGE_TAG, shape, np.uint64)
            share = kernels.bits_receive(blocks.x, blocks.key, chosen, message)
            out[:, part] ^= _from_tiles(share, part.stop - part.start)

        self._run(choice, len(choice), CHUNK_WORDS, send, receive)
        return out

    def _run(
        self,
        choice: Words,
        n_send: int,
        step: int,
        send: Callable[[slice, Blocks], None],
        receive: Callable[[slice, Blocks, Words], None],
    ) -> None:
        """All chunks of both directions.  Both parties send, and receive, in the order d0, d1, m0, d2, m1 and so on."""
        ours, theirs = _parts(len(choice), step), _parts(n_send, step)
        asked = self._asked(choice, ours)
        corrections = self._corrections(theirs)
        waiting, d = next(asked, None), None
        for i in range(max(len(ours), len(theirs))):
            ahead = next(asked, None)
            if i == 0:
                d = next(corrections, None)
            if d is not None:
                send(theirs[i], self.sender.extend(d))
            d = next(corrections, None)
            if waiting is not None:
                receive(ours[i], *waiting)
            waiting = ahead

    def _asked(self, choice: Words, parts: Sequence[slice]) -> Iterator[tuple[Blocks, Words]]:
        for part in parts:
            chosen = _to_tiles(choice[part]).reshape(-1)
            d, blocks = self.receiver.extend(chosen)
            send_words(self._channel, self._peer, CHOICE_TAG, d)
            yield blocks, chosen

    def _corrections(self, parts: Sequence[slice]) -> Iterator[Words]:
        for part in parts:
            tiles = -(-(part.stop - part.start) // kernels.TILE)
            shape = (tiles, kernels.TREES, kernels.TILE)
            yield recv_words(self._channel, self._peer, CHOICE_TAG, shape, np.uint64)
