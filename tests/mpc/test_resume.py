"""Two real processes over TLS that are killed at random points and started again: the same result, and no key used twice."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parties import tcp_pair
from mpc.matching.kernels import kernels
from silos.links import make_link_credentials

pytestmark = pytest.mark.slow

NAMES = ("lender", "platform")
FAILED, KILLED = 3, -signal.SIGKILL
ROOT = Path(__file__).parents[2]


class Pair:
    """Both sides' files, and attempts at matching them."""

    def __init__(self, folder: Path, n: int, common: int, **options: Any) -> None:
        whole = np.random.default_rng(3).integers(0, 2**64, (2 * n - common, 2), dtype=np.uint64)
        self.common = {tuple(row) for row in whole[n - common : n].tolist()}
        self.folder, self._order = folder, {"options": options, "minimum": common}
        for name, part in zip(NAMES, (whole[:n], whole[n - common :])):
            (folder / name).mkdir()
            np.save(folder / f"{name}.npy", part[kernels.order(part)])

    def attempt(self, ends: dict[str, int] | None = None, kill: tuple[str, float] | None = None) -> dict[str, int]:
        """How both processes end.

        ends: at which of its own steps a side kills itself.  kill: a side, and how long after its first use of a key it is
        killed, in seconds.
        """
        now = datetime.now(UTC)
        credentials = {name: make_link_credentials(name, "0" * 32, now + timedelta(hours=1), now) for name in NAMES}
        certificates = {name: base64.b64encode(c.certificate_der).decode() for name, c in credentials.items()}
        processes: dict[str, subprocess.Popen[str]] = {}
        with contextlib.ExitStack() as stack:
            for name, peer, sock in zip(NAMES, NAMES[::-1], tcp_pair()):
                stack.enter_context(sock)
                order = self._order | {
                    "me": name,
                    "leader": name == NAMES[0],
                    "folder": str(self.folder / name),
                    "points": str(self.folder / f"{name}.npy"),
                    "fds": {peer: sock.fileno()},
                    "key": credentials[name].key_pem.decode(),
                    "certificates": certificates,
                    "end": (ends or {}).get(name),
                }
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.mpc.resume_party"],
                    stdin=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    pass_fds=(sock.fileno(),),
                    cwd=ROOT,
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                processes[name] = process
                assert process.stdin is not None
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
                sock.close()
            if kill is not None:
                self._wait_for_keys(processes[kill[0]], kill[0])
                time.sleep(kill[1])
                processes[kill[0]].kill()
            said = {name: process.communicate(timeout=120)[1] for name, process in processes.items()}
        codes = {name: process.returncode for name, process in processes.items()}
        assert set(codes.values()) <= {0, FAILED, KILLED}, said
        assert all(text.startswith("PeerLost") for name, text in said.items() if codes[name] == FAILED), said
        return codes

    def _wait_for_keys(self, process: subprocess.Popen[str], name: str) -> None:
        path = self.folder / name / "keys"
        before = path.stat().st_size if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_size == before):
            time.sleep(0.002)

    def check_result(self) -> None:
        """Both sides have the same points in the same order, and they are those of the plain intersection."""
        at_lender, at_platform = (np.load(self.folder / name / "result.npy") for name in NAMES)
        assert np.array_equal(at_lender, at_platform)
        found = set(map(tuple, at_lender.tolist()))
        assert len(found) == len(at_lender)
        assert found == self.common

    def keys(self, name: str) -> tuple[dict[str, list[str]], dict[str, list[tuple[int, int]]]]:
        """In all attempts of a side: the leaves of each set of keys, and the blocks used of their streams."""
        leaves: dict[str, list[str]] = {}
        used: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for text in (self.folder / name / "keys").read_text().splitlines():
            line: dict[str, Any] = json.loads(text)
            if "array" in line:
                assert line["array"] not in leaves
                leaves[line["array"]] = line["leaves"]
            else:
                used[line["use"]].append((line["begin"], line["end"]))
        return leaves, used

    def check_keys(self) -> int:
        """No side ever had a key in two attempts or used a block twice.  Returns how many sets of keys were used."""
        seen = []
        for name in NAMES:
            leaves, used = self.keys(name)
            every = [leaf for group in leaves.values() for leaf in group]
            assert len(set(every)) == len(every)
            assert set(used) <= set(leaves)
            for blocks in used.values():
                assert all(end <= begin for (_, end), (begin, _) in pairwise(blocks))
            seen.append(({frozenset(group) for group in leaves.values()}, len(used)))
        for shared in seen[1][0]:  # what the sender knows is a part of what the receiver had in the same attempt only
            assert sum(bool(shared & group) for group in seen[0][0]) <= 1
        return seen[0][1]


@pytest.mark.e2e
def test_killed_at_random_steps_of_its_own(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 60_000, 20_000, bucket_points=60_000 // 16, security="malicious")
    draw = np.random.default_rng(4)
    assert pair.attempt({NAMES[1]: 2})[NAMES[1]] == KILLED  # it has kept its salt, and has not said anything
    for side in (0, 1, 0):
        assert KILLED in pair.attempt({NAMES[side]: int(draw.integers(12, 36))}).values()
    assert pair.attempt() == dict.fromkeys(NAMES, 0)
    pair.check_result()
    assert pair.check_keys() == 4
    # While the sender hears which ones matched; to the receiver that may already be the end.
    assert pair.attempt({NAMES[1]: 12})[NAMES[1]] == KILLED
    assert pair.attempt() == dict.fromkeys(NAMES, 0)
    pair.check_result()
    assert pair.check_keys() == 4


@pytest.mark.e2e
def test_a_million_killed_at_random_times(tmp_path: Path) -> None:
    pair, draw = Pair(tmp_path, 1_000_000, 300_000, bucket_points=1 << 17), np.random.default_rng(5)
    for side in (1, 0):
        pair.attempt(kill=(NAMES[side], float(draw.uniform(0.2, 0.8))))
    assert pair.attempt() == dict.fromkeys(NAMES, 0)
    pair.check_result()
    assert 1 <= pair.check_keys() <= 3
