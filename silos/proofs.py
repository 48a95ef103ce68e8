"""Proofs of single entries in the standard form, for auditors who use other tools than ours.

Source: C2SP tlog-proof v1; RFC 6962 §2.1.1.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from coordinator import merkle
from silos import verify
from silos.bundle import BundleError, cover


@dataclass(frozen=True)
class Entry:
    """One entry of a bundle.  proof: a C2SP tlog-proof, which holds the checkpoint.  envelope: the bytes of the leaf."""

    index: int
    proof: str
    envelope: bytes


def entry_of(path: Path, index: int) -> Entry:
    """An entry of a bundle that verified in its tree, with its own inclusion proof.

    Raises: BundleError if the bundle is damaged or lacks the entry.
    """
    try:
        with verify.Archive(path) as archive:
            key = verify.read_key(archive, None)
            note = archive.read("checkpoint")
            head = verify.open_checkpoint(note, key, "checkpoint")
            names = ["roster", *(f"jobs/{job}" for job in archive.jobs())]
            held = dict(line for name in names for line in archive.lines(name))
            sizes, hashes = verify.read_sizes(archive, key, head), verify.read_hashes(archive)
            leaves = sorted((place, verify.leaf_hash(raw)) for place, raw in held.items())
            tree = verify.check_tree(archive, head, sizes, leaves)
    except verify.Defect as defect:
        raise BundleError(str(defect)) from defect
    if index not in held:
        raise BundleError(f"{path.name} does not hold entry {index}")
    nodes = {(0, place): leaf for place, leaf in tree.leaves}
    nodes |= dict(zip(cover(head.size, [place for place, _ in leaves], sizes), hashes, strict=True))

    def stored(level: int, place: int) -> bytes:
        known = nodes.get((level, place))
        if known is None:
            known = merkle.node_hash(stored(level - 1, 2 * place), stored(level - 1, 2 * place + 1))
        return known

    path_hashes = merkle.inclusion_proof(index, head.size, stored)
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(base64.b64encode(h).decode() for h in path_hashes), ""]
    return Entry(index, "\n".join(lines) + "\n" + note.decode(), held[index])
