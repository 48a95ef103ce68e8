"""The Merkle tree against the reference vectors of Certificate Transparency, and its properties.

Vectors: the eight leaves, roots and proofs of the Certificate Transparency reference implementation, as kept in
transparency-dev/merkle, proof/verify_test.go (Apache-2.0).  Its consistency and inclusion proofs are for sizes 1 to 8;
indices there count from 1, here from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import merkle
from coordinator.merkle import ProofError

LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    bytes.fromhex(h)
    for h in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
N01 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
N23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N03 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
N47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
L0 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
L6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"

INCLUSION = [(0, 1, []), (0, 8, [L1, N23, N47]), (5, 8, [L4, N67, N03]), (2, 3, [N01]), (1, 5, [L0, N23, L4])]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [L1, N23, N47]),
    (6, 8, [N45, N67, N03]),
    (2, 5, [N23, L4]),
    (6, 7, [N45, L6, N03]),
]


@dataclass
class Tree:
    """Subtrees in a dictionary."""

    size: int = 0
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def stored(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def append(self, entry: bytes) -> None:
        for level, place, value in merkle.grow(self.size, entry, self.stored):
            assert (level, place) not in self.nodes, "a complete subtree never changes"
            self.nodes[level, place] = value
        self.size += 1

    def root(self, size: int) -> bytes:
        return merkle.root(size, self.stored)


def tree_of(entries: list[bytes]) -> Tree:
    tree = Tree()
    for entry in entries:
        tree.append(entry)
    return tree


def unhex(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(h) for h in hashes]


def test_reference_roots() -> None:
    tree = tree_of(LEAVES)
    assert [tree.root(size) for size in range(9)] == ROOTS


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_reference_inclusion_proofs(index: int, size: int, proof: list[str]) -> None:
    assert merkle.inclusion_proof(index, size, tree_of(LEAVES).stored) == unhex(proof)
    merkle.verify_inclusion(merkle.leaf_hash(LEAVES[index]), index, size, unhex(proof), ROOTS[size])


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_reference_consistency_proofs(first: int, second: int, proof: list[str]) -> None:
    assert merkle.consistency_proof(first, second, tree_of(LEAVES).stored) == unhex(proof)
    merkle.verify_consistency(first, second, unhex(proof), ROOTS[first], ROOTS[second])


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION[1:])
def test_corrupted_reference_inclusion_proofs_fail(index: int, size: int, proof: list[str]) -> None:
    """The corruptions of the reference implementation's own tests."""
    leaf, root, path = merkle.leaf_hash(LEAVES[index]), ROOTS[size], unhex(proof)
    flipped = [[*path[:i], bytes([p[0] ^ 8]) + p[1:], *path[i + 1 :]] for i, p in enumerate(path)]
    paths = [[*path, b""], [*path, root], [b"", *path], [root, *path], path[:-1], [bytes(32), *path], *flipped]
    probes = [(leaf, index, size, p, root) for p in paths]
    probes += [(leaf, i, size, path, root) for i in (index - 1, index + 1, index ^ 2)]
    probes += [(leaf, index, n, path, root) for n in (size * 2, size // 2, 0)]
    probes += [(b"WrongLeaf", index, size, path, root), (leaf, index, size, path, ROOTS[0])]
    for probe in probes:
        with pytest.raises(ProofError):
            merkle.verify_inclusion(*probe)


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY[1:])
def test_corrupted_reference_consistency_proofs_fail(first: int, second: int, proof: list[str]) -> None:
    """The corruptions of the reference implementation's own tests."""
    r1, r2, path = ROOTS[first], ROOTS[second], unhex(proof)
    flipped = [[*path[:i], bytes([p[0] ^ 16]) + p[1:], *path[i + 1 :]] for i, p in enumerate(path)]
    paths = [[], path[:-1], [*path, b""], [*path, r1], [*path, r2], [b"", *path], [r1, *path], [r2, *path], *flipped]
    probes = [(first, second, p, r1, r2) for p in [*paths, [path[0], *path]]]
    probes += [(m, second, path, r1, r2) for m in (first - 1, first + 1, first ^ 2)]
    probes += [(first, n, path, r1, r2) for n in (second * 2, second // 2)]
    probes += [
        (first, second, path, b"WrongRoot", r2),
        (first, second, path, r1, b"WrongRoot"),
        (first, second, path, r2, r1),
    ]
    for probe in probes:
        with pytest.raises(ProofError):
            merkle.verify_consistency(*probe)


def test_trees_of_one_size_must_be_equal() -> None:
    with pytest.raises(ProofError, match="differ"):
        merkle.verify_consistency(3, 3, [], ROOTS[3], ROOTS[4])
    with pytest.raises(ProofError, match="differ"):
        merkle.verify_consistency(3, 3, [ROOTS[1]], ROOTS[3], ROOTS[3])


def test_proofs_outside_the_tree_are_refused() -> None:
    stored = tree_of(LEAVES).stored
    for index, size in ((8, 8), (-1, 8), (0, 0)):
        with pytest.raises(ValueError, match="no entry"):
            merkle.inclusion_proof(index, size, stored)
    for first, second in ((0, 8), (5, 4)):
        with pytest.raises(ValueError, match="no consistency proof"):
            merkle.consistency_proof(first, second, stored)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=70), st.data())
def test_every_proof_verifies_and_any_change_fails(entries: list[bytes], data: st.DataObject) -> None:
    tree = tree_of(entries)
    size = data.draw(st.integers(1, len(entries)))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    leaf, root = merkle.leaf_hash(entries[index]), tree.root(size)
    path = merkle.inclusion_proof(index, size, tree.stored)
    merkle.verify_inclusion(leaf, index, size, path, root)
    link = merkle.consistency_proof(first, size, tree.stored)
    merkle.verify_consistency(first, size, link, tree.root(first), root)

    flip = data.draw(st.integers(0, 32 * 8 - 1))
    for hashes, check in (
        ([leaf, root, *path], lambda h: merkle.verify_inclusion(h[0], index, size, h[2:], h[1])),
        ([tree.root(first), root, *link], lambda h: merkle.verify_consistency(first, size, h[2:], h[0], h[1])),
    ):
        at = data.draw(st.integers(0, len(hashes) - 1))
        mutated = list(hashes)
        mutated[at] = (int.from_bytes(hashes[at]) ^ (1 << flip)).to_bytes(32)
        with pytest.raises(ProofError):
            check(mutated)
        for other in (hashes[:-1], [*hashes, hashes[-1]]):
            if len(other) >= 2:
                with pytest.raises(ProofError):
                    check(other)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=2, max_size=40))
def test_the_root_is_that_of_the_recursive_definition(entries: list[bytes]) -> None:
    def mth(part: list[bytes]) -> bytes:  # RFC 6962 §2.1, word for word
        if len(part) == 1:
            return merkle.leaf_hash(part[0])
        k = 1
        while 2 * k < len(part):
            k *= 2
        return merkle.node_hash(mth(part[:k]), mth(part[k:]))

    assert tree_of(entries).root(len(entries)) == mth(entries)
