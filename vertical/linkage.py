"""From matched identifiers to matched rows: several keys in priority order, and identifiers that several rows share.

A job names one or more keys, the best one first: an e-mail address, a telephone number, a name with a date of birth.  Every
row gives an item for each key that it has a valid value for.  An item starts with the number of its key, so it only matches
items of that key.  One private set intersection runs over the items of all keys.  After it both owners hold the matched items
in the same order, and each knows its own rows behind every one; what is missing is which items are of one row at the other
side.  Both tell that, with labels in place of rows, and then compute the same pairs:

    for each key, the best one first, and for each matched item of it, in their common order:
        pair the rows behind it, leaving out those that a better key has paired

docs/identifiers.md compares this with one intersection for each key.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.rng import fresh_prg
from mpc.wire import Kind, recv_words, send_words
from vertical.batches import Items
from vertical.identifiers import DuplicateIdentifiersError

DUPLICATES = ("refuse", "first", "expand")
MAX_KEYS = 16
MAX_LISTED = 1 << 26
"""Rows that one side may list behind the matched items: 256 MiB of labels."""
MAX_PAIRS = 1 << 24
"""Pairs of rows that may come out with "expand"; the work on them takes about 100 bytes each."""
DIGEST_BYTES = 16

_COUNTS, _ROWS, _VOTE = "linkage/counts", "linkage/rows", "linkage/vote"
_DOMAIN = b"accord-linkage-v1"
_OK, _LEADS = 1, 2
_CHUNK = 1 << 16

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Matched:
    """The matched items as one owner sees them; item i is the same one at both.

    key: (m,) uint8, the number of each item's key.  rows: our rows behind the items, one stretch for each.  offsets: (m + 1,)
    int64, where each stretch starts.  n_keys: of the job.
    """

    key: Array
    offsets: Array
    rows: Array
    n_keys: int


@dataclass(frozen=True)
class Collected:
    """The distinct items of all keys of one owner, and the rows behind them.

    items: in any order, as a set intersection takes them.  offsets, rows: as in Matched.  duplicates: for each key the rows
    left out because an earlier one has their item.
    """

    items: list[bytes]
    offsets: Array
    rows: Array
    duplicates: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Collected(<{len(self.items)} items>)"

    def matched(self, which: Array) -> Matched:
        """What an intersection found, from `rows` of its Alignment."""
        starts, counts = self.offsets[which], np.diff(self.offsets)[which]
        offsets = _starts(counts)
        rows = self.rows[np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])]
        key = np.fromiter((self.items[i][0] for i in which.tolist()), np.uint8, len(which))
        return Matched(key, offsets, rows, len(self.duplicates))


@dataclass(frozen=True, repr=False)
class Linked:
    """Matched rows: entry i is a pair with entry i at the peer, and its order depends on no input order.

    rows: (k,) int64, our rows; with "expand" a row may occur more than once.  key: (k,) uint8, the key that each pair was
    found by.  item: (k,) int64, the matched item that it was found by, the same number at both.  people: distinct rows among
    them, at the side that has fewer.  digest: a hash of the pairs, the same at both; empty if they are the matched items as
    they came.
    """

    rows: Array
    key: Array
    item: Array
    people: int
    digest: bytes = b""


def key_tag(number: int) -> bytes:
    """What stands in front of every item of a key: its number in a byte, 0 for the best one."""
    if not 0 <= number < MAX_KEYS:
        raise ValueError(f"a job has at most {MAX_KEYS} keys, numbered from 0, got number {number}")
    return bytes([number])


def pool(batches: Sequence[Items], rules: Sequence[str], duplicates: str) -> Collected:
    """Bring the items of all keys together and settle what happens to rows that share one.

    batches: made with `key_tag` in front; their rows count through the whole input.  rules: of each key, for messages.
    duplicates: "refuse" raises if an item has several rows, "first" keeps the lowest, "expand" keeps all.
    Raises: DuplicateIdentifiersError, which names a number of rows and a rule; ValueError for other arguments.
    """
    _check_treatment(duplicates)
    place = dict[bytes, int]()
    parts = [np.empty((0, 2), np.int64)]
    for batch in batches:
        where = [place.setdefault(item, len(place)) for item in batch.items()]
        parts.append(np.column_stack([np.array(where, np.int64), batch.rows]))
    items = list(place)
    key = np.fromiter((item[0] for item in items), np.uint8, len(items))
    if np.any(key >= len(rules)):
        raise ValueError("an item starts with the number of a key that the job does not have")
    entries = np.unique(np.concatenate(parts), axis=0)  # in a row that has an item twice it counts once
    first = np.ones(len(entries), np.bool_)
    first[1:] = entries[1:, 0] != entries[:-1, 0]
    repeated = Counter(key[entries[~first, 0]].tolist())
    if duplicates == "refuse" and repeated:
        worst = min(repeated)
        raise DuplicateIdentifiersError(repeated[worst], rules[worst])
    left_out = tuple(repeated[k] if duplicates == "first" else 0 for k in range(len(rules)))
    if duplicates == "first":
        entries = entries[first]
    return Collected(items, _starts(np.bincount(entries[:, 0], minlength=len(items))), entries[:, 1].copy(), left_out)


def link(matched: Matched, duplicates: str, peer: str, channel: Channel, minimum: int, leader: bool) -> Linked:
    """Find which row of ours is a pair with which row of the peer, from the items that matched.

    matched: after an intersection with the same peer.  duplicates: the job's rule.  "refuse" and "first" give every item one
    row at each side, and every row at most one partner.  "expand" pairs all rows that share an item.  Either way a row that a
    key has paired is left out for the keys after it.  minimum: the fewest people we accept; give the same one to the
    intersection.  leader: true at exactly one of the two sides.

    Reveals: to both, which matched items are of one row at the other side; with "expand" also how many rows the other side has
    behind each.  The intersection has revealed which items of every key matched, and not only which people.
    Cost: none for one key without "expand".  Otherwise 2 rounds in which each side sends 4 m + 17 bytes for m matched items;
    with "expand" 3 rounds and 4 m + 4 n + 17 bytes for n rows behind them.  No triples.
    Security: semi-honest.  What a side sends follows from what it reveals: labels are numbered by their first occurrence, and
    those that occur together in a random order, so they say nothing of the order of rows.  A side that lies about its labels
    pairs its own rows wrongly and learns no more.
    Source: deterministic linkage in rounds of weaker keys is classical (Gomatam et al., Statistics in Medicine 2002); labels by
    first occurrence are restricted growth strings (Knuth, The Art of Computer Programming 4A, 7.2.1.5).
    Raises: LocalProtocolError for unusable arguments; RemoteProtocolError if the peer lists too many rows, labels that are
    numbered in another way, other pairs than ours, or our own role; Refused, at both sides, if either finds fewer people than
    its minimum or the pairs are more than MAX_PAIRS.
    """
    _check(matched, duplicates, minimum)
    order = np.argsort(matched.key, kind="stable")
    key = matched.key[order]
    if matched.n_keys == 1 and duplicates != "expand":
        if len(key) < minimum:
            raise Refused(f"fewer matches with {peer} than our own minimum of {minimum}")
        return Linked(matched.rows.copy(), key, order.astype(np.int64), len(key))
    own = _own_labels(matched, order)
    other = _exchange(own, duplicates == "expand", peer, channel)
    sides = (own, other) if leader else (other, own)
    pairs = _expanded(key, *sides) if duplicates == "expand" else _one_to_one(*sides)
    digest = _vote(key, pairs, minimum, leader, peer, channel)
    rows = own.row_of[pairs.labels[0 if leader else 1]]
    return Linked(rows, key[pairs.item], order[pairs.item].astype(np.int64), pairs.people, digest)


@dataclass(frozen=True)
class _Labels:
    """One side's rows behind the matched items, as numbers: ascending within an item, new ones in steps of one.

    row_of: what a label stands for; empty if the labels are the peer's.
    """

    counts: Array
    labels: Array
    row_of: Array

    @property
    def items(self) -> Array:
        """The item of each label."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def n(self) -> int:
        return int(self.labels.max(initial=-1)) + 1


@dataclass(frozen=True)
class _Pairs:
    """Pairs in their order: the item each was found by, and the labels of the leader and of the other side."""

    item: Array
    labels: tuple[Array, Array]

    @property
    def people(self) -> int:
        return min(int(np.count_nonzero(np.bincount(side))) for side in self.labels)


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _check_treatment(duplicates: str) -> None:
    if duplicates not in DUPLICATES:
        raise ValueError(f"unknown treatment of duplicates '{duplicates}': expected {' or '.join(DUPLICATES)}")


def _check(matched: Matched, duplicates: str, minimum: int) -> None:
    _check_treatment(duplicates)
    counts = np.diff(matched.offsets)
    if len(counts) != len(matched.key) or len(matched.rows) != matched.offsets[-1] or np.any(counts < 1):
        raise LocalProtocolError("every matched item has a key and at least one row of ours")
    if not 1 <= matched.n_keys <= MAX_KEYS or np.any(matched.key >= matched.n_keys):
        raise LocalProtocolError(f"a job has 1 to {MAX_KEYS} keys, and every matched item is of one of them")
    if duplicates != "expand" and np.any(counts > 1):
        raise LocalProtocolError(f"with duplicates '{duplicates}' a matched item has one row")
    if len(matched.rows) > MAX_LISTED:
        raise LocalProtocolError(f"at most {MAX_LISTED} rows may be behind the matched items, got {len(matched.rows)}")
    if minimum < 0:
        raise LocalProtocolError(f"the minimum number of matches is not negative, got {minimum}")


def _own_labels(matched: Matched, order: Array) -> _Labels:
    counts = np.diff(matched.offsets)[order]
    stretch = np.repeat(matched.offsets[order] - _starts(counts)[:-1], counts) + np.arange(len(matched.rows))
    item = np.repeat(np.arange(len(counts)), counts)
    distinct, first, inverse = np.unique(matched.rows[stretch], return_index=True, return_inverse=True)
    shared = len(item) > len(counts)
    # Rows that occur first in the same item are in a random order: any other one could follow from their order here.
    by_label = np.lexsort((fresh_prg().words(len(first)), item[first])) if shared else np.argsort(first)
    label_of = np.empty(len(distinct), np.int64)
    label_of[by_label] = np.arange(len(distinct))
    labels = label_of[inverse]
    if shared:
        labels = np.sort(item * len(distinct) + labels) % len(distinct)
    return _Labels(counts, labels, distinct[by_label])


def _exchange(own: _Labels, expand: bool, peer: str, channel: Channel) -> _Labels:
    """Send our labels and return the peer's."""
    n_items = len(own.counts)
    counts = np.ones(n_items, np.int64)
    if expand:
        send_words(channel, peer, _COUNTS, own.counts.astype(np.uint32))
        counts = recv_words(channel, peer, _COUNTS, (n_items,), np.uint32).astype(np.int64)
        if np.any(counts < 1) or counts.sum() > MAX_LISTED:
            raise RemoteProtocolError(peer, _COUNTS, f"expected 1 row or more for every item and {MAX_LISTED} at most")
        n_pairs = int(own.counts @ counts)
        if n_pairs > MAX_PAIRS:
            raise Refused(f"the identifiers shared with {peer} make more than {MAX_PAIRS} pairs of rows")
    send_words(channel, peer, _ROWS, own.labels.astype(np.uint32))
    labels = recv_words(channel, peer, _ROWS, (int(counts.sum()),), np.uint32).astype(np.int64)
    highest = np.concatenate([[-1], np.maximum.accumulate(labels)])[:-1]
    other = _Labels(counts, labels, np.empty(0, np.int64))
    item = other.items
    if np.any(labels > highest + 1) or np.any((item[1:] == item[:-1]) & (labels[1:] <= labels[:-1])):
        raise RemoteProtocolError(peer, _ROWS, "rows numbered in another way than by their first occurrence")
    return other


def _one_to_one(first: _Labels, second: _Labels) -> _Pairs:
    """In the order of the items, pair the two rows if neither has a partner yet."""
    taken = bytearray(first.n), bytearray(second.n)
    kept: list[int] = []
    for at in range(0, len(first.labels), _CHUNK):
        stretch = slice(at, at + _CHUNK)
        for i, (a, b) in enumerate(
            zip(first.labels[stretch].tolist(), second.labels[stretch].tolist(), strict=True), at
        ):
            if not (taken[0][a] or taken[1][b]):
                taken[0][a] = taken[1][b] = 1
                kept.append(i)
    item = np.array(kept, np.int64)
    return _Pairs(item, (first.labels[item], second.labels[item]))


def _expanded(key: Array, first: _Labels, second: _Labels) -> _Pairs:
    """Key by key, pair all rows behind an item that no better key has paired."""
    sides = (first, second)
    taken = np.zeros(first.n, np.bool_), np.zeros(second.n, np.bool_)
    items, ends = (first.items, second.items), (_starts(first.counts), _starts(second.counts))
    found = [_Pairs(np.empty(0, np.int64), (np.empty(0, np.int64), np.empty(0, np.int64)))]
    for k in np.unique(key).tolist():
        low, high = np.searchsorted(key, [k, k + 1])
        labels, item = [], []
        for s in (0, 1):
            stretch = slice(ends[s][low], ends[s][high])
            free = ~taken[s][sides[s].labels[stretch]]
            labels.append(sides[s].labels[stretch][free])
            item.append(items[s][stretch][free] - low)
        pairs = _product(item, labels, int(high - low))
        if all(np.bincount(one).max(initial=0) > 1 for one in labels):
            # Two items of one key can be of the same two rows, where a key has several lists of columns.
            _, once = np.unique(pairs.labels[0] * second.n + pairs.labels[1], return_index=True)
            once.sort()
            pairs = _Pairs(pairs.item[once], (pairs.labels[0][once], pairs.labels[1][once]))
        for s in (0, 1):
            taken[s][pairs.labels[s]] = True
        found.append(_Pairs(pairs.item + low, pairs.labels))
    joined = (np.concatenate([pairs.labels[s] for pairs in found]) for s in (0, 1))
    return _Pairs(np.concatenate([pairs.item for pairs in found]), (next(joined), next(joined)))


def _product(item: Sequence[Array], labels: Sequence[Array], n_items: int) -> _Pairs:
    """All pairs of a first and a second label of one item, in the order of items, first and second labels."""
    counts = [np.bincount(one, minlength=n_items) for one in item]
    starts = [_starts(one) for one in counts]
    n_pairs = counts[0] * counts[1]
    of = np.repeat(np.arange(n_items), n_pairs)
    place = np.arange(len(of)) - np.repeat(_starts(n_pairs)[:-1], n_pairs)
    a, b = place // counts[1][of], place % counts[1][of]
    return _Pairs(of, (labels[0][starts[0][of] + a], labels[1][starts[1][of] + b]))


def _vote(key: Array, pairs: _Pairs, minimum: int, leader: bool, peer: str, channel: Channel) -> bytes:
    """Tell each other whether to go on, with a hash that shows that both have the same pairs; returns it."""
    digest = hashlib.sha256(_DOMAIN)
    for part in (key[pairs.item], pairs.item.astype(np.uint32), *(side.astype(np.uint32) for side in pairs.labels)):
        digest.update(part.tobytes())
    expected, enough = digest.digest()[:DIGEST_BYTES], pairs.people >= minimum
    channel.send(peer, _VOTE, Kind.BYTES, bytes([_OK * enough | _LEADS * leader]) + expected)
    answer = bytes(channel.recv(peer, _VOTE, Kind.BYTES, exact=1 + DIGEST_BYTES))
    if answer[0] & ~(_OK | _LEADS):
        raise RemoteProtocolError(peer, _VOTE, "neither yes nor no")
    if bool(answer[0] & _LEADS) == leader:
        raise RemoteProtocolError(peer, _VOTE, f"expected leader={int(not leader)}, got {int(leader)}")
    if answer[1:] != expected:
        raise RemoteProtocolError(peer, _VOTE, "other pairs than we found")
    if not enough:
        raise Refused(f"fewer matches with {peer} than our own minimum of {minimum}")
    if not answer[0] & _OK:
        raise Refused(f"fewer matches than the minimum set by {peer}")
    return expected
