"""The card of a model as one owner can write it: what it is for, what it was made of, how good it is, and what it may tell.

A card is made of the owner's own part, so of columns it names this owner's only, and it holds no coefficient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from silos.models import ModelPart

LIMITS = {
    "vertical.glm": (
        "The score is a sum over columns; relations between columns are in it only as far as a column is made of them.",
        "A value beyond the encoding's limit counts as the limit, and a level that training has not seen as 'other'.",
    ),
    "vertical.trees": (
        "The score is a step function of the columns: small changes of a value may change it much, or not at all.",
        "Values beyond those of training count as the largest or smallest bin.",
    ),
    "vertical.network": (
        "Why a row has its score cannot be read off the model.",
        "A value beyond the encoding's limit counts as the limit, and a level that training has not seen as 'other'.",
    ),
}
GENERAL = (
    "It is right for people like those it was trained on: look at the stability indices before it is used on others.",
    "Every prediction takes the parts of all owners.  If one owner deletes its part, nobody can predict with the model.",
    "Predictions tell about the columns of all owners.  Many different questions about one person tell more than one.",
)


def card(part: ModelPart) -> dict[str, Any]:
    """The card as plain data."""
    return {
        "v": 1,
        "model": part.model,
        "kind": part.kind,
        "family": part.family,
        "created": part.created,
        "purpose": part.purpose,
        "silo": part.silo,
        "owners": list(part.owners),
        "label_at": part.active,
        "dataset": part.dataset,
        "columns": columns(part),
        "rows": dict(part.rows),
        "metrics": part.metrics,
        "limits": [*LIMITS.get(part.kind, ()), *GENERAL],
        "disclosure": [{"silo": line.silo, "learns": line.learns} for line in part.disclosure],
        "spec_digest": part.spec_digest,
        "schema_hash": part.schema_hash,
    }


def columns(part: ModelPart) -> list[str]:
    """The columns that our part reads, each once, in order."""
    lines = part.encoder.get("inputs") or part.encoder.get("features") or []
    return list(dict.fromkeys(str(line["column"] if isinstance(line, Mapping) else line[0]) for line in lines))


def markdown(made: Mapping[str, Any]) -> str:
    """A card for people."""
    facts = [
        ("Kind", f"{made['kind']}, {made['family']}"),
        ("Made", made["created"]),
        ("Purpose", made["purpose"]),
        ("Owners", ", ".join(made["owners"])),
        ("Label at", made["label_at"]),
        ("This part", f"of {made['silo']}, data set {made['dataset']}"),
        ("Job spec", f"sha256:{made['spec_digest']}"),
        ("Schema", f"sha256:{made['schema_hash']}"),
    ]
    lines = [f"# Model {made['model']}", "", "| | |", "|---|---|", *(f"| {a} | {_cell(b)} |" for a, b in facts)]
    lines += ["", "## Columns of this owner", "", *(f"- {_cell(name)}" for name in made["columns"])]
    lines += ["", "## Training", "", *_nested("Rows", made["rows"]), *_nested("Metrics", made["metrics"])]
    lines += ["", "## Limits", "", *(f"- {_cell(line)}" for line in made["limits"])]
    if made["disclosure"]:
        lines += ["", "## Who learned what in training", ""]
        lines += [f"- {_cell(line['silo'])}: {_cell(line['learns'])}" for line in made["disclosure"]]
    return "\n".join(lines) + "\n"


def _nested(name: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return [f"- {name}: not released"]
    out = []
    for key, value in values.items():
        label = f"{name}, {key}" if name else key
        out += _nested(label, value) if isinstance(value, Mapping) else [f"- {_cell(label)}: {_cell(value)}"]
    return out


def _cell(value: Any) -> str:
    """Text that stays in its place: one line, with nothing that ends a cell or begins a tag."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
