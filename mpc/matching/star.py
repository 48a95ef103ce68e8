"""Set intersection of three to ten owners: what all of them have, and nothing about what only some of them share.

One owner, the first, is the leader; the others are spokes and have a secret key for each pair of them.

1.  A spoke's share at a point is the sum of a pseudorandom function of the point under each of its keys.  Every key counts
    twice in the sum of all spokes' shares, so it is zero.  Any fewer of the shares are as good as random.
2.  With every spoke the leader gets the values of a function of that spoke at its own points (`mpc.matching.oprf`), and the
    spoke programs it to give its shares at its points (`mpc.matching.opprf`).  Elsewhere it gives random words.
3.  The leader adds up.  The sum is zero where all spokes have the point, and random where at least one does not.
4.  If there are enough matches for everybody, the leader answers with a key-value store: at a match it holds a hash of the
    point under a key of all owners, elsewhere something random.  Its size does not depend on the number of matches.

Every set also has a sentinel that follows from the session id.  Its shares are zero, so that the leader can tell of each
spoke whether the two of them understand each other.  In the end owners compare a hash of what matched.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching import okvs
from mpc.matching.hashes import Identifiers, bound_key, expand, identify, tags
from mpc.matching.kernels import kernels
from mpc.matching.opprf import recv_hint, send_hint
from mpc.matching.oprf import ATTEMPTS, Receiver, Sender
from mpc.psi import MAX_ITEMS, Progress
from mpc.rng import KEY_BYTES, derive_key, fresh_key, fresh_prg
from mpc.wire import Kind, recv_words, send_words

MIN_OWNERS, MAX_OWNERS = 3, 10
CHECK_BYTES = 16
CHUNK_COLUMNS = 1 << 16
"""Of an answer in a message, half a mebibyte: nobody is silent for long."""

_PARTS, _SIZE, _CONFIRM = "star/parts", "star/size", "star/confirm"
_HINT, _VERDICT, _AGREED = "star/hint", "star/verdict", "star/agreed"
_ANSWER_KEY, _ANSWER = "star/answer-key", "star/answer"
_STOP, _OK = 0, 1

Words = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Aligned:
    """Matched rows: entry i of `rows` is the index into our items of the same person as entry i at every other owner.

    The order is that of a hash under a fresh key of all owners: it depends on no input order and is another one in every run.
    """

    rows: Rows
    n_own: int


def intersect(
    items: Sequence[bytes],
    owners: Sequence[str],
    me: int,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    progress: Progress | None = None,
) -> Aligned:
    """Find which of our `items` all other owners have too; they learn the same about their own.

    items: n distinct identifiers, already normalised, in any order.  owners: the names of all, in the same order
    everywhere; the first is the leader.  me: our place among them.  session_id: 1 to 255 bytes that all owners share and no
    other run has.  minimum: the fewest matches we accept.  progress: called with (done, total), in identifiers and columns.

    Reveals: to the leader, all set sizes and minima, and its matches before the minima are checked; to the others, the
    leader's set size and, if the matches are enough for all owners, which of their own items they are.
    Cost: 7 messages that wait for each other with three owners, and 2 more for every two owners more.  With c(n) =
    1.1 (n + 1) + 224 columns, rounded up to a multiple of 128, the leader with n identifiers sends 6962 + 34.5 c(n) bytes to
    each of the others.  Of these one with m sends 13712 + 8 c(m) bytes to the leader, and 96 to each other one.  After a
    refusal it is 48 + 8 c(n) less from the leader, and from the others 16 less to each.  No triples.
    Security: semi-honest, also against a group of owners that work together, with one limit: a group with the leader learns
    which of the leader's items are in all the sets outside of it, and sees that before any minimum.  Gap Diffie-Hellman on
    Curve25519, AES-128 as a pseudorandom generator, BLAKE3 and SHA-2 as random oracles.  128 bits.  A match by chance has a
    probability of 2^-42 at each owner, and ends in an error.
    Source: Kolesnikov, Matania, Pinkas, Rosulek, Trieu, CCS 2017, with unconditional shares of zero (augmented semi-honest);
    for the parts see `mpc.matching.oprf` and `mpc.matching.opprf`.
    Raises: LocalProtocolError for unusable arguments or repeated items; RemoteProtocolError naming an owner with other owners
    or another session, one that announces too many identifiers or sends anything malformed, or the leader if what it reports
    is not in our set, is too little for us or differs from what it reported to others; Refused if the matches are too few.
    """
    _check_arguments(items, owners, me, session_id, minimum)
    own = identify(items, session_id)
    if own.repeated():
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {own.repeated()} repeated ones")
    sizes, minima = {owners[me]: len(items)}, {owners[me]: minimum}
    run = _Run(channel, tuple(owners), me, session_id, progress, sizes, minima)
    _agree(run)
    run.report(len(items))
    places = _lead(run, own) if me == 0 else _follow(run, own)
    return Aligned(own.rows[places], len(items))


def _check_arguments(items: Sequence[bytes], owners: Sequence[str], me: int, session_id: bytes, minimum: int) -> None:
    if len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {len(items)}")
    if not MIN_OWNERS <= len(owners) <= MAX_OWNERS:
        raise LocalProtocolError(f"{MIN_OWNERS} to {MAX_OWNERS} owners can match this way, got {len(owners)}")
    if len(set(owners)) != len(owners):
        raise LocalProtocolError("owners have different names, got one twice")
    if not 0 <= me < len(owners):
        raise LocalProtocolError(f"expected a place among {len(owners)} owners, got {me}")
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")
    if not 0 <= minimum <= MAX_ITEMS:
        raise LocalProtocolError(f"the minimum number of matches is from 0 to {MAX_ITEMS}, got {minimum}")


@dataclass
class _Run:
    """One run: whom we talk to, what was agreed, and how far we are.

    sizes: of the leader's set and ours at a spoke, of all at the leader, by name.  minima: of all at the leader, ours at a
    spoke.  group: a key of all owners.  pairs: by name, a key that only the two of us have.
    """

    channel: Channel
    owners: tuple[str, ...]
    me: int
    session_id: bytes
    progress: Progress | None
    sizes: dict[str, int]
    minima: dict[str, int]
    group: bytes = field(default=b"", repr=False)
    pairs: dict[str, bytes] = field(default_factory=dict, repr=False)
    done: int = 0

    @property
    def name(self) -> str:
        """Ours."""
        return self.owners[self.me]

    @property
    def leader(self) -> str:
        """The first owner."""
        return self.owners[0]

    @property
    def spokes(self) -> tuple[str, ...]:
        """All owners but the leader."""
        return self.owners[1:]

    @property
    def others(self) -> tuple[str, ...]:
        """All owners but us."""
        return self.owners[: self.me] + self.owners[self.me + 1 :]

    @property
    def n_columns(self) -> int:
        """Columns of the leader's stores: one key for each of its identifiers and the sentinel."""
        return okvs.columns(self.sizes[self.leader] + 1)

    def session(self, spoke: str) -> bytes:
        """32 bytes that the leader and one spoke have, bound to their sets' sizes."""
        sizes = (self.sizes[name].to_bytes(8, "little") for name in (self.leader, spoke))
        return bound_key("star", self.pairs[spoke if self.name == self.leader else self.leader], *sizes)

    def report(self, n: int) -> None:
        """So many more identifiers or columns are done."""
        self.done += n
        if self.progress is not None and n:
            n_own, links = self.sizes[self.name], len(self.spokes) if self.name == self.leader else 1
            self.progress(self.done, n_own + links * (n_own + self.n_columns))

    def hashed(self, points: Words, purpose: str, n_words: int) -> Words:
        """(n, n_words): a hash of each point that all owners can compute and nobody else."""
        return _keyed(points, derive_key(self.group, f"star/{purpose}"), n_words)


def _keyed(points: Words, key: bytes, n_words: int) -> Words:
    return tags(points, np.empty((len(points), 0), dtype=np.uint64), key, n_words)


# --- keys and sizes


def _agree(run: _Run) -> None:
    """Exchange parts of keys, sizes and minima, and send what shows that we have the keys.

    Links are encrypted and pinned to their certificates, so a part that travels on one is known to its two ends only.
    """
    channel, part = run.channel, fresh_key()
    ours = {owner: fresh_key() for owner in run.others}
    for owner in run.others:
        channel.send(owner, _PARTS, Kind.BYTES, part + ours[owner])
        _send_size(run, owner)
    parts, theirs = {run.name: part}, dict[str, bytes]()
    for owner in run.others:
        body = bytes(channel.recv(owner, _PARTS, Kind.BYTES, exact=2 * KEY_BYTES))
        parts[owner], theirs[owner] = body[:KEY_BYTES], body[KEY_BYTES:]
        _recv_size(run, owner)
    context = bound_key("star", run.session_id, *(owner.encode() for owner in run.owners)).hex()
    run.group = derive_key(b"".join(parts[owner] for owner in run.owners), f"star/group/{context}")
    for owner in run.others:
        both = {run.name: ours[owner], owner: theirs[owner]}
        joined = b"".join(both[name] for name in run.owners if name in both)
        run.pairs[owner] = derive_key(joined, f"star/pair/{context}")
        channel.send(owner, _CONFIRM, Kind.BYTES, _confirmation(run, owner, run.name))


def _confirm(run: _Run) -> None:
    """Make sure that everybody has our keys, before anything is sent that depends on a set."""
    for owner in run.others:
        said = bytes(run.channel.recv(owner, _CONFIRM, Kind.BYTES, exact=CHECK_BYTES))
        if not hmac.compare_digest(said, _confirmation(run, owner, owner)):
            raise RemoteProtocolError(owner, _CONFIRM, "other keys than ours: other owners, or another session")


def _confirmation(run: _Run, owner: str, sender: str) -> bytes:
    """Differs by sender, so that nobody can send ours back."""
    return derive_key(run.group + run.pairs[owner], f"star/confirm/{sender}")[:CHECK_BYTES]


def _send_size(run: _Run, owner: str) -> None:
    """The leader's size goes to all, a spoke's size and minimum only to the leader."""
    if run.name == run.leader:
        send_words(run.channel, owner, _SIZE, np.array([run.sizes[run.name]], dtype=np.uint64))
    elif owner == run.leader:
        send_words(run.channel, owner, _SIZE, np.array([run.sizes[run.name], run.minima[run.name]], dtype=np.uint64))


def _recv_size(run: _Run, owner: str) -> None:
    if run.leader not in (run.name, owner):
        return
    n_words = 2 if run.name == run.leader else 1
    size, *minimum = (int(word) for word in recv_words(run.channel, owner, _SIZE, (n_words,), np.uint64))
    if size > MAX_ITEMS:
        raise RemoteProtocolError(owner, _SIZE, f"expected at most {MAX_ITEMS} identifiers, got {size}")
    run.sizes[owner] = size
    if minimum:
        run.minima[owner] = minimum[0]


# --- the leader


def _lead(run: _Run, own: Identifiers) -> Rows:
    """Places of our matched points, in the order that all owners have."""
    # All of them first, so that spokes prepare their base transfers at the same time; these depend on no set.
    receivers = {spoke: Receiver(run.channel, spoke, run.session(spoke), run.report) for spoke in run.spokes}
    _confirm(run)
    total, sentinel = np.zeros(len(own.words), dtype=np.uint64), int(np.flatnonzero(own.rows == len(own.rows) - 1)[0])
    waiting: tuple[str, Words] | None = None
    for spoke in run.spokes:
        outputs = receivers.pop(spoke).evaluate(own.words)
        # While the next spoke gets its columns, the one before computes its hint.
        if waiting is not None:
            total ^= _values(run, own, *waiting, sentinel)
        waiting = spoke, outputs
    if waiting is not None:
        total ^= _values(run, own, *waiting, sentinel)
    found = np.flatnonzero(total == 0)
    matches = len(found) - 1
    enough = matches >= max(run.minima.values())
    verdict = bytes([_OK if enough else _STOP]) + (matches if enough else 0).to_bytes(8, "little")
    for spoke in run.spokes:
        run.channel.send(spoke, _VERDICT, Kind.BYTES, verdict)
    if not enough:
        raise Refused("fewer matches than one of the owners accepts")
    matched = np.take(own.words, found, axis=0)
    _send_answer(run, matched)
    return _compared(run, found, matched, sentinel)


def _values(run: _Run, own: Identifiers, spoke: str, outputs: Words, sentinel: int) -> Words:
    """(n + 1,): one spoke's shares at those of our points that it has, random words elsewhere."""
    values = recv_hint(run.channel, spoke, own.words, outputs, (run.sizes[spoke] + 1, 1), _HINT)[:, 0]
    if values[sentinel]:
        raise RemoteProtocolError(spoke, _HINT, "no answer to the identifier that all owners have")
    run.report(len(own.words) - 1)
    return values


def _send_answer(run: _Run, matched: Words) -> None:
    """A store with the matches' hashes.  It has room for all of our set, and what is free is random, so it hides how many."""
    values, noise = run.hashed(matched, "mark", 1), fresh_prg()
    for _ in range(ATTEMPTS):
        key = noise.words(KEY_BYTES, np.uint8).tobytes()
        rows = expand(matched, bound_key("star-answer", key), run.n_columns)
        store = okvs.solve(rows.start, rows.band, values, noise.words((run.n_columns, 1)))
        if store is not None:
            break
    else:
        raise LocalProtocolError(f"the matches could not be encoded in {ATTEMPTS} attempts")
    for spoke in run.spokes:
        run.channel.send(spoke, _ANSWER_KEY, Kind.BYTES, key)
    for at in range(0, run.n_columns, CHUNK_COLUMNS):
        for spoke in run.spokes:
            send_words(run.channel, spoke, _ANSWER, store[at : at + CHUNK_COLUMNS])


# --- a spoke


def _follow(run: _Run, own: Identifiers) -> Rows:
    """Places of our matched points, in the order that all owners have."""
    _confirm(run)
    sender = Sender(run.channel, run.leader, run.session(run.name), run.report)
    shares = _shares(run, own.words)
    sentinel = int(np.flatnonzero(own.rows == len(own.rows) - 1)[0])
    shares[sentinel] = 0
    function = sender.serve(run.sizes[run.leader] + 1)
    outputs = function.evaluate(own.words)
    del function  # a large part of the memory that a run needs
    send_hint(run.channel, run.leader, own.words, outputs, shares, _HINT)
    del outputs, shares
    run.report(len(own.words) - 1)
    marks = run.hashed(own.words, "mark", 1)[:, 0]
    matches = _receive_verdict(run)
    found = np.flatnonzero(_receive_answer(run, own.words) == marks)
    if len(found) != matches + 1 or sentinel not in found:
        raise RemoteProtocolError(run.leader, _ANSWER, "other matches than it counted, or one that is not in our set")
    return _compared(run, found, np.take(own.words, found, axis=0), sentinel)


def _shares(run: _Run, points: Words) -> Words:
    """(n, 1): our share of zero at each point.

    The leader has none.  It sees all the others, so a share of its own would keep nothing from it.
    """
    shares = np.zeros((len(points), 1), dtype=np.uint64)
    for spoke in run.spokes:
        if spoke != run.name:
            shares ^= _keyed(points, derive_key(run.pairs[spoke], "star/share"), 1)
    return shares


def _receive_verdict(run: _Run) -> int:
    """The number of matches, if the leader says that they are enough."""
    verdict = bytes(run.channel.recv(run.leader, _VERDICT, Kind.BYTES, exact=9))
    if verdict[0] not in (_OK, _STOP):
        raise RemoteProtocolError(run.leader, _VERDICT, "neither yes nor no")
    if verdict[0] == _STOP:
        raise Refused("fewer matches than one of the owners accepts")
    matches = int.from_bytes(verdict[1:], "little")
    if matches > min(run.sizes.values()):
        raise RemoteProtocolError(run.leader, _VERDICT, "more matches than identifiers")
    if matches < run.minima[run.name]:
        raise RemoteProtocolError(
            run.leader, _VERDICT, "fewer matches than our minimum, after it said that they are enough"
        )
    return matches


def _receive_answer(run: _Run, points: Words) -> Words:
    """(n + 1,): what the leader's store holds at our points."""
    key = bytes(run.channel.recv(run.leader, _ANSWER_KEY, Kind.BYTES, exact=KEY_BYTES))
    store = np.empty((run.n_columns, 1), dtype=np.uint64)
    for at in range(0, run.n_columns, CHUNK_COLUMNS):
        part = min(CHUNK_COLUMNS, run.n_columns - at)
        store[at : at + part] = recv_words(run.channel, run.leader, _ANSWER, (part, 1), np.uint64)
    rows = expand(points, bound_key("star-answer", key), run.n_columns)
    held: Words = okvs.decode(store, rows.start, rows.band)[:, 0]
    return held


# --- everybody


def _compared(run: _Run, found: Rows, matched: Words, sentinel: int) -> Rows:
    """Bring the matches into the common order, without the sentinel, and make sure that all owners have the same."""
    ranks = run.hashed(matched, "order", 2)
    order = kernels.order(ranks)
    ranks, found = np.take(ranks, order, axis=0), found[order]
    digest = hmac.digest(derive_key(run.group, "star/agreed"), ranks.data, "sha256")[:CHECK_BYTES]
    for owner in run.others:
        run.channel.send(owner, _AGREED, Kind.BYTES, digest)
    for owner in run.others:
        if not hmac.compare_digest(bytes(run.channel.recv(owner, _AGREED, Kind.BYTES, exact=CHECK_BYTES)), digest):
            if run.leader in (run.name, owner):
                raise RemoteProtocolError(owner, _AGREED, "other matches than ours")
            why = f"other matches than it reported to {owner}, if {owner} is right"
            raise RemoteProtocolError(run.leader, _ANSWER, why)
    places: Rows = found[found != sentinel]
    return places
