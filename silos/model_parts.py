"""What can be done with kept parts of models: show one's own, its points and how its columns have moved, and export it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from silos.errors import ConfigError
from silos.inputs import read_columns
from silos.model_export import Block, Whole, blocks_agree
from silos.models import MAX_BYTES, ModelPart, parse_part
from silos.tables import Tabular
from vertical.contributions import terms
from vertical.encoding import Encoder
from vertical.score_models import Kept
from vertical.scorecard import Line, Scale, scorecard
from vertical.stability import Drift, Reference

SUMS = "vertical.glm"
"""The kind of model whose parts are coefficients, so that they can be put together."""


def kept(part: ModelPart) -> Kept:
    """A part, ready to predict with.  Raises: ConfigError if it is damaged."""
    try:
        return Kept.read(part.kind, part.family, part.encoder, part.fitted)
    except (LocalProtocolError, OverflowError) as exc:  # an infinity where a whole number belongs
        raise ConfigError(f"the part of model {part.model} cannot be used: {exc}") from exc


def _coefficients(part: ModelPart) -> tuple[Encoder, npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """The encoding, weights (inputs, scores) and, at the owner of the label, intercepts (scores,)."""
    read = kept(part)
    if not isinstance(read.encoder, Encoder):
        raise ConfigError(f"the part of model {part.model} has no coefficients")
    weights = np.asarray(read.fitted.weights, dtype=np.float64)
    if weights.ndim not in (1, 2) or len(weights) != len(read.encoder.inputs):
        raise ConfigError(f"the part of model {part.model} is damaged: its coefficients are not those of its inputs")
    stored = getattr(read.fitted, "intercepts", None) if part.family == "multinomial" else read.fitted.intercept
    intercepts = None if stored is None else np.atleast_1d(np.asarray(stored, dtype=np.float64))
    return read.encoder, weights if weights.ndim == 2 else weights[:, None], intercepts


def own_terms(part: ModelPart) -> list[tuple[str, str]]:
    """Our coefficients by input, as text; none for a model that is shared and not a sum of parts."""
    if part.kind != SUMS:
        return []
    encoder, weights, intercepts = _coefficients(part)
    lines = [] if intercepts is None else [("intercept", _row(intercepts))]
    return lines + [(item.name, _row(weights[i])) for i, item in enumerate(encoder.inputs)]


def _row(values: npt.NDArray[np.float64]) -> str:
    return "  ".join(f"{value:.6g}" for value in values)


def write_export(part: ModelPart) -> bytes:
    """Our part as JSON without encryption, for whoever we give it to; what we compare later rows with stays here."""
    document = part.model_copy(update={"reference": {}, "disclosure": ()}).document()
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_export(path: Path) -> ModelPart:
    """A part that its owner exported.  Raises: ConfigError if the file is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is not well-formed JSON") from exc
    return parse_part(document)


def whole_model(parts: Sequence[ModelPart]) -> Whole:
    """A generalised linear model from the parts of all its owners, each of which exported its own.

    Raises: ConfigError if the model is of another kind, or these are not all its parts.
    """
    first = parts[0]
    if first.kind != SUMS:
        raise ConfigError(
            f"a model of kind '{first.kind}' is shared between its owners; only its parts can be exported"
        )
    alike = {(p.model, p.kind, p.family, p.spec_digest, p.owners, p.active) for p in parts}
    if len(alike) != 1:
        raise ConfigError("these are parts of different models")
    blocks = [_block(part) for part in parts]
    blocks_agree(blocks, first.owners)
    with_intercept = [block.owner for block in blocks if block.intercepts is not None]
    if with_intercept != [first.active]:
        raise ConfigError("the intercept is not in the part of the owner of the label")
    return Whole(first.model, kept(first).link, tuple(blocks))


def _block(part: ModelPart) -> Block:
    encoder, weights, intercepts = _coefficients(part)
    try:
        found = tuple(tuple(terms(encoder, column)) for column in weights.T)
    except LocalProtocolError as exc:
        raise ConfigError(f"the part of {part.silo} cannot be exported: {exc}") from exc
    return Block(part.silo, found, None if intercepts is None else tuple(intercepts.tolist()))


def drift(part: ModelPart, source: Tabular) -> list[Drift]:
    """How our own columns have moved since training, the most first; computed here, and for us alone.

    source: rows of ours.  Raises: ConfigError if the part holds nothing to compare with; CatalogueError.
    """
    if not part.reference:
        raise ConfigError(f"the part of model {part.model} holds nothing to compare rows with")
    try:
        reference = Reference.from_document(part.reference)
        names = {kind: [b.column for b in reference.bands if b.kind == kind] for kind in ("number", "category")}
        return reference.drift(read_columns(source, names["number"], names["category"], part.silo))
    except LocalProtocolError as exc:
        raise ConfigError(f"rows cannot be compared with those of training: {exc}") from exc


def card_of_points(part: ModelPart, scale: Scale) -> list[Line]:
    """The scorecard of our own columns.  Raises: ConfigError if the model has no points."""
    if part.kind != SUMS or kept(part).link != "logit":
        raise ConfigError("points are of logistic models; this one is of another kind")
    encoder, weights, intercepts = _coefficients(part)
    try:
        reference = Reference.from_document(part.reference) if part.reference else Reference(())
        own = terms(encoder, weights[:, 0])
    except LocalProtocolError as exc:
        raise ConfigError(f"the part of model {part.model} has no points: {exc}") from exc
    return scorecard(scale, own, None if intercepts is None else float(intercepts[0]), reference)
