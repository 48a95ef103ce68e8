"""What one side writes down so that a matching can go on after a crash of either: which buckets are done, and with whom.

A bucket counts as done only when both sides say so, and what they kept of it must come from the same attempt: the tags have
another order in each.  Both write the agreed first bucket of an attempt down, and the attempt's number, before the first
message about any; what they keep of a bucket bears the number of the attempt.  A bucket counts as done at a side if it is
before the last attempt's first one, or bears that attempt's number and so do all in between.  Suppose both count bucket b,
and one kept it in a later attempt than the other.  In that attempt it had messages about b from the other, which had then
written down that attempt and a first bucket not after b; and since it counts b, it kept b again after that.  So there is no
such bucket.

What a bucket's entries mean follows from both sets, so neither may be another one in a later attempt.  Each side writes its
salt down before it says anything, so that its commitment is the same in every attempt, wherever it crashed; and with the
first attempt it writes down the peer's commitment, the peer's size and the number of buckets.

No key is kept: a new attempt has new nonces, transfers and seeds.  Each attempt at buckets that are not done lets a dishonest
receiver ask for other points than before, so their number is limited.
"""

from __future__ import annotations

import hmac

import numpy as np

from mpc.errors import LocalProtocolError
from mpc.matching.buckets import Positions, Store, Words
from mpc.matching.hashes import bound_key

HASH_BYTES = 32
MAX_ATTEMPTS = 32
_RECORD, _BUCKET, _MATCHED = "run", "bucket", "matched"
_HASHES, _NUMBERS = 4, 4


class Ledger:
    """One side's record of a matching.

    done: how many buckets are.  commitment: to our set; the peer learns from it only whether it is the same as before.
    n_peer, bits: the peer's size and the logarithm of the number of buckets, once an attempt has begun.
    """

    def __init__(self, store: Store, matching: bytes, salt: bytes) -> None:
        """matching: 32 bytes, a hash of all that must not change.  salt: 32 random bytes, used and kept if nothing was.

        Raises: LocalProtocolError if what was kept belongs to another matching or another set.
        """
        self._store, self._matching, self._set, self._peers = store, matching, store.digest, bytes(HASH_BYTES)
        self._salt, self._start, self._attempt, self.n_peer, self.bits = salt, 0, 0, 0, 0
        kept = store.load(0, _RECORD)
        if kept is None:
            self._write()
        else:
            self._read(kept.tobytes())
        self.done = self._start
        while self._attempt and self._kept_in(self.done) == self._attempt:
            self.done += 1
        self.commitment = bound_key("commitment", self._salt, self._set)

    def _read(self, raw: bytes) -> None:
        end = _HASHES * HASH_BYTES
        if len(raw) != end + 8 * _NUMBERS:
            raise LocalProtocolError("what was kept of this matching is not what it keeps")
        matching, own, self._salt, self._peers = (raw[at : at + HASH_BYTES] for at in range(0, end, HASH_BYTES))
        if not hmac.compare_digest(matching, self._matching):
            raise LocalProtocolError("what was kept belongs to a matching with other parameters; begin this one anew")
        if not hmac.compare_digest(own, self._set):
            raise LocalProtocolError("our own identifiers are not those that this matching began with; begin it anew")
        numbers = (int.from_bytes(raw[at : at + 8], "little") for at in range(end, len(raw), 8))
        self._start, self._attempt, self.n_peer, self.bits = numbers

    def _write(self) -> None:
        numbers = b"".join(n.to_bytes(8, "little") for n in (self._start, self._attempt, self.n_peer, self.bits))
        raw = self._matching + self._set + self._salt + self._peers + numbers
        self._store.save(0, _RECORD, np.frombuffer(raw, dtype=np.uint8))

    def _kept_in(self, b: int) -> int:
        """The number of the attempt in which a bucket was kept; 0 if it was not."""
        array = self._store.load(b, _BUCKET)
        return 0 if array is None else int(array[-1, 0])

    @property
    def begun(self) -> bool:
        """Whether an attempt has begun, so that the peer's set and size are known."""
        return self._attempt > 0

    def known(self, commitment: bytes) -> bool:
        """Whether it is the peer's commitment of the earlier attempts."""
        return hmac.compare_digest(commitment, self._peers)

    def begin(self, start: int, bits: int, n_peer: int, commitment: bytes) -> None:
        """An attempt begins at bucket `start` of 2^bits, with a peer that has committed to its set of n_peer points.

        Raises: LocalProtocolError after too many attempts.
        """
        if start == 1 << bits:
            return
        if self._attempt >= MAX_ATTEMPTS:
            raise LocalProtocolError(f"this matching was begun {MAX_ATTEMPTS} times and never ended; begin it anew")
        self._peers, self.n_peer, self.bits = commitment, n_peer, bits
        self._start, self._attempt = start, self._attempt + 1
        self._write()

    def keep(self, b: int, proofs: Words, *numbers: Positions) -> None:
        """Keep what a bucket comes to, which is then done: words, and columns of as many numbers that fit into 31 bits."""
        out = np.zeros((len(proofs) + 1, len(numbers) + 2), dtype=np.int32)
        for i, column in enumerate(numbers):
            out[:-1, i] = column
        out[:-1, -2:] = proofs[:, None].copy().view(np.int32)
        out[-1, 0] = self._attempt
        self._store.save(b, _BUCKET, out)

    def kept(self, b: int) -> tuple[Positions, Words]:
        """The numbers, a column for each, and the words.  Raises: LocalProtocolError if they are gone."""
        array = self._load(b, _BUCKET)[:-1]
        return array[:, :-2].astype(np.int64), array[:, -2:].copy().view(np.uint64)[:, 0]

    def keep_matched(self, b: int, positions: Positions) -> None:
        """Keep which points of a bucket matched."""
        self._store.save(b, _MATCHED, positions.astype(np.uint32))

    def matched(self, b: int) -> Positions:
        """Which points of a bucket matched.  Raises: LocalProtocolError if that is gone."""
        return self._load(b, _MATCHED).astype(np.int64)

    def _load(self, b: int, name: str) -> Words:
        array = self._store.load(b, name)
        if array is None:
            raise LocalProtocolError(f"what was kept of bucket {b} is gone; begin this matching anew")
        return array
