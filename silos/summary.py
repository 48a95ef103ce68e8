"""A trained model as text: the table that statisticians know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 86
NAME, CELL = 26, 10
PER_LINE = (WIDTH - NAME) // CELL
_HEADINGS = ("coef", "std err", "z", "P>|z|", "[0.025", "0.975]")
_KEYS = ("coefficient", "standard_error", "z", "p", "low", "high")
_ROWS = {"matched": "Matched rows", "training": "Training rows", "held_out": "Held-out rows"}
_NAMES = {"auc": "AUC", "macro_auc": "Mean AUC of classes", "ks": "KS", "r2": "R2", "d2": "D2"}


def summary(title: str, document: Mapping[str, Any]) -> str:
    """A result document as a table; what was not released is left out.

    document: as in the result file: `job`, `silo`, `result`.  Figures are of held-out rows; coefficients are those of
    standardised inputs of this silo.
    """
    result = document["result"]
    model, metrics = result.get("model", {}), result.get("metrics", {})
    parts = [_pairs(_facts(document, result, model)), _pairs(_figures(result, metrics)), _groups(metrics)]
    parts.append(_contribution(result.get("contribution", {})))
    if "intercept" in model:
        parts.append(_coefficients(model))
    elif any("splits" in item for item in model.get("inputs", ())):
        parts.append(_splits(model["inputs"]))
    double = "=" * WIDTH
    lines = [title.center(WIDTH).rstrip(), double]
    if model.get("converged") is False:
        lines += ["not converged: raise train.passes", double]
    for part in parts:
        shown = list(part)
        lines += [*shown, double] if shown else []
    return "\n".join(lines) + "\n"


def _facts(
    document: Mapping[str, Any], result: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What was trained, and on how many rows."""
    yield "Job", document["job"][:12]
    yield "Silo", document["silo"]
    for key in ("family", "objective", "task", "trees", "depth"):
        if key in model:
            yield key.capitalize(), str(model[key])
    if "layers" in model:
        yield "Neurons by layer", "-".join(map(str, model["layers"]))
    rows = result.get("rows", {})
    yield from ((name, f"{rows[key]:,}") for key, name in _ROWS.items() if key in rows)
    metrics = result.get("metrics", {})
    if "positives" in metrics:
        yield "Held-out positives", f"{metrics['positives']:,}"


def _figures(result: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Single numbers of the evaluation; the losses are a table within it.  Its tables are for the report."""
    found = {name: value for name, value in metrics.items() if isinstance(value, str) and name != "family"}
    if "auc" in result:
        found = {"auc": result["auc"], **found}
    gains, loss = metrics.get("gains"), metrics.get("loss")
    if gains:
        found["lift of best bin"] = gains[0]["lift"]
    if isinstance(loss, Mapping):
        found |= loss
    for name, value in found.items():
        yield _NAMES.get(name, name.replace("_", " ").capitalize()), value


def _pairs(facts: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Facts, two in a line."""
    cells, half = [*facts], WIDTH // 2
    for i in range(0, len(cells), 2):
        yield "".join(f"{f'{name}:':<{NAME}} {value:>{half - NAME - 3}}  " for name, value in cells[i : i + 2]).rstrip()


def _contribution(values: Mapping[str, str]) -> Iterator[str]:
    """By owner: how much of the AUC is due to its columns."""
    if values:
        yield f"{'columns of':<40}{'part of AUC':>12}"
        yield "-" * WIDTH
    for silo, value in values.items():
        yield f"{silo[:39]:<40}{value:>12}"


def _groups(metrics: Mapping[str, Any]) -> Iterator[str]:
    """By group: how far apart groups are; and the classes of a label with several."""
    for group in metrics.get("groups", ()):
        if "withheld" in group:
            yield f"By {group['column']}: withheld, {group['withheld']}"
            continue
        yield f"By {group['column']}, at {group['threshold']}:"
        yield f"  demographic parity difference {group['demographic_parity_difference']}"
        yield f"  equal opportunity difference  {group['equal_opportunity_difference']}"
    for row in metrics.get("classes", ()):
        more = "".join(f", {key.replace('auc', 'AUC')} {row[key]}" for key in ("recall", "auc") if key in row)
        yield f"Class {row['class']}: {row['rows']:,} rows{more}"


def _coefficients(model: Mapping[str, Any]) -> Iterator[str]:
    tested = any("standard_error" in item for item in model["inputs"])
    several = next((item["coefficient"] for item in model["inputs"] if isinstance(item.get("coefficient"), list)), None)
    if several is None:
        yield _line("", _HEADINGS if tested else _HEADINGS[:1])
    else:
        yield from _lines("", [f"class {i}" for i in range(len(several))])
    yield "-" * WIDTH
    items = list(model["inputs"])
    if model["intercept"] is not None:
        first = {"input": "intercept", "coefficient": model["intercept"], **(model.get("intercept_inference") or {})}
        items.insert(0, first)
    for item in items:
        yield from _row(item)
    if model.get("left_out"):
        yield f"left out, because they do not vary: {', '.join(model['left_out'])}"


def _row(item: Mapping[str, Any]) -> Iterator[str]:
    value = item.get("coefficient")
    if isinstance(value, list):
        yield from _lines(item["input"], [_number(one) for one in value])
        return
    yield _line(item["input"], [_number(item.get(key)) for key in _KEYS if key in item or key == "coefficient"])
    if item.get("note"):
        yield f"  {item['note']}"


def _lines(name: str, cells: Sequence[str]) -> Iterator[str]:
    """One line or, for very many classes, several."""
    for i in range(0, len(cells), PER_LINE):
        yield _line(name if i == 0 else "", cells[i : i + PER_LINE])


def _line(name: str, cells: Sequence[str]) -> str:
    shown = name if len(name) < NAME else f"{name[: NAME - 2]}…"
    return (f"{shown:<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells)).rstrip()


def _number(value: Any) -> str:
    """In at most nine characters, so that columns stay apart."""
    if value is None:
        return ""
    number = float(value)
    return next((text for text in (f"{number:.4f}", f"{number:.1f}") if len(text) < CELL), f"{number:.2e}")


def _splits(inputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Columns of this silo, those that are split on most first."""
    yield f"{'column':<40}{'splits':>8}"
    yield "-" * WIDTH
    for item in sorted(inputs, key=lambda item: -int(item["splits"])):
        yield f"{item['column'][:39]:<40}{item['splits']:>8}"
