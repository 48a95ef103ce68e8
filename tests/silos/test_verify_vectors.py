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

from coordinator import envelope, merkle, note
from coordinator.envelope import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, PREDICATE_PREFIX, STATEMENT_TYPE, parse
from silos import bundle, verify
from silos.verify import Defect, canonical, leaf_hash, open_checkpoint, open_note, parse_vkey, unbase64
from tests.silos.bundles import LOG, ORIGIN, checkpoint, cover, key_of, tree, vkey

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

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # RFC 6962 §2.1: SHA-256 of nothing
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

# golang.org/x/mod, sumdb/note/example_test.go
NOTE_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.mark.parametrize("size", range(9))
def test_reference_roots_and_all_earlier_ones(size: int) -> None:
    leaves = [(n, leaf_hash(data)) for n, data in enumerate(INPUTS[:size])]
    wanted = {n: bytes.fromhex(([EMPTY, *ROOTS])[n]) for n in range(size + 1)}
    assert verify.roots(size, leaves, [], range(size)) == wanted
    assert tree(INPUTS[:size]) == wanted[size]


def test_a_published_inclusion_path_stands_for_the_other_leaves() -> None:
    """In a tree of eight the path of leaf 0 is the list of the largest subtrees beside it."""
    hashes = [bytes.fromhex(h) for h in INCLUSION_0_OF_8]
    assert verify.roots(8, [(0, leaf_hash(b""))], hashes, ())[8].hex() == ROOTS[7]
    assert verify.roots(8, [(1, leaf_hash(b""))], hashes, ())[8].hex() != ROOTS[7]


LEAVES = [bytes([n]) * n for n in range(70)]
ROOT = [tree(LEAVES[:n]) for n in range(71)]
NODES: dict[tuple[int, int], bytes] = {}
for number, data in enumerate(LEAVES):
    for node in merkle.grow(number, data, lambda level, place: NODES[level, place]):
        NODES[node.level, node.place] = node.hash


@given(st.data())
def test_any_choice_of_leaves_and_sizes_leads_to_all_roots(data: st.DataObject) -> None:
    """The exporter's choice of hashes, by three programs: the exporter, the verifier, and the recursive definition."""
    size = data.draw(st.integers(0, 70))
    held = sorted(data.draw(st.sets(st.integers(0, 69)).map(lambda s: {n for n in s if n < size})))
    sizes = sorted(data.draw(st.sets(st.integers(0, 70)).map(lambda s: {n for n in s if n < size})))
    hashes = [NODES[place] for place in bundle.cover(size, held, sizes)]
    assert hashes == cover(LEAVES, 0, size, set(held), set(sizes))
    leaves = [(n, leaf_hash(LEAVES[n])) for n in held]
    assert verify.roots(size, leaves, hashes, sizes) == {n: ROOT[n] for n in (*sizes, size)}
    for at in range(len(hashes)):
        other = [*hashes[:at], bytes(32), *hashes[at + 1 :]]
        assert verify.roots(size, leaves, other, sizes)[size] != ROOT[size]
    for at, (n, _) in enumerate(leaves):
        wrong = [*leaves[:at], (n, leaf_hash(b"other")), *leaves[at + 1 :]]
        assert verify.roots(size, wrong, hashes, sizes)[size] != ROOT[size]
    for count in (hashes[:-1], [*hashes, bytes(32)]):
        if count != hashes:
            with pytest.raises(Defect, match=r"^hashes: there are too (few|many) of them$"):
                verify.roots(size, leaves, count, sizes)


def test_ed25519_vectors() -> None:
    """RFC 8032 §7.1, tests 1 to 3."""
    for public, message, signature in RFC_8032:
        key, sig = bytes.fromhex(public), bytes.fromhex(signature)
        assert verify.signed_by(key, sig, bytes.fromhex(message))
        assert not verify.signed_by(key, sig, bytes.fromhex(message) + b"x")
        # S + L is the same scalar in another spelling, which RFC 8032 §5.1.7 refuses
        large = int.from_bytes(sig[32:], "little") + 2**252 + 27742317777372353535851937790883648493
        assert not verify.signed_by(key, sig[:32] + large.to_bytes(32, "little"), bytes.fromhex(message))


def test_the_encoding_that_dsse_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the DSSE protocol, v1.0.2; the type is fixed in both our programs."""
    monkeypatch.setattr(envelope, "PAYLOAD_TYPE", "http://example.com/HelloWorld")
    monkeypatch.setattr(verify, "PAYLOAD_TYPE", "http://example.com/HelloWorld")
    encoded = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope._pae(b"hello world") == encoded
    key = key_of("lender")
    entry = verify.Entry(0, "", "", "", b"hello world", "", key.sign(encoded), "lender", 0, "", "", {}, "entry 0")
    assert verify.is_signed(entry, key.public_key().public_bytes_raw())


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


@pytest.mark.parametrize(
    "text",
    [
        "1.0", "0.5", "-0", "1e3", "1E400", "9007199254740992", "-9007199254740992", "1" * 5000, "NaN", "Infinity",
        "[1.5]", '{"a":NaN}', '{"a":1,"a":1}', '{"b":1,"a":1}', "[1, 2]", "01", '"\\u0041"', '"\\/"', '"\x7f\\u007f"', "'a'",
        # RFC 8785, appendix B: numbers that have one spelling there travel as strings here
        "5e-324", "1.7976931348623157e+308", "295147905179352830000", "1e+23", "333333333.3333333", "9.999999999999997e+22",
    ],
)  # fmt: skip
def test_what_has_no_single_spelling_is_refused(text: str) -> None:
    for shape in (int, float, dict, list, str):
        with pytest.raises(Defect, match=r"^it: it is not what the format has here$"):
            verify.read_json(text.encode(), shape, "it")


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
    assert verify.MAX_ENTRY_BYTES == MAX_ENVELOPE_BYTES


def test_both_envelope_parsers_read_the_same() -> None:
    for index, raw in enumerate(LOG.entries):
        theirs = parse(raw)
        if theirs.statement.silo == "outsider" and theirs.statement.event == "refused":
            continue  # the others' noise has no body
        ours = verify.open_entry(index, raw)
        said = theirs.statement
        assert (ours.event, ours.job, ours.spec_digest, ours.silo) == (
            said.event,
            said.job,
            said.spec_digest,
            said.silo,
        )
        assert (ours.seq, ours.prev, ours.time, ours.body) == (said.seq, said.prev, said.time, said.body)
        assert (ours.payload, ours.signature, ours.digest) == (theirs.payload, theirs.signature, theirs.payload_digest)
