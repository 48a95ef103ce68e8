"""What looking at columns lets a participant learn; apart from the code, as `vertical.reveals`."""

from __future__ import annotations

from mpc.reveals import Reveal

STATISTICS = (
    Reveal(
        "statistics.sizes",
        "owners",
        "how many encoded columns each other owner has, how many of them are independent, and who has the label",
        "size",
        ("statistics/shape",),
    ),
    Reveal(
        "statistics.label_correlations",
        "passive",
        "if released: the correlation of each of its own encoded columns with the label",
        "aggregate",
        ("statistics/label",),
    ),
    Reveal(
        "statistics.correlations",
        "owners",
        "if released: the correlation of each of its own encoded columns with each of every other owner's, these named by "
        "their column and the number of a category's level, but not the level",
        "aggregate",
        ("statistics/cross", "statistics/names"),
    ),
    Reveal(
        "statistics.vif",
        "owners",
        "if released: the variance inflation factor of each of its own encoded columns among the columns of all owners, or "
        "that it is too large to be told",
        "aggregate",
        ("statistics/vif",),
    ),
)
"""What `vertical.statistics` reveals."""

WEIGHTS = (
    Reveal(
        "woe.positives",
        "owners",
        "if weights of evidence or information values are released: how many rows are positive",
        "exact",
        ("woe/shape",),
    ),
    Reveal(
        "woe.bins",
        "passive",
        "in its process, if weights of evidence or information values are released: the positives in each bin of its own "
        "columns, none with fewer positives or negatives than the floor, and which bins were pooled to reach it",
        "aggregate",
        ("woe/bins",),
    ),
    Reveal(
        "woe.sizes",
        "owners",
        "how many columns each other owner has binned, and the most groups of bins of one",
        "size",
        ("woe/shape",),
    ),
    Reveal(
        "woe.values",
        "owners",
        "if information values are released: the information value of every owner's columns, to four decimals",
        "aggregate",
        ("woe/values",),
    ),
)
"""What `vertical.woe` reveals."""

SELECTION = (
    Reveal(
        "selection.sizes",
        "owners",
        "if a selection is released: how many encoded columns each other owner has",
        "size",
        ("stepwise/shape",),
    ),
    Reveal(
        "selection.coefficients",
        "owners",
        "in its process, if a selection for a logistic regression is released: what training the model of all columns reveals, "
        "among it the coefficients of its own columns",
        "exact",
        ("glm/weights",),
    ),
    Reveal(
        "selection.steps",
        "owners",
        "if a selection is released: in order, whose column enters or leaves or is put aside for depending on others, by a "
        "number that its owner drew for it, and of its own columns which; for a logistic regression also whether rows weigh "
        "too little to go on",
        "exact",
        ("stepwise/column", "stepwise/gain", "stepwise/inflated", "stepwise/aside", "stepwise/range"),
    ),
)
"""What `vertical.stepwise` reveals."""
