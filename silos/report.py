"""A result as one HTML file: tables, curves and what was revealed.  Nothing in it runs or is loaded from elsewhere.

All text of the document is escaped.  What the page knows (an evaluation's figures) is shown as such; whatever else
a result holds is shown as tables, so a new kind of result needs no change here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from silos.charts import Axes, bar_chart, line_chart, nice_end

MAX_ROWS = 500
"""Longer tables are cut, and say so."""
MAX_DEPTH = 6
RIGHT = ' class="n"'
TITLES = {
    "auc": "AUC",
    "ks": "KS",
    "r2": "R²",
    "d2": "D²",
    "f1": "F1",
    "contribution": "part of the AUC that is due to each owner's columns",
    "auc_of_held_out_rows": "AUC",
    "std_error": "standard error",
    "p_value": "p",
}
KNOWN = ("gains", "curve", "calibration", "confusion", "loss", "groups", "classes")
STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--line:#d9dee5;--page:#fff;--panel:#f6f8fa;--series:#1f5fa8;--reference:#9aa4b1}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#a2adba;--line:#3a4450;--page:#14181d;--panel:#1c2229;
--series:#6fa8e8;--reference:#6b7684}}
@media print{details{display:block}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:28px 24px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.15rem;margin:32px 0 10px;border-bottom:1px solid var(--line);
padding-bottom:4px}h3{font-size:1rem;margin:18px 0 6px}
h2:first-letter,h3:first-letter{text-transform:uppercase}
.sub,figcaption,.note{color:var(--soft)}.sub{overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:12px}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:112px}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft)}
.charts{display:flex;flex-wrap:wrap;gap:20px}figure{margin:0;max-width:360px}svg{max-width:100%;height:auto}
figcaption{font-size:.87rem}
.scroll{overflow-x:auto;margin:8px 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top;max-width:420px;
overflow-wrap:anywhere}
td.n,th.n{text-align:right}td.n,th{white-space:nowrap;overflow-wrap:normal}td{min-width:4.5em}td.n{min-width:0}
th{color:var(--soft);font-weight:600}
summary{cursor:pointer;color:var(--soft)}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .name{font-size:12px}
.grid{stroke:var(--line)}.reference{stroke:var(--reference);stroke-dasharray:5 4}
.series{fill:none;stroke:var(--series);stroke-width:2}.mark{fill:var(--series)}.bar{fill:var(--series)}
"""


def report(document: Mapping[str, Any], *, disclosure: Sequence[str] = (), title: str = "") -> str:
    """One self-contained page for a result document as `silos.results` stores it.

    disclosure: sentences of what the job revealed, in order.  title: instead of the job's identifier.
    Figures of an evaluation are looked for in result["metrics"].
    """
    result = document.get("result", {})
    result = dict(result) if isinstance(result, Mapping) else {"result": result}
    job = str(document.get("job", ""))
    figures = result.pop("metrics", None)
    body = [f"<h1>{_text(title or f'Result of job {job}')}</h1>"]
    facts = [("job", job), ("silo", document.get("silo")), ("specification", document.get("spec_digest"))]
    body.append(f'<p class="sub">{" · ".join(f"{name} {_text(value)}" for name, value in facts if value)}</p>')
    plain = {key: value for key, value in result.items() if _is_plain(value)}
    if plain:
        body.append(_tiles(plain))
    if isinstance(figures, Mapping):
        body.append(_evaluation(figures))
    for key, value in result.items():
        if key not in plain:
            body.append(f"<h2>{_title(key)}</h2>{_value(value, 0)}")
    if disclosure:
        items = "".join(f"<li>{_text(line)}</li>" for line in disclosure)
        body.append(f"<h2>What this job revealed</h2><ul>{items}</ul>")
    return page(title or f"Job {job}", "\n".join(body))


def page(title: str, body: str) -> str:
    """A whole HTML file around a body that is escaped already."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _evaluation(figures: Mapping[str, Any]) -> str:
    """The figures of `vertical.metrics.evaluate`."""
    out = ["<h2>Evaluation on held-out rows</h2>"]
    plain = {key: value for key, value in figures.items() if _is_plain(value)}
    loss = figures.get("loss")
    out.append(_tiles(plain))
    charts = _charts(figures)
    if charts:
        out.append(f'<h3>Curves</h3><div class="charts">{"".join(charts)}</div>')
        out.append(
            '<p class="note">Points are taken between bins of rows in falling order of score; no score is shown.</p>'
        )
    if isinstance(loss, Mapping):
        out.append(f"<h3>Losses</h3>{_value(loss, 1)}")
    for key, heading in (("confusion", "Confusion at thresholds"), ("classes", "Classes"), ("gains", "Gains")):
        if figures.get(key):
            out.append(f"<h3>{heading}</h3>{_value(figures[key], 1)}")
    for key, heading in (("calibration", "Calibration, as a table"), ("curve", "Curve, as a table")):
        if figures.get(key):
            out.append(f"<details><summary>{heading}</summary>{_value(figures[key], 1)}</details>")
    out += [_groups(group) for group in _rows(figures.get("groups"))]
    for key, value in figures.items():
        if key not in plain and key not in KNOWN:
            out.append(f"<h3>{_title(key)}</h3>{_value(value, 1)}")
    return "\n".join(out)


def _charts(figures: Mapping[str, Any]) -> list[str]:
    out = []
    curve, gains, calibration = (_rows(figures.get(key)) for key in ("curve", "gains", "calibration"))
    if curve:
        points = [(_number(p.get("false_positive_rate")), _number(p.get("true_positive_rate"))) for p in curve]
        area = f"ROC; the area under it, over all scores, is {_text(figures['auc'])}" if "auc" in figures else "ROC"
        out.append(_figure(line_chart(Axes("ROC curve", "false positive rate", "true positive rate"), points), area))
        points = [(_number(p.get("rows")), _number(p.get("true_positive_rate"))) for p in curve]
        axes = Axes("Gain curve", "rows, best scores first", "part of all positives")
        out.append(_figure(line_chart(axes, points), "Gain: how many of the positives are among the best rows"))
    if gains:
        lifts = [_number(row.get("lift")) for row in gains]
        axes = Axes("Lift by bin", "bin", "lift", y_end=nice_end(max(lifts, default=1.0)), percent=False)
        out.append(_figure(bar_chart(axes, lifts, line=1.0), "Lift: the rate in each bin over that of all rows"))
    if calibration:
        points = sorted((_number(row.get("predicted")), _number(row.get("observed"))) for row in calibration)
        low = min((min(point) for point in points), default=0.0)
        if low >= 0:
            end = nice_end(max(max(point) for point in points))
            axes = Axes("Calibration", "mean prediction", "mean outcome", end, end, percent=end <= 1)
            out.append(_figure(line_chart(axes, points), "Calibration: mean outcome against mean prediction, by bin"))
    return out


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _groups(group: Mapping[str, Any]) -> str:
    """One column by which figures are split."""
    heading = f"<h3>By {_text(group.get('column', 'group'))}</h3>"
    rest = {key: value for key, value in group.items() if key not in ("column", "table")}
    return f"{heading}{_tiles(rest)}{_value(group['table'], 1) if 'table' in group else ''}"


def _tiles(values: Mapping[str, Any]) -> str:
    tiles = (
        f'<div class="tile"><b>{_text(value)}</b><span>{_title(key)}</span></div>' for key, value in values.items()
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _value(value: Any, depth: int) -> str:
    """Any JSON value as HTML."""
    if depth > MAX_DEPTH:
        return '<p class="note">more is in the result file</p>'
    if isinstance(value, Mapping):
        plain = {key: inner for key, inner in value.items() if _is_plain(inner)}
        lines = "".join(f"<tr><th>{_title(key)}</th>{_cell(inner)}</tr>" for key, inner in plain.items())
        table = f'<div class="scroll"><table>{lines}</table></div>' if lines else ""
        rest = (f"<h3>{_title(key)}</h3>{_value(inner, depth + 1)}" for key, inner in value.items() if key not in plain)
        return table + "".join(rest)
    if isinstance(value, list | tuple):
        table_rows = _rows(value)
        if table_rows and len(table_rows) == len(value):
            return _table(table_rows)
        shown = "".join(
            f"<li>{_text(inner) if _is_plain(inner) else _value(inner, depth + 1)}</li>" for inner in value[:MAX_ROWS]
        )
        return f"<ul>{shown}</ul>{_cut(len(value))}" if value else '<p class="note">none</p>'
    return f"<p>{_text(value)}</p>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one kind; a column for every key that any of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key: all(_is_number(row.get(key, "")) for row in rows) for key in keys}
    head = "".join(f"<th{RIGHT if numeric[key] else ''}>{_title(key)}</th>" for key in keys)
    body = "".join(f"<tr>{''.join(_cell(row.get(key, '')) for key in keys)}</tr>" for row in rows[:MAX_ROWS])
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{_cut(len(rows))}'
    )


def _cut(count: int) -> str:
    return f'<p class="note">the first {MAX_ROWS} of {count}</p>' if count > MAX_ROWS else ""


def _cell(value: Any) -> str:
    inner = _text(value) if _is_plain(value) else _value(value, MAX_DEPTH - 1)
    return f"<td{RIGHT if _is_number(value) else ''}>{inner}</td>"


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    try:
        float(value.removeprefix("<") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return bool(value == "-")
    return True


def _number(value: Any) -> float:
    """A decimal string as a number; what is none, or absurdly large, is 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if abs(number) < 1e15 else 0.0


def _title(key: Any) -> str:
    return _text(TITLES.get(str(key), str(key).replace("_", " ")))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)  # a lone surrogate has no UTF-8
