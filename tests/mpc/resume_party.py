"""One side of a matching in a process of its own, over TLS, with its points and what it keeps in files; it may kill itself.

Started by `tests.mpc.test_resume` with its order as a line of JSON on standard input.  Every use of an AES key is written
to a file before it happens: which keys, and which blocks of their streams.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parties import connect
from mpc.errors import ProtocolError
from mpc.matching import vole, wide_vole
from mpc.matching.protocol import match

KERNELS = ((vole.kernels, 128, vole.BLOCKS), (wide_vole.wide, 512, wide_vole.BLOCKS))
"""Of both variants, with how many columns they work on at once, and how many blocks of every stream that takes."""


class Fate:
    """Counts what happens to this process, and ends it at the number that the order names."""

    def __init__(self, end: int | None) -> None:
        self._left = end

    def step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """A channel every use of which is a step."""

    def __init__(self, channel: Any, fate: Fate) -> None:
        self._channel, self._fate = channel, fate

    def send(self, *args: Any) -> None:
        self._fate.step()
        self._channel.send(*args)

    def recv(self, *args: Any, **bounds: Any) -> bytearray:
        self._fate.step()
        return self._channel.recv(*args, **bounds)


class FileStore:
    """Points in one file, everything else in a file each, which appears whole or not at all."""

    def __init__(self, folder: Path, points: str, fate: Fate) -> None:
        self._folder, self._fate = folder, fate
        self._words = np.load(points, mmap_mode="r")
        self.n_points = len(self._words)
        self.digest = hashlib.sha256(np.ascontiguousarray(self._words)).digest()

    def bucket(self, bits: int, b: int) -> np.ndarray:
        first = self._words[:, 0]
        places = [
            np.searchsorted(first, np.uint64(i << 64 - bits)) if i >> bits == 0 else len(first) for i in (b, b + 1)
        ]
        return np.array(self._words[places[0] : places[1]])

    def save(self, step: int, name: str, array: np.ndarray) -> None:
        self._fate.step()
        new = self._folder / "new.npy"
        np.save(new, array)
        self._fate.step()
        new.replace(self._folder / f"{name}-{step}.npy")
        self._fate.step()

    def load(self, step: int, name: str) -> np.ndarray | None:
        path = self._folder / f"{name}-{step}.npy"
        return np.load(path) if path.exists() else None


def record_keys(path: Path) -> None:
    """From now on every key's uses are written down."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(**line: Any) -> None:
        os.write(file, json.dumps(line).encode() + b"\n")

    def short(raw: bytes) -> str:
        return hashlib.sha256(raw).hexdigest()[:24]

    def seen_prepared(prepared: Any) -> Any:
        def used(keys: np.ndarray) -> np.ndarray:
            out = prepared(keys)
            leaves = [short(leaf.tobytes()) for leaf in keys if leaf.any()]  # the one that is not known stands as zeros
            write(array=short(out.tobytes()), leaves=leaves)
            return out

        return used

    def seen(real: Any, columns: int, blocks: int) -> Any:
        def used(keys: np.ndarray, counter: int, work: np.ndarray, *more: Any) -> Any:
            write(use=short(keys.tobytes()), begin=counter, end=counter + blocks * (len(work) // columns))
            return real(keys, counter, work, *more)

        return used

    for module, columns, blocks in KERNELS:
        module.prepared = seen_prepared(module.prepared)  # type: ignore[attr-defined]
        module.mask = seen(module.mask, columns, blocks)  # type: ignore[attr-defined]
        module.unmask = seen(module.unmask, 1, blocks)  # type: ignore[attr-defined]


def main() -> None:
    """Match, and write the matched points in the order of the result."""
    order = json.loads(sys.stdin.readline())
    folder, fate = Path(order["folder"]), Fate(order["end"])
    record_keys(folder / "keys")
    store = FileStore(folder, order["points"], fate)
    peer = next(name for name in order["certificates"] if name != order["me"])
    try:
        with contextlib.closing(connect(order)) as channel:
            watched = Watched(channel, fate)
            found = match(store, peer, b"resumed", watched, order["minimum"], order["leader"], **order["options"])
    except ProtocolError as error:
        print(type(error).__name__, error, file=sys.stderr)
        sys.exit(3)
    np.save(folder / "result.npy", np.concatenate([store.bucket(found.bits, b)[at] for b, at in enumerate(found)]))


if __name__ == "__main__":
    main()
