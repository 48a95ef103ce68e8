"""Match two large sets of e-mail addresses between two processes over TLS on loopback, beside SecretFlow's RR22.

    python -m benchmarks.matching [--sizes 1e5 2^20] [--items N [--peer-items N]] [--repeat 3]
                                  [--peers none|spu] [--timeout 900] [--fallback] [--json]

Half of the smaller set is in both.  Turns alternate: ours from Python strings to row numbers; ours from a CSV file to a CSV
file of the matched rows; and RR22's from the same file to the same, twice: told that keys are unique, and not.  Each is done
by fresh processes, with links up and kernels loaded before the clock starts.  Reported are medians of the slower side's
seconds and of each side's CPU seconds, the least that one turn sent over loopback (all headers included, and what other
programs send there in the meantime), and the largest peak memory of each process.  Every turn's result is checked at both
sides.  RR22 gets an environment of its own under .bench/ on first use: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import peer_rr22
from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.peer_rr22 import DEFAULT, UNIQUE, Record, cpu_seconds, loopback_bytes, peak_mib
from benchmarks.peers import Unavailable, say, spu_environment

SIZES = {"1e5": 100_000, "2^20": 1 << 20}
"""Presets: identifiers on each side."""
COLUMN, RULE = "email", "email/v1"
TAG = b"email\0v1\0"
MEMORY, FILES = "memory", "files"


def addresses(first: int, count: int) -> Iterator[str]:
    """E-mail addresses, all of different people, in an order that says nothing about who they are."""
    step = 2_654_435_761  # prime: another number for each below 10^10
    return (f"user{(first + i) * step % 10**10:010d}@example.com" for i in range(count))


def first_of(owner: int, sizes: Sequence[int]) -> int:
    """Where an owner's people begin: the second one's first half, or what there is of it, is the end of the first one's."""
    return sizes[0] - min(sizes) // 2 if owner else 0


# --- a process of ours


def party(order: dict[str, Any]) -> Record:
    """One process's part, over inherited sockets."""
    if order["fallback"]:
        sys.modules["mpc.matching.kernels_numba"] = None  # type: ignore[assignment]
    from mpc.matching.kernels import warm_up

    owner, items = OWNERS.index(order["me"]), list[bytes]()
    warm_up()
    if order["span"] == MEMORY:
        items = [TAG + who.encode() for who in addresses(first_of(owner, order["sizes"]), order["sizes"][owner])]
    else:
        import_readers()
    channel = connect(order)
    sent, cpu, start = loopback_bytes(), cpu_seconds(), time.perf_counter()
    matched, laps = (from_memory if order["span"] == MEMORY else from_file)(items, order, channel)
    seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
    after, peak = loopback_bytes(), peak_mib()
    found = [items[row].removeprefix(TAG).decode() for row in matched]
    return {
        "seconds": seconds,
        "cpu_seconds": spent,
        "loopback": [sent, after],
        "frame_bytes": sum(channel.bytes_sent.values()),
        "rounds": channel.rounds,
        "peak_mib": peak,
        "laps": laps,
        "digests": [digest(found), digest(sorted(found))],
    }


def intersect(items: Sequence[bytes], order: dict[str, Any], channel: Any) -> Any:
    """Our default protocol; the first owner is the receiver."""
    from mpc.matching import protocol

    first = order["me"] == OWNERS[0]
    return protocol.intersect(items, OWNERS[1 if first else 0], b"benchmark", channel, 0, first)


def from_memory(items: list[bytes], order: dict[str, Any], channel: Any) -> tuple[list[int], Record]:
    """Strings in, row numbers out."""
    return intersect(items, order, channel).rows, {}


def import_readers() -> None:
    """Load what reads, normalises and writes; RR22's is loaded before its clock starts, too."""
    import duckdb
    import pyarrow as pa
    from pyarrow import csv

    from vertical import batches

    batches.warm_up()
    with duckdb.connect() as db:
        table = db.sql("SELECT 'x' AS x").to_arrow_table()
    csv.write_csv(table.take(pa.array([0])), os.devnull)


def from_file(_: list[bytes], order: dict[str, Any], channel: Any) -> tuple[list[int], Record]:
    """A CSV file in, one of the matched rows out, in the same order at both sides."""
    import duckdb
    import pyarrow as pa
    from pyarrow import csv

    clock = [time.perf_counter()]
    source, target = (f"{order['folder']}/{order['me']}{ending}" for ending in (".csv", "-matched.csv"))
    with duckdb.connect(config={"threads": 1}) as db:
        table = db.sql("SELECT * FROM read_csv(?, all_varchar = true)", params=[source]).to_arrow_table()
    clock.append(time.perf_counter())
    items, places = normalised(table.column(COLUMN))
    clock.append(time.perf_counter())
    rows = places[intersect(items, order, channel).rows]
    clock.append(time.perf_counter())
    csv.write_csv(table.take(pa.array(rows)), target)
    clock.append(time.perf_counter())
    names = ("reading", "normalising", "matching", "writing")
    return [], {name: end - begin for name, begin, end in zip(names, clock, clock[1:], strict=False)}


def normalised(column: Any) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """What is matched of a column, and the row of each item.  The protocol refuses repeated ones."""
    from vertical import batches

    items, rows, at = list[bytes](), [np.empty(0, np.int64)], 0
    for chunk in column.chunks:
        found = batches.normalise([batches.column(chunk)], RULE)
        items += found.items()
        rows.append(found.rows + at)
        at += len(chunk)
    return items, np.concatenate(rows)


def digest(found: Sequence[str]) -> str:
    """Of addresses, in their order."""
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


# --- turns


class Bench:
    """One size: its files, and a turn of each line of the table."""

    def __init__(self, folder: Path, sizes: tuple[int, int], fallback: bool, python: Path | None, timeout_s: float):
        """python: of RR22's environment, where it is measured."""
        self.folder, self.sizes, self.python, self.timeout_s = folder, sizes, python, timeout_s
        self.order = {"sizes": sizes, "folder": str(folder), "fallback": fallback}
        self.inputs = [folder / f"{name}.csv" for name in OWNERS]
        sets = [list(addresses(first_of(owner, sizes), sizes[owner])) for owner in range(len(OWNERS))]
        for path, own in zip(self.inputs, sets, strict=True):
            path.write_text("\n".join([COLUMN, *own, ""]), encoding="utf-8")
        self.common = sorted(sets[1][: min(sizes) // 2])

    def memory(self) -> list[Record]:
        """Ours, strings to row numbers."""
        reports = self._ours(MEMORY)
        (ordered, matched), (ordered_too, _) = (report["digests"] for report in reports)
        assert ordered == ordered_too, "the sides have different rows, or in another order"
        assert matched == digest(self.common), "wrong matches"
        return reports

    def files(self) -> list[Record]:
        """Ours, file to file."""
        reports = self._ours(FILES)
        self.check([self.folder / f"{name}-matched.csv" for name in OWNERS])
        return reports

    def rr22(self, unique: bool) -> list[Record]:
        """RR22, file to file; told that keys are unique, or not."""
        assert self.python is not None
        reports = peer_rr22.turn(self.python, self.folder, self.inputs, self.timeout_s, unique=unique)
        self.check(peer_rr22.outputs(self.folder))
        return reports

    def _ours(self, span: str) -> list[Record]:
        out = run_processes("benchmarks.matching", self.order | {"span": span}, None, OWNERS)
        return [out[name] for name in OWNERS]

    def check(self, paths: Sequence[Path]) -> None:
        """Both files have the common addresses, in the same order."""
        lines = [path.read_text(encoding="utf-8").replace('"', "").split() for path in paths]
        assert lines[0] == lines[1], "the sides have different rows, or in another order"
        assert lines[0][0] == COLUMN, "no heading"
        assert sorted(lines[0][1:]) == self.common, "wrong matches"
        for path in paths:
            path.unlink()


def summary(turns: Sequence[Sequence[Record]]) -> Record:
    """The line of a table that some turns' reports give."""
    owners = range(len(OWNERS))
    spans = [span for turn in turns if (span := turn[0].get("protocol_seconds")) is not None]
    laps = [turn[0]["laps"] for turn in turns if turn[0].get("laps")]
    out: Record = {
        "seconds": statistics.median(max(report["seconds"] for report in turn) for turn in turns),
        "cpu_seconds": [statistics.median(turn[i]["cpu_seconds"] for turn in turns) for i in owners],
        "loopback_bytes": min(
            max(report["loopback"][1] for report in turn) - min(report["loopback"][0] for report in turn)
            for turn in turns
        ),
        "peak_mib": [max(turn[i]["peak_mib"] for turn in turns) for i in owners],
    }
    if "frame_bytes" in turns[0][0]:
        out["frame_bytes"] = sum(report["frame_bytes"] for report in turns[0])
        out["rounds"] = max(report["rounds"] for report in turns[0])
    if laps:
        out["laps"] = {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}
    if spans:
        out["protocol_seconds"] = statistics.median(spans)
    return out


def measure(sizes: tuple[int, int], repeat: int, fallback: bool, python: Path | None, timeout_s: float) -> Record:
    """Alternating turns of everything at one size, and their medians."""
    load, why = os.getloadavg()[0], ""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), sizes, fallback, python, timeout_s)
        kinds: dict[str, Callable[[], list[Record]]] = {MEMORY: bench.memory, FILES: bench.files}
        if python is not None:
            kinds |= {UNIQUE: lambda: bench.rr22(True), DEFAULT: lambda: bench.rr22(False)}
        turns: dict[str, list[list[Record]]] = {name: [] for name in kinds}
        for _ in range(repeat):
            for name, kind in list(kinds.items()):
                try:
                    turns[name].append(kind())
                except Unavailable as reason:
                    why, turns[name] = str(reason), []
                    del kinds[name]
                    say(f"{name}: {reason}")
                else:
                    say(f"{name}: {max(report['seconds'] for report in turns[name][-1]):.2f} s")
    lines = {name: summary(done) if done else None for name, done in turns.items()}
    return {"items": list(sizes), "load": load, "turns": repeat, "why": why} | lines | {"ratios": ratios(lines)}


def ratios(lines: dict[str, Record | None]) -> Record:
    """How many times ours RR22's seconds are: its protocol and its whole run to ours in memory, its whole run to our files."""
    out: Record = {}
    memory, files = lines.get(MEMORY), lines.get(FILES)
    for name in (UNIQUE, DEFAULT):
        if (line := lines.get(name)) is not None and memory is not None and files is not None:
            out[name] = {
                "files": line["seconds"] / files["seconds"],
                "files_cpu": sum(line["cpu_seconds"]) / sum(files["cpu_seconds"]),
                "files_to_memory": line["seconds"] / memory["seconds"],
                "memory": line["protocol_seconds"] / memory["seconds"] if "protocol_seconds" in line else None,
            }
    return out


# --- the table

HEADINGS = ("seconds", "CPU s", "MB on lo", "bytes/item", "peak MiB", "rr22/accord", "of CPU s")
LABELS = {UNIQUE: "  rr22, told that keys are unique", DEFAULT: "  rr22"}


def render(out: Record) -> str:
    """What was measured at one size, as text."""
    n, m = out["items"]
    shared = f"{n:,} x {m:,} addresses, {min(n, m) // 2:,} of them common; medians of {out['turns']}"
    rows = [f"{shared}; load {out['load']:.1f} at the start", f"{'':34}" + "".join(f"{h:>15}" for h in HEADINGS)]
    theirs = {name: line for name in LABELS if (line := out.get(name)) is not None}
    rows += ["strings in, row numbers out", _row("  accord", out[MEMORY], max(n, m))]
    if UNIQUE in theirs and "protocol_seconds" in theirs[UNIQUE]:
        seconds, by = theirs[UNIQUE]["protocol_seconds"], out["ratios"][UNIQUE]["memory"]
        rows.append(f"{'  rr22, its protocol alone [1]':34}{seconds:>15.2f}{'':60}{by:>15.2f}")
    rows += ["file in, file out", _row("  accord", out[FILES], max(n, m))]
    for name, line in theirs.items():
        by = out["ratios"][name]
        rows.append(_row(LABELS[name], line, max(n, m), by["files"], by["files_cpu"]))
    laps = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in out[FILES]["laps"].items())
    rows.append(f"of accord's file to file: {laps}")
    rows.append(f"accord's frames: {out[MEMORY]['frame_bytes'] / max(n, m):.1f} bytes an item")
    if theirs:
        whole = ", ".join(f"{out['ratios'][name]['files_to_memory']:.2f}" for name in theirs)
        rows.append(f"rr22 from file to file over accord in memory: {whole}")
        rows.append("[1] from items in memory, hashed, to matches in memory, by its log")
    if out["why"]:
        rows.append(f"rr22: {out['why']}")
    return "\n".join(rows)


def _row(name: str, line: Record, n: int, *by: float) -> str:
    cells = (
        f"{line['seconds']:.2f}",
        " + ".join(f"{seconds:.2f}" for seconds in line["cpu_seconds"]),
        f"{line['loopback_bytes'] / 1e6:.2f}",
        f"{line['loopback_bytes'] / n:.1f}",
        " + ".join(f"{mib}" for mib in line["peak_mib"]),
        *(f"{ratio:.2f}" for ratio in by),
    )
    return f"{name:34}" + "".join(f"{cell:>15}" for cell in cells)


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=tuple(SIZES), nargs="+", default=["2^20"], help="identifiers on each side")
    parser.add_argument("--items", type=int, help="another number of identifiers, in place of --sizes")
    parser.add_argument("--peer-items", type=int, help="of the sender, if not as many as of the receiver")
    parser.add_argument("--repeat", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--peers", choices=("none", "spu"), default="none", help="spu: also measure RR22")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each turn of RR22 (default: 900)")
    parser.add_argument("--fallback", action="store_true", help="ours without compiled kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON document per size")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args(words)
    if a.peer_items is not None and a.items is None:
        parser.error("--peer-items needs --items")
    return a


def main(words: list[str] | None = None) -> None:
    """Command line."""
    a = arguments_of(words)
    if a.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    python, why = None, ""
    if a.peers == "spu":
        try:
            python = spu_environment()
        except Unavailable as reason:
            why = str(reason)
            say(f"rr22: {why}")
    if (load := os.getloadavg()[0]) > 1:
        say(f"the machine is busy (load {load:.1f}): compare CPU seconds, not seconds")
    chosen = [SIZES[name] for name in a.sizes] if a.items is None else [a.items]
    for n in chosen:
        out = measure((n, n if a.peer_items is None else a.peer_items), a.repeat, a.fallback, python, a.timeout)
        out["why"] = out["why"] or why
        print(json.dumps(out) if a.json else render(out), flush=True)


if __name__ == "__main__":
    main()
