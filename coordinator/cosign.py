"""Cosignatures: how a witness says that a log has only grown, up to a checkpoint it has checked.

Whoever demands checkpoints with the lines of several witnesses cannot be shown another log than these were.  Only the
Ed25519 form is written and read; lines of other keys and other forms are left alone.

Source: C2SP tlog-cosignature v1.0.0; C2SP signed-note v1.0.0; RFC 8032.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coordinator.note import NoteError, check_key, signature_line, split_note, unbase64

COSIGNATURE = 0x04
_TIME_BYTES, _SIGNATURE_BYTES = 8, 64
_LATEST = 2**63 - 1


class CosignError(NoteError):
    """The note is not cosigned as it should be; the message says why."""


@dataclass(frozen=True)
class WitnessKey:
    """A witness's name and public key, written `<name>+<key id>+<base64 of type and key>`."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        check_key(self.name, self.key)

    @property
    def key_id(self) -> bytes:
        """Four bytes that, with the name, say which key signed; another one than the same key has as a log's."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([COSIGNATURE]) + self.key).digest()[:4]

    def text(self) -> str:
        """The key in the form that people copy."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([COSIGNATURE]) + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Raises: NoteError."""
        parts = text.split("+", 2)  # base64 may contain '+', a name may not
        if len(parts) != 3:
            raise CosignError("a witness's key is '<name>+<key id>+<base64>'")
        raw = unbase64(parts[2])
        if raw[:1] != bytes([COSIGNATURE]):
            raise CosignError("the witness's key is not of the cosignature type")
        key = cls(parts[0], raw[1:])
        if key.text() != text:
            raise CosignError("the witness's key id does not match its name and key")
        return key


@dataclass(frozen=True)
class Cosignature:
    """A line of a note that has the shape of a cosignature.  time: when it was made, seconds since 1970.

    line: as it stands in the note, without the newline.
    """

    name: str
    key_id: bytes
    time: int
    signature: bytes
    line: str


def cosign(note: str, name: str, key: Ed25519PrivateKey, time: int) -> str:
    """The line by which the witness `name` cosigns the checkpoint in a signed note.

    The witness has checked before that the log signed the note and that it leads on from what the witness saw last.
    time: seconds since 1970.  Raises: NoteError if it is no note or the name cannot stand in one.
    """
    if not 0 <= time <= _LATEST:
        raise CosignError("the time of a cosignature is a count of seconds below 2**63")
    witness = WitnessKey(name, key.public_key().public_bytes_raw())
    text, _ = split_note(note)
    signed = witness.key_id + time.to_bytes(_TIME_BYTES, "big") + key.sign(_message(text, time))
    return f"\u2014 {name} {base64.b64encode(signed).decode()}"


def cosignatures(note: str) -> list[Cosignature]:
    """Every line of a note that may be a cosignature, unchecked.  Raises: NoteError if it is no note."""
    found = []
    for line in split_note(note)[1]:
        name, signed = signature_line(line)
        key_id, time, signature = signed[:4], signed[4 : 4 + _TIME_BYTES], signed[4 + _TIME_BYTES :]
        if len(signature) == _SIGNATURE_BYTES:
            found.append(Cosignature(name, key_id, int.from_bytes(time, "big"), signature, line))
    return found


def verify_cosignature(note: str, witness: WitnessKey) -> Cosignature:
    """The cosignature of a witness on a note.

    Raises: NoteError if it is no note; CosignError if the witness has no line in it or one that does not verify.
    """
    text, _ = split_note(note)
    lines = [c for c in cosignatures(note) if (c.name, c.key_id) == (witness.name, witness.key_id)]
    if not lines:
        raise CosignError(f"the checkpoint is not cosigned by {witness.name}")
    public = Ed25519PublicKey.from_public_bytes(witness.key)
    for line in lines:
        try:
            if line.time > _LATEST:
                raise CosignError(f"the cosignature of {witness.name} has a time that cannot be")
            public.verify(line.signature, _message(text, line.time))
        except InvalidSignature as exc:
            raise CosignError(f"the cosignature of {witness.name} does not verify") from exc
    return lines[-1]


def with_lines(note: str, lines: Sequence[str]) -> str:
    """A note with lines of witnesses added; a line that it has already is not repeated."""
    _, there = split_note(note)
    return note + "".join(f"{line}\n" for line in lines if line not in there)


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
