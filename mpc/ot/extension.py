"""Correlated oblivious transfer between two parties: shares of products of one party's words and the other's bits.

Three layers, each in the letters of its paper.

Base transfers.  For each of 128 transfers the receiver knows one of two keys and the sender does not know which.  The
receiver sends two points: a random R_(1-c), and R_c = x B - H_c(R_(1-c)).  To it, R_c + H_c(R_(1-c)) = x B has a known
logarithm; the other sum has none that anybody knows.  With the sender's A = y B both compute y times a sum.

Extension.  The *receiver of bits* b is the sender of base transfers: 32 trees of 16 leaves, of which the peer learns all but
the one it chose, Delta.  With r_x the stream of leaf x, the receiver has u = sum r_x and t = sum x r_x, the peer
sum (x + Delta) r_x = t + Delta u, which does not contain r_Delta.  The receiver sends d = u + b; then the peer holds
q = t + Delta b.  All in GF(16); 32 trees side by side make 128 bits of Delta.

Messages.  H(q) and H(q + Delta) are two pads, of which the receiver knows the one that b chooses, H(t).  The sender's
share of a b is minus the first pad; it sends the difference of the pads plus a.  A vector of a's has a pad for each.

Source: Masny, Rindal, "Endemic oblivious transfer", CCS 2019; Roy, "SoftSpokenOT", CRYPTO 2022 (small-field VOLE from
punctured trees, repetition code); Gilboa, CRYPTO 1999 (products bit by bit); Guo, Katz, Wang, Yu, IEEE S&P 2020 (the hash).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc.channel import Channel
from mpc.curve25519 import POINT_BYTES, J, P, Point, add, hash_to_curve
from mpc.errors import RemoteProtocolError
from mpc.reveals import Reveal
from mpc.rng import Prg, fresh_prg
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
REVEALS: tuple[Reveal, ...] = ()
"""Both parties see points and words that are uniform whatever is transferred."""
HELLO_TAG, POINTS_TAG, TREES_TAG = "ot/hello", "ot/points", "ot/trees"
CHOICE_TAG, MESSAGE_TAG = "ot/choice", "ot/message"
KAPPA, SEED_BYTES, NONCE_BYTES = 128, 16, 32
_SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)


def _load() -> ModuleType:
    try:
        from mpc.ot import kernels_numba
    except ImportError:
        from mpc.ot import kernels_numpy

        return kernels_numpy
    return kernels_numba


kernels = _load()
"""`mpc.ot.kernels_numba` where it can be imported, otherwise `mpc.ot.kernels_numpy`."""


# --- base transfers ---


def encode_point(point: Point) -> bytes:
    """32 bytes: the x-coordinate, little-endian, and the lowest bit of y on top."""
    return (point[0] | (point[1] & 1) << 255).to_bytes(POINT_BYTES, "little")


def decode_point(raw: bytes) -> Point:
    """The point of 32 bytes.  Raises: ValueError if there is none, or another encoding of it is the right one."""
    number = int.from_bytes(raw, "little")
    x, sign = number & (1 << 255) - 1, number >> 255
    y = _root(x)
    if x >= P or y is None or (y == 0 and sign):
        raise ValueError("not a point of the curve")
    return x, y if y & 1 == sign else P - y


def _root(x: int) -> int | None:
    """A y with (x, y) on the curve, if there is one."""
    square = (x * x * x + J * x * x + x) % P
    y = pow(square, (P + 3) // 8, P)
    if y * y % P != square:
        y = y * _SQRT_MINUS_ONE % P
    return y if y * y % P == square else None


class BaseTransfers:
    """The hashes of one direction's base transfers, bound to the session and to the number of each transfer."""

    def __init__(self, session: bytes, sender: int) -> None:
        self._context = session + bytes([sender])

    def offset(self, i: int, bit: int, other: bytes) -> Point | None:
        """H_bit of the other point."""
        return hash_to_curve(self._context + i.to_bytes(2, "big") + bytes([bit]) + other, b"accord/ot/point")

    def key(self, i: int, bit: int, public: bytes, points: bytes, secret: bytes) -> bytes:
        """The transferred key."""
        label = b"accord/ot/key" + self._context + i.to_bytes(2, "big") + bytes([bit])
        return hashlib.sha256(label + public + points + secret).digest()[:SEED_BYTES]

    def choose(self, i: int, bit: int, noise: bytes) -> tuple[X25519PrivateKey, bytes]:
        """The receiver's secret and its two points; noise: 65 random bytes."""
        scalar = X25519PrivateKey.from_private_bytes(noise[33:])
        x = int.from_bytes(scalar.public_key().public_bytes_raw(), "little")
        y = _root(x)
        free = hash_to_curve(noise[1:33], b"accord/ot/free")
        if y is None or free is None:
            raise ArithmeticError("a multiple of the base point is not on the curve")
        other = encode_point(free)
        offset = self.offset(i, bit, other)
        # The sign must be random: if the sum that we know had always the same, it would tell which of the two it is.
        known = add((x, y if noise[0] & 1 else P - y), None if offset is None else (offset[0], P - offset[1]))
        if known is None:
            raise ArithmeticError("a random point is the neutral element")
        mine = encode_point(known)
        return scalar, other + mine if bit else mine + other

    def keys(self, i: int, scalar: X25519PrivateKey, public: bytes, points: bytes) -> list[bytes]:
        """Both keys of the sender.  Raises: ValueError if a point is none, or has low order."""
        halves = [points[:POINT_BYTES], points[POINT_BYTES:]]
        out = []
        for bit in (0, 1):
            point = decode_point(halves[bit])
            _shared(scalar, point)
            secret = _shared(scalar, add(point, self.offset(i, bit, halves[1 - bit])))
            out.append(self.key(i, bit, public, points, secret))
        return out


def _shared(scalar: X25519PrivateKey, point: Point | None) -> bytes:
    """The x-coordinate of a multiple of 8 of the point.  Raises: ValueError if that is the neutral element."""
    x = 0 if point is None else point[0]
    return scalar.exchange(X25519PublicKey.from_public_bytes(x.to_bytes(POINT_BYTES, "little")))


# --- punctured trees ---


def _children(seed: bytes) -> tuple[bytes, bytes]:
    both = hashlib.blake2b(seed, digest_size=2 * SEED_BYTES, person=b"accord/ot/tree").digest()
    return both[:SEED_BYTES], both[SEED_BYTES:]


def _leaf_key(seed: bytes) -> bytes:
    return hashlib.blake2b(seed, digest_size=SEED_BYTES, person=b"accord/ot/leaf").digest()


def _xor(values: Sequence[bytes]) -> bytes:
    total = 0
    for value in values:
        total ^= int.from_bytes(value, "little")
    return total.to_bytes(SEED_BYTES, "little")


def grow_tree(root: bytes, keys: Sequence[Sequence[bytes]]) -> tuple[list[bytes], bytes]:
    """All leaves' AES keys, and what the peer needs to grow all but one.

    keys: per level, both keys of a base transfer.  Of every level the left and the right seeds' sums are sent under them.
    """
    level, sums = [root], []
    for pair in keys:
        level = [child for seed in level for child in _children(seed)]
        sums += [_xor([*level[side::2], pair[side]]) for side in (0, 1)]
    return [_leaf_key(seed) for seed in level], b"".join(sums)


def puncture_tree(hole: int, keys: Sequence[bytes], sums: bytes) -> list[bytes]:
    """The leaves' AES keys by the number's distance (exclusive or) from the hole; zeros in place of the one at the hole.

    keys: per level, the base transfers' keys of the side away from the hole.  sums: of `grow_tree`.
    """
    level: list[bytes | None] = [None]
    for depth, key in enumerate(keys):
        side = 1 - (hole >> len(keys) - 1 - depth & 1)
        level = [child for seed in level for child in ((None, None) if seed is None else _children(seed))]
        at = 2 * (hole >> len(keys) - depth) + side
        start = SEED_BYTES * (2 * depth + side)
        known = [seed for seed in level[side::2] if seed is not None]
        level[at] = _xor([*known, key, sums[start : start + SEED_BYTES]])
    leaves = [bytes(SEED_BYTES) if seed is None else _leaf_key(seed) for seed in level]
    return [leaves[y ^ hole] for y in range(len(leaves))]


# --- extension ---


@dataclass(frozen=True)
class Blocks:
    """One batch of transfers: a block for each, and for every 512 of them (a tile) a hash that is theirs alone.

    key: the hashes' AES keys, prepared.
    """

    x: Words
    key: Words


class _Hashes:
    """A fresh AES key for the hash of every tile; public, and not known before the session's nonces are.

    With one key for many transfers, one evaluation of AES would test a guess of Delta against all of them.
    """

    def __init__(self, session: bytes, sender: int) -> None:
        self._context = b"accord/ot/hash" + session + bytes([sender])

    def keys(self, counter: int, tiles: int) -> Words:
        digest = hashlib.sha256(self._context + counter.to_bytes(8, "big")).digest()
        prepared: Words = kernels.prepared(Prg(digest).words((tiles, SEED_BYTES), np.uint8))
        return prepared


def _tiles(n: int) -> int:
    return -(-n // int(kernels.TILE))


class ReceiverEnd:
    """Our end of the direction in which we choose: all leaves, and how much of their streams is spent."""

    def __init__(self, session: bytes, sender: int, leaves: Sequence[bytes]) -> None:
        self._hashes = _Hashes(session, sender)
        self._keys = kernels.prepared(np.frombuffer(b"".join(leaves), dtype=np.uint8).reshape(-1, SEED_BYTES))
        self.spent = 0

    def extend(self, choice: Words) -> tuple[Words, Blocks]:
        """Corrections to send, and blocks, for choice words (a multiple of 8)."""
        d, x = kernels.extend_receiver(self._keys, self.spent, choice)
        tiles = _tiles(len(choice))
        blocks = Blocks(x, self._hashes.keys(self.spent, tiles))
        self.spent += 4 * tiles
        return d, blocks


class SenderEnd:
    """Our end of the direction in which the peer chooses: all leaves but one of a tree, and Delta."""

    def __init__(self, session: bytes, sender: int, holes: Sequence[int], leaves: Sequence[bytes]) -> None:
        self._hashes = _Hashes(session, sender)
        self._keys = kernels.prepared(np.frombuffer(b"".join(leaves), dtype=np.uint8).reshape(-1, SEED_BYTES))
        self._holes = np.array(holes, dtype=np.int64)
        bits = self._holes[:, None] >> np.arange(kernels.FIELD_BITS) & 1
        self.delta = np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").view(np.uint64)
        self.spent = 0

    def extend(self, d: Words) -> Blocks:
        """Blocks for the peer's corrections."""
        x = kernels.extend_sender(self._keys, self.spent, d, self._holes)
        blocks = Blocks(x, self._hashes.keys(self.spent, len(d)))
        self.spent += 4 * len(d)
        return blocks


def set_up(channel: Channel, peer: str, me: int) -> tuple[ReceiverEnd, SenderEnd]:
    """Base transfers and trees in both directions, between parties 0 and 1.

    Reveals: nothing.
    Cost: 3 rounds; 64 + 8192 + 4096 bytes each way; some 0.5 CPU seconds.
    Security: semi-honest; gap Diffie-Hellman on Curve25519, random oracles.
    Source: Masny and Rindal, CCS 2019 (figure 8, with Diffie-Hellman); Roy, CRYPTO 2022 (figure 13, the trees).
    Raises: RemoteProtocolError if a point of the peer's is not on the curve, or of low order.
    """
    noise = fresh_prg()
    scalar = X25519PrivateKey.from_private_bytes(noise.words(32, np.uint8).tobytes())
    hello = noise.words(NONCE_BYTES, np.uint8).tobytes() + scalar.public_key().public_bytes_raw()
    send_words(channel, peer, HELLO_TAG, np.frombuffer(hello, dtype=np.uint8))
    answer = recv_words(channel, peer, HELLO_TAG, (len(hello),), np.uint8).tobytes()
    session = hashlib.sha256(b"accord/ot/session" + (answer + hello if me else hello + answer)).digest()
    depth, n_trees = kernels.FIELD_BITS, kernels.TREES
    holes = (noise.words(n_trees, np.uint8) % (1 << depth)).tolist()
    away = [1 - (hole >> depth - 1 - level & 1) for hole in holes for level in range(depth)]

    ours, theirs = BaseTransfers(session, 1 - me), BaseTransfers(session, me)
    chosen = [ours.choose(i, bit, noise.words(65, np.uint8).tobytes()) for i, bit in enumerate(away)]
    points = np.frombuffer(b"".join(pair for _, pair in chosen), dtype=np.uint8)
    send_words(channel, peer, POINTS_TAG, points)
    other = recv_words(channel, peer, POINTS_TAG, points.shape, np.uint8).tobytes()
    public, width = answer[NONCE_BYTES:], 2 * POINT_BYTES
    try:
        pairs = [theirs.keys(i, scalar, hello[NONCE_BYTES:], other[width * i : width * (i + 1)]) for i in range(KAPPA)]
        mine = [
            ours.key(i, bit, public, pair, secret.exchange(X25519PublicKey.from_public_bytes(public)))
            for i, (bit, (secret, pair)) in enumerate(zip(away, chosen, strict=True))
        ]
    except ValueError as exc:
        raise RemoteProtocolError(peer, POINTS_TAG, f"a base transfer is malformed: {exc}") from exc

    trees = [
        grow_tree(noise.words(SEED_BYTES, np.uint8).tobytes(), pairs[depth * i : depth * (i + 1)])
        for i in range(n_trees)
    ]
    sums = np.frombuffer(b"".join(s for _, s in trees), dtype=np.uint8)
    send_words(channel, peer, TREES_TAG, sums)
    raw, step = recv_words(channel, peer, TREES_TAG, sums.shape, np.uint8).tobytes(), 2 * SEED_BYTES * depth
    punctured = [
        puncture_tree(hole, mine[depth * i : depth * (i + 1)], raw[step * i : step * (i + 1)])
        for i, hole in enumerate(holes)
    ]
    receiver = ReceiverEnd(session, 1 - me, [leaf for leaves, _ in trees for leaf in leaves])
    return receiver, SenderEnd(session, me, holes, [leaf for leaves in punctured for leaf in leaves])
