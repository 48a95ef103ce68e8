"""What the protocols of this package let a participant learn.

The declarations stand here, beside the protocols and not in them, because stating a disclosure must not need the tensor
engine that running a protocol needs.
"""

from __future__ import annotations

from mpc.reveals import Reveal

LOGISTIC = (
    Reveal("coefficients", "owners", "the coefficients of its own columns, exactly", "exact"),
    Reveal("intercept", "active", "the intercept, exactly", "exact"),
    Reveal(
        "columns",
        "owners",
        "how many encoded columns each other owner has, and how many of them are independent",
        "size",
    ),
    Reveal(
        "period",
        "owners",
        "whether any score left the range that the approximation allows, and if the part of a score at any owner is above its "
        "share of the range, the largest such part within a factor of two",
        "aggregate",
    ),
    Reveal(
        "converged",
        "owners",
        "whether training had converged when it ended, or, with a logarithmic link, was given up as few rows weigh too much",
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
    ),
    Reveal(
        "linkage.counts",
        "owners",
        "if rows that share an identifier are all paired: how many rows the other owner has behind each matched identifier",
        "exact",
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
        "score.decision", "recipients", "for each of its matched rows, whether the prediction is high enough", "exact"
    ),
    Reveal("score.class", "recipients", "for each of its matched rows, which class is the most likely", "exact"),
    Reveal(
        "score.decile",
        "recipients",
        "for each of its matched rows, between which cut points the prediction is",
        "exact",
    ),
    Reveal("score.rounded", "recipients", "for each of its matched rows, the rounded prediction", "exact"),
    Reveal(
        "score.probability",
        "recipients",
        "for each of its matched rows, the prediction, and so what all other owners' columns add to the score of the row",
        "exact",
    ),
    Reveal("score.columns", "owners", "how many columns each other owner's part of the model reads", "size"),
    Reveal("score.inputs", "owners", "how many inputs each other owner's part of the model has", "size"),
    Reveal("score.asked", "owners", "which of its matched rows the recipient asks for, and when", "exact"),
    Reveal(
        "score.stability",
        "owners",
        "how many matched rows have a score in each band between the job's cut points, if no band has fewer than the minimum; "
        "otherwise, that one has",
        "aggregate",
    ),
)
"""What predicting reveals: of the first five what the job's output says, and of the last two what the job asks for."""

METRICS = (
    Reveal(
        "metrics.counts", "owners", "the number of held-out rows and, of a classifier, how many each class has", "size"
    ),
    Reveal(
        "metrics.auc",
        "owners",
        "the area under the ROC curve on the held-out rows, of each class, exactly",
        "aggregate",
    ),
    Reveal("metrics.ks", "owners", "the largest distance between the two classes' scores (KS), exactly", "aggregate"),
    Reveal(
        "metrics.gains",
        "owners",
        "the sum of the label in each bin of held-out rows, by falling score; a bin has twenty rows or more",
        "aggregate",
    ),
    Reveal(
        "metrics.curves", "owners", "how many positives are above each of some points by falling score", "aggregate"
    ),
    Reveal(
        "metrics.calibration",
        "owners",
        "the sums of the label and of the predictions in each bin of held-out rows, by falling score",
        "aggregate",
    ),
    Reveal(
        "metrics.confusion",
        "owners",
        "how many held-out rows of each class have a prediction above each of the job's thresholds: counts of any size",
        "aggregate",
    ),
    Reveal(
        "metrics.loss",
        "owners",
        "sums over the held-out rows: of predictions, of the label, of squares and absolute values of residuals, of the "
        "log-loss or the deviance, and of what the best constant leaves of it; the power of two that all labels are below",
        "aggregate",
    ),
    Reveal("metrics.accuracy", "owners", "how many held-out rows of each class are predicted right", "aggregate"),
    Reveal(
        "metrics.group-names",
        "owners",
        "the names of the groups of a column by which figures are split that have twice the minimum of rows, in the order of "
        "their sizes, and which of them have "
        "fewer positives or negatives than the minimum",
        "aggregate",
    ),
    Reveal(
        "metrics.groups",
        "owners",
        "for each group that has the minimum of positives and of negatives, and for the others together: its rows and "
        "positives, how many of both are selected, the sums of their predictions, and its AUC",
        "aggregate",
    ),
    Reveal(
        "metrics.range",
        "owners",
        "of a model of a mean whose scores allow it: whether any predicted mean is too large to be computed",
        "aggregate",
    ),
)
"""What an evaluation reveals: of these, what the job's figures need."""

NETWORK = (
    Reveal("network.columns", "owners", "how many encoded columns each other owner has", "size"),
    Reveal("network.rows", "owners", "that all owners have the same number of rows, and who has the label", "size"),
    Reveal(
        "network.range",
        "owners",
        "after each pass over the rows, whether any weight, or any output for a training row, left its public limit; "
        "training then stops",
        "aggregate",
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
    ),
    Reveal(
        "trees.scale",
        "owners",
        "for other labels than 0 and 1, the powers of two above the largest distance from the mean and above the mean, or for "
        "counts above the mean and above the largest",
        "aggregate",
    ),
    Reveal(
        "trees.structure",
        "owners",
        "for every node of every tree, whose column splits it, or that it is not split",
        "exact",
    ),
    Reveal("trees.splits", "owners", "for the nodes that its own columns split, the column and the bin", "exact"),
    Reveal(
        "trees.stop",
        "owners",
        "if rows are held back to stop early, after how many trees their loss got better no more",
        "aggregate",
    ),
)
"""What training trees reveals; leaves stay shared, so there is nothing to release but an owner's own splits."""

TREES_ROUTED = (Reveal("trees.routing", "owners", "for every node of every tree, which rows go to its left", "exact"),)
"""What trees reveal in addition if the settings say that routing is revealed."""

STATISTICS = (
    Reveal(
        "statistics.sizes",
        "owners",
        "how many encoded columns each other owner has, how many of them are independent, and who has the label",
        "size",
    ),
    Reveal(
        "statistics.label_correlations",
        "owners",
        "if released: the correlation of each of its own encoded columns with the label",
        "aggregate",
    ),
    Reveal(
        "statistics.correlations",
        "owners",
        "if released: the correlation of each of its own encoded columns with each of every other owner's, these named by "
        "their column and the number of a category's level, but not the level",
        "aggregate",
    ),
    Reveal(
        "statistics.vif",
        "owners",
        "if released: the variance inflation factor of each of its own encoded columns among the columns of all owners, or "
        "that it is too large to be told",
        "aggregate",
    ),
)
"""What `vertical.statistics` reveals."""

WEIGHTS = (
    Reveal(
        "woe.positives",
        "owners",
        "if weights of evidence or information values are released: how many rows are positive",
        "exact",
    ),
    Reveal(
        "woe.bins",
        "passive",
        "in its process, if weights of evidence or information values are released: the positives in each bin of its own "
        "columns, none with fewer positives or negatives than the floor, and which bins were pooled to reach it",
        "aggregate",
    ),
    Reveal(
        "woe.sizes",
        "owners",
        "how many columns each other owner has binned, and the most groups of bins of one",
        "size",
    ),
    Reveal(
        "woe.values",
        "owners",
        "if information values are released: the information value of every owner's columns, to four decimals",
        "aggregate",
    ),
)
"""What `vertical.woe` reveals."""

SELECTION = (
    Reveal(
        "selection.sizes", "owners", "if a selection is released: how many encoded columns each other owner has", "size"
    ),
    Reveal(
        "selection.coefficients",
        "owners",
        "in its process, if a selection for a logistic regression is released: what training the model of all columns reveals, "
        "among it the coefficients of its own columns",
        "exact",
    ),
    Reveal(
        "selection.steps",
        "owners",
        "if a selection is released: in order, whose column enters or leaves or is put aside for depending on others, by a "
        "number that its owner drew for it, and of its own columns which",
        "exact",
    ),
)
"""What `vertical.stepwise` reveals."""

FAMILIES = (
    Reveal(
        "label.scale",
        "owners",
        "for Poisson, Gamma, Tweedie and linear models: the power of two nearest to the mean of the label, and for linear "
        "models those near its standard deviation and its largest size instead",
        "aggregate",
    ),
    Reveal("label.classes", "owners", "for multinomial models: how many classes the label has", "size"),
    Reveal("residual-variance", "owners", "for linear models without a lasso: the residual variance", "aggregate"),
    Reveal("sparse.zeros", "owners", "with a lasso: which of its own coefficients are exactly zero", "exact"),
)
"""What families other than logistic reveal beyond `LOGISTIC`: see docs/protocols/glm-families.md."""

INFERENCE = (
    Reveal("standard-errors", "owners", "the standard errors of the coefficients of its own columns", "exact"),
    Reveal("intercept-error", "active", "the standard error of the intercept", "exact"),
    Reveal(
        "estimable",
        "owners",
        "of each of its own coefficients, whether the data determine it and whether it had settled",
        "exact",
    ),
    Reveal("hessians", "owners", "after how many Hessians training had converged", "aggregate"),
)
"""What standard errors reveal beyond `LOGISTIC`: see docs/protocols/glm.md."""

RESUMING = (
    Reveal(
        "training.resumed",
        "owners",
        "how far an interrupted training had come at each other owner",
        "size",
    ),
)
"""What a training reveals that goes on after a crash, beyond what it reveals anew."""
