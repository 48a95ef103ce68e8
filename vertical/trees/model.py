"""What one owner keeps of trained trees: its own splits, who owns the others, and its shares of the leaves."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.trees.settings import WIDEST, Objective

Words = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
_WHOLE = {"owners": "int64", "feature": "int64", "bins": "int64", "left": "bool", "leaves": "uint64", "base": "uint64"}


@dataclass(frozen=True)
class Fitted:
    """T trees of one depth, as one owner has them.

    me, parties: our index among so many owners.  n_bins, names: of our own features.  objective, exponent: a score s stands
    for log-odds s, a prediction 2^exponent s or its logarithm less exponent ln 2.  owners: (T, 2^depth - 1) indices, -1 for
    nodes that are not split, level by level.  feature, bins, left: of our own splits the feature, the last bin that goes left,
    and whether missing values do; -1, -1 and False elsewhere.  leaves: (T, 2^depth) and base: (1,) are additive shares with
    frac_bits; no score's size is above bound.
    """

    me: int
    parties: int
    objective: Objective
    exponent: int
    depth: int
    frac_bits: int
    bound: float
    n_bins: int
    names: tuple[str, ...]
    owners: Ints
    feature: Ints
    bins: Ints
    left: npt.NDArray[np.bool_]
    leaves: Words = field(repr=False)
    base: Words = field(repr=False)

    @property
    def trees(self) -> int:
        """How many."""
        return len(self.leaves)

    def importance(self) -> dict[str, int]:
        """How often each of our own features is split on; nobody else learns it."""
        counts = np.bincount(self.feature[self.feature >= 0], minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True)}

    def document(self) -> dict[str, Any]:
        """Plain data; `from_document` reads it."""
        out: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("me", "parties", "objective", "exponent", "depth", "frac_bits", "n_bins")
        }
        out |= {"bound": repr(self.bound), "names": list(self.names)}
        return out | {name: _packed(getattr(self, name), dtype) for name, dtype in _WHOLE.items()}

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Read what `document` wrote.

        Raises: LocalProtocolError if it is not such a document.
        """
        try:
            parts: dict[str, Any] = {name: value for name, value in document.items() if name not in _WHOLE}
            parts |= {"bound": float(parts["bound"]), "names": tuple(parts["names"])}
            parts |= {name: _unpacked(document[name], dtype) for name, dtype in _WHOLE.items()}
            fitted = cls(**parts)
            good = fitted._sound()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("the document of the trees is malformed") from exc
        if not good:
            raise LocalProtocolError("the document of the trees is malformed")
        return fitted

    def _sound(self) -> bool:
        """Whether the parts fit together."""
        numbers = (self.me, self.parties, self.exponent, self.depth, self.frac_bits, self.n_bins)
        if any(type(x) is not int for x in numbers) or self.objective not in WIDEST or not self.bound > 0:
            return False
        nodes, trees = 2**self.depth - 1, len(self.leaves)
        shapes = {(trees, nodes)} == {x.shape for x in (self.owners, self.feature, self.bins, self.left)}
        own = self.owners == self.me
        return (
            0 <= self.me < self.parties
            and 1 <= self.depth <= 8
            and shapes
            and self.leaves.shape == (trees, nodes + 1)
            and self.base.shape == (1,)
            and all(isinstance(name, str) for name in self.names)
            and bool(((self.owners >= -1) & (self.owners < self.parties)).all())
            and bool(((self.feature >= 0) == own).all() and ((self.bins >= 0) == own).all())
            and bool((self.feature < len(self.names)).all() and (self.bins < self.n_bins).all())
            and not bool(self.left[~own].any())
        )


def _packed(array: Words, dtype: str) -> dict[str, Any]:
    words = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))
    return {"dtype": dtype, "shape": list(words.shape), "data": base64.b64encode(words.tobytes()).decode()}


def _unpacked(raw: Any, dtype: str) -> Words:
    """An array of a document.  Raises: ValueError, KeyError or TypeError if it is malformed."""
    if set(raw) != {"dtype", "shape", "data"} or raw["dtype"] != dtype:
        raise ValueError("not an array of this type")
    try:
        body = base64.b64decode(raw["data"], validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    if dtype == "bool" and set(body) - {0, 1}:
        raise ValueError("not bits")
    return np.frombuffer(body, dtype=np.dtype(dtype).newbyteorder("<")).reshape(raw["shape"]).astype(dtype)
