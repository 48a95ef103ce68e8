"""Private set intersection of two large sets: one owner asks, the other one's tags answer, and both learn their rows.

1.  Both sides part their points into buckets and fill each up to the same bound (`mpc.matching.buckets`).
2.  Bucket by bucket, the receiver gets the values of a function that only the sender can compute at all its points
    (`mpc.matching.oprf`).  Values are tags; the sender sends those of its own points, sorted (`mpc.matching.tables`).
3.  When all buckets are done the receiver counts; if both find the number large enough, it sends back which, bucket by bucket.

Every bucket also has a sentinel, which both sides derive from the session.  If the receiver does not find it among the
answers, what it sent or what it got was not what the protocol says, and it stops instead of reporting no matches.

Both sides write down what is done (`mpc.matching.ledger`).  After a crash of either, a new run with everything fresh goes on
at the first bucket that is not done at both, if both come with the sets and sizes of the first one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching import buckets, okvs, tables
from mpc.matching.buckets import BUCKET_POINTS, SENTINEL, Filled, MemoryStore, Positions, Store, Words
from mpc.matching.hashes import bound_key, hash_list
from mpc.matching.kernels import kernels
from mpc.matching.ledger import HASH_BYTES, Ledger
from mpc.matching.malicious import MALICIOUS
from mpc.matching.oprf import Receiver, Sender
from mpc.matching.tables import bucket_bits, recv_table, send_table
from mpc.matching.variant import SEMI_HONEST
from mpc.psi import Alignment, Progress
from mpc.rng import Prg, fresh_prg
from mpc.wire import Kind

__all__ = ["MAX_ITEMS", "Matches", "bucket_bits", "intersect", "match"]

MAX_ITEMS = 1 << 24
VARIANTS = {"semi-honest": SEMI_HONEST, "malicious": MALICIOUS}
NONCE_BYTES, PROOF_BYTES = 32, 16
HELLO_BYTES = 8 + 1 + NONCE_BYTES + 8 + 2 * HASH_BYTES

_HELLO, _VOTE, _ROWS, _TAGS = "matching/hello", "matching/vote", "matching/rows", "matching/tags"
_STOP, _OK = 0, 1


@dataclass(frozen=True)
class Matches:
    """Which of our points the peer has, too, for each of 2^bits buckets.  What is told of a bucket is read from the store."""

    bits: int
    n_own: int
    n_peer: int
    n_matches: int
    ledger: Ledger
    leader: bool

    def positions(self, b: int) -> Positions:
        """Of our matched points in what `store.bucket(bits, b)` gives; entry i is the same person at both sides."""
        if not self.leader:
            return self.ledger.matched(b)
        found = self.ledger.kept(b)[0][:, 0]
        return found[found >= 0]

    def __iter__(self) -> Iterator[Positions]:
        """Bucket by bucket."""
        return map(self.positions, range(1 << self.bits))


def intersect(
    items: Sequence[bytes],
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None = None,
    *,
    security: str = "semi-honest",
) -> Alignment:
    """Find which of our `items` the peer also holds; the peer learns the same about its own.

    items: n distinct identifiers, already normalised, in any order.  Otherwise the same as `match` with all points in memory,
    in arguments, reveals, cost, security and source.
    Raises: LocalProtocolError, before anything is sent, also for repeated items.
    """
    if len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {len(items)}")
    _check(session_id, minimum, security)
    words = hash_list(items, session_id)
    order = kernels.order(words)
    words = np.take(words, order, axis=0)
    repeated = int(np.count_nonzero(np.all(words[1:] == words[:-1], axis=1)))
    if repeated:
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {repeated} repeated ones")
    store = MemoryStore(words)
    found = match(store, peer, session_id, channel, minimum, leader, progress, security=security)
    rows = [order[store.place(found.bits, b) + positions] for b, positions in enumerate(found)]
    return Alignment(np.concatenate(rows), found.n_own, found.n_peer)


def match(
    store: Store,
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None = None,
    *,
    security: str = "semi-honest",
    bucket_points: int = BUCKET_POINTS,
) -> Matches:
    """Find which of our points the peer also has; the peer learns the same about its own.

    store: n distinct points, hashed under the session id (`mpc.matching.hashes`), in buckets; it also keeps what is done.
    session_id: 1 to 255 bytes that both sides share and no other matching has.  minimum: the fewest matches we accept.
    leader: true at exactly one of the two sides, which becomes the receiver.  progress: called with (done, total), in
    identifiers and columns.  security: "semi-honest" or "malicious", the same at both sides.  bucket_points: how many
    points of the larger set a bucket has at most on average, the same at both sides.
    Called again with the same store after a crash or a lost peer, it goes on where both sides are.  A side whose store is lost
    cannot go on; both begin anew under another session id.  The store still has the receiver's matches when it is refused;
    whoever owns the files removes them.

    Reveals: to both, the two set sizes and how many buckets were done before; to the receiver, the matches before the
    minimum is checked; to the sender, their number if the receiver's minimum allows, and which of its own points they are if
    its own does too.
    Cost: 5 + 2 B messages that wait for each other, for B = 2^bits buckets, the least power of two with max(n, m) <=
    B bucket_points.  Let the receiver's buckets be filled up to N - 1 and the sender's to M - 1 points
    (`mpc.matching.buckets.bound`: the mean and about a percent, or all of the set for B = 1) and the sentinel, with
    c = 1.1 N + 224 columns, rounded up to a multiple of 128, and b = ceil(log2 M).  The receiver sends 6938 +
    B (17 + 26.5 c + ceil(M / 8)) bytes, the sender 13682 + B (8 M + ceil((M + 2^b - 1) / 8)).  Malicious: 5 + 4 B messages;
    with c + 128 rounded up to k, a multiple of 512, 9818 + B (6225 + 32.25 k + ceil(M / 8)) bytes and
    16626 + B (16 + 8 M + M ceil((64 - b) / 8) + ceil((M + 2^b - 1) / 8)).  No triples.
    Security: semi-honest, or malicious; gap Diffie-Hellman on Curve25519, AES-128 as a pseudorandom generator, BLAKE3,
    BLAKE2b and SHA-2 as random oracles.  128 bits; wrong or missing matches have a probability below 2^-39.  Sides can lie
    about their sets.  Malicious: the receiver can ask for up to c points of a bucket, in each of 32 attempts; it can tell
    the sender fewer matches than it found, but no others.
    Source: Garimella et al., CRYPTO 2021; Bienstock et al., USENIX Security 2023 (the store); Roy, CRYPTO 2022 (the masks);
    Kolesnikov et al., CCS 2016 (the code).
    Raises: LocalProtocolError for unusable arguments, points that are not as the store must give them, and a set that is
    not the one that this matching began with; RemoteProtocolError if the peer announces too many identifiers, our own role,
    other parameters or another set or size than before, sends anything malformed, tags out of order or without the sentinel, or
    matches it cannot have found; Refused, at both sides, if either finds fewer matches than its minimum.
    """
    if store.n_points > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {store.n_points}")
    _check(session_id, minimum, security)
    if bucket_points < 1:
        raise LocalProtocolError(f"a bucket has at least one point, got {bucket_points}")
    noise = fresh_prg()
    fixed = bound_key("parameters", session_id, security.encode(), _number(bucket_points))
    salt = noise.words(HASH_BYTES, np.uint8).tobytes()
    ledger = Ledger(store, bound_key("role", fixed, bytes([leader])), salt)
    run = _Run(store, ledger, channel, peer, leader, minimum, security, noise)
    start = _announce(run, fixed, bucket_points)
    run.progress, run.done = progress, start * run.bucket_work
    run.report(run.n_own)
    matches = _receive(run, start) if leader else _send(run, start)
    return Matches(run.bits, run.n_own, run.n_peer, matches, ledger, leader)


def _number(n: int) -> bytes:
    return n.to_bytes(8, "little")


def _check(session_id: bytes, minimum: int, security: str) -> None:
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")
    if minimum < 0:
        raise LocalProtocolError(f"the minimum number of matches is not negative, got {minimum}")
    if security not in VARIANTS:
        raise LocalProtocolError(f"security is {' or '.join(VARIANTS)}, got '{security}'")


@dataclass(repr=False)
class _Run:
    """One attempt: whom we talk to, what was announced, and how far we are."""

    store: Store
    ledger: Ledger
    channel: Channel
    peer: str
    leader: bool
    minimum: int
    security: str
    noise: Prg
    n_peer: int = 0
    bits: int = 0
    session: bytes = b""
    progress: Progress | None = None
    done: int = 0

    @property
    def n_own(self) -> int:
        """Our set's size."""
        return self.store.n_points

    @property
    def n_buckets(self) -> int:
        """A power of two."""
        return 1 << self.bits

    @property
    def n_asked(self) -> int:
        """Points that the receiver asks for in a bucket: the bound and the sentinel."""
        return buckets.bound(self.n_own if self.leader else self.n_peer, self.bits) + 1

    @property
    def n_sent(self) -> int:
        """Tags that the sender sends of a bucket."""
        return buckets.bound(self.n_peer if self.leader else self.n_own, self.bits) + 1

    @property
    def whole(self) -> bool:
        """Whether tags are sent whole: whoever may search for two points with one tag could find a shorter one."""
        return self.security == "malicious"

    @property
    def bucket_work(self) -> int:
        """Identifiers and columns of a bucket, for the progress."""
        return buckets.bound(self.n_own, self.bits) + VARIANTS[self.security].masked(okvs.columns(self.n_asked))

    def report(self, n: int) -> None:
        """So many more identifiers or columns are done."""
        self.done += n
        if self.progress is not None and n:
            self.progress(self.done, self.n_own + self.n_buckets * self.bucket_work)

    def filled(self, b: int) -> Filled:
        """Our points of a bucket, and what is filled in."""
        words, sentinel = buckets.checked(self.store, self.bits, b), bound_key("sentinel", self.session, _number(b))
        return buckets.fill(words, buckets.bound(self.n_own, self.bits), self.bits, sentinel, self.noise)

    def tags(self, values: Words) -> tuple[Words, Positions]:
        """(n, 4): the function's values as tags and proofs, in the order of the tags; and that order."""
        if not self.whole:
            tables.cut(values, self.n_sent)
        self.report(len(values) - 1)
        order = kernels.order(values)
        return np.take(values, order, axis=0), order

    def wrong(self, tag: str, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(self.peer, tag, why)


def _announce(run: _Run, fixed: bytes, bucket_points: int) -> int:
    """Exchange sizes, roles, nonces and what is done; bind the session to them.  Returns the first bucket to do."""
    nonce = run.noise.words(NONCE_BYTES, np.uint8).tobytes()
    own = [_number(run.n_own), bytes([run.leader]), nonce, _number(run.ledger.done)]
    hello = b"".join([*own, fixed, run.ledger.commitment])
    run.channel.send(run.peer, _HELLO, Kind.BYTES, hello)
    answer = bytes(run.channel.recv(run.peer, _HELLO, Kind.BYTES, exact=HELLO_BYTES))
    run.n_peer, role, done = int.from_bytes(answer[:8], "little"), answer[8], int.from_bytes(answer[41:49], "little")
    if run.n_peer > MAX_ITEMS:
        raise run.wrong(_HELLO, f"expected at most {MAX_ITEMS} identifiers, got {run.n_peer}")
    if role != (not run.leader):
        raise run.wrong(_HELLO, f"expected leader={int(not run.leader)}, got {role}")
    if not hmac.compare_digest(answer[49:81], fixed):
        raise run.wrong(_HELLO, "another session, security or size of buckets than ours")
    run.bits = buckets.bucket_count_bits(run.n_own, run.n_peer, bucket_points)
    if run.ledger.begun:
        _compare(run, answer[81:])
    if done > run.n_buckets:
        raise run.wrong(_HELLO, f"expected at most {run.n_buckets} finished buckets, got {done}")
    start = min(done, run.ledger.done)
    run.session = bound_key("session", *((hello, answer) if run.leader else (answer, hello)))
    run.ledger.begin(start, run.bits, run.n_peer, answer[81:])
    return start


def _compare(run: _Run, commitment: bytes) -> None:
    """The peer has the set of the earlier attempts, and what was kept lies in the same buckets, wherever we go on."""
    if run.n_peer != run.ledger.n_peer:
        raise run.wrong(_HELLO, f"expected {run.ledger.n_peer} identifiers as in the first attempt, got {run.n_peer}")
    if not run.ledger.known(commitment):
        raise run.wrong(_HELLO, "its identifiers are not those that this matching began with")
    if run.bits != run.ledger.bits:
        kept = 1 << run.ledger.bits
        raise LocalProtocolError(f"what was kept is in {kept} buckets, not {run.n_buckets}; begin this matching anew")


def _expect_yes(run: _Run, vote: bytes) -> None:
    if vote[0] not in (_OK, _STOP):
        raise run.wrong(_VOTE, "neither yes nor no")
    if vote[0] == _STOP:
        raise Refused(f"fewer matches than the minimum set by {run.peer}")


def _proof(run: _Run, b: int, proofs: Words) -> bytes:
    """A hash that only who has the values behind a bucket's matched tags can compute."""
    whole = bound_key("proof", run.session, _number(b), np.ascontiguousarray(proofs).tobytes())
    return whole[:PROOF_BYTES]


# --- the receiver


def _receive(run: _Run, start: int) -> int:
    matches = sum(len(run.ledger.kept(b)[1]) - 1 for b in range(start))
    if start < run.n_buckets:
        function = Receiver(run.channel, run.peer, run.session, run.report, run.security)
        matches += sum(_ask(run, function, b) for b in range(start, run.n_buckets))
    _vote(run, matches)
    for b in range(run.n_buckets):
        _tell(run, b)
    return matches


def _ask(run: _Run, function: Receiver, b: int) -> int:
    """One bucket: find our matches and keep them, with the places and proofs of the sender's tags.  Returns how many."""
    own = run.filled(b)
    hashed, order = run.tags(function.evaluate(own.words))
    places = kernels.merge(hashed, recv_table(run.channel, run.peer, run.n_sent, run.whole))
    positions = own.positions[order[places[:, 0]]]
    if positions[positions < 0].tolist() != [SENTINEL]:
        raise run.wrong(_TAGS, "no answer to the identifier that both sides have")
    run.ledger.keep(b, hashed[places[:, 0], 2], positions, places[:, 1])
    return len(positions) - 1


def _vote(run: _Run, matches: int) -> None:
    """Say how many matches there are if they are enough, and hear whether the sender finds so, too."""
    enough = matches >= run.minimum
    told = matches if enough else 0
    run.channel.send(run.peer, _VOTE, Kind.BYTES, bytes([_OK if enough else _STOP]) + _number(told))
    if not enough:
        raise Refused(f"fewer matches with {run.peer} than our own minimum of {run.minimum}")
    _expect_yes(run, bytes(run.channel.recv(run.peer, _VOTE, Kind.BYTES, exact=1)))


def _tell(run: _Run, b: int) -> None:
    """Tell the sender which of its tags of a bucket matched."""
    numbers, proofs = run.ledger.kept(b)
    chosen = np.zeros(run.n_sent, dtype=np.uint8)
    chosen[numbers[:, 1]] = 1
    body = np.packbits(chosen, bitorder="little").tobytes() + _proof(run, b, proofs)
    run.channel.send(run.peer, _ROWS, Kind.BYTES, body)


# --- the sender


def _send(run: _Run, start: int) -> int:
    if start < run.n_buckets:
        function = Sender(run.channel, run.peer, run.session, run.report, run.security)
        for b in range(start, run.n_buckets):
            _answer(run, function, b)
    matches = _answer_vote(run)
    found = sum(_hear(run, b) for b in range(run.n_buckets))
    if found != matches:
        raise run.wrong(_ROWS, "other matches than it counted")
    return matches


def _answer(run: _Run, function: Sender, b: int) -> None:
    """One bucket: send our tags, and keep whose they are, and their proofs."""
    own = run.filled(b)
    hashed, order = run.tags(function.serve(run.n_asked).evaluate(own.words))
    send_table(run.channel, run.peer, hashed, run.whole)
    run.ledger.keep(b, hashed[:, 2], own.positions[order])


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


def _hear(run: _Run, b: int) -> int:
    """Keep which of our points matched, once the receiver has shown that it could compute what is behind their tags."""
    n_bytes = -(-run.n_sent // 8)
    body = bytes(run.channel.recv(run.peer, _ROWS, Kind.BYTES, exact=n_bytes + PROOF_BYTES))
    bits = np.unpackbits(np.frombuffer(body[:n_bytes], dtype=np.uint8), bitorder="little")
    numbers, proofs = run.ledger.kept(b)
    if np.any(bits[min(run.n_sent, len(proofs)) :]):
        raise run.wrong(_ROWS, "matches beyond the last tag")
    places = np.flatnonzero(bits)
    if not hmac.compare_digest(body[n_bytes:], _proof(run, b, proofs[places])):
        raise run.wrong(_ROWS, "matches that it cannot have found")
    matched = numbers[places, 0]
    if matched[matched < 0].tolist() != [SENTINEL]:
        raise run.wrong(_ROWS, "other matches than it counted")
    run.ledger.keep_matched(b, matched[matched >= 0])
    return len(matched) - 1
