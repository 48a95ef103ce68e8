"""What the linking of rows, and predictions for them, let a participant learn; apart from the code, as `vertical.reveals`."""

from __future__ import annotations

from mpc.reveals import Reveal

LINKAGE = (
    Reveal(
        "linkage.keys",
        "owners",
        "by which of the job's keys each of its matched rows matched, and by which it did not although it has a valid value",
        "exact",
    ),
    Reveal(
        "linkage.rows",
        "owners",
        "which of the matched identifiers belong to one row of the other owner, though not to which",
        "exact",
        ("linkage/rows", "linkage/vote"),
    ),
    Reveal(
        "linkage.counts",
        "owners",
        "if rows that share an identifier are all paired: how many rows the other owner has behind each matched identifier",
        "exact",
        ("linkage/counts",),
    ),
    Reveal(
        "linkage.traffic",
        "coordinator",
        "how many identifiers matched, if it relays the encrypted messages",
        "size",
    ),
    Reveal(
        "linkage.early-items",
        "owners",
        "in its process: which of its own identifiers matched, if these are not fewer than the minimum, before the people "
        "behind them are counted; if those are too few, the software stops without putting this out",
        "exact",
    ),
)
"""What the matching of several keys reveals beyond that of one; with one key and one row for each identifier, nothing."""

MATCH = (
    Reveal(
        "match.places",
        "owners",
        "for each of its own matched rows a number that the matching row of every other owner has too",
        "exact",
    ),
)
"""What a matching releases, beyond what its protocol reveals already."""

SCORE = (
    Reveal(
        "score.decision",
        "recipients",
        "for each of its matched rows, whether the prediction is high enough",
        "exact",
        ("score/decision",),
    ),
    Reveal(
        "score.class",
        "recipients",
        "for each of its matched rows, which class is the most likely",
        "exact",
        ("score/class",),
    ),
    Reveal(
        "score.decile",
        "recipients",
        "for each of its matched rows, between which cut points the prediction is",
        "exact",
        ("score/decile",),
    ),
    Reveal(
        "score.rounded",
        "recipients",
        "for each of its matched rows, the rounded prediction",
        "exact",
        ("score/rounded",),
    ),
    Reveal(
        "score.probability",
        "recipients",
        "for each of its matched rows, the prediction, and so what all other owners' columns add to the score of the row",
        "exact",
        ("score/probability",),
    ),
    Reveal(
        "score.columns",
        "owners",
        "how many columns each other owner's part of the model reads",
        "size",
        ("score/shape",),
    ),
    Reveal(
        "score.inputs", "owners", "how many inputs each other owner's part of the model has", "size", ("network/shape",)
    ),
    Reveal(
        "score.asked",
        "answering",
        "which of its matched rows the recipient asks for, and when",
        "exact",
        ("online/ask",),
    ),
    Reveal(
        "score.stability",
        "owners",
        "how many matched rows have a score in each band between the job's cut points, if no band has fewer than the minimum; "
        "otherwise, that one has",
        "aggregate",
        ("stability/few", "stability/counts"),
    ),
)
"""What predicting reveals: of the first five what the job's output says, and of the last two what the job asks for."""
