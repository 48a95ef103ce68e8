"""What the protocols of this package let a participant learn.

The declarations stand here, beside the protocols and not in them, because stating a disclosure must not need the tensor
engine that running a protocol needs.
"""

from __future__ import annotations

from mpc.reveals import Reveal

LOGISTIC = (
    Reveal("coefficients", "owners", "the coefficients of its own columns, exactly", "exact"),
    Reveal("intercept", "active", "the intercept, exactly", "exact"),
    Reveal("columns", "owners", "how many encoded columns each other owner has", "size"),
    Reveal(
        "period",
        "owners",
        "whether any owner's part of a score left the range that the approximation allows",
        "aggregate",
    ),
)

EVALUATE = (
    Reveal(
        "auc",
        "owners",
        "the area under the ROC curve on the held-out rows; four decimals of it are handed out",
        "aggregate",
    ),
    Reveal("counts", "owners", "the number of aligned, training and held-out rows", "size"),
)
