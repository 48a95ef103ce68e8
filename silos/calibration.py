"""How fast this machine is at what matching is made of: every kernel once, on made-up identifiers, in about a second.

Seconds are those of the processor, so another program that is busy at the time does not make the machine look slower.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.curve25519 import hash_to_u_batch
from mpc.matching import code, cuckoo, okvs, vole, wide_code
from mpc.matching import kernels as matching_kernels
from mpc.matching.hashes import expand, hash_buffer, tags
from mpc.matching.kernels import kernels, wide
from mpc.matching.parameters import SQUARE, TILE
from mpc.rng import Prg, fresh_prg
from mpc.tokens import rfc9497, ristretto
from mpc.tokens.rfc9497 import Mode
from silos.spill import Spill
from vertical import batches
from vertical.linkage import pool

SAMPLE = 1 << 15
CURVE_SAMPLE = 64
_KEY = bytes(32)


@dataclass(frozen=True)
class Rates:
    """Seconds of the processor for one of each.

    row: an identifier is put into its normal form and on disk.  listed: it is put into a list without repeated ones.
    point: it is hashed and sorted.  key: it is put into a
    key-value store of its own.  column, wide_column: a column is masked, or unmasked, in both forms.  value: the function's
    value at a point.  merge: of two sorted points.  bin: a place is found for a point.  curve: a scalar product on Curve25519,
    curve_hash: a hash to it.  group: a value of the function in ristretto255.  set_up: base transfers and trees, of one side.
    """

    row: float
    listed: float
    point: float
    key: float
    column: float
    wide_column: float
    value: float
    merge: float
    bin: float
    curve: float
    curve_hash: float
    group: float
    set_up: float


def _seconds(work: Callable[[], object], n: int, times: int = 2) -> float:
    """The least that one of n takes."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / n


def calibrate() -> Rates:
    """Measure this machine.  The first call after an installation compiles kernels first, which takes a minute."""
    for module in (matching_kernels, cuckoo, batches):
        module.warm_up()
    noise = fresh_prg()
    return Rates(**_matching(noise), **_curves(noise))


def _matching(noise: Prg) -> dict[str, float]:
    n, n_columns = SAMPLE, okvs.columns(SAMPLE)
    text = b"".join(b"name%08d@example.com" % i for i in range(n))
    offsets = np.arange(n + 1, dtype=np.int64) * (len(text) // n)
    data = np.frombuffer(text, np.uint8)
    column = batches.Column(data, offsets, np.ones(n, np.bool_))
    points = noise.words((n, 2))
    points = np.take(points, kernels.order(points), axis=0)
    rows = expand(points, _KEY, n_columns)
    solved = np.zeros((n_columns, 1), dtype=np.uint64)
    leaves = kernels.prepared(np.zeros((code.LENGTH << code.SYMBOL_BITS, 16), dtype=np.uint8))
    wide_leaves = wide.prepared(np.zeros((wide_code.LENGTH << wide_code.SYMBOL_BITS, 16), dtype=np.uint8))
    held = np.zeros((n_columns, code.WORDS), dtype=np.uint64)
    wide_columns = n_columns // 4 // SQUARE * SQUARE
    wide_solved = np.zeros((wide_columns, 2), dtype=np.uint64)
    table, wide_table = code.tables(), wide_code.tables()[0]
    several = n_columns // 4 // TILE * TILE

    def put(folder: str) -> None:
        items = batches.normalise([column], "email/v1", None, b"\0")
        with closing(Spill(Path(folder) / "points", 0)) as spill:
            spill.append(hash_buffer(items.data, items.offsets, _KEY), items.rows, np.zeros(len(items), np.uint8))
            spill.finish()

    def hashed() -> None:
        kernels.order(hash_buffer(data, offsets, _KEY))

    def stored() -> None:
        own = expand(points, _KEY, n_columns)
        okvs.solve(own.start, own.band, own.value[:, None], solved)

    def evaluated() -> None:
        own = expand(points, _KEY, n_columns)
        tags(okvs.decode(held, own.start, own.band), points, _KEY)

    with tempfile.TemporaryDirectory(prefix="accord-") as folder:
        row = _seconds(lambda: put(folder), n, times=1)
    bins = cuckoo.n_bins(n)
    items = batches.normalise([column], "email/v1", None, b"\0")
    return {
        "row": row,
        "listed": _seconds(lambda: pool([items], ("email/v1",), "first"), n),
        "point": _seconds(hashed, n),
        "key": _seconds(stored, n),
        "column": _seconds(lambda: kernels.mask(leaves, 0, solved[:several, 0].copy(), table), several),
        "wide_column": _seconds(lambda: wide.mask(wide_leaves, 0, wide_solved, wide_table), wide_columns),
        "value": _seconds(evaluated, len(rows.start)),
        "merge": _seconds(lambda: kernels.merge(points, points), n),
        "bin": _seconds(lambda: cuckoo.table(cuckoo.places(points, _KEY, bins), bins), n),
    }


def _curves(noise: Prg) -> dict[str, float]:
    n = CURVE_SAMPLE
    secret = X25519PrivateKey.from_private_bytes(noise.words(32, np.uint8).tobytes())
    public = secret.public_key()
    scalar = ristretto.random_scalar(noise)
    inputs = [b"name%08d@example.com" % i for i in range(n)]
    return {
        "curve": _seconds(lambda: [secret.exchange(public) for _ in range(n)], n),
        "curve_hash": _seconds(lambda: hash_to_u_batch(inputs, b"accord-calibration"), n),
        "group": _seconds(lambda: [rfc9497.evaluate(scalar, one, Mode.VOPRF) for one in inputs], n),
        "set_up": _seconds(lambda: vole.Choice(_KEY, public.public_bytes_raw(), fresh_prg()), 1, times=1),
    }
