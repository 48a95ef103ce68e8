"""The benchmark of trees runs as a user runs it, on a small data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_trees_over_real_processes_and_links() -> None:
    words = ["--sizes", "small", "--data", "heart", "--trees", "4", "--depth", "2", "--no-xgboost", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.trees", *words], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["trees"] == 4
    assert out["rows"] + out["held_out"] == 303
    assert out["auc"] > 0.8
