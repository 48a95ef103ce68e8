"""The append-only Merkle tree: hashing, growth, proofs and their verification.  Pure; storage is the caller's.

A tree of n entries is stored as the hashes of its complete subtrees.  The subtree at (level, index) covers the entries
index * 2**level up to (index + 1) * 2**level; once complete it never changes, so the store only ever inserts.

Source: RFC 6962 §2.1 (hashing and proofs); RFC 9162 §2.1.3.2 and §2.1.4.2 (the verification algorithms).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Stored = Callable[[int, int], bytes]
"""(level, index) -> the hash of a complete subtree."""


class ProofError(ValueError):
    """A proof does not show what it claims; the message says why."""


class Node(NamedTuple):
    """The hash of one complete subtree."""

    level: int
    place: int
    hash: bytes


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962: 0x00 keeps a leaf from being read as a node (second pre-images)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962: 0x01, the left and the right child."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(size: int, entry: bytes, stored: Stored) -> list[Node]:
    """The subtrees that become complete when `entry` is appended to a tree of `size` entries, leaf first."""
    return grow_leaf(size, leaf_hash(entry), stored)


def grow_leaf(size: int, leaf: bytes, stored: Stored) -> list[Node]:
    """As `grow`, for those who know only the hash of the entry.

    Raises: ProofError if it does not have the length of a hash; else two trees could have one root.
    """
    _check_hashes([leaf])
    level, index, value = 0, size, leaf
    nodes = [Node(level, index, value)]
    while index & 1:  # a right child: its left sibling is complete and stored, so their parent is now complete too
        value = node_hash(stored(level, index - 1), value)
        level, index = level + 1, index >> 1
        nodes.append(Node(level, index, value))
    return nodes


def root(size: int, stored: Stored) -> bytes:
    """Root of the first `size` entries."""
    return _hash_of(0, size, stored) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, stored: Stored) -> list[bytes]:
    """Audit path of entry `index` in the tree of the first `size` entries.

    Raises: ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} entries has no entry {index}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_hash_of(middle, high, stored))
            high = middle
        else:
            path.append(_hash_of(low, middle, stored))
            low = middle
    return path[::-1]


def consistency_proof(first: int, second: int, stored: Stored) -> list[bytes]:
    """Proof that the tree of `first` entries is a prefix of the tree of `second`.

    Raises: ValueError unless 1 <= first <= second.
    """
    if not 1 <= first <= second:
        raise ValueError(f"no consistency proof leads from {first} to {second} entries")
    path: list[bytes] = []
    low, high = 0, second
    while high != first:
        middle = low + _split(high - low)
        if first <= middle:
            path.append(_hash_of(middle, high, stored))
            high = middle
        else:
            path.append(_hash_of(low, middle, stored))
            low = middle
    if low:  # from the left edge the old tree is itself this subtree, and the verifier has its root already
        path.append(_hash_of(low, high, stored))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> None:
    """Check that the entry with leaf hash `leaf` is entry `index` of the tree of `size` entries with this root.

    Raises: ProofError.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} entries has no entry {index}")
    _check_hashes([leaf, expected_root, *proof])
    fn, sn, value = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofError("the inclusion proof has too many hashes")
        if fn & 1 or fn == sn:
            value = node_hash(sibling, value)
            fn, sn = _skip_lone_levels(fn, sn)
        else:
            value = node_hash(value, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofError("the inclusion proof has too few hashes")
    if value != expected_root:
        raise ProofError("the inclusion proof leads to another root")


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """Check that the tree of `first` entries with `first_root` is a prefix of the tree of `second` with `second_root`.

    Raises: ProofError; also for first = 0, because every tree extends the empty one and nothing would be checked.
    """
    if not 1 <= first <= second:
        raise ProofError(f"no consistency proof leads from {first} to {second} entries")
    _check_hashes([first_root, second_root, *proof])
    if first == second:
        if proof or first_root != second_root:
            raise ProofError("two trees of one size differ")
        return
    # A complete old tree is a node of the new one; its hash is left out of the proof because the verifier has it.
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if len(path) < 1 + (first & (first - 1) == 0):
        raise ProofError("the consistency proof is empty")
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("the consistency proof has too many hashes")
        if fn & 1 or fn == sn:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            fn, sn = _skip_lone_levels(fn, sn)
        else:
            new = node_hash(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofError("the consistency proof has too few hashes")
    if old != first_root:
        raise ProofError("the consistency proof leads to another old root")
    if new != second_root:
        raise ProofError("the consistency proof leads to another new root")


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (RFC 6962: k)."""
    return 1 << ((count - 1).bit_length() - 1)


def _hash_of(low: int, high: int, stored: Stored) -> bytes:
    """Hash of entries low up to high; `low` is a multiple of the width's next power of two."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return stored(level, low >> level)
    middle = low + _split(count)
    return node_hash(_hash_of(low, middle, stored), _hash_of(middle, high, stored))


def _skip_lone_levels(fn: int, sn: int) -> tuple[int, int]:
    """Skip the levels at which the node at the right edge has no sibling."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise ProofError(f"a hash has {HASH_BYTES} bytes, got {len(value)}")
