"""From which data set, through which job, to whom: a picture of lineage as SVG, laid out in columns.

Data sets stand left, jobs in the middle, what they released right; a model that later jobs used leads on to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from silos.facts import Job, Owner

WIDTH, HEIGHT, GAP, LEFT_GAP = 220, 46, 14, 110
MAX_DRAWN = 24
"""Jobs in one picture; a longer story is a table."""
COLOURS = {"data": "#dbe9f9", "job": "#eef0f3", "result": "#dff1e1", "stopped": "#fbe3df"}
INK, LINE = "#1c2430", "#8a95a3"


@dataclass(frozen=True)
class Node:
    """A box.  lines: its text.  column: 0 data sets, 1 jobs, 2 results."""

    key: str
    column: int
    kind: str
    lines: tuple[str, str]


@dataclass(frozen=True)
class Graph:
    """Boxes and arrows between their keys, in the order they are drawn."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]


def graph(jobs: Sequence[Job]) -> Graph:
    """What the jobs read and what they handed out, also what one owner had released of a job before it ended early."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], None] = {}
    columns: dict[str, set[str]] = {}
    for job in jobs:
        for owner in job.owners:
            columns.setdefault(_data(owner), set()).update(use.column for use in owner.uses)
    for job in jobs:
        at = f"job {job.id}"
        nodes[at] = Node(at, 1, "job" if job.done else "stopped", (f"{job.kind}: {job.state}", job.id[:16]))
        for owner in job.owners:
            data = _data(owner)
            text = f"{len(columns[data])} columns" if len(columns[data]) != 1 else "1 column"
            nodes[data] = Node(data, 0, "data", (f"{owner.silo} / {owner.dataset}", text))
            edges[data, at] = None
        for entry in job.releases:
            to = f"result {job.id} {entry.body['recipient']}"
            items = ", ".join(entry.body["items"])
            nodes[to] = Node(to, 2, "result", (f"{entry.body['recipient']} holds", items))
            edges[at, to] = None
    return Graph(tuple(nodes.values()), tuple(edges))


def _data(owner: Owner) -> str:
    return f"data {owner.silo} {owner.dataset}"


def svg(made: Graph) -> str:
    """The picture, self-contained, with a title for readers that do not see it."""
    columns = [[node for node in made.nodes if node.column == column] for column in range(3)]
    tallest = max(1, *(len(column) for column in columns))
    height = tallest * (HEIGHT + GAP) + GAP
    width = 3 * WIDTH + 2 * LEFT_GAP + 2
    places: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        free = (height - len(column) * (HEIGHT + GAP) + GAP) / 2
        for row, node in enumerate(column):
            places[node.key] = (1 + number * (WIDTH + LEFT_GAP), free + row * (HEIGHT + GAP))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}"'
        f' role="img"><title>{escape(summary(made))}</title>'
    ]
    for start, end in made.edges:
        (x0, y0), (x1, y1) = places[start], places[end]
        x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT / 2, y1 + HEIGHT / 2
        middle = (x0 + x1) / 2
        parts.append(
            f'<path d="M{x0:g} {y0:g} C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}" fill="none" stroke="{LINE}"'
            f' stroke-width="1.5"/><circle cx="{x1:g}" cy="{y1:g}" r="3" fill="{LINE}"/>'
        )
    for node in made.nodes:
        x, y = places[node.key]
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{COLOURS[node.kind]}"'
            f' stroke="{LINE}"/>{_text(x, y + 19, node.lines[0], 13, "bold")}{_text(x, y + 36, node.lines[1], 11, "normal")}'
        )
    return "".join(parts) + "</svg>"


def summary(made: Graph) -> str:
    """The picture in words."""
    words = ("data set", "job", "result")
    count = [sum(node.column == column for node in made.nodes) for column in range(3)]
    return "Lineage: " + ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(count, words, strict=True))


def _text(x: float, y: float, text: str, size: int, weight: str) -> str:
    room = int((WIDTH - 20) / (size * 0.56))
    text = "".join(char for char in text if char.isprintable())  # a control character makes it no XML
    short = text if len(text) <= room else f"{text[: room - 1]}…"
    return (
        f'<text x="{x + 10:g}" y="{y:g}" font-family="Helvetica, Arial, sans-serif" font-size="{size}"'
        f' font-weight="{weight}" fill="{INK}">{escape(short)}</text>'
    )
