"""The Merkle proofs of the transparency-dev project: every case that its own verifier accepts, and every one it refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from coordinator import merkle

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "transparency_dev_merkle.json").read_text(encoding="utf-8")
)


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def hashes(case: dict[str, Any]) -> list[bytes]:
    return [raw(text) for text in case["proof"] or []]


def test_all_vectors_are_there() -> None:
    good = {kind: [case["wantErr"] for case in cases].count(False) for kind, cases in VECTORS.items()}
    assert ({kind: len(cases) for kind, cases in VECTORS.items()}, good) == (
        {"consistency": 98, "inclusion": 98},
        {"consistency": 6, "inclusion": 6},
    )


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case["name"])
def test_inclusion(case: dict[str, Any]) -> None:
    about = (raw(case["leafHash"]), case["leafIdx"], case["treeSize"], hashes(case), raw(case["root"]))
    if case["wantErr"]:
        with pytest.raises(merkle.ProofError):
            merkle.verify_inclusion(*about)
    else:
        merkle.verify_inclusion(*about)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case["name"])
def test_consistency(case: dict[str, Any]) -> None:
    about = (case["size1"], case["size2"], hashes(case), raw(case["root1"]), raw(case["root2"]))
    if case["wantErr"]:
        with pytest.raises(merkle.ProofError):
            merkle.verify_consistency(*about)
    elif len(about[3]) != merkle.HASH_BYTES:  # one case: two equal texts for roots, which we refuse as no hashes
        with pytest.raises(merkle.ProofError, match="a hash has 32 bytes, got 12"):
            merkle.verify_consistency(*about)
    else:
        merkle.verify_consistency(*about)
