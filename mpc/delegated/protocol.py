"""Set intersection through a helper that sees keyed tokens: for owners who agree that a third silo may do the comparing.

The owners agree on a fresh key among themselves.  Each turns every identifier into a token under that key and sends the
tokens, sorted, to the helper, which has no data and never sees the key.  The helper finds the tokens that all owners
have.  If they are enough for every owner, it tells each one which of its own tokens they are.

The owners need not believe the answer.  They add decoys: identifiers that follow from the key, so that all owners have
them and nobody else can tell them from matches.  A helper that leaves matches out has to guess which tokens are no decoys.
They also compare a hash of what they were told, so the helper cannot report a match that is none.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching.hashes import bound_key, identify
from mpc.matching.kernels import kernels
from mpc.psi import Progress
from mpc.rng import KEY_BYTES, Prg, derive_key, fresh_key
from mpc.wire import Kind, recv_words, send_words

MAX_ITEMS = 1 << 24
DECOYS = 4096
"""Identifiers that every owner adds to each copy of its set, and all owners have."""
COPIES = (1, 2)
CHECK_BYTES = 16
CHUNK_TOKENS, CHUNK_BYTES = 1 << 16, 1 << 20
"""A message has at most a mebibyte, so that work and transfer overlap and nobody is silent for long."""

_PART, _CONFIRM, _AGREED = "delegated/part", "delegated/confirm", "delegated/agreed"
_HELLO, _TOKENS, _VERDICT, _MAP = "delegated/hello", "delegated/tokens", "delegated/verdict", "delegated/map"
_STOP, _OK = b"\x00", b"\x01"

Words = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """What all owners agreed on before the run; the key depends on it, so another opinion is noticed.

    owners: their names, in the same order everywhere.  helper: its name; it is none of them.  copies: tokens for each
    identifier, 1 or 2; with 2 a helper that leaves out even one match is caught, for twice the bytes.
    """

    owners: tuple[str, ...]
    helper: str
    copies: int = 1


@dataclass(frozen=True, repr=False)
class Aligned:
    """Matched rows: entry i of `rows` is the index into our items of the same person as entry i at every other owner.

    The order is that of the tokens, which are pseudorandom and others in every run: it depends on no input order.
    """

    rows: Rows
    n_own: int


@dataclass(frozen=True)
class Assisted:
    """What the helper saw, of what its disclosure says that it can see: the owners' set sizes and the matches of all."""

    sizes: tuple[int, ...]
    n_matches: int


# --- an owner


def intersect(
    items: Sequence[bytes],
    terms: Terms,
    me: int,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    progress: Progress | None = None,
) -> Aligned:
    """Find which of our `items` all other owners have too; they learn the same about their own.  `assist` is the helper's part.

    items: n distinct identifiers, already normalised, in any order.  me: our place among the owners.  session_id: 1 to 255
    bytes that all owners share and no other run has.  minimum: the fewest matches we accept.  progress: called with
    (done, total) tokens, each of them once when it leaves and once when it is answered.

    Reveals: to the owners, which of their own items matched, if they are enough for all; to the helper, every set size,
    the minima, and how many items each choice of owners has in common.  Owners do not learn each other's sizes.
    Cost: 5 rounds.  With k owners, n items, c copies and T = c (n + 4096) tokens an owner sends 64 (k - 1) + 24 + 16 T
    bytes, of them 64 to each other owner, and the helper sends it 1 + ceil(T / 8).  After a refusal 48 in place of 64, and
    1 from the helper.  No triples.
    Security: semi-honest owners, and a helper that works with none of them; BLAKE3 and BLAKE2b as keyed pseudorandom
    functions, SHA-256.  A helper that deviates cannot invent a match; one that leaves out d of M matches is not caught with
    a probability of C(M, d) / C(c (M + 4096), c d).  It can refuse to help.  Together with one owner it can test guesses
    of all items of all owners.
    Source: Kamara, Mohassel, Raykova, Sadeghian, FC 2014 (tokens, decoys, copies).
    Raises: LocalProtocolError for unusable arguments or repeated items; RemoteProtocolError naming another owner if it has
    other terms or another session, or the helper if it left out decoys or one of two copies, told others something else, or
    sent anything malformed; Refused if the helper finds fewer matches than one of the owners accepts.
    """
    _check_arguments(items, terms, me, session_id, minimum)
    others = terms.owners[:me] + terms.owners[me + 1 :]
    key = _agree(terms, me, others, session_id, channel)
    own = _tokens(items, key, terms.copies)
    hello = np.array([len(items), minimum, terms.copies], dtype=np.uint64)
    send_words(channel, terms.helper, _HELLO, hello)
    report = _Reporter(progress, 2 * len(own.words))
    for at in range(0, len(own.words), CHUNK_TOKENS):
        chunk = own.words[at : at + CHUNK_TOKENS]
        send_words(channel, terms.helper, _TOKENS, chunk)
        report.add(len(chunk))
    verdict = bytes(channel.recv(terms.helper, _VERDICT, Kind.BYTES, exact=1))
    if verdict not in (_STOP, _OK):
        raise RemoteProtocolError(terms.helper, _VERDICT, "neither yes nor no")
    if verdict == _STOP:
        raise Refused(f"{terms.helper} found fewer matches than one of the owners accepts")
    places = _receive_map(terms.helper, len(own.words), channel, report)
    rows = _checked_rows(own, places, terms)
    if len(rows) < minimum:
        raise RemoteProtocolError(
            terms.helper, _MAP, "fewer matches than our minimum, after it said that there are enough"
        )
    _compare(np.take(own.words, places, axis=0), key, terms, others, channel)
    return Aligned(rows, len(items))


def _check_arguments(items: Sequence[bytes], terms: Terms, me: int, session_id: bytes, minimum: int) -> None:
    if len(items) > MAX_ITEMS:
        raise LocalProtocolError(f"at most {MAX_ITEMS} identifiers can be matched this way, got {len(items)}")
    if len(terms.owners) < 2 or len({*terms.owners, terms.helper}) != len(terms.owners) + 1:
        raise LocalProtocolError(
            "matching through a helper takes two or more different owners, and a helper that is none of them"
        )
    if terms.copies not in COPIES:
        raise LocalProtocolError(f"an identifier has 1 or 2 tokens, got {terms.copies}")
    if not 0 <= me < len(terms.owners):
        raise LocalProtocolError(f"expected a place among {len(terms.owners)} owners, got {me}")
    if not 1 <= len(session_id) <= 255:
        raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(session_id)}")
    if not 0 <= minimum <= MAX_ITEMS:
        raise LocalProtocolError(f"the minimum number of matches is from 0 to {MAX_ITEMS}, got {minimum}")


class _Reporter:
    """Counts tokens and passes the count on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def add(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)


def _agree(terms: Terms, me: int, others: Sequence[str], session_id: bytes, channel: Channel) -> bytes:
    """The owners' key: fresh if one of them has a good generator, and confirmed before a token leaves.

    The links between owners are encrypted and pinned to their certificates, so a part that travels on one is known to its
    two ends only.  A key agreement on top would rest on the same certificates.
    """
    part = fresh_key()
    for owner in others:
        channel.send(owner, _PART, Kind.BYTES, part)
    parts = [bytes(channel.recv(owner, _PART, Kind.BYTES, exact=KEY_BYTES)) for owner in others]
    parts.insert(me, part)
    agreed = [session_id, bytes([terms.copies]), terms.helper.encode(), *(owner.encode() for owner in terms.owners)]
    key = derive_key(b"".join(parts), f"delegated/{bound_key('delegated', *agreed).hex()}")
    for owner in others:
        channel.send(owner, _CONFIRM, Kind.BYTES, _confirmation(key, terms.owners[me]))
    for owner in others:
        said = bytes(channel.recv(owner, _CONFIRM, Kind.BYTES, exact=CHECK_BYTES))
        if not hmac.compare_digest(said, _confirmation(key, owner)):
            raise RemoteProtocolError(owner, _CONFIRM, "another key than ours: other terms, or another session")
    return key


def _confirmation(key: bytes, owner: str) -> bytes:
    """Differs by owner, so that nobody can send ours back."""
    return derive_key(key, f"delegated/confirm/{owner}")[:CHECK_BYTES]


@dataclass(frozen=True, repr=False)
class _Tokens:
    """Our tokens in ascending order.

    words: (T, 2).  source: (T,), copy * (n_items + DECOYS) + row; rows from n_items on are decoys.
    """

    words: Words
    source: Rows
    n_items: int


def _tokens(items: Sequence[bytes], key: bytes, copies: int) -> _Tokens:
    """Hash all items and decoys under one key for each copy."""
    # The hash of a set adds one thing itself that everybody has who has the key: the last decoy.
    raw = Prg(derive_key(key, "delegated/decoys")).words((DECOYS - 1, KEY_BYTES), np.uint8)
    everything = [*items, *(decoy.tobytes() for decoy in raw)]
    sets = [identify(everything, derive_key(key, f"delegated/token/{copy}")) for copy in range(copies)]
    if sets[0].repeated():
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {sets[0].repeated()} repeated ones")
    words, source = sets[0].words, sets[0].rows
    for copy, other in enumerate(sets[1:], 1):
        words, source = (
            np.concatenate([words, other.words]),
            np.concatenate([source, other.rows + copy * len(other.rows)]),
        )
        order = kernels.order(words)
        words, source = np.take(words, order, axis=0), np.take(source, order)
    return _Tokens(words, source, len(items))


def _receive_map(helper: str, n_tokens: int, channel: Channel, report: _Reporter) -> Rows:
    """Places of our matched tokens, ascending: a bit for each token."""
    size = -(-n_tokens // 8)
    bits = np.empty(size, dtype=np.uint8)
    for at in range(0, size, CHUNK_BYTES):
        n_bytes = min(CHUNK_BYTES, size - at)
        bits[at : at + n_bytes] = recv_words(channel, helper, _MAP, (n_bytes,), np.uint8)
        report.add(min(8 * n_bytes, n_tokens - 8 * at))
    places = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
    if len(places) and places[-1] >= n_tokens:
        raise RemoteProtocolError(helper, _MAP, "matches beyond the last token")
    return places.astype(np.int64)


def _checked_rows(own: _Tokens, places: Rows, terms: Terms) -> Rows:
    """Our matched rows, in the order of their first copies, if no decoy and no copy of them is missing."""
    copy, row = np.divmod(own.source[places], own.n_items + DECOYS)
    real = row < own.n_items
    if np.count_nonzero(~real) != terms.copies * DECOYS:
        raise RemoteProtocolError(terms.helper, _MAP, "it left out identifiers that it got from every owner")
    rows: Rows = row[real & (copy == 0)]
    for other in range(1, terms.copies):
        if not np.array_equal(np.sort(row[real & (copy == other)]), np.sort(rows)):
            raise RemoteProtocolError(terms.helper, _MAP, "it reported an identifier by one of its tokens only")
    return rows


def _compare(matched: Words, key: bytes, terms: Terms, others: Sequence[str], channel: Channel) -> None:
    """Make sure that all owners were told the same tokens; what is in all sets is a match, whatever the helper says."""
    digest = hmac.digest(derive_key(key, "delegated/agreed"), matched.data, "sha256")[:CHECK_BYTES]
    for owner in others:
        channel.send(owner, _AGREED, Kind.BYTES, digest)
    for owner in others:
        if not hmac.compare_digest(bytes(channel.recv(owner, _AGREED, Kind.BYTES, exact=CHECK_BYTES)), digest):
            raise RemoteProtocolError(
                terms.helper, _MAP, f"other matches than it reported to {owner}, if {owner} is right"
            )


# --- the helper


def assist(channel: Channel, owners: Sequence[str], progress: Progress | None = None) -> Assisted:
    """Find the tokens that all owners have, and tell each owner which of its own they are; the helper's part of `intersect`.

    owners: their names, in the order that they agreed on.  progress: called with (done, total) tokens.

    Reveals: as `intersect`.
    Cost: as `intersect`; it holds 16 bytes for each token of all owners.
    Security: as `intersect`; the helper is not protected from owners that lie about their sets.
    Source: as `intersect`.
    Raises: LocalProtocolError for fewer than two owners; RemoteProtocolError naming an owner that announces too much or
    other copies than the first one, sends tokens out of order, or with whom too few are in common for the decoys to be among
    them; Refused if the matches are too few for one of the owners, who are told that first.
    """
    if len(owners) < 2 or len(set(owners)) != len(owners):
        raise LocalProtocolError("matching through a helper takes two or more different owners")
    sizes, minimum, copies = _hellos(channel, owners)
    counts = [copies * (size + DECOYS) for size in sizes]
    report = _Reporter(progress, 2 * sum(counts))
    tokens = _receive_tokens(channel, owners, counts, report)
    common = _common(tokens, owners, copies * DECOYS)
    n_matches = len(common) // copies - DECOYS
    enough = n_matches >= minimum
    for owner in owners:
        channel.send(owner, _VERDICT, Kind.BYTES, _OK if enough else _STOP)
    if not enough:
        raise Refused("fewer matches than one of the owners accepts")
    for owner, words in zip(owners, tokens, strict=True):
        bits = _map(words, common)
        for at in range(0, len(bits), CHUNK_BYTES):
            send_words(channel, owner, _MAP, bits[at : at + CHUNK_BYTES])
        report.add(len(words))
    return Assisted(sizes, n_matches)


def _hellos(channel: Channel, owners: Sequence[str]) -> tuple[tuple[int, ...], int, int]:
    """The owners' set sizes, the largest of their minima, and how many copies they agreed on."""
    sizes, minima, agreed = [], [], 0
    for owner in owners:
        size, minimum, copies = (int(word) for word in recv_words(channel, owner, _HELLO, (3,), np.uint64))
        if size > MAX_ITEMS:
            raise RemoteProtocolError(owner, _HELLO, f"expected at most {MAX_ITEMS} identifiers, got {size}")
        if copies not in COPIES or copies != (agreed or copies):
            raise RemoteProtocolError(owner, _HELLO, f"expected copies={agreed or '1 or 2'}, got {copies}")
        agreed = copies
        sizes.append(size)
        minima.append(minimum)
    return tuple(sizes), max(minima), agreed


def _receive_tokens(channel: Channel, owners: Sequence[str], counts: Sequence[int], report: _Reporter) -> list[Words]:
    """Every owner's tokens, one message from each in turn, so that all of them can go on sending."""
    tokens = [np.empty((count, 2), dtype=np.uint64) for count in counts]
    for at in range(0, max(counts), CHUNK_TOKENS):
        for owner, words in zip(owners, tokens, strict=True):
            chunk = words[at : at + CHUNK_TOKENS]
            if not len(chunk):
                continue
            chunk[:] = recv_words(channel, owner, _TOKENS, chunk.shape, np.uint64)
            # Together with the one before, so that neighbours in different messages are compared too.
            seen = words[max(0, at - 1) : at + CHUNK_TOKENS]
            (high, low), (next_high, next_low) = seen[:-1].T, seen[1:].T
            if not np.all((high < next_high) | ((high == next_high) & (low < next_low))):
                raise RemoteProtocolError(owner, _TOKENS, "tokens out of order, or one twice")
            report.add(len(chunk))
    return tokens


def _common(tokens: Sequence[Words], owners: Sequence[str], least: int) -> Words:
    """The tokens that all owners have, ascending; they include the decoys, which are `least`."""
    common = tokens[0]
    for owner, words in zip(owners[1:], tokens[1:], strict=True):
        common = np.take(common, kernels.merge(common, words)[:, 0], axis=0)
        if len(common) < least:
            why = f"expected at least {least} tokens in common with the owners before it, got {len(common)}"
            raise RemoteProtocolError(owner, _TOKENS, why)
    return common


def _map(words: Words, common: Words) -> npt.NDArray[np.uint8]:
    """A bit for each token: whether it is among the common ones."""
    bits = np.zeros(len(words), dtype=np.uint8)
    bits[kernels.merge(words, common)[:, 0]] = 1
    return np.packbits(bits, bitorder="little")
