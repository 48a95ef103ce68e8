"""Cached kernels: found again by another process, and never under another signature or another source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from mpc import ring_numba
from mpc.compiled import compiled

ROOT = Path(__file__).parent.parent.parent
MODULE = """
import sys
import numpy as np
from mpc.compiled import compiled

@compiled
def f(x):
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += x[i, 0] * x.dtype.type({factor})
    return total

x = np.arange(6).reshape(2, 3)
if __name__ == "__main__":
    print(f(x), f(np.asfortranarray(x)), f(x.astype(np.float32)), *f.stats.cache_hits.values())
"""


def run(path: Path) -> str:
    code = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_second_process_finds_every_signature_and_a_new_source_finds_none(tmp_path):
    path = tmp_path / "kernel.py"
    path.write_text(MODULE.format(factor=2))
    assert run(path) == "6 6 6.0"
    assert run(path) == "6 6 6.0 1 1 1"
    files = {p.name for p in tmp_path.rglob("*.nb*")}
    assert len(files) == 3
    assert all(name.endswith(".nbc") for name in files)  # no index that could point at the wrong one
    path.write_text(MODULE.format(factor=10))
    assert run(path) == "30 30 30.0"
    assert len({p.name for p in tmp_path.rglob("*.nb*")}) == 6  # the old code was not written over, and not read


STEP = """
from mpc.compiled import compiled

@compiled
def step(x):
    return x * {factor}
"""
CALLER = """
import importlib.util
import sys
from pathlib import Path
from mpc.compiled import compiled

spec = importlib.util.spec_from_file_location("mpc.made_up_step", Path(__file__).with_name("step.py"))
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from mpc.made_up_step import step

@compiled
def f(x):
    return step(x) + 1

if __name__ == "__main__":
    print(f(7), *f.stats.cache_hits.values())
"""


def test_a_kernel_is_compiled_anew_when_what_it_calls_in_another_module_has_changed(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "step.py").write_text(STEP.format(factor=2))
    assert run(tmp_path / "caller.py") == "15"
    assert run(tmp_path / "caller.py") == "15 1"
    (tmp_path / "step.py").write_text(STEP.format(factor=3))
    assert run(tmp_path / "caller.py") == "22"


def test_processes_that_start_together_agree(tmp_path):
    path = tmp_path / "kernel.py"
    path.write_text(MODULE.format(factor=3))
    code = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in "abc"
    ]
    assert [p.communicate()[0].split()[:3] for p in started] == [["9", "9", "9.0"]] * 3


def test_where_nothing_can_be_cached_it_compiles_all_the_same():
    scope: dict = {}
    exec("def g(x):\n    return x.sum() + 1\n", scope)  # noqa: S102 - a function without a file
    assert compiled(scope["g"])(np.arange(4)) == 7


def test_the_rings_kernels_use_it():
    kernels = [k for name in dir(ring_numba) if hasattr(k := getattr(ring_numba, name), "_cache")]
    assert len(kernels) > 5
    assert {type(k._cache).__name__ for k in kernels} == {"_KeyedCache"}
