"""Points in buckets on disk, and arrays that outlive a crash: right, private, and never half."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silos.checkpoint_files import CheckpointFiles, SpillError
from silos.spill import Bucket, Spill, merged

Point = tuple[int, int, int, int]  # two words, row, key


def filled(root: Path, points: list[Point], bits: int, segment_points: int = 1000, step: int = 7) -> Spill:
    spill = Spill(root, bits, segment_points)
    for start in range(0, len(points), step):
        part = points[start : start + step]
        words = np.array([p[:2] for p in part], np.uint64).reshape(-1, 2)
        spill.append(words, np.array([p[2] for p in part], np.int64), np.array([p[3] for p in part], np.uint8))
    spill.finish()
    return spill


def plain(bucket: Bucket) -> list[tuple[int, int, list[int], int]]:
    spans = zip(bucket.offsets[:-1].tolist(), bucket.offsets[1:].tolist())
    rows = [bucket.rows[low:high].tolist() for low, high in spans]
    return [(w[0], w[1], r, k) for w, r, k in zip(bucket.words.tolist(), rows, bucket.key.tolist())]


def expected(points: list[Point], bits: int, b: int) -> list[tuple[int, int, list[int], int]]:
    mine = [p for p in points if p[0] >> (64 - bits) == b]
    found = {}
    for high, low, row, key in mine:
        rows, least = found.get((high, low), (set(), 255))
        found[high, low] = rows | {row}, min(least, key)
    return [(*words, sorted(rows), least) for words, (rows, least) in sorted(found.items())]


word = st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
point = st.tuples(word, word, st.integers(0, 5) | st.integers(0, 2**63 - 1), st.integers(0, 3))


@settings(max_examples=25, deadline=None)
@given(points=st.lists(point, max_size=40), bits=st.sampled_from([0, 1, 5]), segment=st.sampled_from([1, 3, 8, 1000]))
def test_every_bucket_has_its_points_merged(
    tmp_path_factory: pytest.TempPathFactory, points: list[Point], bits: int, segment: int
) -> None:
    root = tmp_path_factory.mktemp("spill") / "points"
    written = filled(root, points, bits, segment)
    for spill in (written, Spill.open(root)):
        assert spill.total == len(points)
        assert [plain(spill.bucket(b)) for b in range(1 << bits)] == [
            expected(points, bits, b) for b in range(1 << bits)
        ]
        counted = np.bincount([p[0] >> (64 - bits) for p in points] or [0], minlength=1 << bits) * bool(points)
        assert spill.counts.tolist() == counted.tolist()
        spill.close()


def test_many_points_against_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    words = rng.integers(0, 2**64, (50_000, 2), dtype=np.uint64)
    words[30_000:30_500] = words[:500]
    spill = Spill(tmp_path / "s", 8, 1 << 13)
    spill.append(words, np.arange(50_000), np.zeros(50_000, np.uint8))
    spill.finish()
    buckets = [spill.bucket(b) for b in range(256)]
    assert np.array_equal(np.concatenate([b.words for b in buckets]), np.unique(words, axis=0))
    assert sorted(np.concatenate([b.rows for b in buckets]).tolist()) == list(range(50_000))
    assert sum(len(b.words) for b in buckets) == 49_500
    assert repr(buckets[0]) == f"Bucket(points={len(buckets[0].words)}, rows={len(buckets[0].rows)})"
    spill.remove()
    assert not (tmp_path / "s").exists()


def test_a_point_under_several_keys_has_the_smallest_and_each_row_once(tmp_path: Path) -> None:
    spill = filled(tmp_path / "s", [(7, 1, 4, 2), (7, 1, 9, 0), (7, 1, 4, 1), (7, 0, 4, 3)], 0, segment_points=2)
    bucket = spill.bucket(0)
    assert plain(bucket) == [(7, 0, [4], 3), (7, 1, [4, 9], 0)]
    spill.remove()


def test_no_points_at_all(tmp_path: Path) -> None:
    spill = filled(tmp_path / "s", [], 2)
    spill.close()
    spill = Spill.open(tmp_path / "s")
    assert (spill.total, spill.bits, plain(spill.bucket(3))) == (0, 2, [])
    assert merged(np.zeros((0, 2), np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint8)).offsets.tolist() == [0]
    spill.remove()


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir(mode=0o755)
    spill = filled(root, [(1, 2, 3, 0)], 1)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [root, *root.iterdir()]}
    assert modes == {"s": 0o700, "points": 0o600, "index": 0o600}
    spill.remove()


KILLED = """
import sys, numpy as np
from pathlib import Path
from silos.spill import Spill
spill = Spill(Path(sys.argv[1]), 4, 1000)
for i in range(5):
    spill.append(np.full((700, 2), i, np.uint64), np.arange(700), np.zeros(700, np.uint8))
print("appended", flush=True)
sys.stdin.read()
"""


def test_a_process_killed_while_it_appends_leaves_nothing_to_reopen(tmp_path: Path) -> None:
    root = tmp_path / "s"
    filled(root, [(9, 9, 9, 0)], 4).close()  # what an earlier run finished must not stand in for the new one
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "appended\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert (root / "points").stat().st_size > 0
    with pytest.raises(SpillError, match=r"are not complete; they have to be gathered anew$"):
        Spill.open(root)
    spill = filled(root, [(1, 2, 3, 0)], 4)
    assert plain(spill.bucket(0)) == [(1, 2, [3], 0)]
    spill.remove()


def test_damage_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "s"
    filled(root, [(b << 60, b, b, 0) for b in range(16)], 4).close()
    points, index = (root / "points").read_bytes(), (root / "index").read_bytes()
    for at in (0, 16 * 16 + 1, len(points) - 1):  # a word of bucket 0, a row of bucket 0, a key of bucket 15
        (root / "points").write_bytes(points[:at] + bytes([points[at] ^ 1]) + points[at + 1 :])
        spill, bad = Spill.open(root), 15 if at == len(points) - 1 else 0
        with pytest.raises(SpillError, match=f"is damaged in bucket {bad}; the points have to be gathered anew"):
            spill.bucket(bad)
        assert len(spill.bucket(7).words) == 1
        spill.close()
    (root / "points").write_bytes(points[:-1])
    with pytest.raises(SpillError, match="has another size than its index says"):
        Spill.open(root)
    (root / "points").unlink()
    with pytest.raises(SpillError, match="cannot be read: No such file"):
        Spill.open(root)
    (root / "index").write_bytes(index[:-9])
    with pytest.raises(SpillError, match="index is damaged"):
        Spill.open(root)


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    words, rows, key = np.zeros((2, 2), np.uint64), np.zeros(2, np.int64), np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="got 11 bits"):
        Spill(tmp_path / "s", 11)
    spill = Spill(tmp_path / "s", 1)
    wrong: list[tuple[Any, Any, Any, str]] = [
        (words[:1], rows, key, r"need \(2, 2\) words"),
        (words, rows, key[:1], r"and \(2,\) keys"),
        (words.astype(np.int64), rows, key, "types are uint64, int64 and uint8, got int64"),
    ]
    for *arrays, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            spill.append(*arrays)
    with pytest.raises(ValueError, match="only of finished points"):
        spill.bucket(0)
    spill.append(words, rows, key)
    spill.finish()
    with pytest.raises(ValueError, match="cannot be added"):
        spill.append(words, rows, key)
    with pytest.raises(ValueError, match="finished already"):
        spill.finish()
    with pytest.raises(ValueError, match="a bucket 2 only of"):
        spill.bucket(2)
    spill.remove()


def test_a_disk_that_fails_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpillError, match="cannot be written: Not a directory"):
        Spill(tmp_path / "file" / "s", 1)
    with pytest.raises(SpillError, match="cannot be made: File exists"):
        CheckpointFiles(tmp_path / "file")


SAVING = """
import sys, numpy as np
from pathlib import Path
from silos.checkpoint_files import CheckpointFiles
kept = CheckpointFiles(Path(sys.argv[1]), "job")
for i in range(10000):
    kept.save(1, "rows", np.full(300_000 + i, i))
    print("saved", flush=True)
"""


@pytest.mark.parametrize("saves", [1, 2, 5])
def test_a_process_killed_while_it_saves_leaves_a_whole_array(tmp_path: Path, saves: int) -> None:
    command = [sys.executable, "-c", SAVING, str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(saves):
            assert child.stdout.readline() == "saved\n"
        child.send_signal(signal.SIGKILL)
    kept = CheckpointFiles(tmp_path / "c", "job")
    found = kept.load(1, "rows")
    assert found is not None
    assert found[0] >= saves - 1
    assert np.array_equal(found, np.full(300_000 + found[0], found[0]))
    kept.remove()
    assert not (tmp_path / "c").exists()


def test_what_a_killed_process_leaves_is_removed_too(tmp_path: Path) -> None:
    spill = filled(tmp_path / "s", [(1, 2, 3, 0)], 1)
    (tmp_path / "s" / ".index.new").write_bytes(b"half")
    spill.remove()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint64).reshape(6, 2),
        np.zeros((0, 2), np.uint64),
        np.array(7, np.int16),
        np.array(["a", "bcd"]),
        np.arange(20.0).reshape(4, 5)[:, ::2],
    ],
)
def test_an_array_comes_back(tmp_path: Path, array: Any) -> None:
    CheckpointFiles(tmp_path / "c", "job").save(3, "matched", array)
    found = CheckpointFiles(tmp_path / "c", "job").load(3, "matched")
    assert found is not None
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    kept = CheckpointFiles(tmp_path / "c", "job")
    assert (kept.load(0, "rows"), kept.buckets("rows")) == (None, [])
    for bucket in (10, 2, 0):
        kept.save(bucket, "rows", np.array([bucket]))
    kept.save(2, "words", np.array([0]))
    kept.save(2, "rows", np.array([22]))
    assert kept.buckets("rows") == [0, 2, 10]
    found = kept.load(2, "rows")
    assert found is not None
    assert found.tolist() == [22]
    kept.drop(2, "rows")
    kept.drop(2, "rows")
    assert kept.buckets("rows") == [0, 10]
    files = list((tmp_path / "c").iterdir())
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
    assert len(files) == 3
    kept.remove()
    assert not (tmp_path / "c").exists()


def test_a_torn_or_exchanged_file_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "c"
    kept = CheckpointFiles(root, "job")
    kept.save(1, "rows", np.arange(100))
    kept.save(2, "rows", np.arange(100))
    path, other = root / "00000001.rows", root / "00000002.rows"
    whole = path.read_bytes()
    for torn in (b"", whole[:20], whole[:-1], whole + b"\0", whole[:60] + b"\xff" + whole[61:], other.read_bytes()):
        path.write_bytes(torn)
        with pytest.raises(SpillError, match=r"00000001\.rows is damaged$"):
            kept.load(1, "rows")
    with pytest.raises(SpillError, match="is damaged"):
        CheckpointFiles(root, "another job").load(2, "rows")
    kept.save(1, "rows", np.arange(3))
    found = kept.load(1, "rows")
    assert found is not None
    assert found.tolist() == [0, 1, 2]


def test_a_write_that_is_cut_short_leaves_the_earlier_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CheckpointFiles(tmp_path / "c")
    kept.save(1, "rows", np.arange(3))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SpillError, match="rows cannot be written: No space left on device"):
        kept.save(1, "rows", np.arange(9))
    monkeypatch.undo()
    found = kept.load(1, "rows")
    assert found is not None
    assert found.tolist() == [0, 1, 2]
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_what_a_checkpoint_does_not_take(tmp_path: Path) -> None:
    kept = CheckpointFiles(tmp_path / "c")
    with pytest.raises(ValueError, match="Python objects"):
        kept.save(0, "rows", np.array([None]))
    for bucket, name in [(-1, "rows"), (0, "../rows"), (0, ""), (0, "Rows")]:
        with pytest.raises(ValueError, match="short and plain"):
            kept.save(bucket, name, np.arange(2))
