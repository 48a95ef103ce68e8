"""python -m tests.fuzz --minutes 60 [--target NAME]: every target in turn under libFuzzer; a table; 1 after a failure.

--minutes M      in all, shared by the targets
--target NAME    only this one (repeatable)
--keep           put the smallest inputs that reached new code into the corpus, up to a few KB a target
--replay N       instead: the corpus and N mutations of it per target, in this process, as the suite does
--seeds          instead: write the corpus's seeds anew from the documents of the tests
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import engine

RSS_LIMIT_MB = 1024
KEEP_BYTES, KEEP_FILES = 6 << 10, 40
STATS = re.compile(rb"stat::(\w+):\s+(\d+)")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    target: str
    executions: int
    new_inputs: int
    slowest_s: float
    peak_mb: int
    failed: str


def fuzzed(name: str, seconds: int, limit_bytes: int, keep: bool) -> Row:
    """One target for so many seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        found, broken = Path(scratch) / "found", Path(scratch) / "broken-"
        found.mkdir()
        (engine.CORPUS / name).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.libfuzzer", name, f"-max_total_time={seconds}", "-timeout=20",
                   f"-rss_limit_mb={RSS_LIMIT_MB}", f"-max_len={limit_bytes}", f"-artifact_prefix={broken}",
                   "-print_final_stats=1", "-verbosity=0", str(found), str(engine.CORPUS / name)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        said = done.stderr + done.stdout
        stats = {key.decode(): int(value) for key, value in STATS.findall(said)}
        new = sorted(found.iterdir(), key=lambda path: path.stat().st_size)
        failed = ""
        if done.returncode:
            artifacts = [engine.keep(name, path.read_bytes(), "failed-") for path in Path(scratch).glob("broken-*")]
            sentence = re.findall(rb"RuntimeError: (.*)", said) or [said[-300:]]
            failed = f"{sentence[-1].decode(errors='replace')} (kept as {', '.join(p.name for p in artifacts)})"
        if keep:
            _keep(name, new)
        return Row(name, stats.get("number_of_executed_units", 0), len(new), stats.get("slowest_unit_time_sec", 0),
                   stats.get("peak_rss_mb", 0), failed)  # fmt: skip


def _keep(name: str, new: list[Path]) -> None:
    size, n = sum(len(data) for data in engine.inputs(name)), len(engine.inputs(name))
    for path in new:
        data = path.read_bytes()
        if n >= KEEP_FILES or size + len(data) > KEEP_BYTES:
            return
        engine.keep(name, data)
        size, n = size + len(data), n + 1


def shown(row: Row) -> str:
    """A line of the table."""
    verdict = row.failed or "ok"
    return f"{row.target:16} {row.executions:>12,} {row.new_inputs:>6} {row.slowest_s:>6.2f} s {row.peak_mb:>6} MB  {verdict}"


def replay(names: list[str], n_mutations: int) -> list[Row]:
    """The corpus and mutations of it, here."""
    table, rows = engine.targets(), []
    with engine.guarded() as folder:
        for name in names:
            began = time.process_time()
            n, failures = engine.replayed(table[name], n_mutations, folder)
            took = time.process_time() - began
            rows.append(Row(name, n, 0, took, 0, "; ".join(map(str, failures[:3]))))
    return rows


def main() -> int:
    """Exit code 1 after a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--replay", type=int)
    parser.add_argument("--seeds", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.seeds:
        from tests.fuzz.seeds import write_all

        write_all()
        return 0
    table = engine.targets()
    names = given.target or list(table)
    unknown = sorted(set(names) - set(table))
    if unknown:
        parser.error(f"there is no target '{unknown[0]}'")
    if given.replay is not None:
        rows = replay(names, given.replay)
    elif find_spec("atheris") is None:
        parser.error("a long run needs libFuzzer: pip install atheris")
    else:
        seconds = max(1, round(given.minutes * 60 / len(names)))
        rows = []
        for name in names:
            rows.append(fuzzed(name, seconds, table[name].limit_bytes, given.keep))
            print(shown(rows[-1]), flush=True)
    if given.json:
        print(json.dumps([vars(row) for row in rows]))
    elif given.replay is not None:
        print("\n".join(map(shown, rows)))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
