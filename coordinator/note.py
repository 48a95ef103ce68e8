"""Signed notes and checkpoints: how the log signs its size and root.

One signature type (0x01, Ed25519) and one form are written and read; everything else is refused, except that lines by
other keys are ignored as the specification demands, so witnesses can add theirs.

Source: C2SP signed-note v1.0.0; C2SP tlog-checkpoint v1.0.0; RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coordinator.merkle import HASH_BYTES

ED25519 = 0x01
MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


class NoteError(ValueError):
    """The text is not a note, key or checkpoint we accept; the message says why."""


@dataclass(frozen=True)
class VerifierKey:
    """A log's name and public key, written `<name>+<key id>+<base64 of type and key>`."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        check_key(self.name, self.key)

    @property
    def key_id(self) -> bytes:
        """Four bytes that, with the name, say which key signed."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ED25519]) + self.key).digest()[:4]

    def text(self) -> str:
        """The key in the form that people copy."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([ED25519]) + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Raises: NoteError."""
        parts = text.split("+", 2)  # base64 may contain '+', a name may not
        if len(parts) != 3:
            raise NoteError("a verifier key is '<name>+<key id>+<base64>'")
        raw = unbase64(parts[2])
        if raw[:1] != bytes([ED25519]):
            raise NoteError("the verifier key is not of type Ed25519")
        key = cls(parts[0], raw[1:])
        if key.text() != text:
            raise NoteError("the verifier key's id does not match its name and key")
        return key


def verifier_key(name: str, key: Ed25519PrivateKey) -> VerifierKey:
    """The public side of a log's key."""
    return VerifierKey(name, key.public_key().public_bytes_raw())


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Raises: NoteError if the text cannot stand in a note."""
    _check_text(text)
    verifier = verifier_key(name, key)
    signature = base64.b64encode(verifier.key_id + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {signature}\n"


def open_note(note: str, key: VerifierKey) -> str:
    """Return the text of a note that `key` signed.

    Raises: NoteError if it is malformed, not signed by the key, or has a line of that key that does not verify.
    """
    text, lines = split_note(note)
    signed = False
    for line in lines:
        name, signature = signature_line(line)
        if (name, signature[:4]) != (key.name, key.key_id):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.key).verify(signature[4:], text.encode())
        except (InvalidSignature, ValueError) as exc:
            raise NoteError(f"the signature of {key.name} does not verify") from exc
        signed = True
    if not signed:
        raise NoteError(f"the note is not signed by {key.name}+{key.key_id.hex()}")
    return text


def split_note(note: str) -> tuple[str, list[str]]:
    """The text that is signed, with its last newline, and the signature lines, without theirs; no signature is checked.

    Raises: NoteError if it has not the form of a note.
    """
    if len(note.encode(errors="surrogatepass")) > MAX_NOTE_BYTES:
        raise NoteError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    head, blank, tail = note.rpartition("\n\n")
    if not blank:
        raise NoteError("the note has no signatures")
    text = head + "\n"
    _check_text(text)
    if not tail.endswith("\n"):
        raise NoteError("the note does not end with a newline")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"a note has at most {MAX_SIGNATURES} signatures")
    return text, lines


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: its origin, number of entries and root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Raises: NoteError.  Extension lines are refused: no log of ours writes them, and nobody audits them."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteError(f"a checkpoint has three lines, got {len(lines) - 1}")
        if not lines[0]:
            raise NoteError("the checkpoint names no origin")
        if not _SIZE.fullmatch(lines[1]):
            raise NoteError("the checkpoint's size is not a decimal count")
        root = unbase64(lines[2])
        if len(root) != HASH_BYTES:
            raise NoteError(f"a root hash has {HASH_BYTES} bytes, got {len(root)}")
        return cls(lines[0], int(lines[1]), root)


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed note of a checkpoint; the key's name is the origin."""
    return sign_note(checkpoint.text(), checkpoint.origin, key)


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Raises: NoteError if the note is not the key's or speaks for another log."""
    checkpoint = Checkpoint.parse(open_note(note, key))
    if checkpoint.origin != key.name:
        raise NoteError(f"the checkpoint is of '{checkpoint.origin}', expected '{key.name}'")
    return checkpoint


def check_key(name: str, key: bytes) -> None:
    """Raises: NoteError unless these can be the name and the raw Ed25519 key of a signer of notes."""
    if not _NAME.fullmatch(name):
        raise NoteError("a key's name is not empty and has neither spaces nor '+'")
    if len(key) != 32:
        raise NoteError(f"an Ed25519 key has 32 bytes, got {len(key)}")


def signature_line(line: str) -> tuple[str, bytes]:
    """The name in a signature line, and what follows it: four bytes of key id and the signature.  Raises: NoteError."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "\u2014" or not _NAME.fullmatch(parts[1]):
        raise NoteError("a signature line is '\u2014 <name> <base64>'")
    signature = unbase64(parts[2])
    if len(signature) < 5:
        raise NoteError("a signature line has no signature")
    return parts[1], signature


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise NoteError("a note's text ends with a newline")
    if any(c < " " and c != "\n" for c in text):
        raise NoteError("a note has no control characters")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise NoteError("a note is valid UTF-8") from exc


def unbase64(text: str) -> bytes:
    """Standard base64 with padding, in its one canonical spelling.  Raises: NoteError."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as exc:
        raise NoteError("not base64") from exc
    if base64.b64encode(raw).decode() != text:
        raise NoteError("not canonical base64")
    return raw
