"""A join that nobody sees: which rows matched is shared between two owners, and so are their columns.

1.  The receiver puts its points into bins, at most one into each (`mpc.matching.cuckoo`).  For every bin it asks for the value
    of a function that only the sender can compute (`mpc.matching.oprf`), at its point and bin, or at a random point.
2.  The sender draws a word t for every bin, and programs the function (`mpc.matching.opprf`): at each of its points, in each
    of that point's three bins, it gives the bin's t and the row's columns minus random words r that the sender keeps.
3.  The receiver's value of a bin is t exactly if the sender has its point, up to a chance of 2^-64.  The difference is shared
    as it is, and `mpc.compare.is_zero` makes shares of a bit of it.

Both sides also have one point that follows from the session, and the receiver checks what it gets there: if it is wrong, what
was sent is not what the protocol says, and it stops instead of sharing that nothing matched.

What the receiver got of the columns and r are shares of the sender's columns where the rows matched, and of random words
elsewhere.  The receiver's own columns are shared as they are, by who has them.  `kept` makes both zero where nothing matched.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import is_zero, plan_is_zero
from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matching import cuckoo
from mpc.matching.hashes import bound_key, identify
from mpc.matching.kernels import kernels
from mpc.matching.kernels import warm_up as warm_up_kernels
from mpc.matching.opprf import recv_hint, send_hint
from mpc.matching.oprf import ATTEMPTS, Receiver, Sender, nothing
from mpc.products import multiply, plan_multiply
from mpc.psi import MAX_ITEMS
from mpc.rng import Prg, fresh_prg
from mpc.session import Session
from mpc.triples import Triple
from mpc.wire import Kind

Words = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Report = Callable[[int], None]

NONCE_BYTES = 32
MAX_COLUMNS = 64
"""Of each owner; a hint has 26 bytes for each of them and each of the sender's points."""
PART_BINS = 1 << 17
"""Bins that are compared at a time: a dealer that is checked leaves 2.6 kB of each to be held until then."""
_HELLO, _ATTEMPT = "hidden/hello", "hidden/attempt"


@dataclass(frozen=True)
class Hidden:
    """The result of a join, one entry for each bin; what is secret is this party's share, in ring words.

    receiver: index of the party whose rows are in the bins.  n_receiver, n_sender: points of both.  matched: (bins,), 1 where
    the row of the bin matched and 0 elsewhere.  receiver_columns, sender_columns: (bins, k), meaningless where nothing matched.
    rows: the receiver's row in each bin, -1 in empty bins; None at the sender.
    """

    receiver: int
    n_receiver: int
    n_sender: int
    matched: Words = field(repr=False)
    receiver_columns: Words = field(repr=False)
    sender_columns: Words = field(repr=False)
    rows: Rows | None = field(default=None, repr=False)

    @property
    def n_bins(self) -> int:
        """How many bins there are; public."""
        return len(self.matched)

    @property
    def most(self) -> int:
        """The most rows that can have matched; public."""
        return min(self.n_receiver, self.n_sender)

    @property
    def columns(self) -> Words:
        """(bins, k): the receiver's columns, then the sender's."""
        return np.concatenate([self.receiver_columns, self.sender_columns], axis=1)


def join(
    session: Session,
    points: Words,
    columns: Words,
    peer_columns: int,
    receiver: int,
    session_id: bytes,
    report: Report = nothing,
) -> Hidden:
    """Join our rows with the other owner's on equal points; both get shares.

    points: (n, 2) words, distinct and ascending (`mpc.matching.hashes.identify`).  columns: (n, k) ring words, row by row as
    the points; k may be 0.  peer_columns: how many columns were agreed that the other owner has.
    receiver: index of the party whose rows are in the bins, and which does less work for each.
    session_id: 1 to 255 bytes that both sides share and no other run has.  report: called with how many columns of the store
    are done.  It plans for itself, so nothing that was planned before may be left unused.

    Reveals: to both owners, the other one's number of points; what else is opened is uniform.  To the dealer, the number of
    bins.
    Cost: 3 rounds, of 5 messages that wait for each other, and 4 for each 131,072 bins.  With n points at the receiver, m and
    k columns at the sender, b = 1.3 n + 240 bins rounded up to a multiple of 3, c(x) = 1.1 (x + 1) + 224 rounded up to a
    multiple of 128, and w = ceil(b / 64): the receiver sends 6874 + 26.5 c(b) bytes, the sender
    13656 + 8 (k + 1) c(3 m); then each sends 8 b + 168 w, and the dealer 8 b + 2360 w in all.
    Security: semi-honest owners; a dealer, if there is one, that colludes with neither; the function's assumptions.  A wrong
    match has a probability of 2^-64 for each bin.  Owners can lie about their rows.
    Source: Pinkas, Schneider, Tkachenko, Yanai, EUROCRYPT 2019 (bins, a programmed word for each, comparison in a circuit);
    Chandran, Gupta, Shah, PoPETs 2022 (one word for each bin); Kolesnikov et al., CCS 2017 (programming).
    Raises: LocalProtocolError for unusable arguments; RemoteProtocolError if the other side announces too many points, another
    number of columns or our own role, or sends anything malformed.
    """
    _check(session, points, columns, receiver, session_id)
    if not 0 <= peer_columns <= MAX_COLUMNS:
        raise LocalProtocolError(f"the other owner has 0 to {MAX_COLUMNS} columns, got {peer_columns}")
    points = np.ascontiguousarray(points)
    run = _announce(session, (len(points), columns.shape[1]), peer_columns, receiver, session_id)
    tickets = session.correlations.plan([request for part in run.parts() for request in plan_is_zero(part)])
    if session.me == receiver:
        return _receive(run, tickets, points, columns, report)
    return _send(run, tickets, points, columns, report)


def join_items(
    session: Session,
    items: Sequence[bytes],
    columns: Words,
    peer_columns: int,
    receiver: int,
    session_id: bytes,
    report: Report = nothing,
) -> Hidden:
    """`join` on identifiers instead of points, in any order.

    items: n distinct identifiers, already normalised.  columns: (n, k), row by row as the items.  Rows of the result are
    indices into the receiver's items.  Everything else as `join`.
    """
    if columns.ndim != 2 or len(columns) != len(items) or len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"{len(items)} identifiers have as many rows of columns, and at most {MAX_ITEMS}")
    own = identify(items, session_id)
    if own.repeated():
        raise LocalProtocolError(f"identifiers to be joined are distinct, got {own.repeated()} repeated ones")
    real = own.rows < len(items)  # without the one that other protocols add to every set
    rows = own.rows[real]
    joined = join(session, own.words[real], columns[rows], peer_columns, receiver, session_id, report)
    if joined.rows is None or not len(rows):
        return joined
    return replace(joined, rows=np.where(joined.rows < 0, -1, rows[joined.rows]))


def plan_kept(joined: Hidden) -> Triple:
    """What `kept` asks of the dealer."""
    k = joined.receiver_columns.shape[1] + joined.sender_columns.shape[1]
    return plan_multiply((joined.n_bins, 1), (joined.n_bins, k))


def kept(session: Session, ticket: Ticket, joined: Hidden) -> Words:
    """(bins, k): shares of both owners' columns, the receiver's first, and of zero where nothing matched.

    ticket: for `plan_kept(joined)`.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round; 8 (k + 1) bytes for each bin to the other owner; the dealer sends 8 k for each bin in all.
    Security: as `join`.
    Source: Beaver, CRYPTO 1991.
    Raises: LocalProtocolError if the ticket is not for these columns, or is taken out of order.
    """
    return multiply(session, ticket, joined.matched[:, None], joined.columns)


def _check(session: Session, points: Words, columns: Words, receiver: int, session_id: bytes) -> None:
    if len(session.parties) != 2 or receiver not in (0, 1):
        raise LocalProtocolError(
            f"a join is between parties 0 and 1, got {len(session.parties)} and receiver {receiver}"
        )
    if points.dtype != np.uint64 or points.ndim != 2 or points.shape[1] != 2 or len(points) > MAX_ITEMS:
        raise LocalProtocolError(
            f"a join takes at most {MAX_ITEMS} points of two words, got an array of {points.shape}"
        )
    before, after = points[:-1], points[1:]
    rising = (before[:, 0] < after[:, 0]) | ((before[:, 0] == after[:, 0]) & (before[:, 1] < after[:, 1]))
    if not rising.all():
        raise LocalProtocolError("points to be joined are distinct and ascending, and ours are not")
    if columns.dtype != np.uint64 or columns.ndim != 2 or len(columns) != len(points) or columns.shape[1] > MAX_COLUMNS:
        raise LocalProtocolError(
            f"{len(points)} points have as many rows of at most {MAX_COLUMNS} words, got an array of {columns.shape}"
        )
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")


@dataclass(frozen=True)
class _Run:
    """One join: what was announced, as (points, columns) of both, and the key that it is bound to."""

    session: Session
    receiver: int
    ours: tuple[int, int]
    theirs: tuple[int, int]
    key: bytes

    @property
    def bins(self) -> int:
        return cuckoo.n_bins((self.ours if self.session.me == self.receiver else self.theirs)[0])

    @property
    def peer(self) -> str:
        return self.session.peers[0]

    def parts(self) -> list[int]:
        """How many bins are compared at a time."""
        return [min(PART_BINS, self.bins - at) for at in range(0, self.bins, PART_BINS)]

    def known(self, k: int) -> tuple[Words, Words]:
        """The point that both sides have, (1, 2), and the k words that the receiver gets there, (1, k)."""
        words = [bound_key("sentinel", self.key, i.to_bytes(8, "little"))[:8] for i in range(k + 2)]
        known = np.frombuffer(b"".join(words), dtype=np.uint64)[None, :]
        return known[:, :2], known[:, 2:]

    def points(self, points: Words, bins: Words, attempt: int) -> Words:
        """(n, 2): points in the given bins, which are points of their own."""
        key = np.frombuffer(bound_key("binned", self.key, bytes([attempt])), dtype=np.uint32)
        hashed: Words = kernels.hash_rows(key, points, bins[:, None], 2)
        return hashed

    def result(
        self, tickets: Sequence[Ticket], difference: Words, columns: Sequence[Words], rows: Rows | None
    ) -> Hidden:
        """The shared bits, and all."""
        matched, each = np.empty_like(difference), len(tickets) // len(self.parts())
        for i in range(0, len(difference), PART_BINS):
            own = tickets[i // PART_BINS * each :][:each]
            matched[i : i + PART_BINS] = is_zero(self.session, own, difference[i : i + PART_BINS])
            self.session.correlations.settle()
        both = self.ours[0], self.theirs[0]
        n_receiver, n_sender = both if self.session.me == self.receiver else both[::-1]
        return Hidden(self.receiver, n_receiver, n_sender, matched, columns[0], columns[1], rows)


def _announce(session: Session, ours: tuple[int, int], agreed: int, receiver: int, session_id: bytes) -> _Run:
    """Exchange sizes, roles and nonces, and bind the run to them.  Both sets are fixed by now, so bins are random to them.

    agreed: columns of the other side.  More of them would take memory here, and could be added up by mistake.
    """
    peer, channel = session.peers[0], session.channel
    hello = b"".join(n.to_bytes(8, "little") for n in (*ours, receiver))
    hello += fresh_prg().words(NONCE_BYTES, np.uint8).tobytes()
    channel.send(peer, _HELLO, Kind.BYTES, hello)
    answer = bytes(channel.recv(peer, _HELLO, Kind.BYTES, exact=len(hello)))
    n, k, other = (int.from_bytes(answer[at : at + 8], "little") for at in (0, 8, 16))
    if n > MAX_ITEMS:
        raise RemoteProtocolError(peer, _HELLO, f"expected at most {MAX_ITEMS} points, got {n}")
    if k != agreed:
        raise RemoteProtocolError(peer, _HELLO, f"expected {agreed} columns, got {k}")
    if other != receiver:
        raise RemoteProtocolError(peer, _HELLO, f"expected receiver={receiver}, got {other}")
    both = (hello, answer) if session.me == 0 else (answer, hello)
    return _Run(session, receiver, ours, (n, k), bound_key("hidden", session_id, *both))


def warm_up() -> None:
    """Load or compile every kernel of a join, so that nobody in a session waits for another one's compiler."""
    warm_up_kernels()
    cuckoo.warm_up()


# --- the receiver


def _receive(run: _Run, tickets: Sequence[Ticket], points: Words, columns: Words, report: Report) -> Hidden:
    channel, (m, k) = run.session.channel, run.theirs
    function = Receiver(channel, run.peer, run.key, report)
    bins, rows, attempt = _placed(run, points)
    known, expected = run.known(k + 1)
    channel.send(run.peer, _ATTEMPT, Kind.BYTES, bytes([attempt]))
    queries = np.concatenate([fresh_prg().words((run.bins, 2)), known])  # random ones where a bin is empty
    queries[bins] = run.points(points[rows], bins.astype(np.uint64), attempt)
    order = kernels.order(queries)
    queries = np.take(queries, order, axis=0)
    programmed = recv_hint(channel, run.peer, queries, function.evaluate(queries), (cuckoo.CHOICES * m + 1, k + 1))
    got, own = np.empty_like(programmed), np.zeros((run.bins, columns.shape[1]), dtype=np.uint64)
    got[order] = programmed
    del function, queries, programmed  # most of the memory that a run needs
    if not hmac.compare_digest(got[-1].tobytes(), expected.tobytes()):
        raise RemoteProtocolError(run.peer, "matching/hint", "no answer to the point that both sides have")
    own[bins] = columns[rows]
    in_bins = np.full(run.bins, -1, dtype=np.int64)
    in_bins[bins] = rows
    return run.result(tickets, got[:-1, 0].copy(), (own, got[:-1, 1:].copy()), in_bins)


def _placed(run: _Run, points: Words) -> tuple[Rows, Rows, int]:
    """The bins that are taken, and the row in each; should the rows not fit, again with other bins."""
    for attempt in range(ATTEMPTS):
        table = cuckoo.table(cuckoo.place(points, run.key, attempt, run.bins), run.bins)
        if table is not None:
            bins = np.flatnonzero(table >= 0)
            return bins, table[bins], attempt
    raise LocalProtocolError(f"the identifiers could not be put into bins in {ATTEMPTS} attempts")


# --- the sender


def _send(run: _Run, tickets: Sequence[Ticket], points: Words, columns: Words, report: Report) -> Hidden:
    channel, noise = run.session.channel, fresh_prg()
    function = Sender(channel, run.peer, run.key, report)
    attempt = channel.recv(run.peer, _ATTEMPT, Kind.BYTES, exact=1)[0]
    if attempt >= ATTEMPTS:
        raise RemoteProtocolError(run.peer, _ATTEMPT, f"expected fewer than {ATTEMPTS} attempts, got {attempt}")
    drawn = _drawn(noise, run.bins, columns.shape[1])
    programmed, values = _programme(run, points, columns, drawn, attempt)
    outputs = function.serve(run.bins + 1).evaluate(programmed)
    send_hint(channel, run.peer, programmed, outputs, values)
    del function, programmed, outputs, values  # most of the memory that a run needs
    received = np.zeros((run.bins, run.theirs[1]), dtype=np.uint64)
    return run.result(tickets, np.negative(drawn[:, 0]), (received, drawn[:, 1:].copy()), None)


def _drawn(noise: Prg, bins: int, k: int) -> Words:
    """(bins, k + 1): the word that says a match, and our shares of our columns."""
    return noise.words((bins, k + 1))


def _programme(run: _Run, points: Words, columns: Words, drawn: Words, attempt: int) -> tuple[Words, Words]:
    """All our points in all their bins, in order, and what the receiver gets there."""
    chosen = cuckoo.place(points, run.key, attempt, run.bins)
    known, expected = run.known(drawn.shape[1])
    binned = np.concatenate([*(run.points(points, bins, attempt) for bins in chosen), known])
    order = kernels.order(binned)
    values = np.concatenate([drawn[chosen.reshape(-1).astype(np.int64)], expected])
    for i in range(0, len(points) * cuckoo.CHOICES, max(1, len(points))):
        values[i : i + len(points), 1:] = columns - values[i : i + len(points), 1:]
    return np.take(binned, order, axis=0), np.take(values, order, axis=0)
