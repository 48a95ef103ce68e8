"""A processor without AES instructions, as another architecture has none: everything loads, falls back, and gives the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import llvmlite.binding as binding

found = binding.get_host_cpu_features()
found["aes"] = found["vaes"] = False
binding.get_host_cpu_features = lambda: found

from mpc.matching.kernels import kernels, warm_up
from mpc.matching.protocol import intersect
from mpc.ot.extension import kernels as transfers
from tests.harness import run_parties

assert kernels.__name__ == "mpc.matching.kernels_numpy", kernels.__name__
assert transfers.__name__ == "mpc.ot.kernels_numpy", transfers.__name__
warm_up()
a, b = ([b"%d" % i for i in part] for part in (range(60), range(40, 90)))
for security in ("semi-honest", "malicious"):
    run = run_parties({
        "a": lambda c: intersect(a, "b", b"session", c, 1, True, security=security),
        "b": lambda c: intersect(b, "a", b"session", c, 1, False, security=security),
    })
    matched = [a[i] for i in run["a"].rows]
    assert matched == [b[i] for i in run["b"].rows]
    assert sorted(matched) == sorted(set(a) & set(b)), security
print("the same")
"""


def test_without_aes_instructions_the_slower_kernels_serve() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same\n"
