"""The verifier's own primitives against published vectors and against the other implementations in this repository."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coordinator import merkle, note
from coordinator.envelope import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, PREDICATE_PREFIX, STATEMENT_TYPE, parse
from silos import verify
from silos.verify import Defect, canonical, leaf_hash, open_checkpoint, open_note, parse_vkey, unbase64
from tests.silos.bundles import FILES, LOG, ORIGIN, checkpoint, growth, key_of, path, tree, vkey

# The reference tree of Certificate Transparency: inputs and roots as in google/certificate-transparency,
# cpp/merkletree/merkle_tree_test.cc, and in every log implementation since.
INPUTS = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
INPUTS.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION_0_OF_8 = [  # the same file: the path of leaf 0 in the tree of 8
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]

# golang.org/x/mod, sumdb/note/example_test.go
NOTE_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.mark.parametrize("size", range(1, 9))
def test_reference_roots_and_all_proofs_between_them(size: int) -> None:
    leaves, root = INPUTS[:size], bytes.fromhex(ROOTS[size - 1])
    assert tree(leaves) == root
    for index in range(size):
        assert verify.verify_inclusion(leaf_hash(leaves[index]), index, size, path(index, leaves), root)
    for first in range(1, size + 1):
        assert verify.verify_consistency(first, bytes.fromhex(ROOTS[first - 1]), size, root, growth(first, leaves))


def test_a_published_inclusion_path() -> None:
    proof = [bytes.fromhex(h) for h in INCLUSION_0_OF_8]
    assert verify.verify_inclusion(leaf_hash(b""), 0, 8, proof, bytes.fromhex(ROOTS[7]))
    assert not verify.verify_inclusion(leaf_hash(b""), 1, 8, proof, bytes.fromhex(ROOTS[7]))


LEAVES = [bytes([n]) * n for n in range(70)]
ROOT = [tree(LEAVES[:n]) for n in range(71)]


@given(st.data())
def test_wrong_inclusion_proofs_fail(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    leaf, proof = leaf_hash(LEAVES[index]), path(index, LEAVES[:size])
    assert verify.verify_inclusion(leaf, index, size, proof, ROOT[size])
    at = data.draw(st.integers(0, len(proof)))
    wrong = [[*proof[:at], bytes(32), *proof[at:]]]
    if at < len(proof):
        wrong += [proof[:at] + proof[at + 1 :], [*proof[:at], bytes(32), *proof[at + 1 :]]]
    assert not any(verify.verify_inclusion(leaf, index, size, p, ROOT[size]) for p in wrong)
    other = data.draw(st.integers(-1, 71).filter(lambda n: n != index))
    assert not verify.verify_inclusion(leaf, other, size, proof, ROOT[size])
    assert not verify.verify_inclusion(leaf_hash(b"other"), index, size, proof, ROOT[size])


@given(st.data())
def test_wrong_consistency_proofs_fail(data: st.DataObject) -> None:
    second = data.draw(st.integers(1, 70))
    first = data.draw(st.integers(1, second))
    proof = growth(first, LEAVES[:second])
    assert verify.verify_consistency(first, ROOT[first], second, ROOT[second], proof)
    assert not verify.verify_consistency(first, bytes(32), second, ROOT[second], proof)
    assert not verify.verify_consistency(first, ROOT[first], second, bytes(32), proof)
    at = data.draw(st.integers(0, len(proof)))
    wrong = [[*proof[:at], bytes(32), *proof[at:]]]
    if at < len(proof):
        wrong += [proof[:at] + proof[at + 1 :], [*proof[:at], bytes(32), *proof[at + 1 :]]]
    assert not any(verify.verify_consistency(first, ROOT[first], second, ROOT[second], p) for p in wrong)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (-1, 5), (6, 5)])
def test_sizes_without_a_consistency_proof(first: int, second: int) -> None:
    for proof in ([], [bytes(32)]):
        assert not verify.verify_consistency(first, ROOT[first], second, ROOT[second], proof)


def test_both_merkle_implementations_agree() -> None:
    nodes: dict[tuple[int, int], bytes] = {}

    def stored(level: int, place: int) -> bytes:
        return nodes[level, place]

    for n, leaf in enumerate(LEAVES):
        nodes.update({(node.level, node.place): node.hash for node in merkle.grow(n, leaf, stored)})
    for size in range(1, 71):
        assert merkle.root(size, stored) == ROOT[size]
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, stored)
            assert verify.verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, ROOT[size])
            assert proof == path(index, LEAVES[:size])
        for first in range(1, size + 1):
            proof = merkle.consistency_proof(first, size, stored)
            assert verify.verify_consistency(first, ROOT[first], size, ROOT[size], proof)


# --- notes ---


def test_a_published_note() -> None:
    key = parse_vkey(NOTE_KEY)
    assert open_note(NOTE.encode(), key, "note") == NOTE.partition("\n\n")[0] + "\n"
    for position in range(len(NOTE.encode())):
        flipped = bytearray(NOTE.encode())
        flipped[position] ^= 1
        with pytest.raises(Defect, match=r"^note: "):
            open_note(bytes(flipped), key, "note")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n",
        "a\n\n",
        "a\n\nb\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("your problem,", "your\tproblem,"),
        NOTE.replace("— Peter", "— Paul"),
        NOTE.replace("nAM=", "nAN="),
        NOTE.replace("\n\n", "\n"),
        NOTE + "— other\n",
        NOTE + "— other AAAA\n",
        NOTE + NOTE.splitlines()[-1].replace("AM=", "BM=") + "\n",
    ],
)
def test_bad_notes(text: str) -> None:
    with pytest.raises(Defect, match=r"^note: "):
        open_note(text.encode(), parse_vkey(NOTE_KEY), "note")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        NOTE_KEY + "A",
        NOTE_KEY[:-1],
        NOTE_KEY.replace("Peter", "Paul"),
        " " + NOTE_KEY,
        "a+b+AAAA",
        "\ud800++",
    ],
)
def test_bad_log_keys(text: str) -> None:
    with pytest.raises(Defect, match=r"^log\.vkey: "):
        parse_vkey(text)


def test_one_wrong_line_of_the_key_spoils_a_note() -> None:
    text, _, line = NOTE.rpartition("— ")
    name, blob = line.split()
    raw = bytearray(unbase64(blob, "it"))
    raw[9] ^= 1
    wrong = f"— {name} {base64.b64encode(raw).decode()}\n"
    for spoilt in (text + wrong, text + wrong + f"— {line}", f"{NOTE}{wrong}"):
        with pytest.raises(Defect, match=r"^note: it is not what the log PeterNeumann signed$"):
            open_note(spoilt.encode(), parse_vkey(NOTE_KEY), "note")


def test_both_note_implementations_agree() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    text = note.verifier_key(ORIGIN, key).text()
    signed = note.sign_checkpoint(note.Checkpoint(ORIGIN, 9, ROOT[9]), key)
    assert open_checkpoint(signed.encode(), parse_vkey(text), "checkpoint") == (9, ROOT[9])
    assert vkey() == note.verifier_key(ORIGIN, key_of("log")).text()
    opened = note.open_checkpoint(checkpoint(LEAVES), note.VerifierKey.parse(vkey()))
    assert (opened.size, opened.root) == (70, ROOT[70])


@pytest.mark.parametrize(
    "body", ["", "x", f"{ORIGIN}\n09\n", f"{ORIGIN}\n9\nAAAA\n", f"{ORIGIN}\n-1\n", "other.example\n9\n"]
)
def test_signed_notes_that_are_no_checkpoints(body: str) -> None:
    signed = note.sign_note(f"{body}{'A' * 43}=\n", ORIGIN, key_of("log"))
    with pytest.raises(Defect, match=r"^checkpoint: "):
        open_checkpoint(signed.encode(), parse_vkey(vkey()), "checkpoint")


# --- canonical JSON, base64, DSSE ---

restricted = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(restricted)
def test_canonical_form_equals_that_of_rfc8785(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)
    assert verify.read_json(canonical(value), type(value), "it") == value


def test_the_sorting_example_of_rfc_8785() -> None:
    """RFC 8785 §3.2.3: by UTF-16 code units, so the emoji stands before U+FB33."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = json.loads(canonical(dict.fromkeys(keys, 0)))
    assert list(ordered) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert canonical('\u20ac$\u000f\nA\'B"\\"/') == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\"/"'


@pytest.mark.parametrize("value", [1.0, 0.5, 2**53, -(2**53), [1.5], {"a": float("nan")}, b"bytes", (1,), {1, 2}])
def test_what_has_no_single_spelling_is_refused(value: Any) -> None:
    with pytest.raises(Defect):
        canonical(value)


@pytest.mark.parametrize("text", ["AA", "AB==", "AA==\n", " AA==", "A-_=", "AAA", "é", "AA=A"])
def test_other_spellings_of_base64_are_refused(text: str) -> None:
    with pytest.raises(Defect):
        unbase64(text, "it")


def test_the_constants_are_those_of_the_writer() -> None:
    assert verify.PAYLOAD_TYPE == PAYLOAD_TYPE
    assert verify.STATEMENT["_type"] == STATEMENT_TYPE
    kind = verify.STATEMENT["predicateType"]
    assert isinstance(kind, re.Pattern)
    assert kind.fullmatch(PREDICATE_PREFIX + "consented")
    assert verify.MAX_FILE_BYTES == MAX_ENVELOPE_BYTES


def test_both_envelope_parsers_read_the_same() -> None:
    for name in (n for n in FILES if n.startswith("entries/")):
        index = int(name[8:-5])
        ours, theirs = verify.open_entry(index, FILES[name]), parse(LOG.entries[index])
        said = theirs.statement
        assert (ours.event, ours.job, ours.spec_digest, ours.silo) == (
            said.event,
            said.job,
            said.spec_digest,
            said.silo,
        )
        assert (ours.seq, ours.prev, ours.time, ours.body) == (said.seq, said.prev, said.time, said.body)
        assert (ours.payload, ours.signature) == (theirs.payload, theirs.signature)
