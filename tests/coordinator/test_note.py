"""Signed notes and checkpoints: other implementations' vectors, round trips, tampering.

Vectors: the example key and note of C2SP signed-note ("example.com/foo"), and the key and note of golang.org/x/mod
sumdb/note ("PeterNeumann", BSD-3-Clause).  Both verify here; Ed25519 is deterministic, so the Go note is also reproduced.
"""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coordinator.note import (
    Checkpoint,
    NoteError,
    VerifierKey,
    open_checkpoint,
    open_note,
    sign_checkpoint,
    sign_note,
    verifier_key,
)

SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    f"{GO_TEXT}\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "test.example/log"
VERIFIER = verifier_key(NAME, KEY)


def test_the_specifications_example() -> None:
    key = VerifierKey.parse(SPEC_KEY)
    assert (key.name, key.key_id.hex(), key.text()) == ("example.com/foo", "530d903a", SPEC_KEY)
    assert open_note(SPEC_NOTE, key) == "This is an example message.\n"


def test_the_go_implementations_example() -> None:
    assert open_note(GO_NOTE, VerifierKey.parse(GO_KEY)) == GO_TEXT
    key = Ed25519PrivateKey.from_private_bytes(GO_SEED)
    assert verifier_key("PeterNeumann", key).text() == GO_KEY
    assert sign_note(GO_TEXT, "PeterNeumann", key) == GO_NOTE


def test_no_part_and_no_mangling_of_a_key_is_a_key() -> None:
    for start in range(len(GO_KEY)):
        for end in range(start + 1, len(GO_KEY) + 1):
            if (start, end) != (0, len(GO_KEY)):
                with pytest.raises(NoteError):
                    VerifierKey.parse(GO_KEY[start:end])
    for at, char in enumerate(GO_KEY):
        with pytest.raises(NoteError):
            VerifierKey.parse(GO_KEY[:at] + chr(ord(char) + 1) + GO_KEY[at + 1 :])


@pytest.mark.parametrize(
    "key",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # too long, id adjusted (Go)
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # unknown type, id adjusted (Go)
    ],
)
def test_foreign_keys_are_refused(key: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(key)


@given(
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=40),
    st.integers(0, 10**17),
    st.binary(min_size=32, max_size=32),
)
def test_round_trips(line: str, size: int, root: bytes) -> None:
    assert open_note(sign_note(line + "\n", NAME, KEY), VERIFIER) == line + "\n"
    checkpoint = Checkpoint(NAME, size, root)
    assert open_checkpoint(sign_checkpoint(checkpoint, KEY), VERIFIER) == checkpoint


def test_every_changed_character_of_a_checkpoint_is_noticed() -> None:
    note = sign_checkpoint(Checkpoint(NAME, 42, bytes(32)), KEY)
    for at, char in enumerate(note):
        for other in (chr(ord(char) ^ 1), ""):
            with pytest.raises(NoteError):
                open_checkpoint(note[:at] + other + note[at + 1 :], VERIFIER)


def test_lines_of_unknown_keys_are_ignored_and_a_bad_line_of_ours_is_not() -> None:
    text = "hello\n"
    ours, theirs = sign_note(text, NAME, KEY), sign_note(text, "witness.example", Ed25519PrivateKey.generate())
    line = theirs.removeprefix(text + "\n")
    assert open_note(ours + line, VERIFIER) == text
    with pytest.raises(NoteError, match="not signed by"):
        open_note(theirs, VERIFIER)
    forged = f"\u2014 {NAME} {base64.b64encode(VERIFIER.key_id + bytes(64)).decode()}\n"
    with pytest.raises(NoteError, match="does not verify"):
        open_note(ours + forged, VERIFIER)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        f"text\n\n\u2014 {NAME} \n",
        f"text\n\n- {NAME} AAAAAAAA\n",
        "text\n\n\u2014 two words AAAAAAAA\n",
        "te\rxt\n\n\u2014 a AAAAAAAA\n",
        "x" * 70_000,
        "t\n\n" + "\u2014 a AAAAAAA=\n" * 65,
    ],
)
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_note(note, VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n\u0661\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{NAME}\n1\n{base64.b64encode(bytes(32)).decode()}\nextension\n",
        f"\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n1\n",
    ],
)
def test_malformed_checkpoints_are_refused_although_signed(text: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(sign_note(text, NAME, KEY), VERIFIER)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    note = sign_note(Checkpoint("other.example/log", 1, bytes(32)).text(), NAME, KEY)
    with pytest.raises(NoteError, match=r"other\.example"):
        open_checkpoint(note, VERIFIER)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_names_that_would_make_a_note_ambiguous(name: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey(name, bytes(32))
