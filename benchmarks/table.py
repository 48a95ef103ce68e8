"""Our engine beside its peers: one block per operation, one line per implementation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workload import OPERATIONS, Record

OURS = "accord"
HEADINGS = ("", "seconds", "CPU s", "MB", "rounds", "error", "ours/peer", "of CPU s", "target")
Targets = Mapping[str, float]
"""For an operation, the most seconds that ours should take."""


def _shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _figures(record: Record | None) -> list[str]:
    """The measured columns of a line, a dash for each that is unknown."""
    line = record or {}
    mb = traffic(line)
    forms: dict[str, str] = {
        "seconds": ".4f",
        "cpu_seconds": ".4f",
        "mb": ".2f" if mb is None or mb >= 0.01 else ".6f",  # the products of single elements
        "rounds": ",g",
        "error": ".1e",
    }
    return [_shown(mb if key == "mb" else line.get(key), form) for key, form in forms.items()]


def traffic(line: Record) -> float | None:
    """Megabytes that all parties and the dealer send; ours are counted in two parts."""
    if "mb_between_owners" in line:
        return float(line["mb_between_owners"] + line["mb_from_dealer"])
    return line.get("mb")


def ratio(ours: Record | None, peer: Record, key: str) -> float | None:
    """Our figure over the peer's; nothing if either was not measured."""
    if ours is None or ours[key] is None or not peer[key]:
        return None
    return float(ours[key] / peer[key])


def _verdict(value: float | None, target: float | None) -> str:
    if target is None:
        return ""
    met = "" if value is None else ": met" if value <= target else ": missed"
    return f"{target:g} s{met}"


def compare(ours: Sequence[Record], peers: Mapping[str, Sequence[Record]], targets: Targets) -> list[Record]:
    """One record per operation: everybody's line, and our ratios to every peer; what --json prints."""

    def ratios(name: str, key: str) -> dict[str, float | None]:
        return {peer: ratio(mine.get(name), lines[name], key) for peer, lines in theirs.items() if name in lines}

    mine = {line["operation"]: line for line in ours}
    theirs = {peer: {line["operation"]: line for line in lines} for peer, lines in peers.items()}
    measured = {name: None for lines in (mine, *theirs.values()) for name in lines}
    known = [name for name in OPERATIONS if name in measured] + [name for name in measured if name not in OPERATIONS]
    return [
        {
            "operation": name,
            "title": OPERATIONS[name].title if name in OPERATIONS else mine.get(name, {}).get("what", name),
            OURS: mine.get(name),
            "peers": {peer: lines[name] for peer, lines in theirs.items() if name in lines},
            "ratios": ratios(name, "seconds"),
            "cpu_ratios": ratios(name, "cpu_seconds"),
            "target_seconds": targets.get(name),
        }
        for name in known
    ]


def render(ours: Sequence[Record], peers: Mapping[str, Sequence[Record]], targets: Targets) -> str:
    """The table as plain text; what the records note, and why a line has no figures, stands below it.

    ours, peers: records of `benchmarks.workload`, or of ours with a "what" in place of a known operation.  An operation that
    nobody has is left out.
    """
    notes: list[str] = []
    rows: list[tuple[str, ...] | str] = [HEADINGS]

    def named(who: str, record: Record | None) -> str:
        note = (record or {}).get("note")
        if not note:
            return f"  {who}"
        if note not in notes:
            notes.append(note)
        return f"  {who} [{notes.index(note) + 1}]"

    for block in compare(ours, peers, targets):
        rows.append(block["title"])
        if ours:
            seconds = (block[OURS] or {}).get("seconds")
            rows.append(
                (named(OURS, block[OURS]), *_figures(block[OURS]), "", "", _verdict(seconds, block["target_seconds"]))
            )
        for peer, line in block["peers"].items():
            ratios = (_shown(block[key][peer], ".3f") for key in ("ratios", "cpu_ratios"))
            rows.append((named(peer, line), *_figures(line), *ratios, ""))
    return _aligned(rows) + "".join(f"\n[{i}] {note}" for i, note in enumerate(notes, 1))


def _aligned(rows: Sequence[tuple[str, ...] | str]) -> str:
    """Columns side by side: the first and the last to the left, figures to the right; a lone text is a heading."""
    cells = [row for row in rows if not isinstance(row, str)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADINGS))]

    def placed(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i in {0, len(widths) - 1} else text.rjust(widths[i])

    lines = [row if isinstance(row, str) else "  ".join(placed(i, text) for i, text in enumerate(row)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def load(path: Path, operations: Sequence[str]) -> dict[str, list[Record]]:
    """Every peer's records of some operations, from a file as `benchmarks.peers` prints it."""
    peers: dict[str, list[Record]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        lines = peers.setdefault(line.pop("peer"), [])
        if line["operation"] in operations:
            lines.append(line)
    return peers
