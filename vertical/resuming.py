"""A training that goes on after a crash: what an owner keeps of it, stage by stage, and when it needs nobody any more.

    rows       our matched rows, once they are found: matching is not repeated, and tells nobody anything twice
    training   the states of the model, as the model keeps them (vertical.checkpoints)
    result     what is released to us
    agreed     that all owners have their results, of one attempt

No two owners release results of different attempts.  An owner writes its result down, then tells the others, and notes it
when all have told it the same.  Who has noted it takes part in no later attempt, and without it there is none; so from
then on everybody's result on disk stays what it is.  Who has a result and sees the signed release of another owner is as
far, because nobody releases before it has noted that all have theirs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc.correlations import Usage
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.supply import supply
from mpc.wire import Kind
from vertical.align import Aligned
from vertical.checkpoints import Checkpoints, Group, State, Store, decode, expect

ROWS, TRAINING, RESULT, AGREED = "rows", "training", "result", "agreed"
QUICK = frozenset({"vertical.glm"})
"""Kinds of models whose steps are so short that writing after each would take as long."""
RESULT_PIECE = f"{RESULT}.{1:08d}"
"""The result's name in the store."""
_DIGEST_BYTES = 32
_KEPT = "resuming/kept"


@dataclass(frozen=True)
class Finished:
    """What a training comes to at one owner: what is released to it, and the correlated randomness it took, per kind."""

    result: dict[str, Any]
    used: Mapping[str, Usage]


@dataclass
class Keep:
    """What one owner keeps of one training.

    store: where.  job: a hash of all that the training depends on, the owners' consents among it.  resumed: told the step of
    the model that is gone on from.
    """

    store: Store
    job: bytes
    resumed: Callable[[int], None] = lambda _step: None
    _origin: bytes = field(default=b"", repr=False)
    _results: Checkpoints | None = field(default=None, repr=False)

    def aligned(self, owners: Group, find: Callable[[], Aligned]) -> Aligned:
        """Our matched rows: those that all owners have kept of one attempt, or what `find` finds now.

        Reveals: as `vertical.checkpoints.Checkpoints.restore`, and as `find`.
        Cost: as `vertical.checkpoints.Checkpoints.restore`, and as `find` if there is nothing kept.
        Security: semi-honest owners.
        Source: vertical.checkpoints.
        Raises: LocalProtocolError, RemoteProtocolError; what `find` raises.
        """
        kept = Checkpoints(self.store, ROWS, self.job)
        found = kept.restore(owners)
        if found is not None:
            aligned = _rows_of(found[1])
        else:
            aligned = find()
            kept.save(1, _state_of(aligned))
        self._origin = kept.origin
        return aligned

    def checkpoints(self, every: int = 1, stage: str = TRAINING) -> Checkpoints:
        """The states of a model, which belong to the rows that were found before.

        every: how many steps may be lost.  stage: a name of its own for each model, where a job trains several.
        """
        if not self._origin:
            raise LocalProtocolError("the rows come before the states of a model on them")
        return Checkpoints(self.store, stage, self.job + self._origin, every=every, resumed=self.resumed)

    def finished(self, owners: Group) -> Finished | None:
        """Our result, if all owners have theirs of one attempt.

        Reveals: as `vertical.checkpoints.Checkpoints.restore`.
        Cost: as `vertical.checkpoints.Checkpoints.restore`.
        Security: semi-honest owners.
        Source: vertical.checkpoints.
        Raises: LocalProtocolError, RemoteProtocolError.
        """
        self._results = Checkpoints(self.store, RESULT, self.job)
        found = self._results.restore(owners)
        return None if found is None else _finished_of(found[1])

    def finish(self, owners: Group, done: Finished) -> None:
        """Keep our result and wait until all have theirs; afterwards nobody is needed any more.

        It comes before the source of randomness is closed, because until then the computation may have to be repeated.

        Reveals: nothing but that the others have come to the end, too.
        Cost: one round of 32 bytes to each other owner.
        Security: semi-honest owners.
        Source: the module's argument.
        Raises: RemoteProtocolError naming an owner whose result is of another attempt.
        """
        if self._results is None:
            raise LocalProtocolError("'finished' is asked before there is anything to finish")
        if self.store.get(RESULT_PIECE) is None:
            self._results.save(1, {"result": _packed(done)})
        own = self._own_result()
        if own is None:
            raise LocalProtocolError("a result that was kept is gone")
        peers = [name for i, name in enumerate(owners.parties) if i != owners.me]
        for peer in peers:
            owners.channel.send(peer, _KEPT, Kind.BYTES, own[1])
        for peer in peers:
            if not hmac.compare_digest(owners.channel.recv(peer, _KEPT, Kind.BYTES, exact=_DIGEST_BYTES), own[1]):
                raise RemoteProtocolError(peer, _KEPT, "it has the result of another attempt than we have")
        self.store.put(AGREED, own[1])

    def alone(self) -> Finished:
        """Our result, without anybody: our node knows that all have theirs.

        Raises: LocalProtocolError if there is none, or it is not of the attempt that all have agreed on.
        """
        own, agreed = self._own_result(), self.store.get(AGREED)
        if own is None or (agreed is not None and not hmac.compare_digest(agreed, own[1])):
            raise LocalProtocolError(
                "the result that was kept is not the one that all owners have; begin this job anew"
            )
        return own[0]

    def _own_result(self) -> tuple[Finished, bytes] | None:
        """What is kept as our result, and the hash of what all owners have alike of it."""
        body = self.store.get(RESULT_PIECE)
        if body is None:
            return None
        kept = decode(body)
        return _finished_of(kept.state), bytes.fromhex(kept.digest)


def earlier(keep: Keep, owners: Group, randomness: str, dealer: str | None) -> Finished | None:
    """Our result if all owners came to the end of an earlier attempt; None if there is still something to do.

    The owners tell each other again that they have their results.  A dealer is waiting for its end, too: it is told.
    randomness, dealer: as `mpc.supply.supply` takes them.

    Reveals: as `vertical.checkpoints.Checkpoints.restore`.
    Cost: as `vertical.checkpoints.Checkpoints.restore`; if there is a result, the start of the source and one round.
    Security: semi-honest owners.
    Source: the module's argument.
    Raises: LocalProtocolError, RemoteProtocolError.
    """
    before = keep.finished(owners)
    if before is not None:
        correlations = supply(randomness, owners.channel, owners.parties, dealer, owners.me)
        keep.finish(owners, before)
        correlations.close()
    return before


def _packed(done: Finished) -> Any:
    used = {kind: [usage.count, usage.words] for kind, usage in done.used.items()}
    text = json.dumps({"result": done.result, "used": used}, sort_keys=True, allow_nan=False)
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _finished_of(state: State) -> Finished:
    if "result" not in state:
        raise LocalProtocolError("a kept result is damaged")
    document = json.loads(state["result"].tobytes())
    return Finished(document["result"], {kind: Usage(*usage) for kind, usage in document["used"].items()})


def _state_of(aligned: Aligned) -> State:
    items = aligned.items or []
    ends = np.cumsum([0, *map(len, items)], dtype=np.int64)
    return {
        "rows": np.asarray(aligned.rows, dtype=np.int64),
        "key": aligned.key,
        "duplicates": np.array(aligned.duplicates, dtype=np.int64),
        "ends": ends,
        "items": np.frombuffer(b"".join(items), dtype=np.uint8),
        "named": np.array(aligned.items is not None),
    }


def _rows_of(state: State) -> Aligned:
    n = len(state["rows"]) if "rows" in state else 0
    named = bool(expect(state, "named", (), np.bool_))
    ends = expect(state, "ends", (n + 1 if named else 1,), np.int64)
    raw = expect(state, "items", (int(ends[-1]),), np.uint8).tobytes()
    items = [raw[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)] if named else None
    rows, key = expect(state, "rows", (n,), np.int64), expect(state, "key", (n,), np.uint8)
    return Aligned(rows, key, items, tuple(state["duplicates"].tolist()))


def spare_steps(kind: str, n_rows: int) -> int:
    """How many steps of a kind of model may be lost: a tree or an epoch, or passes that take half a second together."""
    return max(1, 1_000_000 // max(1, n_rows)) if kind in QUICK else 1


def job_plan(*parts: bytes) -> bytes:
    """A hash of what a training depends on: each part counts with its length."""
    digest = hashlib.sha256(b"accord-training-plan-1")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
