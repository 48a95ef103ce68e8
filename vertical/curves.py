"""From opened counts to figures and tables: plain arithmetic, the same at every owner.

Decimals are strings, so that a result reads the same everywhere.  Rows are in falling order of score; bin b of q holds those
at places floor(b n / q) to floor((b + 1) n / q), and rows of equal scores are in the order in which the job has its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Table = list[dict[str, Any]]
DIGITS = 4
TOGETHER = "(small groups together)"
"""The name of the union of groups that are too small to be shown."""


def decimal(numerator: float, denominator: float = 1, digits: int = DIGITS) -> str:
    """A quotient as text; "-" if there is nothing to divide by."""
    if denominator == 0:
        return "-"
    text = f"{numerator / denominator:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def cuts(n: int, bins: int) -> list[int]:
    """How many rows there are up to the end of each bin, from 0 to n."""
    return [b * n // bins for b in range(bins + 1)]


def gains_table(n: int, places: Sequence[int], hits: Sequence[float]) -> Table:
    """What each bin holds of the outcomes, and what all bins up to it hold.

    places: as `cuts`.  hits: the sum of the outcomes over the first rows, for each place.
    Lift is the rate in a bin over that of all rows; gain is the part of all outcomes.
    """
    out, total = [], hits[-1]
    for b in range(len(places) - 1):
        rows, found = places[b + 1] - places[b], hits[b + 1] - hits[b]
        out.append(
            {
                "bin": b + 1,
                "rows": rows,
                "outcome": int(found) if float(found).is_integer() else decimal(found),
                "rate": decimal(found, rows),
                "lift": decimal(found * n, rows * total),
                "gain": decimal(hits[b + 1], total),
                "cumulative_lift": decimal(hits[b + 1] * n, places[b + 1] * total),
            }
        )
    return out


def calibration_table(places: Sequence[int], hits: Sequence[float], predicted: Sequence[float]) -> Table:
    """Mean prediction and mean outcome in each bin, given both sums over the first rows at each place."""
    out = []
    for b in range(len(places) - 1):
        rows = places[b + 1] - places[b]
        expected, found = predicted[b + 1] - predicted[b], hits[b + 1] - hits[b]
        out.append({"bin": b + 1, "rows": rows, "predicted": decimal(expected, rows), "observed": decimal(found, rows)})
    return out


def curve_points(n: int, places: Sequence[int], positives: Sequence[int]) -> Table:
    """Points of the ROC and the gain curve: after each place, the rates of rows, positives and negatives so far."""
    P = positives[-1]
    return [
        {
            "rows": decimal(place, n),
            "true_positive_rate": decimal(found, P),
            "false_positive_rate": decimal(place - found, n - P),
        }
        for place, found in zip(places, positives, strict=True)
    ]


def confusion(threshold: str, n: int, P: int, below: int, positives_below: int) -> dict[str, Any]:
    """The confusion matrix of "positive if the score is not below the threshold", and what is read off it."""
    tp, fp = P - positives_below, n - P - (below - positives_below)
    fn, tn = positives_below, below - positives_below
    return {
        "threshold": threshold,
        "true_positives": tp,
        "false_positives": fp,
        "false_negatives": fn,
        "true_negatives": tn,
        "accuracy": decimal(tp + tn, n),
        "precision": decimal(tp, tp + fp),
        "recall": decimal(tp, P),
        "false_positive_rate": decimal(fp, n - P),
        "f1": decimal(2 * tp, 2 * tp + fp + fn),
    }


def binary_losses(n: int, P: int, log_loss: float, brier: float, sums: tuple[float, float]) -> dict[str, str]:
    """Log-loss, Brier score and what follows from them.

    sums: of the predictions of all rows and of the positives.  "r2" is McFadden's: 1 - log-loss / that of the base rate.
    "discrimination" is Tjur's: mean prediction of positives minus that of negatives.
    """
    rate = P / n
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return {
        "log_loss": decimal(log_loss),
        "log_loss_of_base_rate": decimal(base),
        "r2": decimal(1 - log_loss / base),
        "brier": decimal(brier),
        "brier_of_base_rate": decimal(rate * (1 - rate)),
        "mean_prediction": decimal(sums[0], n),
        "base_rate": decimal(rate),
        "discrimination": decimal(sums[1] / P - (sums[0] - sums[1]) / (n - P)),
    }


def group_table(
    names: Sequence[str],
    counts: tuple[Sequence[int], Sequence[int]],
    predicted: Sequence[float] | None,
    area: Sequence[int] | None,
) -> dict[str, Any]:
    """Figures of groups, and their largest differences, over groups that are not a union of others.

    counts: rows of each group, then positives of each; and the same of those below the threshold.  predicted: sums of the
    predictions, laid out alike.  area: twice the concordant pairs and ties, minus all pairs.
    """
    g, rates = len(names), []
    rows: Table = []
    for i, name in enumerate(names):
        n, P = counts[0][i], counts[0][g + i]
        selected, found = n - counts[1][i], P - counts[1][g + i]
        row = {
            "group": name,
            "rows": n,
            "positives": P,
            "selected": selected,
            "selection_rate": decimal(selected, n),
            "true_positive_rate": decimal(found, P),
            "false_positive_rate": decimal(selected - found, n - P),
            "base_rate": decimal(P, n),
        }
        if predicted is not None:
            row["mean_prediction"] = decimal(predicted[i], n)
        if area is not None:
            row["auc"] = decimal(area[i] + P * (n - P), 2 * P * (n - P))
        rows.append(row)
        if name != TOGETHER:
            rates.append((selected / n, found / P))
    return {
        "table": rows,
        "demographic_parity_difference": spread([selected for selected, _ in rates]),
        "equal_opportunity_difference": spread([found for _, found in rates]),
    }


def class_table(
    rows: Sequence[int], right: Sequence[int] | None, loss: float | None, area: Sequence[int] | None
) -> dict[str, Any]:
    """Figures of several classes.

    rows: of each class; right: how many of them are predicted right.  loss: the sum of the log-losses.  area: for each class,
    twice the concordant pairs and ties minus all pairs.
    """
    n, classes = sum(rows), len(rows)
    out: dict[str, Any] = {"largest_class": decimal(max(rows), n)}
    table: Table = [{"class": i, "rows": count} for i, count in enumerate(rows)]
    if right is not None:
        out["accuracy"] = decimal(sum(right), n)
        out["balanced_accuracy"] = decimal(sum(hits / count for hits, count in zip(right, rows, strict=True)), classes)
        for row, hits in zip(table, right, strict=True):
            row["recall"] = decimal(hits, row["rows"])
    if area is not None:
        areas = [0.5 + a / (2 * count * (n - count)) for a, count in zip(area, rows, strict=True)]
        out["macro_auc"] = decimal(sum(areas), classes)
        for row, value in zip(table, areas, strict=True):
            row["auc"] = decimal(value)
    if loss is not None:
        out["log_loss"] = decimal(loss, n)
        out["log_loss_of_base_rates"] = decimal(-sum(c / n * math.log(c / n) for c in rows))
    return out | {"classes": table}


def spread(values: Sequence[float]) -> str:
    """The largest difference of rates: of selection rates it is the demographic parity difference."""
    return decimal(max(values) - min(values)) if len(values) > 1 else "-"
