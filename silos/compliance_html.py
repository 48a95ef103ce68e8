"""A compliance report as one HTML file: nothing in it runs or is loaded from elsewhere, and all text is escaped."""

from __future__ import annotations

from html import escape

from silos.compliance import Document, Section, Table
from silos.report import page

STYLE = """<style>
.verdict{border-left:5px solid #2c8a4b;background:var(--panel);padding:10px 16px;border-radius:4px;font-weight:600}
.verdict.bad{border-color:#c2412d}
td,th{max-width:480px}td:first-child{white-space:nowrap}td{overflow-wrap:break-word}
.picture{background:#fff;border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto}
.picture svg{max-width:none}
@media print{h2{break-before:auto}table,figure{break-inside:avoid}}
</style>
"""


def html(made: Document) -> str:
    """The whole page."""
    mark = "verdict" if made.good else "verdict bad"
    body = [
        STYLE,
        f'<h1>{escape(made.title)}</h1><p class="sub">{escape(made.subtitle)}</p>',
        f'<p class="{mark}">{escape(made.verdict)}</p>',
        *(_section(section) for section in made.sections),
    ]
    return page(made.title, "\n".join(body))


def _section(section: Section) -> str:
    level = section.level + 1
    out = [f"<h{level}>{escape(section.title)}</h{level}>"]
    out += [f"<p>{escape(text)}</p>" for text in section.text]
    if section.picture:
        out.append(f'<figure class="picture" style="max-width:none">{section.picture}</figure>')
    out += [_table(table) for table in section.tables]
    if section.points:
        out.append(f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in section.points)}</ul>")
    return "\n".join(out)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    first = "th scope=row" if not any(table.head) else "td"
    rows = "".join(
        f"<tr><{first}>{escape(row[0])}</{first.split()[0]}>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    return f'<div class="scroll"><table>{top}<tbody>{rows}</tbody></table></div>'
