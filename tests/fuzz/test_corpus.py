"""Every input that was ever kept, and a few thousand mutations of them: no crash, no hang, no memory beyond a limit."""

from __future__ import annotations

import json
import random  # noqa: TID251  mutations are repeatable from a seed
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import engine
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

N_MUTATIONS = 120


def test_no_target_fails_on_the_corpus_or_near_it() -> None:
    """In a process of its own, because the limit on memory stays."""
    command = [sys.executable, "-m", "tests.fuzz", "--replay", str(N_MUTATIONS), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    rows = json.loads(done.stdout.splitlines()[-1]) if done.stdout else []
    assert [row["failed"] for row in rows if row["failed"]] == []
    assert done.returncode == 0, done.stderr[-2000:]
    assert {row["target"] for row in rows} == set(engine.targets())
    assert all(row["executions"] > N_MUTATIONS for row in rows)


@pytest.mark.filterwarnings("ignore")  # numpy says something about odd headers before it refuses them
def test_every_target_has_inputs_that_its_parser_accepts(tmp_path: Path) -> None:
    """A target whose seeds are all refused would only ever test the first check."""
    refused = [
        name
        for name, target in engine.targets().items()
        if not any(target(data, tmp_path) for data in engine.inputs(name)) and name not in NEVER_WHOLE
    ]
    assert refused == []


NEVER_WHOLE = {"sealed_file", "certificate"}
"""Their inputs would have to be encrypted or signed with keys that are new each time."""


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    folders = {path.name for path in engine.CORPUS.iterdir()}
    assert folders == set(engine.targets())
    assert sum(path.stat().st_size for path in engine.CORPUS.rglob("*") if path.is_file()) < 300 << 10


SCRIPT = """
import sys
from tests.fuzz import engine
from tests.fuzz.target import Target
def crash(data, folder): 1 // 0
def grow(data, folder): return [bytes(1 << 30) for _ in range(9)]
def loop(data, folder):
    while True: pass
engine.HANG_S = 0.2
with engine.guarded(256 << 20) as folder:
    print(engine.tried(Target("t", globals()[sys.argv[1]]), b"x", folder).what)
"""


@pytest.mark.parametrize(("does", "what"), [("crash", "ZeroDivisionError"), ("grow", "MemoryError"), ("loop", "Hung")])
def test_the_engine_notices(does: str, what: str) -> None:
    """A crash, memory and an endless loop; in a process of its own, as above."""
    command = [sys.executable, "-c", SCRIPT, does]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith(what), done.stderr


def test_mutations_are_the_same_every_time_and_keep_within_the_limit() -> None:
    data = b'{"a": [1, 2, {"b": "c"}]}'
    made = [[mutated(data, b"[5]", "json", 40, random.Random(seed)) for seed in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 100
    assert max(map(len, made[0])) <= 40
    assert Target("t", lambda *_: None)(data, Path())
