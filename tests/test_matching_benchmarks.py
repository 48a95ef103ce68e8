"""The benchmarks of matching run as a user runs them, on small sets, and check their own results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def measured(*words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", *words, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_from_files_to_row_numbers_in_buckets(security: str) -> None:
    out = measured("benchmarks.matching_large", "--items", "3000", "--security", security)
    assert (out["items"], out["buckets"]) == (3000, 1)
    assert all(seconds > 0 for seconds in out["cpu_seconds"])


def test_a_hidden_join_and_a_sum() -> None:
    assert measured("benchmarks.hidden", "--items", "2000")


def test_several_owners() -> None:
    assert measured("benchmarks.star", "--sizes", "500", "--repeat", "1")
