"""Time the ring's kernels against the same shape in plain float64 NumPy, which is what a computation in the clear costs.

    python -m benchmarks.ring [--repeat 5] [--fallback] [--json]

Printed are the medians over the repeats, in milliseconds, after one call that loads or compiles.  `--fallback` measures the
NumPy kernels that serve where numba is missing.  Ours use one thread; NumPy's products use as many as its BLAS is given
(OMP_NUM_THREADS=1 compares one with one).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpc import ring, ring_numpy

Case = tuple[str, Callable[[], Any], Callable[[], Any]]
PRODUCTS = (  # rows, inner, columns
    (1000, 1000, 1000), (256, 512, 256), (1024, 100, 64), (10_000, 100, 1), (100, 10_000, 1), (100_000, 100, 1),
    (100_000, 100, 16), (8, 20_000, 640),
)  # fmt: skip
TRANSPOSED = ((100_000, 100, 1), (100_000, 640, 8), (100_000, 100, 100))
OWNERS = ((np.int16, np.uint64), (np.int32, np.uint64), (np.int16, np.uint32))
HISTOGRAMS = ((100_000, 20, 64, 2), (100_000, 20, 64, 32))


def integers(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform integers of a type."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def product_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Products of ring words, then of an owner's integers with a vector of words."""
    for shapes, transposed in ((PRODUCTS, False), (TRANSPOSED, True)):
        for n, d, k in shapes:
            a, b = rng.normal(size=(n, d)), rng.normal(size=(n if transposed else d, k))
            multiply = ring.transpose_matmul if transposed else ring.matmul
            for dtype in (np.uint64, np.uint32):
                A, B = integers(rng, dtype, a.shape), integers(rng, dtype, b.shape)
                name = f"({n} x {d}){'^T' if transposed else ''} ({len(b)} x {k}) {np.dtype(dtype)}"
                plain = a.T if transposed else a
                yield name, lambda f=multiply, A=A, B=B: f(A, B), lambda a=plain, b=b: a @ b
    n, d = 100_000, 100
    a = rng.normal(size=(n, d))
    for dtype, word in OWNERS:
        A = integers(rng, dtype, (n, d))
        for name, f, plain in (("X v", ring.times, a), ("X^T v", ring.transpose_times, a.T)):
            v, w = integers(rng, word, plain.shape[1:]), rng.normal(size=plain.shape[1])
            name = f"{name}, X {n} x {d} {np.dtype(dtype)}, v {np.dtype(word)}"
            yield name, lambda f=f, A=A, v=v: f(A, v), lambda a=plain, w=w: a @ w


def histogram_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Histograms, against one weighted `np.bincount` per feature and value."""
    for n, d, n_bins, k in HISTOGRAMS:
        bins = rng.integers(0, n_bins, (n, d), dtype=np.uint8)
        values, weights = integers(rng, np.uint64, (n, k)), rng.normal(size=(n, k))

        def plain(bins: Any = bins, weights: Any = weights, n_bins: int = n_bins) -> None:
            for column in bins.T:
                for weight in weights.T:
                    np.bincount(column, weight, n_bins)

        name = f"histogram, {n} x {d}, {n_bins} bins, {k} values"
        yield name, lambda b=bins, v=values, m=n_bins: ring.histogram(b, v, m), plain


def milliseconds(body: Callable[[], Any], repeat: int) -> float:
    """Median time of a call, after one to warm up."""
    body()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        body()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--fallback", action="store_true", help="measure the kernels without numba")
    parser.add_argument("--json", action="store_true", help="print one JSON document per shape")
    arguments = parser.parse_args()
    if arguments.fallback:
        ring.kernels = ring_numpy
    rng = np.random.default_rng(64)
    if not arguments.json:
        print(f"{'':60} {'ring ms':>10} {'float64 ms':>10} {'ratio':>7}")
    for cases in (product_cases(rng), histogram_cases(rng)):
        for name, ours, plain in cases:
            ring_ms, float_ms = milliseconds(ours, arguments.repeat), milliseconds(plain, arguments.repeat)
            ratio = ring_ms / float_ms
            if arguments.json:
                print(json.dumps({"case": name, "ring_ms": ring_ms, "float64_ms": float_ms, "ratio": ratio}))
            else:
                print(f"{name:60} {ring_ms:10.2f} {float_ms:10.2f} {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
