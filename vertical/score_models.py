"""An owner's part of a kept model, ready to predict with: from its document and new columns to shares of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical.binning import Binner
from vertical.encoding import Encoder
from vertical.score import Link
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

PART_BOUND = float(1 << 20)
"""What all owners' parts of a score are below, together; each owner's share of it is far beyond what a model of standardised
inputs gives, and an owner whose part is beyond stops instead of predicting something else."""
LINKS: Mapping[str, Link] = {
    "logistic": "logit",
    "binary": "logit",
    "linear": "identity",
    "squared": "identity",
    "poisson": "log",
    "gamma": "log",
    "tweedie": "log",
    "multinomial": "softmax",
    "multiclass": "softmax",
}
"""From what a model calls its label to the link of its scores."""


class Additive(Protocol):
    """A part of a model whose scores are sums of the owners' parts."""

    def part(self, inputs: Floats) -> Floats:
        """Our part of the scores of some rows."""
        ...


@dataclass(frozen=True)
class Kept:
    """One owner's part of a model.  family: what the label is; it names the link."""

    kind: str
    family: str
    encoder: Encoder | Binner
    fitted: Any = field(repr=False)

    @classmethod
    def read(cls, kind: str, family: str, encoder: Mapping[str, Any], fitted: dict[str, Any]) -> Kept:
        """From what an owner keeps on disk.

        Raises: LocalProtocolError if there is no such kind or family, or a document is not of it.
        """
        if family not in LINKS:
            raise LocalProtocolError(f"there is no model of family '{family}'")
        if kind == "vertical.glm":
            return cls(kind, family, Encoder.from_document(encoder), _coefficients(fitted))
        if kind == "vertical.network":
            from vertical.network_parts import Fitted as Network

            return cls(kind, family, Encoder.from_document(encoder), Network.from_document(fitted))
        if kind == "vertical.trees":
            from vertical.trees.model import Fitted as Trees

            return cls(kind, family, Binner.from_document(encoder), Trees.from_document(fitted))
        raise LocalProtocolError(f"there is no model of kind '{kind}' to predict with")

    @property
    def link(self) -> Link:
        """The link of its scores."""
        return LINKS[self.family]

    @property
    def columns(self) -> list[str]:
        """The columns that our part reads."""
        inputs = self.encoder.features if isinstance(self.encoder, Binner) else self.encoder.inputs
        return list(dict.fromkeys(item.column for item in inputs))

    def scores(self, session: Session, columns: Columns, offset: Floats | None = None) -> Scores:
        """Shares of the scores of aligned rows; all owners call this at once.

        columns: ours of these rows.  offset: (n,) what is added to our part, if any.

        Reveals: as `scores` of the kind of model; nothing for a generalised linear model.
        Cost: as that; nothing is sent for a generalised linear model.
        Security: as that.
        Source: as that.
        Raises: LocalProtocolError if columns are missing, or our part of a score is not a number of a sensible size.
        """
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise LocalProtocolError(f"the model reads column '{missing[0]}', which these rows do not have")
        inputs: Any = self.encoder.transform(columns)
        if self.kind == "vertical.glm":
            return local_scores(self.fitted, inputs, offset, len(session.parties))
        if offset is not None:
            raise LocalProtocolError("only generalised linear models have offsets")
        if self.kind == "vertical.trees":
            from vertical.trees import predict

            return predict.scores(session, self.fitted, inputs)
        from vertical import network

        return network.scores(session, self.fitted, inputs)


def _coefficients(fitted: dict[str, Any]) -> Additive:
    """A part of a generalised linear model; which module wrote it shows in what it says."""
    if "classes" in fitted:
        from vertical.multinomial import Fitted as Multinomial

        return Multinomial.from_document(fitted)
    if fitted.get("family") == "linear":
        from vertical.linear import Fitted as Linear

        return Linear.from_document(fitted)
    from vertical.glm import Fitted

    return Fitted.from_document(fitted)


def local_scores(fitted: Additive, inputs: Floats, offset: Floats | None, owners: int) -> Scores:
    """The scores of a model that is a sum of its owners' parts, from ours.

    Unlike in evaluation, where a part is limited to the range of training so that a series is right, nothing is cut off.

    Raises: LocalProtocolError if our part of a row's score is not finite or absurdly large.
    """
    part = fitted.part(inputs)
    if offset is not None:
        part = part + (offset if part.ndim == 1 else offset[:, None])
    if not np.isfinite(part).all() or np.abs(part).max(initial=0) > PART_BOUND / owners:
        raise LocalProtocolError("our part of a score is not a number of a sensible size")
    return Scores.of_part(part, PART_BOUND, owners)
