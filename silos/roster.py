"""Who speaks for which name, worked out from the log's signed entries and from nothing else.

    enrolled   a key takes a name: signed with that key, allowed by the coordinator's operator
    rotated    a silo's key gives way to another: signed with the old one, with a proof by the new one
    revoked    the operator says that a key speaks no longer: signed with the log's key

The fold is pure: entries in, a roster out.  The coordinator's own list of silos is only ever compared with it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator.enrol import rotation_message
from coordinator.envelope import EnvelopeError, Sealed, fingerprint, parse
from coordinator.errors import Malformed
from coordinator.note import VerifierKey
from coordinator.statements import COORDINATOR, Enrolled, Revoked, Rotated, read
from silos.config import Home
from silos.errors import ConfigError
from silos.times import from_text, to_text
from silos.validation import write_private

KEY_BYTES = 32


class RosterError(ValueError):
    """An entry about no job that cannot stand where it stands.  silo: whose name it is about, if that can be told."""

    def __init__(self, why: str, silo: str = "") -> None:
        super().__init__(why)
        self.silo = silo


@dataclass(frozen=True)
class Key:
    """An identity key as the log names it.  index: of the entry that did."""

    index: int
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return fingerprint(self.raw)


@dataclass(frozen=True)
class Member:
    """One name.  keys: from its last enrolment through every signed rotation; the last one speaks.

    seq, prev: of its latest statement about no job, and the digest of that statement's payload.
    """

    keys: tuple[Key, ...]
    seq: int
    prev: str
    revoked: bool = False

    @property
    def key(self) -> Key:
        """The one that speaks."""
        return self.keys[-1]


@dataclass(frozen=True)
class Roster:
    """What the first `size` entries of a log say about who is who.

    entries: index and envelope of all of those that are about no job.  seen: when the log was found to have this size.
    said: payload digests, so that an old enrolment cannot be played again.
    revocations: seq and prev of the coordinator's next statement.
    """

    size: int = 0
    seen: dt.datetime | None = None
    entries: tuple[tuple[int, bytes], ...] = ()
    silos: Mapping[str, Member] = field(default_factory=dict)
    said: frozenset[str] = frozenset()
    revocations: tuple[int, str] = (0, "")

    def grown(self, index: int, envelope: bytes, log_key: bytes) -> Roster:
        """The roster after one more entry about no job.

        log_key: the raw public key of the log.
        Raises: RosterError; then the coordinator let in what it must not let in, or made it up.
        """
        if index < self.size:
            raise RosterError(f"entry {index} comes after entry {self.size - 1}")
        try:
            sealed = parse(envelope)
        except EnvelopeError as exc:
            raise RosterError(f"entry {index}: {exc}") from exc
        said = sealed.statement
        step = _STEPS.get(said.event)
        if step is None or (said.job, said.spec_digest) != ("", ""):
            raise RosterError(f"entry {index}, '{said.event}', is not about the roster", said.silo)
        try:
            after = step(self, index, sealed, log_key)
        except (EnvelopeError, Malformed) as exc:
            raise RosterError(f"entry {index}: {exc}", said.silo) from exc
        return replace(
            after,
            size=index + 1,
            entries=(*self.entries, (index, envelope)),
            said=self.said | {sealed.payload_digest},
        )

    def followed(self, pins: Mapping[str, str]) -> dict[str, str]:
        """The pins, each carried on to the key that signed rotations lead to from the pinned one.

        pins: fingerprint by silo.  A pin that no chain starts from stays as it is.
        """
        return {silo: self._follow(silo, pin) for silo, pin in pins.items()}

    def _follow(self, silo: str, pin: str) -> str:
        member = self.silos.get(silo)
        if member is None or pin not in [key.fingerprint for key in member.keys]:
            return pin
        return member.key.fingerprint

    def difference(self, shown: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
        """The first silo of which the coordinator's list says something else than the log, and what; None if they agree.

        shown: silo and identity_key (base64) of every silo that may speak.
        """
        keys = {str(one["silo"]): str(one["identity_key"]) for one in shown}
        for silo in sorted({*keys, *self.silos}):
            member = self.silos.get(silo)
            if member is None:
                return silo, "its list names this silo, whose enrolment is not in its log"
            if silo not in keys:
                if not member.revoked:
                    return silo, "its list leaves this silo out"
                continue
            if member.revoked:
                return silo, "its list names this silo, which its log revokes"
            if keys[silo] != base64.b64encode(member.key.raw).decode():
                old = keys[silo] in [base64.b64encode(key.raw).decode() for key in member.keys]
                what = "a key that was rotated" if old else "a key that no signed entry of its log leads to"
                return silo, f"its list gives this silo {what}"
        return None


def _enrolled(roster: Roster, index: int, sealed: Sealed, _: bytes) -> Roster:
    said = sealed.statement
    key = _raw(read(Enrolled, said.body, "the body of 'enrolled'").identity_key)
    sealed.verify(key)
    if said.silo == COORDINATOR or (said.seq, said.prev) != (0, ""):
        raise RosterError(f"entry {index} is no first statement of a silo", said.silo)
    _check_holder(roster, index, said.silo, key)
    before = roster.silos.get(said.silo)
    if sealed.payload_digest in roster.said and (before is None or before.key.raw != key):
        raise RosterError(f"entry {index} repeats an enrolment of {said.silo} from before its present key", said.silo)
    member = Member((Key(index, key),), 0, sealed.payload_digest)
    return _with(roster, said.silo, member)


def _rotated(roster: Roster, index: int, sealed: Sealed, _: bytes) -> Roster:
    said = sealed.statement
    member = roster.silos.get(said.silo)
    if member is None or member.revoked:
        raise RosterError(f"entry {index} speaks for {said.silo}, which is not enrolled", said.silo)
    sealed.verify(member.key.raw)
    if (said.seq, said.prev) != (member.seq + 1, member.prev):
        raise RosterError(f"entry {index} does not follow on from what {said.silo} said before", said.silo)
    body = read(Rotated, said.body, "the body of 'rotated'")
    key = _raw(body.identity_key)
    _check_holder(roster, index, said.silo, key)
    try:
        proof = base64.b64decode(body.proof, validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(proof, rotation_message(said.silo, member.key.raw))
    except (InvalidSignature, ValueError) as exc:
        raise RosterError(f"entry {index} gives {said.silo} a key without a proof by that key", said.silo) from exc
    return _with(roster, said.silo, Member((*member.keys, Key(index, key)), said.seq, sealed.payload_digest))


def _revoked(roster: Roster, index: int, sealed: Sealed, log_key: bytes) -> Roster:
    said = sealed.statement
    body = read(Revoked, said.body, "the body of 'revoked'")
    if said.silo != COORDINATOR:
        raise RosterError(f"entry {index}, 'revoked', is for the coordinator to say, not for {said.silo}", said.silo)
    sealed.verify(log_key)
    if (said.seq, said.prev) != roster.revocations:
        raise RosterError(f"entry {index} does not follow on from what the coordinator revoked before", body.silo)
    member = roster.silos.get(body.silo)
    if member is None or member.revoked or member.key.fingerprint != body.fingerprint:
        raise RosterError(f"entry {index} revokes a key that {body.silo} does not have", body.silo)
    after = _with(roster, body.silo, replace(member, revoked=True))
    return replace(after, revocations=(said.seq + 1, sealed.payload_digest))


_STEPS = {"enrolled": _enrolled, "rotated": _rotated, "revoked": _revoked}


def _with(roster: Roster, silo: str, member: Member) -> Roster:
    return replace(roster, silos={**roster.silos, silo: member})


def _check_holder(roster: Roster, index: int, silo: str, key: bytes) -> None:
    for name, member in roster.silos.items():
        if name != silo and member.key.raw == key:
            raise RosterError(f"entry {index} gives {silo} the key of {name}", silo)


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise RosterError("an identity key is not base64") from exc
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise RosterError(f"an identity key has {KEY_BYTES} bytes in canonical base64")
    return raw


def load(home: Home) -> Roster:
    """What this silo has verified of its log; nothing before it has looked for the first time.

    Raises: ConfigError if the file is damaged.
    """
    if not home.roster.exists():
        return Roster()
    log_key = VerifierKey.parse(home.load_enrolment().log_key).key
    try:
        kept = json.loads(home.roster.read_bytes())
        roster = Roster()
        for entry in kept["entries"]:
            roster = roster.grown(int(entry["index"]), base64.b64decode(entry["envelope"]), log_key)
        return replace(roster, size=int(kept["size"]), seen=from_text(kept["seen"]))
    except (ValueError, KeyError, TypeError) as exc:  # a RosterError is a ValueError
        raise ConfigError(
            f"{home.roster} is damaged or of another log; remove it, and it is read from the log anew: {exc}"
        ) from exc


def save(home: Home, roster: Roster) -> None:
    """Keep the entries themselves: they are this silo's own copy, and prove what the log said."""
    entries = [{"index": index, "envelope": base64.b64encode(raw).decode()} for index, raw in roster.entries]
    seen = to_text(roster.seen) if roster.seen is not None else ""
    write_private(home.roster, json.dumps({"size": roster.size, "seen": seen, "entries": entries}, indent=1) + "\n")
