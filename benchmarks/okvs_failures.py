"""How often the store of set intersection cannot be solved, measured with narrow bands, beside the rule for their width.

    python -m benchmarks.okvs_failures [--quick] [--json]

The store's own bands are so wide that nobody will see a failure.  So rows are made and solved as in a session, with bands cut
to their first w bits, which leaves 1.1 n + w columns to n keys.  A line has the share of runs that failed, its exact 95 %
confidence interval (Clopper and Pearson), and what the rule of the store's authors allows for that width at 2^20 keys:
2^-(0.2691 w - 15.21).  The program fails if a whole interval lies above it.  --quick: fewer keys and runs, under 20 s.

Source: Clopper, Pearson, "The use of confidence or fiducial limits", Biometrika 1934.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass

import numpy as np

WORD_BITS = 64
COLUMNS_PER_KEY = 1.1
QUICK = (
    (10, 500, (32, 40, 64)),
    (12, 500, (40, 48, 64)),
    (14, 200, (48, 56, 64, 72)),
    (16, 60, (56, 64, 72)),
    (18, 25, (60, 64)),
)
FULL = (
    (10, 3000, (32, 40, 48, 56, 64)),
    (12, 3000, (32, 40, 48, 56, 64)),
    (14, 2000, (40, 48, 56, 64, 72)),
    (16, 600, (48, 56, 64, 72, 80)),
    (18, 200, (56, 60, 64, 72, 80, 224)),
)
"""Bits of the number of keys, runs, and widths."""


def rule(width: int) -> float:
    """The probability of failure that the authors' rule allows a band of so many bits."""
    return min(1.0, 2 ** -(0.2691 * width - 15.21))


def at_least(k: int, runs: int, p: float) -> float:
    """The probability of k failures or more in so many runs, if each fails with probability p."""
    if k == 0 or p >= 1:
        return 1.0
    if p <= 0:
        return 0.0
    whole = math.lgamma(runs + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(i + 1) - math.lgamma(runs - i + 1) + i * math.log(p) + (runs - i) * math.log1p(-p))
        for i in range(k, runs + 1)
    )


def _where(k: int, runs: int, level: float) -> float:
    """The p for which `at_least` has this value; it ascends with p."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_least(k, runs, middle) < level else (low, middle)
    return low


def interval(failures: int, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's limits of the probability of failure."""
    tail = (1 - confidence) / 2
    low = 0.0 if failures == 0 else _where(failures, runs, tail)
    return low, 1.0 if failures == runs else _where(failures + 1, runs, 1 - tail)


@dataclass(frozen=True)
class Measured:
    """What some runs with n keys and bands of `width` bits gave."""

    n: int
    width: int
    runs: int
    failures: int

    @property
    def rate(self) -> float:
        """The share of runs that failed."""
        return self.failures / self.runs

    def exceeds(self, bound: float, confidence: float = 0.95) -> bool:
        """Is the probability of failure larger than that, with this confidence?"""
        return interval(self.failures, self.runs, confidence)[0] > bound


def measure(n: int, width: int, runs: int, seed: int, columns_per_key: float = COLUMNS_PER_KEY) -> Measured:
    """Solve for n random keys that many times, and count failures.  The same seed gives the same keys."""
    from mpc.matching import okvs
    from mpc.matching.hashes import bound_key, expand
    from mpc.matching.parameters import WIDTH

    if not 1 <= width <= WIDTH:
        raise ValueError(f"a band has 1 to {WIDTH} bits here, got {width}")
    rng = np.random.default_rng([seed, n, width])
    # The kernels solve groups of four columns.  A cut band leaves its last columns empty, which changes nothing.
    n_columns = -(-(math.ceil(columns_per_key * n) + WIDTH) // 4) * 4
    mask = np.array([(1 << min(WORD_BITS, max(0, width - WORD_BITS * i))) - 1 for i in range(4)], dtype=np.uint64)
    failures = 0
    for run in range(runs):
        words = rng.integers(0, 1 << WORD_BITS, (n, 2), dtype=np.uint64)
        words[:, 0].sort()
        rows = expand(words, bound_key("row", seed.to_bytes(8, "little"), run.to_bytes(8, "little")), n_columns)
        rows.band[:, :4] &= mask
        columns = np.zeros((n_columns, 1), dtype=np.uint64)
        failures += okvs.solve(rows.start, rows.band, rows.value[:, None], columns) is None
    return Measured(n, width, runs, failures)


def power(rate: float) -> str:
    """A rate as a power of two."""
    return "-" if rate == 0 else f"2^{math.log2(rate):.1f}"


def line(found: Measured) -> str:
    """One line of the table."""
    low, high = interval(found.failures, found.runs)
    bound = rule(found.width)
    cells = (f"2^{int(math.log2(found.n))}", f"{found.width}", f"{found.runs}", f"{found.failures}", power(found.rate))
    limits = f"{power(low)} to {power(high)}"
    verdict = "above the rule" if found.exceeds(bound) else ""
    text = " ".join(cell.rjust(9) for cell in cells)
    return f"{text} {limits:>20} {power(bound):>9} {verdict}".rstrip()


HEADINGS = " ".join(word.rjust(9) for word in ("keys", "w", "runs", "failed", "rate"))


def main(words: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer keys and runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args(words)
    if not a.json:
        print(f"{HEADINGS} {'95 % interval':>20} {'the rule':>9}", flush=True)
    above = False
    for bits, runs, widths in QUICK if a.quick else FULL:
        for width in widths:
            found = measure(1 << bits, width, runs, a.seed)
            above |= found.exceeds(rule(width))
            limits = interval(found.failures, found.runs)
            record = {"n": found.n, "width": width, "runs": runs, "failures": found.failures, "interval": limits}
            print(json.dumps(record | {"rule": rule(width)}) if a.json else line(found), flush=True)
    if above:
        sys.exit("the store fails more often than the rule allows")


if __name__ == "__main__":
    main()
