"""An oblivious pseudorandom function for many points at once: the receiver gets its values at points of its own.

The sender can then compute it at any point, and learns nothing of the receiver's.  With the receiver's points X:

1.  The receiver solves for columns P with Decode(P, x) = h(x) for all x in X (`mpc.matching.okvs`).
2.  It masks their codewords C(P): it has v, the sender w = v + Delta C(P).
3.  The function is F(y) = H(Decode(w, y) + Delta C(h(y)), y), which for y in X is H(Decode(v, y), y).  For any other y the
    receiver's best guess differs by Delta times a codeword that is far from zero: 128 bits and more.

A pair of ends is set up once and then serves any number of batches, each with a function of its own.  Points are 128-bit
hashes, (n, 2) words in ascending order (`mpc.matching.hashes`).

There are two variants.  The semi-honest one (`mpc.matching.vole`, `mpc.matching.code`) trusts both ends to follow the
protocol.  In the malicious one (`mpc.matching.malicious`) neither does; docs/protocols/oprf.md says what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.channel import Channel
from mpc.curve25519 import POINT_BYTES
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matching import okvs
from mpc.matching.hashes import Rows, bound_key, expand, tags
from mpc.matching.malicious import MALICIOUS
from mpc.matching.variant import SEMI_HONEST, Asking, Held, Link, Report, Serving, Variant
from mpc.matching.vole import Choice
from mpc.rng import fresh_prg
from mpc.wire import Kind

Words = npt.NDArray[Any]

ATTEMPTS = 3
CHUNK_TILES = 128
"""Tiles of columns in a message: 16,384 columns, 434 kB or, in the malicious variant, 528 kB."""
AT_ONCE = 1 << 16
"""Points whose values are computed at a time."""
VARIANTS = {"semi-honest": SEMI_HONEST, "malicious": MALICIOUS}
"""What `security` can be."""
_PUBLIC, _POINTS, _TREES = "matching/public", "matching/points", "matching/trees"
_ATTEMPT = "matching/attempt"


def nothing(_: int) -> None:
    """Report progress to nobody."""


def _variant(security: str, session: bytes) -> tuple[Variant, bytes]:
    """What the name stands for, and the session under which it is used: the variants have no hash in common."""
    if security not in VARIANTS:
        raise LocalProtocolError(f"security is {' or '.join(VARIANTS)}, got {security!r}")
    return VARIANTS[security], session if security == "semi-honest" else bound_key(security, session)


class _Batches:
    """Keys of the functions, one for each batch."""

    def __init__(self, session: bytes) -> None:
        self._session, self._batch = session, 0

    def next(self) -> bytes:
        self._batch += 1
        return bound_key("batch", self._session, self._batch.to_bytes(8, "little"))


def _with_nonce(key: bytes, nonce: bytes) -> bytes:
    return bound_key("nonce", key, nonce) if nonce else key


def _rows(points: Words, key: bytes, attempt: int, n_columns: int) -> Rows:
    return expand(points, bound_key("row", key, bytes([attempt])), n_columns)


def _message_key(key: bytes, attempt: int) -> bytes:
    return bound_key("value", key, bytes([attempt]))


def _values(masked: Words, points: Words, key: bytes, attempt: int) -> Words:
    return tags(masked, points, bound_key("tag", key, bytes([attempt])))


def _parts(n: int) -> Iterator[slice]:
    """Points are worked on in parts, to bound memory."""
    return (slice(at, at + AT_ONCE) for at in range(0, n, AT_ONCE))


class Receiver:
    """The end that asks.

    session: 32 bytes that both ends share and no other pair of ends has.  security: "semi-honest" or "malicious", the same at
    both ends.  What it reveals, costs and rests on: see `evaluate`.
    """

    def __init__(
        self, channel: Channel, peer: str, session: bytes, report: Report = nothing, security: str = "semi-honest"
    ) -> None:
        self._variant, self._session = _variant(security, session)
        self._channel, self._peer, self._link = channel, peer, Link(channel, peer, report, CHUNK_TILES)
        self._batches, self._noise = _Batches(self._session), fresh_prg()
        self._scalar = X25519PrivateKey.from_private_bytes(self._noise.words(32, np.uint8).tobytes())
        self._end: Asking | None = None
        channel.send(peer, _PUBLIC, Kind.BYTES, self._scalar.public_key().public_bytes_raw())

    def evaluate(self, points: Words) -> Words:
        """(n, 4): the next batch's function at our distinct points.

        Reveals: to the sender, how many points there are.
        Cost: once, 32 + 6784 bytes from the receiver and 13568 from the sender; then for each batch of n points, with
        c = 1.1 n + 224 columns rounded up to a multiple of 128, 1 + 26.5 c bytes from the receiver.  Malicious: once,
        32 + 9664 and 16512; then, with c + 128 rounded up to m, a multiple of 512, 6209 + 32.25 m bytes from the receiver and
        16 from the sender, and one round more.
        Security: semi-honest, or malicious; gap Diffie-Hellman on Curve25519, AES-128 as a pseudorandom generator, BLAKE3,
        BLAKE2b and SHA-2 as random oracles.  128 bits.  Malicious: a receiver that masks anything but codewords is caught
        except with the probability of guessing Delta where it differs, and then has no more than that guess; it can ask for
        up to c points, and a few more by finding hashes that fit.
        Source: Garimella et al., CRYPTO 2021; Bienstock et al., USENIX Security 2023 (the store); Roy, CRYPTO 2022 (the
        masks and their check); Kolesnikov et al., CCS 2016 (the code).
        Raises: RemoteProtocolError if the sender's part of the set-up is malformed; LocalProtocolError if the points cannot
        be encoded, which happens with a probability below 2^-40.
        """
        nonce = self._noise.words(self._variant.nonce_bytes, np.uint8).tobytes()
        key = _with_nonce(self._batches.next(), nonce)
        rows, solved, attempt = self._encode(points, key)
        end = self._ready()
        self._channel.send(self._peer, _ATTEMPT, Kind.BYTES, bytes([attempt]) + nonce)
        held = end.mask(solved)
        del solved  # a large part of the memory that a batch needs
        result = np.empty((len(points), 4), dtype=np.uint64)
        for part in _parts(len(points)):
            values = held.decode(Rows(rows.start[part], rows.band[part], rows.value[part]))
            result[part] = _values(values, points[part], key, attempt)
        return result

    def _encode(self, points: Words, key: bytes) -> tuple[Rows, Words, int]:
        """Solve for the columns; should the rows depend on each other, again with other rows.

        Columns that are masked with the store's are random.
        """
        n_columns, words = okvs.columns(len(points)), self._variant.value_words
        n_masked = self._variant.masked(n_columns)
        for attempt in range(ATTEMPTS):
            rows = self._variant.kept(_rows(points, key, attempt, n_columns))
            whole = np.zeros((n_masked, words), dtype=np.uint64)
            messages = self._variant.messages(rows, points, _message_key(key, attempt))
            if okvs.solve(rows.start, rows.band, messages, whole[:n_columns]) is not None:
                whole[n_columns:] = self._noise.words((n_masked - n_columns, words))
                return rows, whole, attempt
        raise LocalProtocolError(f"the identifiers could not be encoded in {ATTEMPTS} attempts")

    def _ready(self) -> Asking:
        """Our masks' source; the sender's points have had time to come meanwhile."""
        if self._end is None:
            size = self._variant.shape.points_bytes
            points = bytes(self._channel.recv(self._peer, _POINTS, Kind.BYTES, exact=size))
            try:
                self._end, message = self._variant.asking(self._link, self._session, self._scalar, points, self._noise)
            except ValueError as exc:
                raise RemoteProtocolError(self._peer, _POINTS, f"a base transfer is malformed: {exc}") from exc
            self._channel.send(self._peer, _TREES, Kind.BYTES, message)
        return self._end


class Function:
    """One batch's function, at the sender; nobody else can compute it but the receiver at its points."""

    def __init__(self, variant: Variant, serving: Serving, held: Held, n_columns: int, key: tuple[bytes, int]) -> None:
        """key: of the batch, and the attempt."""
        self._variant, self._serving, self._held, self._n_columns = variant, serving, held, n_columns
        self._key, self._attempt = key

    def evaluate(self, points: Words) -> Words:
        """(m, 4): its values at any points, in ascending order."""
        result, hashing = np.empty((len(points), 4), dtype=np.uint64), _message_key(self._key, self._attempt)
        for part in _parts(len(points)):
            own = points[part]
            rows = _rows(own, self._key, self._attempt, self._n_columns)
            values = self._held.decode(rows)
            self._serving.add_code(values, self._variant.messages(rows, own, hashing))
            result[part] = _values(values, own, self._key, self._attempt)
        return result


class Sender:
    """The end that serves; see `Receiver` for its arguments, and `Receiver.evaluate` for cost and security.

    Reveals: to the receiver, the functions' values at its points.
    Raises: RemoteProtocolError if the receiver's key cannot be used.
    """

    def __init__(
        self, channel: Channel, peer: str, session: bytes, report: Report = nothing, security: str = "semi-honest"
    ) -> None:
        self._variant, self._session = _variant(security, session)
        self._channel, self._peer, self._link = channel, peer, Link(channel, peer, report, CHUNK_TILES)
        self._batches = _Batches(self._session)
        public = bytes(channel.recv(peer, _PUBLIC, Kind.BYTES, exact=POINT_BYTES))
        try:
            self._choice = Choice(self._session, public, fresh_prg(), self._variant.shape)
        except ValueError as exc:
            raise RemoteProtocolError(peer, _PUBLIC, f"a key that cannot be used: {exc}") from exc
        self._end: Serving | None = None
        channel.send(peer, _POINTS, Kind.BYTES, self._choice.points)

    def serve(self, n_points: int) -> Function:
        """The next batch's function, once the receiver has asked for its n_points.

        It reveals, costs and rests on the same as `evaluate`.
        Raises: RemoteProtocolError for what is malformed, and in the malicious variant if what the receiver sent contradicts
        itself.  After that this end serves nobody.
        """
        key, channel, n_columns = self._batches.next(), self._channel, okvs.columns(n_points)
        end = self._ready()
        opening = bytes(channel.recv(self._peer, _ATTEMPT, Kind.BYTES, exact=1 + self._variant.nonce_bytes))
        attempt = opening[0]
        if attempt >= ATTEMPTS:
            raise RemoteProtocolError(self._peer, _ATTEMPT, f"expected fewer than {ATTEMPTS} attempts, got {attempt}")
        held = end.unmask(n_columns)
        return Function(self._variant, end, held, n_columns, (_with_nonce(key, opening[1:]), attempt))

    def _ready(self) -> Serving:
        if self._end is None:
            message = bytes(self._channel.recv(self._peer, _TREES, Kind.BYTES, exact=self._variant.trees_bytes))
            try:
                self._end = self._variant.serving(self._link, self._session, self._choice, message)
            except ValueError as exc:
                raise RemoteProtocolError(self._peer, _TREES, str(exc)) from exc
        return self._end
