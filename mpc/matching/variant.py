"""The two variants of `mpc.matching.oprf`: what they have in common, and the semi-honest one.  The other is in
`mpc.matching.malicious`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.channel import Channel
from mpc.matching import code, okvs
from mpc.matching.hashes import Rows, tags
from mpc.matching.parameters import TILE
from mpc.matching.vole import SHAPE, Choice, Masker, Shape, Unmasker, grow
from mpc.rng import Prg
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
Report = Callable[[int], None]
MASKED = "matching/masked"
BAND_WORDS = 4
"""Words of a row that the store reads."""


@dataclass(frozen=True)
class Link:
    """Whom an end talks to, whom it tells how many columns are done, and how many tiles of columns are in a message."""

    channel: Channel
    peer: str
    report: Report
    chunk_tiles: int


class Held(Protocol):
    """A batch's masks at one end."""

    def decode(self, rows: Rows) -> Words:
        """For every row the sum of the columns that it selects."""
        ...


class Asking(Protocol):
    """The receiver's masks."""

    def mask(self, solved: Words) -> Held:
        """Send the masked columns of the next batch."""
        ...


class Serving(Protocol):
    """The sender's masks, and its Delta."""

    def unmask(self, n_columns: int) -> Held:
        """Receive the masked columns of the next batch, whose store has so many."""
        ...

    def add_code(self, values: Words, messages: Words) -> None:
        """values += Delta times the codewords of the messages."""
        ...


@dataclass(frozen=True)
class Variant:
    """What differs.

    shape: of the trees.  trees_bytes: of the message about them.  value_words: of h.  nonce_bytes: of the receiver's part
    of a batch's key.  masked: columns that are masked, from columns of the store.  asking, serving: make the ends, from
    sessions of 32 bytes; ValueError says that the peer's part is malformed.
    """

    shape: Shape
    trees_bytes: int
    value_words: int
    nonce_bytes: int
    masked: Callable[[int], int]
    asking: Callable[[Link, bytes, X25519PrivateKey, bytes, Prg], tuple[Asking, bytes]]
    serving: Callable[[Link, bytes, Choice, bytes], Serving]

    def kept(self, rows: Rows) -> Rows:
        """Rows without what is not needed, where that is worth a copy: memory is short when they are solved."""
        if self.value_words == 1:
            return rows
        return Rows(rows.start, np.ascontiguousarray(rows.band[:, :BAND_WORDS]), rows.value[:0].copy())

    def messages(self, rows: Rows, points: Words, key: bytes) -> Words:
        """(n, value_words): h of the points."""
        if self.value_words == 1:
            return rows.value[:, None]
        return tags(points, points[:, :0], key, self.value_words)


# --- against parties that follow the protocol


@dataclass(frozen=True, repr=False)
class _Columns:
    words: Words

    def decode(self, rows: Rows) -> Words:
        return okvs.decode(self.words, rows.start, rows.band)


class _Asking:
    def __init__(self, link: Link, masker: Masker) -> None:
        self._link, self._masker = link, masker

    def mask(self, solved: Words) -> Held:
        held = np.empty((len(solved), code.WORDS), dtype=np.uint64)
        step = TILE * self._link.chunk_tiles
        for at in range(0, len(solved), step):
            part = solved[at : at + step, 0]
            d, held[at : at + len(part)] = self._masker.mask(part)
            send_words(self._link.channel, self._link.peer, MASKED, d)
            self._link.report(len(part))
        return _Columns(held)


class _Serving:
    def __init__(self, link: Link, unmasker: Unmasker) -> None:
        self._link, self._unmasker = link, unmasker

    def unmask(self, n_columns: int) -> Held:
        held = np.empty((n_columns, code.WORDS), dtype=np.uint64)
        step = TILE * self._link.chunk_tiles
        for at in range(0, n_columns, step):
            part = min(step, n_columns - at)
            d = recv_words(self._link.channel, self._link.peer, MASKED, (part // TILE, code.LENGTH, 8), np.uint64)
            held[at : at + part] = self._unmasker.unmask(d)
            self._link.report(part)
        return _Columns(held)

    def add_code(self, values: Words, messages: Words) -> None:
        self._unmasker.add_code(values, messages[:, 0])


def _asking(link: Link, session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg) -> tuple[Asking, bytes]:
    masker, sums = grow(session, scalar, points, noise)
    return _Asking(link, masker), sums


def _serving(link: Link, _: bytes, choice: Choice, sums: bytes) -> Serving:
    return _Serving(link, choice.unmasker(sums))


SEMI_HONEST = Variant(SHAPE, SHAPE.sums_bytes, 1, 0, lambda n_columns: n_columns, _asking, _serving)
