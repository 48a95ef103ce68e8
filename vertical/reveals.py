"""What the protocols of this package let a participant learn.

The declarations stand here, beside the protocols and not in them, because stating a disclosure must not need the tensor
engine that running a protocol needs.
"""

from __future__ import annotations

from mpc.reveals import Reveal

LOGISTIC = (
    Reveal(
        "coefficients",
        "owners",
        "the coefficients of its own columns, exactly",
        "exact",
        ("glm/weights", "sparse/weights"),
    ),
    Reveal("intercept", "active", "the intercept, exactly", "exact", ("glm/weights", "sparse/weights")),
    Reveal(
        "columns",
        "owners",
        "how many encoded columns each other owner has, and how many of them are independent",
        "size",
        ("glm/shape", "linear/shape", "sparse/shape", "multinomial/shape"),
    ),
    Reveal(
        "period",
        "owners",
        "whether any score left the range that the approximation allows, and if the part of a score at any owner is above its "
        "share of the range, the largest such part within a factor of two",
        "aggregate",
        ("glm/outside", "glm/range"),
    ),
    Reveal("converged", "owners", "whether training had converged when it ended", "aggregate", ("glm/settled",)),
    Reveal(
        "curvature",
        "owners",
        "with a lasso, or errors of a model with a logarithmic link: whether training was given up as few rows weigh too much",
        "aggregate",
        ("glm/hessian",),
    ),
)

EVALUATE = (
    Reveal(
        "auc",
        "owners",
        "the area under the ROC curve on the held-out rows; four decimals of it are handed out",
        "aggregate",
        ("evaluate/pairs", "evaluate/auc", "evaluate/quick"),
    ),
    Reveal(
        "contribution.exact",
        "active",
        "how much of the area under the ROC curve on the held-out rows is due to each owner's columns (Shapley values), "
        "exactly",
        "aggregate",
        ("contribution/exact",),
    ),
    Reveal(
        "contribution.told",
        "passive",
        "how much of the area under the ROC curve on the held-out rows is due to each owner's columns (Shapley values), to "
        "four decimals",
        "aggregate",
        ("contribution/told",),
    ),
    Reveal("counts", "owners", "the number of aligned, training and held-out rows", "size"),
)

METRICS = (
    Reveal(
        "metrics.counts",
        "owners",
        "the number of held-out rows and, of a classifier, how many each class has",
        "size",
        ("metrics/request", "metrics/rows"),
    ),
    Reveal(
        "metrics.auc",
        "owners",
        "the area under the ROC curve on the held-out rows, of each class, exactly",
        "aggregate",
        ("metrics/auc", "evaluate/quick"),
    ),
    Reveal(
        "metrics.ks",
        "owners",
        "the largest distance between the two classes' scores (KS), exactly",
        "aggregate",
        ("metrics/ks",),
    ),
    Reveal(
        "metrics.gains",
        "owners",
        "the sum of the label in each bin of held-out rows, by falling score; a bin has twenty rows or more",
        "aggregate",
        ("metrics/bins",),
    ),
    Reveal(
        "metrics.curves",
        "owners",
        "how many positives are above each of some points by falling score",
        "aggregate",
        ("metrics/points",),
    ),
    Reveal(
        "metrics.calibration",
        "owners",
        "the sums of the label and of the predictions in each bin of held-out rows, by falling score",
        "aggregate",
        ("metrics/bins", "metrics/predicted"),
    ),
    Reveal(
        "metrics.confusion",
        "owners",
        "how many held-out rows of each class have a prediction above each of the job's thresholds: counts of any size",
        "aggregate",
        ("metrics/confusion",),
    ),
    Reveal(
        "metrics.loss",
        "owners",
        "sums over the held-out rows: of predictions, of the label, of squares and absolute values of residuals, of the "
        "log-loss or the deviance, and of what the best constant leaves of it; the power of two that all labels are below",
        "aggregate",
        ("metrics/loss", "losses/label"),
    ),
    Reveal(
        "metrics.accuracy",
        "owners",
        "how many held-out rows of each class are predicted right",
        "aggregate",
        ("metrics/right",),
    ),
    Reveal(
        "metrics.group-names",
        "owners",
        "the names of the groups of a column by which figures are split that have twice the minimum of rows, in the order of "
        "their sizes, and which of them have "
        "fewer positives or negatives than the minimum",
        "aggregate",
        ("segments/names", "segments/few"),
    ),
    Reveal(
        "metrics.groups",
        "owners",
        "for each group that has the minimum of positives and of negatives, and for the others together: its rows and "
        "positives, how many of both are selected, the sums of their predictions, and its AUC",
        "aggregate",
        ("metrics/groups",),
    ),
    Reveal(
        "metrics.range",
        "owners",
        "of a model of a mean whose scores allow it: whether any predicted mean is too large to be computed",
        "aggregate",
        ("metrics/range",),
    ),
)
"""What an evaluation reveals: of these, what the job's figures need."""

NETWORK = (
    Reveal("network.columns", "owners", "how many encoded columns each other owner has", "size", ("network/shape",)),
    Reveal(
        "network.rows",
        "owners",
        "that all owners have the same number of rows, and who has the label",
        "size",
        ("network/shape",),
    ),
    Reveal(
        "network.range",
        "owners",
        "after each pass over the rows, whether any weight, or any output for a training row, left its public limit; "
        "training then stops",
        "aggregate",
        ("network/range",),
    ),
)
"""What training a network reveals; its weights stay shared, so there is nothing to release but scores."""

TREES = (
    Reveal(
        "trees.columns",
        "owners",
        "how many columns and bins each other owner has, and, by position, which of its columns have missing values or a "
        "monotone constraint",
        "size",
        ("trees/shape",),
    ),
    Reveal(
        "trees.scale",
        "owners",
        "for other labels than 0 and 1, the powers of two above the largest distance from the mean and above the mean, or for "
        "counts above the mean and above the largest",
        "aggregate",
        ("trees/shape",),
    ),
    Reveal(
        "trees.structure",
        "owners",
        "for every node of every tree, whose column splits it, or that it is not split",
        "exact",
        ("trees/owner",),
    ),
    Reveal(
        "trees.splits",
        "owners",
        "for the nodes that its own columns split, the column and the bin",
        "exact",
        ("trees/split",),
    ),
    Reveal(
        "trees.stop",
        "owners",
        "if rows are held back to stop early, after how many trees their loss got better no more",
        "aggregate",
        ("trees/stop",),
    ),
)
"""What training trees reveals; leaves stay shared, so there is nothing to release but an owner's own splits."""

TREES_ROUTED = (
    Reveal(
        "trees.routing",
        "owners",
        "for every node of every tree, which rows go to its left",
        "exact",
        ("trees/routing",),
    ),
)
"""What trees reveal in addition if the settings say that routing is revealed."""

FAMILIES = (
    Reveal(
        "label.scale",
        "owners",
        "for Poisson, Gamma, Tweedie and linear models: the power of two nearest to the mean of the label, and for linear "
        "models those near its standard deviation and its largest size instead",
        "aggregate",
        ("family/scale", "linear/shape"),
    ),
    Reveal(
        "label.classes",
        "owners",
        "for multinomial models: how many classes the label has",
        "size",
        ("multinomial/shape",),
    ),
    Reveal(
        "residual-variance",
        "owners",
        "for linear models without a lasso: the residual variance",
        "aggregate",
        ("linear/variance",),
    ),
    Reveal(
        "sparse.zeros",
        "owners",
        "with a lasso: which of its own coefficients are exactly zero",
        "exact",
        ("sparse/weights",),
    ),
)
"""What families other than logistic reveal beyond `LOGISTIC`: see docs/protocols/glm-families.md."""

INFERENCE = (
    Reveal(
        "standard-errors",
        "owners",
        "the standard errors of the coefficients of its own columns",
        "exact",
        ("inference/variances",),
    ),
    Reveal("intercept-error", "active", "the standard error of the intercept", "exact", ("inference/variances",)),
    Reveal(
        "estimable",
        "owners",
        "of each of its own coefficients, whether the data determine it and whether it had settled",
        "exact",
        ("inference/flags",),
    ),
    Reveal("hessians", "owners", "after how many Hessians training had converged", "aggregate", ("glm/settled",)),
)
"""What standard errors reveal beyond `LOGISTIC`: see docs/protocols/glm.md."""

RESUMING = (
    Reveal(
        "training.resumed",
        "owners",
        "how far an interrupted training had come at each other owner",
        "size",
        ("checkpoint/agree",),
    ),
)
"""What a training reveals that goes on after a crash, beyond what it reveals anew."""
