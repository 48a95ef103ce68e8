"""Private set intersection of two large sets: one owner asks, the other one's tags answer, and both learn their rows.

In the letters of the papers, with the receiver's set X and the sender's set Y:

1.  The receiver solves for columns P with Decode(P, x) = h(x) for all x in X (`mpc.matching.okvs`).
2.  It masks their codewords C(P) (`mpc.matching.vole`, `mpc.matching.code`): it has v, the sender w = v + Delta C(P).
3.  The receiver's tag of x is H(Decode(v, x)).  The sender's tag of y is H(Decode(w, y) + Delta C(h(y))).  If y is in X
    they are equal.  If not, they differ by Delta times a codeword with 32 symbols that are not zero, 128 bits to guess.
4.  The sender sends its tags, sorted.  The receiver counts; if both find the number large enough, it sends back which.

Every set also has a sentinel, which both sides derive from the session id.  If the receiver does not find it among the
answers, what it sent or what it got was not what the protocol says, and it stops instead of reporting no matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.channel import Channel
from mpc.curve25519 import POINT_BYTES
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching import code, okvs
from mpc.matching.hashes import Identifiers, Rows, bound_key, expand, identify, tags
from mpc.matching.kernels import kernels
from mpc.matching.parameters import TILE
from mpc.matching.vole import PAIR_BYTES, SUMS_BYTES, TRANSFERS, TREES, Choice, Masker, Unmasker, grow
from mpc.psi import MAX_ITEMS, Alignment, Progress
from mpc.rng import fresh_prg
from mpc.wire import Kind, recv_words, send_words

ATTEMPTS = 3
NONCE_BYTES, PROOF_BYTES = 32, 16
CHUNK_TILES = 128
"""Tiles of columns in a message: 16,384 columns, 434 kB."""
TAG_BITS = 64
"""Bits of a tag that are sent whole; the bits above them are in the counts."""

_HELLO, _PUBLIC, _POINTS, _TREES = "matching/hello", "matching/public", "matching/points", "matching/trees"
_ATTEMPT, _MASKED, _COUNTS, _TAGS = "matching/attempt", "matching/masked", "matching/counts", "matching/tags"
_VOTE, _ROWS = "matching/vote", "matching/rows"
_STOP, _OK = 0, 1

Words = npt.NDArray[Any]


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
    and no other run has.  minimum: the fewest matches we accept.  leader: true at exactly one of the two sides, which
    becomes the receiver.  progress: called with (done, total), in identifiers and columns.

    Reveals: to both, the two set sizes; to the receiver, the matches before the minimum is checked; to the sender, their
    number if the receiver's minimum allows, and which of its own items they are if its own does too.
    Cost: 4 rounds, of 7 messages that wait for each other.  With n identifiers at the receiver, m at the sender,
    c = 1.1 (n + 1) + 224 columns, rounded up to a multiple of 128, and b = ceil(log2(m + 1)) - 2 (0 if that is less): the
    receiver sends 6883 + 26.5 c + ceil((m + 1) / 8) bytes, the sender 13618 + 2^b + 8 m.  No triples.
    Security: semi-honest; gap Diffie-Hellman on Curve25519, AES-128 as a pseudorandom generator, BLAKE3 and SHA-2 as random
    oracles.  128 bits; wrong or missing matches have a probability below 2^-40.  Sides can lie about their sets.
    Source: Garimella et al., CRYPTO 2021; Bienstock et al., USENIX Security 2023 (the store); Roy, CRYPTO 2022 (the masks);
    Kolesnikov et al., CCS 2016 (the code).
    Raises: LocalProtocolError for unusable arguments; RemoteProtocolError if the peer announces too many identifiers or
    our own role, sends anything malformed, tags out of order or without the sentinel, or matches it cannot have found;
    Refused, at both sides, if either finds fewer matches than its minimum.
    """
    if len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {len(items)}")
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")
    if minimum < 0:
        raise LocalProtocolError(f"the minimum number of matches is not negative, got {minimum}")
    own = identify(items, session_id, 0)
    if own.repeated():
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {own.repeated()} repeated ones")
    run = _announce(_Run(channel, peer, session_id, leader, minimum, len(items)), progress)
    run.report(len(items))
    rows = _receive(run, items, own) if leader else _send(run, items, own)
    return Alignment(rows, len(items), run.n_peer)


@dataclass
class _Run:
    """One run: whom we talk to, what was announced, and how far we are."""

    channel: Channel
    peer: str
    session_id: bytes
    leader: bool
    minimum: int
    n_own: int
    n_peer: int = 0
    session: bytes = b""
    progress: Progress | None = None
    done: int = 0

    @property
    def n_columns(self) -> int:
        """Columns of the receiver's store: one key for each of its identifiers and the sentinel."""
        return okvs.columns((self.n_own if self.leader else self.n_peer) + 1)

    @property
    def n_sent(self) -> int:
        """Tags that the sender sends."""
        return (self.n_peer if self.leader else self.n_own) + 1

    def report(self, n: int) -> None:
        """So many more identifiers or columns are done."""
        self.done += n
        if self.progress is not None and n:
            self.progress(self.done, 2 * self.n_own + self.n_columns)

    def rows(self, own: Identifiers, attempt: int) -> Rows:
        return expand(own.words, bound_key("row", self.session, bytes([attempt])), self.n_columns)

    def tags(self, values: Words, own: Identifiers, attempt: int) -> Words:
        """(n + 1, 4): tags cut to the bits that are sent, and proofs."""
        result = tags(values, own.words, bound_key("tag", self.session, bytes([attempt])))
        result[:, 1] &= np.uint64((1 << bucket_bits(self.n_sent)) - 1)
        self.report(self.n_own)
        return result

    def wrong(self, tag: str, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(self.peer, tag, why)


def _announce(run: _Run, progress: Progress | None) -> _Run:
    """Exchange sizes, roles and nonces, and bind the session to them."""
    nonce = fresh_prg().words(NONCE_BYTES, np.uint8).tobytes()
    hello = run.n_own.to_bytes(8, "little") + bytes([run.leader]) + nonce
    run.channel.send(run.peer, _HELLO, Kind.BYTES, hello)
    answer = bytes(run.channel.recv(run.peer, _HELLO, Kind.BYTES, exact=len(hello)))
    run.n_peer, role = int.from_bytes(answer[:8], "little"), answer[8]
    if run.n_peer > MAX_ITEMS:
        raise run.wrong(_HELLO, f"expected at most {MAX_ITEMS} identifiers, got {run.n_peer}")
    if role != (not run.leader):
        raise run.wrong(_HELLO, f"expected leader={int(not run.leader)}, got {role}")
    both = (hello, answer) if run.leader else (answer, hello)
    run.session, run.progress = bound_key("session", run.session_id, *both), progress
    return run


def bucket_bits(n_tags: int) -> int:
    """Upper bits of a tag that are sent as counts: about four tags to each value.

    With the 64 bits sent whole these are at least 40 more than a pair of tags needs: 62 + log2(n_tags), and the other
    side has at most 2^22 identifiers.
    """
    return max(0, (n_tags - 1).bit_length() - 2)


# --- the receiver


def _receive(run: _Run, items: Sequence[bytes], own: Identifiers) -> npt.NDArray[np.int64]:
    noise = fresh_prg()
    scalar = X25519PrivateKey.from_private_bytes(noise.words(32, np.uint8).tobytes())
    run.channel.send(run.peer, _PUBLIC, Kind.BYTES, scalar.public_key().public_bytes_raw())
    own, rows, solved, attempt = _encode(run, items, own)
    points = bytes(run.channel.recv(run.peer, _POINTS, Kind.BYTES, exact=TRANSFERS * PAIR_BYTES))
    try:
        masker, sums = grow(run.session, scalar, points, noise)
    except ValueError as exc:
        raise run.wrong(_POINTS, f"a base transfer is malformed: {exc}") from exc
    run.channel.send(run.peer, _TREES, Kind.BYTES, sums)
    run.channel.send(run.peer, _ATTEMPT, Kind.BYTES, bytes([attempt]))
    held = _mask(run, masker, solved)
    values = okvs.decode(held, rows.start, rows.band)
    del held, rows, solved  # a large part of the memory that a run needs
    hashed = run.tags(values, own, attempt)
    del values
    order = kernels.order(hashed)
    hashed = np.take(hashed, order, axis=0)
    places = kernels.merge(hashed, _receive_tags(run))
    matched, sent_back = places[:, 0], places[:, 1]
    return _tell(run, own.rows[order[matched]], sent_back, hashed[matched, 2:])


def _encode(run: _Run, items: Sequence[bytes], own: Identifiers) -> tuple[Identifiers, Rows, Words, int]:
    """Solve for the columns; should the rows depend on each other, start again with other hashes of everything."""
    for attempt in range(ATTEMPTS):
        tried = identify(items, run.session_id, attempt) if attempt else own
        rows = run.rows(tried, attempt)
        solved = okvs.solve(rows.start, rows.band, rows.value, run.n_columns)
        if solved is not None:
            return tried, rows, solved, attempt
    raise LocalProtocolError(f"the identifiers could not be encoded in {ATTEMPTS} attempts")


def _mask(run: _Run, masker: Masker, solved: Words) -> Words:
    """Send the masked columns, and return our masks."""
    held = np.empty((len(solved), code.WORDS), dtype=np.uint64)
    step = CHUNK_TILES * TILE
    for at in range(0, len(solved), step):
        d, held[at : at + step] = masker.mask(solved[at : at + step])
        send_words(run.channel, run.peer, _MASKED, d)
        run.report(len(solved[at : at + step]))
    return held


def _receive_tags(run: _Run) -> Words:
    """The sender's tags, (m + 1, 2) words, in ascending order."""
    bits = bucket_bits(run.n_sent)
    counts = recv_words(run.channel, run.peer, _COUNTS, (1 << bits,), np.uint8)
    if int(counts.sum(dtype=np.int64)) != run.n_sent:
        raise run.wrong(_COUNTS, "the tags are not as many as the identifiers")
    rest = recv_words(run.channel, run.peer, _TAGS, (run.n_sent,), np.uint64)
    bucket = np.repeat(np.arange(1 << bits, dtype=np.uint64), counts)
    if np.any((bucket[1:] == bucket[:-1]) & (rest[1:] <= rest[:-1])):
        raise run.wrong(_TAGS, "tags out of order, or one twice")
    result = np.empty((run.n_sent, 2), dtype=np.uint64)
    result[:, 0] = bucket << np.uint64(TAG_BITS - bits) | rest >> np.uint64(bits)
    result[:, 1] = rest & np.uint64((1 << bits) - 1)
    return result


def _tell(run: _Run, rows: Words, places: Words, proofs: Words) -> npt.NDArray[np.int64]:
    """Vote, and if both sides go on tell the sender which of its tags matched; returns our rows without the sentinel."""
    real = rows < run.n_own
    if len(rows) - np.count_nonzero(real) != 1:
        raise run.wrong(_TAGS, "no answer to the identifier that both sides have")
    matches = int(np.count_nonzero(real))
    enough = matches >= run.minimum
    told = matches if enough else 0
    run.channel.send(run.peer, _VOTE, Kind.BYTES, bytes([_OK if enough else _STOP]) + told.to_bytes(8, "little"))
    if not enough:
        raise Refused(f"fewer matches with {run.peer} than our own minimum of {run.minimum}")
    _expect_yes(run, bytes(run.channel.recv(run.peer, _VOTE, Kind.BYTES, exact=1)))
    chosen = np.zeros(run.n_sent, dtype=np.uint8)
    chosen[places] = 1
    body = np.packbits(chosen, bitorder="little").tobytes() + _proof(run, proofs)
    run.channel.send(run.peer, _ROWS, Kind.BYTES, body)
    result: npt.NDArray[np.int64] = rows[real]
    return result


def _expect_yes(run: _Run, vote: bytes) -> None:
    if vote[0] not in (_OK, _STOP):
        raise run.wrong(_VOTE, "neither yes nor no")
    if vote[0] == _STOP:
        raise Refused(f"fewer matches than the minimum set by {run.peer}")


def _proof(run: _Run, proofs: Words) -> bytes:
    """A hash that only who has the values behind the matched tags can compute."""
    whole = bound_key("proof", run.session, np.ascontiguousarray(proofs).tobytes())
    return whole[:PROOF_BYTES]


# --- the sender


def _send(run: _Run, items: Sequence[bytes], own: Identifiers) -> npt.NDArray[np.int64]:
    public = bytes(run.channel.recv(run.peer, _PUBLIC, Kind.BYTES, exact=POINT_BYTES))
    try:
        choice = Choice(run.session, public, fresh_prg())
    except ValueError as exc:
        raise run.wrong(_PUBLIC, f"a key that cannot be used: {exc}") from exc
    run.channel.send(run.peer, _POINTS, Kind.BYTES, choice.points)
    rows = run.rows(own, 0)
    sums = bytes(run.channel.recv(run.peer, _TREES, Kind.BYTES, exact=TREES * SUMS_BYTES))
    attempt = run.channel.recv(run.peer, _ATTEMPT, Kind.BYTES, exact=1)[0]
    if attempt >= ATTEMPTS:
        raise run.wrong(_ATTEMPT, f"expected fewer than {ATTEMPTS} attempts, got {attempt}")
    if attempt:
        own = identify(items, run.session_id, attempt)
        rows = run.rows(own, attempt)
    unmasker = choice.unmasker(sums)
    held = _unmask(run, unmasker)
    values = okvs.decode(held, rows.start, rows.band)
    unmasker.add_code(values, rows.value)
    del held, rows  # a large part of the memory that a run needs
    hashed = run.tags(values, own, attempt)
    del values
    order = kernels.order(hashed)
    hashed = np.take(hashed, order, axis=0)
    _send_tags(run, hashed)
    matches = _answer_vote(run)
    places = _receive_rows(run, hashed[:, 2:])
    matched: npt.NDArray[np.int64] = own.rows[order[places]]
    real = matched < run.n_own
    if int(np.count_nonzero(real)) != matches or len(real) != matches + 1:
        raise run.wrong(_ROWS, "other matches than it counted")
    return matched[real]


def _unmask(run: _Run, unmasker: Unmasker) -> Words:
    held = np.empty((run.n_columns, code.WORDS), dtype=np.uint64)
    step = CHUNK_TILES * TILE
    for at in range(0, run.n_columns, step):
        tiles = min(CHUNK_TILES, (run.n_columns - at) // TILE)
        d = recv_words(run.channel, run.peer, _MASKED, (tiles, code.LENGTH, 8), np.uint64)
        held[at : at + step] = unmasker.unmask(d)
        run.report(tiles * TILE)
    return held


def _send_tags(run: _Run, ordered: Words) -> None:
    """Counts of the upper bits' values, and the rest of every tag."""
    bits = bucket_bits(len(ordered))
    bucket = (
        (ordered[:, 0] >> np.uint64(TAG_BITS - bits)).astype(np.int64) if bits else np.zeros(len(ordered), np.int64)
    )
    counts = np.bincount(bucket, minlength=1 << bits)
    if counts.max() > 255:
        raise ArithmeticError("tags are not spread as random ones are")
    send_words(run.channel, run.peer, _COUNTS, counts.astype(np.uint8))
    send_words(run.channel, run.peer, _TAGS, ordered[:, 0] << np.uint64(bits) | ordered[:, 1])


def _answer_vote(run: _Run) -> int:
    """Hear how many matches there are, and say whether that is enough."""
    vote = bytes(run.channel.recv(run.peer, _VOTE, Kind.BYTES, exact=9))
    _expect_yes(run, vote)
    matches = int.from_bytes(vote[1:], "little")
    if matches > min(run.n_own, run.n_peer):
        raise run.wrong(_VOTE, "more matches than identifiers")
    enough = matches >= run.minimum
    run.channel.send(run.peer, _VOTE, Kind.BYTES, bytes([_OK if enough else _STOP]))
    if not enough:
        raise Refused(f"fewer matches with {run.peer} than our own minimum of {run.minimum}")
    return matches


def _receive_rows(run: _Run, proofs: Words) -> npt.NDArray[np.int64]:
    """Places of the matched tags, once the receiver has shown that it could compute what is behind them."""
    n_bytes = -(-run.n_sent // 8)
    body = bytes(run.channel.recv(run.peer, _ROWS, Kind.BYTES, exact=n_bytes + PROOF_BYTES))
    bits = np.unpackbits(np.frombuffer(body[:n_bytes], dtype=np.uint8), bitorder="little")
    if np.any(bits[run.n_sent :]):
        raise run.wrong(_ROWS, "matches beyond the last tag")
    places = np.flatnonzero(bits)
    if body[n_bytes:] != _proof(run, proofs[places]):
        raise run.wrong(_ROWS, "matches that it cannot have found")
    return places
