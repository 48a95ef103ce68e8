"""What an owner keeps of a long computation, so that all of them can go on together after a crash.

A state is what one owner needs after a step: arrays of 64-bit unsigned words are its additive shares, arrays of any other
type are its own plain data.  Where states lie is the caller's business (`Store`).

States of two attempts never mix.  Each attempt has an identity, a hash over a fresh nonce of every owner, and every state
bears the identity of the attempt that wrote it.  Owners go on from a step only if all of them have it from one attempt: an
owner that died before it wrote its state, and then wrote another one of the same step in the next attempt, would otherwise
hold shares that add up to nothing.

A step that is gone on from is shared anew before it is used, so that nothing sent in the new attempt is a message of the
old one again.  What masks the openings is never kept: every attempt has correlations of its own, from fresh keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.rng import Prg, derive_key, fresh_key
from mpc.wire import recv_json, send_json

Array = npt.NDArray[Any]
State = dict[str, Array]

KEPT = 2
"""States kept at once: owners are never further apart than one."""
MAX_STEP = 99_999_999
SHARES = np.dtype(np.uint64)
_AGREE = "checkpoint/agree"
_MAGIC = b"accord-state-1\n\0"
_MAX_HEADER, _MAX_AGREE = 1 << 16, 1 << 12
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_DTYPES = {
    np.dtype(kind).str: np.dtype(kind) for kind in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
}
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Store(Protocol):
    """Named pieces of bytes that outlive the process; each is written as a whole or not at all."""

    def put(self, name: str, body: bytes) -> None:
        """Keep `body`, in place of an earlier one; when this returns it outlives a crash."""

    def get(self, name: str) -> bytes | None:
        """What was kept, or None.  Raises: if it is not what was kept."""

    def names(self) -> list[str]:
        """What there is."""

    def drop(self, name: str) -> None:
        """Forget a piece, if there is one."""


class Group(Protocol):
    """Who computes together; an `mpc.session.Session` is one."""

    @property
    def channel(self) -> Channel:
        """To the others."""

    @property
    def parties(self) -> tuple[str, ...]:
        """All of them, in the order all agreed on."""

    @property
    def me(self) -> int:
        """Our place among them."""


@dataclass(frozen=True)
class Owners:
    """A `Group` before there is a session."""

    channel: Channel
    parties: tuple[str, ...]
    me: int


@dataclass(frozen=True)
class Kept:
    """A state as it is kept.  plan, attempt: hex digests of what it belongs to."""

    plan: str
    attempt: str
    step: int
    state: State

    @property
    def digest(self) -> str:
        """A hash of what all owners have alike: all of it but the contents, and whatever is an owner's own."""
        shared = [[name, list(array.shape)] for name, array in sorted(self.state.items()) if array.dtype == SHARES]
        return hashlib.sha256(_json(["accord-checkpoint-1", self.plan, self.attempt, self.step, shared])).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def _head(kept: Kept) -> bytes:
    """What a kept state says of itself.  Raises: LocalProtocolError for what a state cannot have."""
    if not 0 <= kept.step <= MAX_STEP or not kept.state:
        raise LocalProtocolError(f"a state has a step from 0 to {MAX_STEP} and at least one array")
    arrays = []
    for name, array in sorted(kept.state.items()):
        kind = np.dtype(array.dtype).str
        if _NAME.fullmatch(name) is None or kind not in _DTYPES:
            raise LocalProtocolError(f"a state cannot have an array '{name[:64]}' of type {array.dtype}")
        arrays.append([name, kind, list(array.shape)])
    head = _json({"plan": kept.plan, "attempt": kept.attempt, "step": kept.step, "arrays": arrays})
    if len(head) > _MAX_HEADER:
        raise LocalProtocolError("a state has too many arrays")
    return head


def encode(kept: Kept) -> bytes:
    """The one way to write a state: a head in JSON that names every array with its type and shape, then their bytes.

    Raises: LocalProtocolError for a name, a type or a step that a state cannot have.
    """
    head = _head(kept)
    bodies = [np.ascontiguousarray(array).tobytes() for _, array in sorted(kept.state.items())]
    return b"".join([_MAGIC, len(head).to_bytes(4, "little"), head, *bodies])


def decode(body: bytes) -> Kept:
    """The state that `encode` wrote.

    Raises: LocalProtocolError for anything else.
    """
    try:
        kept = _decode(memoryview(body))
    except (LocalProtocolError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise LocalProtocolError("a kept state is damaged or of another version") from exc
    return kept


def _decode(body: memoryview) -> Kept:
    start = len(_MAGIC) + 4
    size = int.from_bytes(body[len(_MAGIC) : start], "little")
    if body[: len(_MAGIC)] != _MAGIC or size > _MAX_HEADER or len(body) < start + size:
        raise ValueError("no head")
    raw = bytes(body[start : start + size])
    head = json.loads(raw)
    plan, made_by = head["plan"], head["attempt"]
    if any(_DIGEST.fullmatch(text) is None for text in (plan, made_by)) or type(head["step"]) is not int:
        raise ValueError("not what a head says")
    state, at = State(), start + size
    for name, kind, shape in head["arrays"]:
        if _NAME.fullmatch(name) is None or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("no array is called or shaped so")
        dtype, n = _DTYPES[kind], 1
        for length in shape:
            n *= length
        if at + n * dtype.itemsize > len(body):
            raise ValueError("cut short")
        state[name] = np.frombuffer(body, dtype, n, at).reshape(shape).copy() if n else np.empty(shape, dtype)
        at += n * dtype.itemsize
    kept = Kept(plan, made_by, head["step"], state)
    if at != len(body) or _head(kept) != raw:
        raise ValueError("written in another way")
    return kept


def expect(state: Mapping[str, Array], name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint64) -> Array:
    """One array of a restored state, which must be as the caller says.

    Raises: LocalProtocolError if it is missing or of another type or shape.
    """
    found = state.get(name)
    if found is None or found.shape != shape or found.dtype != np.dtype(dtype):
        got = "nothing" if found is None else f"{found.dtype} {found.shape}"
        raise LocalProtocolError(f"a kept state must have '{name}' as {np.dtype(dtype)} {shape}, got {got}")
    return found


class Checkpoints:
    """The states of one computation at one owner.

    stage: what the computation is called in the store.  plan: a hash of everything that it depends on; states of another
    plan are refused.  every: a state is written once in so many steps, by their number, so that all owners write the same
    ones.  resumed: told the step that is gone on from.
    """

    def __init__(
        self,
        store: Store,
        stage: str,
        plan: bytes,
        *,
        every: int = 1,
        resumed: Callable[[int], None] = lambda _step: None,
    ) -> None:
        if every < 1 or _NAME.fullmatch(stage) is None:
            raise LocalProtocolError(f"a stage has a plain name and keeps every 1st step or fewer, got {every}")
        self._store, self._stage, self._every, self._resumed = store, stage, every, resumed
        self._plan = hashlib.sha256(b"accord-checkpoint-plan-1" + stage.encode() + b"\n" + plan).hexdigest()
        self._attempt = ""
        self._written = self._seen = 0
        self._found: Kept | None = None

    @property
    def origin(self) -> bytes:
        """Which attempt the state is of that was gone on from, or this one if there was none; later states belong to it."""
        return bytes.fromhex(self._attempt if self._found is None else self._found.attempt)

    def restore(self, session: Group) -> tuple[int, State] | None:
        """The last step that all owners have of one attempt, and our state after it; None if there is no such step.

        All owners call this once, before the computation.  Everything else that was kept is dropped.

        Reveals: to the other owners, which of the last steps we have; nothing of a state.
        Cost: one round of less than 1 KiB to each other owner.
        Security: semi-honest owners.  The new shares of a state are the old ones plus a pseudorandom sharing of zero under
            fresh keys, one for each ordered pair of owners.
        Source: Cramer, Damgard, Ishai, TCC 2005 (pseudorandom sharing of zero).
        Raises: RemoteProtocolError naming an owner whose computation is another one; LocalProtocolError if a state of ours
            is damaged or belongs to another computation.
        """
        own = self._own()
        peers = [name for i, name in enumerate(session.parties) if i != session.me]
        nonce, seeds = fresh_key().hex(), {peer: fresh_key() for peer in peers}
        kept = sorted((step, state.digest) for step, state in own.items())
        for peer in peers:
            message = {"plan": self._plan, "nonce": nonce, "seed": seeds[peer].hex(), "kept": kept}
            send_json(session.channel, peer, _AGREE, message)
        heard = {peer: self._heard(peer, recv_json(session.channel, peer, _AGREE, _MAX_AGREE)) for peer in peers}
        nonces = [nonce if i == session.me else heard[name]["nonce"] for i, name in enumerate(session.parties)]
        self._attempt = hashlib.sha256(_json(["accord-attempt-1", self._plan, nonces])).hexdigest()
        common = [step for step, digest in kept if all([step, digest] in said["kept"] for said in heard.values())]
        for step in own:
            if not common or step != common[-1]:
                self._store.drop(self._place(step))
        if not common:
            return None
        self._found = own[common[-1]]
        self._written = self._seen = common[-1]
        self._resumed(common[-1])
        pairs = [(seeds[peer], bytes.fromhex(heard[peer]["seed"])) for peer in peers]
        return common[-1], {name: _shared_anew(name, array, pairs) for name, array in self._found.state.items()}

    def save(self, step: int, state: Mapping[str, Array]) -> None:
        """Note that a step is done and what our state is after it; it is written down if it is time to.

        step: greater than the one before.  state: everything that is needed to go on, as the module says.
        Raises: LocalProtocolError if it is not a state, or before `restore`.
        """
        if not self._attempt or step <= self._seen:
            raise LocalProtocolError(
                f"states are kept after 'restore' and in order, not step {step} after {self._seen}"
            )
        self._seen = step
        if step - self._written < self._every:
            return
        self._written = step
        self._store.put(self._place(step), encode(Kept(self._plan, self._attempt, step, dict(state))))
        for old in self._steps()[:-KEPT]:
            self._store.drop(self._place(old))

    def _place(self, step: int) -> str:
        return f"{self._stage}.{step:08d}"

    def _steps(self) -> list[int]:
        parts = [name.rpartition(".") for name in self._store.names()]
        return sorted(int(step) for stage, _, step in parts if stage == self._stage and step.isdecimal())

    def _own(self) -> dict[int, Kept]:
        """What we have, by step."""
        found = {}
        for step in self._steps():
            body = self._store.get(self._place(step))
            if body is None:
                continue
            kept = decode(body)
            if (kept.plan, kept.step) != (self._plan, step):
                raise LocalProtocolError(f"what is kept of step {step} belongs to another computation")
            found[step] = kept
        return found

    def _heard(self, peer: str, said: Any) -> dict[str, Any]:
        """What a peer says that it has, checked."""
        texts = ("plan", "nonce", "seed")
        good = isinstance(said, dict) and said.keys() == {*texts, "kept"}
        good = good and all(type(said[key]) is str and _DIGEST.fullmatch(said[key]) for key in texts)
        if not isinstance(said, dict) or not good or type(said["kept"]) is not list or len(said["kept"]) > 2 * KEPT:
            raise RemoteProtocolError(peer, _AGREE, "not a list of the steps that it has")
        if said["plan"] != self._plan:
            raise RemoteProtocolError(peer, _AGREE, "it goes on with another computation than ours")
        return said


def _shared_anew(name: str, array: Array, pairs: list[tuple[bytes, bytes]]) -> Array:
    """Our new share.  pairs: for each other owner, the key that it has from us and the one that we have from it."""
    if array.dtype != SHARES:
        return array
    for ours, theirs in pairs:
        given, taken = (Prg(derive_key(key, f"checkpoint/{name}")).words(array.shape) for key in (ours, theirs))
        np.subtract(np.add(array, given, out=given), taken, out=taken)
        array = taken
    return array
