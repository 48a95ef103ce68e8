"""A compliance report as a PDF of A4 pages, with the same text as the HTML page, numbered pages and an outline.

The same report gives the same bytes.  Letters of scripts that Open Sans lacks are shown as boxes; the HTML page has them all.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from pathlib import Path

import ttf_opensans
from fpdf import FPDF
from fpdf.enums import MethodReturnValue
from fpdf.fonts import FontFace

from silos.compliance import Document, Section, Table

FONT = "OpenSans"
SMALL, NORMAL = 7.5, 9.5
PADDING = 0.7  # of a cell, mm
GREY, GREEN, RED, BLACK = (90, 102, 117), (44, 138, 75), (194, 65, 45), (28, 36, 48)
LONGEST, TALLEST = 1500, 50
"""Characters and lines of a cell: a row stands on one page."""
CUT = " … (in full in the HTML page)"
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""What the file says of when it was made: when the jobs ran is in the text, and the clock of whoever prints it is no fact."""


class _Paper(FPDF):
    """A4 with a line at the foot of each page.  name: what stands there."""

    def __init__(self, name: str) -> None:
        super().__init__(format="A4")
        self._name = name
        fonts = Path(ttf_opensans.__file__).parent / "ttf"
        self.add_font(FONT, "", fonts / "OpenSans-Regular.ttf")
        self.add_font(FONT, "B", fonts / "OpenSans-Bold.ttf")
        self.set_creation_date(EPOCH)
        self.set_title(name)
        self.set_lang("en")
        self.set_auto_page_break(True, margin=16)
        self.add_page()

    def footer(self) -> None:
        """The report's title and the page's number."""
        self.set_y(-12)
        self.set_font(FONT, size=SMALL)
        self.set_text_color(*GREY)
        self.cell(0, 5, f"{self._name}    {self.page_no()} / {{nb}}", align="C")

    def line_of(self, text: str, size: float, *, bold: bool = False, colour: tuple[int, int, int] = BLACK) -> None:
        """A paragraph over the whole width."""
        self.set_font(FONT, "B" if bold else "", size)
        self.set_text_color(*colour)
        self.multi_cell(0, size * 0.52, _breakable(text), align="L", new_x="LMARGIN", new_y="NEXT")
        self.ln(0.8)


def pdf(made: Document) -> bytes:
    """The whole file."""
    paper = _Paper(made.title)
    paper.line_of(made.title, 17, bold=True)
    paper.line_of(made.subtitle, NORMAL, colour=GREY)
    paper.line_of(made.verdict, NORMAL + 1, bold=True, colour=GREEN if made.good else RED)
    for section in made.sections:
        _section(paper, section)
    out = io.BytesIO()
    paper.output(out)
    return out.getvalue()


def _section(paper: _Paper, section: Section) -> None:
    if paper.get_y() > paper.h - 50:
        paper.add_page()
    paper.ln(3)
    paper.start_section(section.title, level=section.level - 1)
    paper.line_of(section.title, 13 if section.level == 1 else 11, bold=True)
    for text in section.text:
        paper.line_of(text, NORMAL)
    if section.picture:
        picture = re.sub("<title>.*?</title>", "", section.picture)  # its words stand beside it
        paper.image(io.BytesIO(picture.encode()), w=paper.epw)
    for table in section.tables:
        if table.rows:
            _table(paper, table)
    for point in section.points:
        paper.line_of(f"• {point}", SMALL + 0.5)


def _table(paper: _Paper, table: Table) -> None:
    headed = any(table.head)
    cells = [[_breakable(cell) for cell in row] for row in ((table.head, *table.rows) if headed else table.rows)]
    # A column is as wide as its longest cell, up to a limit, and never narrower than its longest word.
    widths = [
        max(
            max(len(word) for row in cells for word in (row[i].split() or [""])),
            min(40, max(len(row[i]) for row in cells)),
        )
        for i in range(len(table.head))
    ]
    paper.set_font(FONT, "", SMALL)
    paper.set_text_color(*BLACK)
    unit = paper.epw / sum(width + 2 for width in widths)
    cells = [[_cut(paper, cell, (widths[i] + 2) * unit) for i, cell in enumerate(row)] for row in cells]
    with paper.table(
        col_widths=tuple(width + 2 for width in widths),
        line_height=SMALL * 0.55,
        first_row_as_headings=headed,
        headings_style=FontFace(emphasis="BOLD", color=GREY),
        borders_layout="HORIZONTAL_LINES",
        text_align="LEFT",
        padding=PADDING,
    ) as drawn:
        for row in cells:
            line = drawn.row()
            for cell in row:
                line.cell(cell)
    paper.ln(1.5)


def _cut(paper: _Paper, text: str, width: float) -> str:
    """A cell's text, as much of it as one page holds.  width: of its column, mm."""
    if len(text) <= TALLEST:
        return text
    short = text if len(text) <= LONGEST else text[:LONGEST] + CUT
    inner = width - 2 * (PADDING + paper.c_margin)
    lines = paper.multi_cell(inner, text=short, align="L", dry_run=True, output=MethodReturnValue.LINES)
    if not isinstance(lines, list) or len(lines) <= TALLEST:
        return short
    return " ".join(lines[: TALLEST - 10]) + CUT


def _breakable(text: str) -> str:
    """Digests and other words that no line would hold, in groups of sixteen."""
    return re.sub(r"\S{28,}", lambda found: " ".join(re.findall(".{1,16}", found[0])), text)
