"""The job spec: one canonical JSON document that holds everything a run depends on.

Every participant parses the same document, and its digest is what they sign.  `silos/spec_base.py` has what all kinds have
in common, `silos/spec_parts.py` the parts they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.envelope import digest
from silos.errors import SpecError
from silos.spec_base import MANY_OWNERS, MAX_OWNERS, RESERVED_NAMES, Spec
from silos.spec_matching import Match, Measure
from silos.spec_parts import Matching
from silos.spec_scoring import Score
from silos.spec_statistics import Statistics
from silos.spec_training import Glm, Network, Training, Trees
from silos.validation import validate

__all__ = [
    "KINDS",
    "MANY_OWNERS",
    "MATCHINGS",
    "MAX_OWNERS",
    "RESERVED_NAMES",
    "Glm",
    "Match",
    "Measure",
    "Network",
    "Score",
    "Spec",
    "Statistics",
    "Training",
    "Trees",
    "parse_spec",
    "spec_digest",
]

KINDS: Mapping[str, type[Spec]] = {
    "vertical.glm": Glm,
    "vertical.trees": Trees,
    "vertical.network": Network,
    "vertical.statistics": Statistics,
    "vertical.score": Score,
    "vertical.match": Match,
    "vertical.measure": Measure,
}
"""Every kind of job and its form."""
MATCHINGS: Mapping[str, tuple[Matching, ...]] = {kind: form.matchings for kind, form in KINDS.items()}
"""The matchings that a kind of job can use."""


def parse_spec(document: Any) -> Spec:
    """Read a spec strictly.

    Raises: SpecError with one sentence; also when the document is not exactly what the model writes, because the
    digest that everybody signs must have one preimage.
    """
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind not in KINDS:
        raise SpecError(f"the job spec: 'kind' must be one of {', '.join(KINDS)}, got '{kind}'")
    form = KINDS[kind] if isinstance(kind, str) else Spec
    spec = validate(form, document, "the job spec", SpecError)
    if spec.document() != document:
        raise SpecError("the job spec: it is not written in its one accepted form")
    return spec


def spec_digest(spec: Spec) -> str:
    """Hex SHA-256 of the canonical spec: what participants sign."""
    return digest(spec.document())
