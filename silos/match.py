"""The job kind "vertical.match" at one owner: which of its rows are about people that the other owners have too.

The owner gets a Parquet file of its own matched rows.  Row i of it is about the same person as row i of every other owner's
file, and says so by its number in "_match".
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Usage
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.wire import Kind
from silos.extracts import take_rows
from silos.inputs import read_identifiers
from silos.leftovers import ALL_KEPT, MATCHING_FOLDER, OWN_KEPT, TABLE
from silos.links import LinkChannel
from silos.points import Points, gather
from silos.spec import Match
from silos.tasks import Done, Task
from vertical.align import Aligned, Identifiers, Intersect, Terms, align, counts
from vertical.linkage import link

Found = tuple[Aligned, LinkChannel, Mapping[str, Usage]]
Rows = npt.NDArray[np.int64]
_KEPT = "match/kept"
_DIGEST_BYTES = 32


def match(task: Task) -> Done:
    """Match our rows, and write the table of those that matched.

    Reveals: as the matching and, with several keys or "expand", `vertical.linkage` declare.
    Raises: what `silos.tasks.perform` raises.
    """
    task.progress("read", 0, 1)
    own = Identifiers(task.keys)
    if not isinstance(task.spec, Match):
        raise LocalProtocolError("not a job that matches rows")
    found, channel, used = (_in_buckets if task.spec.in_buckets else _in_memory)(task, own)
    result: dict[str, Any] = {}
    if "counts" in task.spec.release:
        result["counts"] = counts(own, found)
    if "rows" in task.spec.release:
        result["table"] = _write_table(task, task.spec, found)
    return Done(channel, result, task.spec.release, used)


def _in_memory(task: Task, own: Identifiers) -> Found:
    batches = [items for batch in read_identifiers(task.data, task.party.keys, own, task.folder) for items in batch]
    task.check_unchanged()
    channel = task.connect()
    progress = functools.partial(task.progress, "match")
    found = align(task.terms, batches, task.session, channel, progress, _intersect(task))
    return found, channel, {}


def _intersect(task: Task) -> Intersect | None:
    """What takes the place of the protocol if tokens are kept."""
    if not isinstance(task.spec, Match) or not task.spec.keep_tokens:
        return None
    from silos.kept_tokens import KeptTokens

    return KeptTokens(task.tokens, task.spec).intersect


def _in_buckets(task: Task, own: Identifiers) -> Found:
    terms = task.terms
    read = read_identifiers(task.data, task.party.keys, own, task.folder)
    points = gather(task.folder / MATCHING_FOLDER, own, read, task.session, task.rows, terms.duplicates)
    task.check_unchanged()
    channel = task.connect()
    used: Mapping[str, Usage] = {}
    if isinstance(task.spec, Match) and task.spec.count_first:
        from vertical.measure import gate

        supplied = (task.spec.randomness or "", task.spec.dealer)
        used = gate(terms, supplied, points.bucket(0, 0), task.session + b"gate", channel)
    kept = _agreed_rows(task, points, channel, linked=bool(channel.bytes_sent))
    points.close()
    left_out = points.known.duplicates if terms.duplicates == "first" else (0,) * len(own.keys)
    return Aligned(kept[:, 0].copy(), kept[:, 1].astype(np.uint8), None, left_out), channel, used


def _agreed_rows(task: Task, points: Points, channel: Channel, *, linked: bool) -> Rows:
    """(k, 2): each of our matched rows, and the number of the key that it matched by, in the order that the peer has, too.

    linked: whether there is a link to the peer.  There is none if our node knows that the peer has its rows.

    With "expand" an attempt may have another order than the one before, and whoever carries our messages can end an attempt
    between any two of them.  Still no two owners release orders of different attempts:

    1.  In an attempt an owner first has its rows on disk, then tells the peer the hash of their order, and writes down the
        hash that it hears if it is its own.
    2.  Who has written that down takes part in no later attempt: its node opens no links, and its worker does not use them.
    3.  Who releases first has written it down, so the peer has its rows of the same attempt on disk; and by 2 they stay what
        they are, because there is no attempt without both.  The peer releases them when it has heard the hash itself, or when
        its node has seen the first one's signed release.

    Raises: LocalProtocolError if what is on disk is of two attempts; RemoteProtocolError if the peer has another order.
    """
    kept, heard = points.load(0, OWN_KEPT), points.load(0, ALL_KEPT)
    if kept is not None and heard is not None:
        if not hmac.compare_digest(kept[-2:].tobytes(), heard.tobytes()):
            raise LocalProtocolError(
                "the rows that were kept are not those that the other owner has; begin this job anew"
            )
    elif kept is None or linked:
        rows, order = _matched_rows(task, points, channel)
        digest = np.frombuffer(order, dtype=np.int64).reshape(2, 2)
        kept = np.concatenate([rows, digest])  # one file, so that a crash cannot part them
        points.save(0, OWN_KEPT, kept)
        _wait_until_kept(task.terms, channel, order)
        points.save(0, ALL_KEPT, digest)
    return kept[:-2]


def _matched_rows(task: Task, points: Points, channel: Channel) -> tuple[Rows, bytes]:
    """(k, 2): our matched rows, and the key of each; and a hash of their order.

    The hash is of the matched points, which are the same at both owners and in one order, and of how many rows came of them;
    where rows were linked, also of the pairs of labels.  The peer knows all of that already.
    """
    from mpc.matching import protocol

    terms, hasher = task.terms, hashlib.sha256(b"accord-match-order-v1" + task.session)
    found = protocol.match(
        points,
        terms.peer,
        task.session,
        channel,
        terms.minimum,
        terms.leads,
        lambda done, total: task.progress("match", done, total),
        security="malicious" if terms.protocol == "vole-psi-malicious" else "semi-honest",
    )
    matched = points.matched(found.bits, found, terms.duplicates, lambda words: hasher.update(words.data))
    linked = link(matched, terms.duplicates, terms.peer, channel, terms.minimum, terms.leads)
    hasher.update(len(linked.rows).to_bytes(8, "little") + linked.digest)
    return np.stack([linked.rows, linked.key.astype(np.int64)], axis=1), hasher.digest()


def _wait_until_kept(terms: Terms, channel: Channel, order: bytes) -> None:
    """Tell the peer in which order we have our rows on disk, and wait for the same.

    Whoever went before the other one has its rows could not help it any more after a crash.
    """
    channel.send(terms.peer, _KEPT, Kind.BYTES, order)
    if not hmac.compare_digest(channel.recv(terms.peer, _KEPT, Kind.BYTES, exact=_DIGEST_BYTES), order):
        raise RemoteProtocolError(terms.peer, _KEPT, "rows in another order than ours")


def _write_table(task: Task, spec: Match, found: Aligned) -> dict[str, Any]:
    """Write our matched rows with the columns that we asked for; returns how many, and the file's digest."""
    output = next(p.output for p in spec.parties if p.silo == task.me)
    extra: dict[str, npt.NDArray[Any]] = {"_match": np.arange(len(found.rows), dtype=np.int64), "_row": found.rows}
    if len(task.keys) > 1:
        extra["_key"] = found.key
    task.progress("write", 0, 1)
    rows, sha256 = take_rows(task.data, found.rows, output, task.folder / TABLE, extra, task.folder)
    task.progress("write", 1, 1)
    return {"rows": rows, "sha256": sha256}
