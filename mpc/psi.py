"""Private set intersection over Curve25519: which of our identifiers does the other owner also hold?

Both roles are the same program; `leader` only makes sure that the two sides agree on who is who.  With scalars a and b
and H(x) the point of identifier x, one side sends a*H(x), the other returns a hash of b*a*H(x); equal hashes are equal
identifiers.  Everything that could tie a hash to an identifier (the order) stays hidden until both sides have counted
the matches and found the number acceptable.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc.channel import Channel
from mpc.curve25519 import POINT_BYTES, P, hash_to_u_batch
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.reveals import Reveal
from mpc.rng import fresh_key, fresh_prg
from mpc.wire import Kind, recv_words, send_words

MAX_ITEMS = 1 << 22
CHUNK_ITEMS = 2048
TAG_BYTES = 16

REVEALS: tuple[Reveal, ...] = (
    Reveal(
        "psi.sizes", "owners", "how many distinct valid identifiers the other owner brought", "size", ("psi/hello",)
    ),
    Reveal(
        "psi.matches",
        "owners",
        "how many identifiers matched, which its process learns even when they are fewer than the minimum; "
        "the software then stops without putting the number out",
        "size",
        ("psi/tags", "psi/vote"),
    ),
    Reveal(
        "psi.rows",
        "owners",
        "which of its own rows matched, once both owners found the matches to be enough",
        "exact",
        ("psi/order",),
    ),
    Reveal("psi.traffic", "coordinator", "both set sizes, if it relays the encrypted messages", "size"),
)

COUNT_REVEALS: tuple[Reveal, ...] = (
    REVEALS[0],
    Reveal(
        "psi.count",
        "owners",
        "how many identifiers matched, and not which; the software does not put the number out if it is below a minimum",
        "aggregate",
        ("psi/tags", "psi/vote"),
    ),
    REVEALS[-1],
)
"""Of `count`."""

_DST = b"accord-psi-v1-with-curve25519_XMD:SHA-512_ELL2_RO_"
_TAG_DOMAIN = b"accord-psi-v1-tag"
_VOTE_DOMAIN = b"accord-psi-v1-vote"
_OK, _STOP = b"\x01", b"\x00"

Rows = npt.NDArray[np.int64]
Tags = npt.NDArray[np.uint64]  # (n, 2): the two halves of each tag
Progress = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Alignment:
    """Matched rows: entry i of `rows` is the index into our items of the same person as entry i at the peer.

    The order is that of a pseudorandom tag of the pair of owners and session: it depends on no input order.
    """

    rows: Rows
    n_own: int
    n_peer: int


def intersect(
    items: Sequence[bytes],
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None = None,
) -> Alignment:
    """Find which of our `items` the peer also holds; the peer learns the same about its own.

    items: n distinct identifiers, already normalised, in any order.  session_id: 1 to 255 bytes that both sides share
    and no other run has.  minimum: the fewest matches we accept.  leader: true at exactly one of the two sides.
    progress: called with (done, total) point operations.

    Reveals: to both, the two set sizes and the number of matches; if neither side finds that number too small, also
    which of its own items matched.  Otherwise nothing but which side refused.
    Cost: 5 rounds; each side sends 33 + 32n + 20m bytes for n identifiers of its own and m of the peer's; n hashes to
    the curve and n + m scalar products each; no triples.  Points travel in messages of 2,048, so that work and
    transfer overlap and a slow side is never silent for long.
    Security: semi-honest; DDH in the prime-order subgroup of Curve25519; SHA-512 and SHA-256 as random oracles.  A
    side that lies about its set can probe for identifiers it guesses, and can pad its set to get over the minimum.
    Source: Meadows, IEEE S&P 1986; Huberman, Franklin, Hogg, EC 1999; shuffled tags for the count: De Cristofaro,
    Gasti, Tsudik, CANS 2012; hashing to the curve: RFC 9380; X25519: RFC 7748.
    Raises: LocalProtocolError for unusable arguments; RemoteProtocolError if the peer announces too many identifiers
    or our own role, sends a malformed, low-order or repeated point, a repeated tag, or an order that is not a
    permutation, or counts other matches than we do; Refused, at both sides, if either finds fewer matches than its minimum.
    """
    run = _find(items, peer, session_id, channel, minimum, leader, progress)
    # Only now does each side learn which of its points the tags belong to.
    send_words(channel, peer, "psi/order", run.tag_order.astype(np.uint32))
    place_of_tag = recv_words(channel, peer, "psi/order", (run.n_own,), np.uint32).astype(np.int64)
    if not np.array_equal(np.sort(place_of_tag), np.arange(run.n_own)):
        raise RemoteProtocolError(peer, "psi/order", "not a permutation of our identifiers")
    return Alignment(run.sent_rows[place_of_tag[run.matched]], run.n_own, run.n_peer)


def count(
    items: Sequence[bytes],
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None = None,
) -> int:
    """How many of our `items` the peer also holds, and not which: `intersect`, stopped before the orders are exchanged.

    items, session_id, minimum, leader, progress: as `intersect`.

    Reveals: to both, the two set sizes and the number of matches.
    Cost: 4 rounds; each side sends 33 + 32n + 16m bytes for n identifiers of its own and m of the peer's; otherwise as
    `intersect`.
    Security: as `intersect`.  The tags come back in an order that the peer drew, so they cannot be told apart.
    Source: De Cristofaro, Gasti, Tsudik, CANS 2012; otherwise as `intersect`.
    Raises: as `intersect`.
    """
    return len(_find(items, peer, session_id, channel, minimum, leader, progress).matched)


@dataclass(frozen=True, repr=False)
class _Found:
    """What both functions do, up to the vote: matched tags, and what would tell whose they are.

    sent_rows: the rows of our points in the order of sending.  tag_order: in which the peer's tags went back.  matched: places
    among the tags that we got.
    """

    n_own: int
    n_peer: int
    sent_rows: Rows
    tag_order: Rows
    matched: Rows


def _find(
    items: Sequence[bytes],
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None,
) -> _Found:
    """Exchange points and tags, count the matches, and vote."""
    _check_arguments(items, session_id, minimum)
    n_own, n_peer = len(items), _announce(len(items), peer, channel, leader)
    report = _Reporter(progress, 2 * n_own + n_peer)

    # A fresh scalar each run.  Clamping makes it 8k with k in [2^251, 2^252): a multiple of the cofactor and, because
    # x-coordinates do not tell k from -k, uniform up to 2^-125 in the group's order.
    masker = _Masker(fresh_key(), session_id, peer, report)

    # Ours leave in a random order, so a point's place says nothing about its row.
    sent_rows = _shuffle(n_own)
    peer_tags = _exchange_points([items[i] for i in sent_rows], n_peer, peer, channel, masker)

    # The tags of the peer's points go back in another random order: enough to count matches, not to name them.
    tag_order = _shuffle(n_peer)
    send_words(channel, peer, "psi/tags", peer_tags[tag_order])
    own_tags = recv_words(channel, peer, "psi/tags", (n_own, 2), np.uint64)
    _refuse_repeats(own_tags, peer, "psi/tags", "the same tag twice")
    matched = _matching(own_tags, peer_tags)
    _vote(own_tags[matched], minimum, peer, channel)
    return _Found(n_own, n_peer, sent_rows, tag_order, matched)


class _Reporter:
    """Counts point operations and passes the count on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def add(self, n: int) -> None:
        self._done += n
        if self._progress is not None and n:
            self._progress(self._done, self._total)


def _check_arguments(items: Sequence[bytes], session_id: bytes, minimum: int) -> None:
    if len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {len(items)}")
    repeated = len(items) - len(set(items))
    if repeated:
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {repeated} repeated ones")
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")
    if minimum < 0:
        raise LocalProtocolError(f"the minimum number of matches is not negative, got {minimum}")


def _announce(n_own: int, peer: str, channel: Channel, leader: bool) -> int:
    """Exchange set sizes and roles; returns the peer's size."""
    send_words(channel, peer, "psi/hello", np.array([n_own, leader], dtype=np.uint64))
    n_peer, peer_leads = (int(w) for w in recv_words(channel, peer, "psi/hello", (2,), np.uint64))
    if n_peer > MAX_ITEMS:
        raise RemoteProtocolError(peer, "psi/hello", f"expected at most {MAX_ITEMS} identifiers, got {n_peer}")
    if peer_leads != (not leader):
        raise RemoteProtocolError(peer, "psi/hello", f"expected leader={int(not leader)}, got {peer_leads}")
    return n_peer


class _Masker:
    """Our scalar, and the two things done with it."""

    def __init__(self, scalar: bytes, session_id: bytes, peer: str, report: _Reporter) -> None:
        self._secret = X25519PrivateKey.from_private_bytes(scalar)
        self._session = bytes([len(session_id)]) + session_id
        self._peer, self._report = peer, report

    def mask(self, items: Sequence[bytes]) -> bytes:
        """The items' points times our scalar, 32 bytes each."""
        points = hash_to_u_batch([self._session + item for item in items], _DST)
        self._report.add(len(items))
        body = b"".join(self._secret.exchange(X25519PublicKey.from_public_bytes(u)) for u in points)
        self._report.add(len(items))
        return body

    def tag(self, points: bytes) -> bytes:
        """The peer's points times our scalar, hashed to 16 bytes each.

        Refused: a second encoding of a point, and a point of low order, whose product with any scalar is known.
        """
        tags = []
        for at in range(0, len(points), POINT_BYTES):
            point = points[at : at + POINT_BYTES]
            if int.from_bytes(point, "little") >= P:
                raise RemoteProtocolError(self._peer, "psi/points", "a point that is not in canonical form")
            try:
                product = self._secret.exchange(X25519PublicKey.from_public_bytes(point))
            except ValueError as exc:  # the product is all zero
                raise RemoteProtocolError(self._peer, "psi/points", "a point of low order") from exc
            tags.append(hashlib.sha256(_TAG_DOMAIN + self._session + product).digest()[:TAG_BYTES])
        self._report.add(len(tags))
        return b"".join(tags)


def _exchange_points(items: Sequence[bytes], n_peer: int, peer: str, channel: Channel, masker: _Masker) -> Tags:
    """Send our masked points, mask the peer's a second time, and return the peer's tags in the order of arrival."""
    tags = bytearray()
    for start in range(0, max(len(items), n_peer), CHUNK_ITEMS):
        ours = items[start : start + CHUNK_ITEMS]
        if ours:
            channel.send(peer, "psi/points", Kind.BYTES, masker.mask(ours))
        expected = min(CHUNK_ITEMS, n_peer - start)
        if expected > 0:
            tags += masker.tag(bytes(channel.recv(peer, "psi/points", Kind.BYTES, exact=expected * POINT_BYTES)))
    arrived = np.frombuffer(bytes(tags), dtype=np.uint64).reshape(-1, 2)
    # Compared as tags and not as points, because points that differ by a low-order one have the same product.
    _refuse_repeats(arrived, peer, "psi/points", "the same point twice")
    return arrived


def _vote(matched: Tags, minimum: int, peer: str, channel: Channel) -> None:
    """Tell each other whether to go on; no number is put out, and both stop if one does.

    A hash of the matched tags, which both sides know, shows that both count the same ones.
    """
    enough = len(matched) >= minimum
    digest = hashlib.sha256(_VOTE_DOMAIN + matched.tobytes()).digest()[:TAG_BYTES]
    channel.send(peer, "psi/vote", Kind.BYTES, (_OK if enough else _STOP) + digest)
    answer = bytes(channel.recv(peer, "psi/vote", Kind.BYTES, exact=1 + TAG_BYTES))
    if answer[:1] not in (_OK, _STOP):
        raise RemoteProtocolError(peer, "psi/vote", "neither yes nor no")
    if not hmac.compare_digest(answer[1:], digest):
        raise RemoteProtocolError(peer, "psi/vote", "other matches than we found")
    if not enough:
        raise Refused(f"fewer matches with {peer} than our own minimum of {minimum}")
    if answer[:1] == _STOP:
        raise Refused(f"fewer matches than the minimum set by {peer}")


def _shuffle(n: int) -> Rows:
    """A uniform permutation of 0 … n-1: the order of n random words, drawn again should two be equal."""
    prg = fresh_prg()
    while True:
        words = prg.words(n)
        order = np.argsort(words)
        ordered = words[order]
        if not np.any(ordered[1:] == ordered[:-1]):
            return order.astype(np.int64)


def _sorted_order(tags: Tags) -> npt.NDArray[Any]:
    return np.lexsort((tags[:, 1], tags[:, 0]))


def _refuse_repeats(tags: Tags, peer: str, step: str, why: str) -> None:
    ordered = tags[_sorted_order(tags)]
    if np.any(np.all(ordered[1:] == ordered[:-1], axis=1)):
        raise RemoteProtocolError(peer, step, why)


def _matching(own: Tags, other: Tags) -> npt.NDArray[Any]:
    """Places of the tags in `own` that `other` has too, in the order of the tags; each side is free of repeats."""
    both = np.concatenate([own, other])
    order = _sorted_order(both)  # stable: of two equal tags, ours comes first
    equal = np.all(both[order[1:]] == both[order[:-1]], axis=1)
    return order[:-1][equal]
