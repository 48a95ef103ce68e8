"""What a training keeps on disk: encrypted, bound to its job and place, whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from silos import sealed_files
from silos.checkpoint_files import SpillError, unfinished
from silos.sealed_files import KEY_FILE, SealedFiles, sealed_path

SECRET = b"shares of weights" * 9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "training"


def test_a_piece_is_found_again_by_the_next_worker(root: Path) -> None:
    files = SealedFiles(root, "job lender")
    assert (files.names(), files.get("result")) == ([], None)
    files.put("training.00000003", SECRET)
    files.put("result", b"")
    files.put("result", b"other")
    again = SealedFiles(root, "job lender")
    assert again.names() == ["result", "training.00000003"]
    assert (again.get("training.00000003"), again.get("result")) == (SECRET, b"other")
    again.drop("result")
    again.drop("result")
    assert again.names() == ["training.00000003"]


def test_nobody_else_can_read_it(root: Path) -> None:
    files = SealedFiles(root, "job lender")
    files.put("training.00000003", SECRET)
    first = sealed_path(root, "training.00000003").read_bytes()
    files.put("training.00000003", SECRET)
    second = sealed_path(root, "training.00000003").read_bytes()
    assert SECRET not in first
    assert first[16:28] != second[16:28], "a nonce was used twice"
    assert first[28:] != second[28:]
    assert {path.stat().st_mode & 0o777 for path in root.iterdir()} == {0o600}
    assert root.stat().st_mode & 0o777 == 0o700
    assert repr(files) == f"SealedFiles({root})"


@pytest.mark.parametrize("at", [0, 15, 16, 27, 28, 60, -1])
def test_a_changed_byte_is_noticed(root: Path, at: int) -> None:
    files = SealedFiles(root, "job lender")
    files.put("result", SECRET)
    path = sealed_path(root, "result")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SpillError, match=r"result\.sealed is damaged"):
        files.get("result")


@pytest.mark.parametrize("length", [0, 10, 20, 40])
def test_a_piece_that_is_cut_short_is_noticed(root: Path, length: int) -> None:
    files = SealedFiles(root, "job lender")
    files.put("result", SECRET)
    path = sealed_path(root, "result")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SpillError, match="is damaged"):
        files.get("result")


def test_a_piece_is_of_its_job_its_silo_and_its_step(root: Path) -> None:
    files = SealedFiles(root, "job lender")
    files.put("training.00000003", SECRET)
    body = sealed_path(root, "training.00000003").read_bytes()
    sealed_path(root, "training.00000004").write_bytes(body)
    with pytest.raises(SpillError, match="of another job"):
        files.get("training.00000004")
    with pytest.raises(SpillError, match="of another job"):
        SealedFiles(root, "job platform").get("training.00000003")
    (root / KEY_FILE).unlink()
    with pytest.raises(SpillError, match="of another job"):
        SealedFiles(root, "job lender").get("training.00000003")
    (root / KEY_FILE).write_bytes(b"short")
    with pytest.raises(SpillError, match="key is damaged"):
        SealedFiles(root, "job lender")


@pytest.mark.parametrize("name", ["", "Result", "../key", "a.b", "a.123", "key/x", "a" * 65])
def test_names_stay_in_the_directory(root: Path, name: str) -> None:
    files = SealedFiles(root, "job lender")
    for act in (files.get, files.drop, lambda given: files.put(given, b"")):
        with pytest.raises(ValueError, match="a short and plain name"):
            act(name)


def test_what_a_killed_worker_left_half_written_is_gone(root: Path) -> None:
    files = SealedFiles(root, "job lender")
    files.put("result", SECRET)
    unfinished(sealed_path(root, "result")).write_bytes(b"half")
    (root / "note.txt").write_text("not ours")
    assert SealedFiles(root, "job lender").names() == ["result"]
    assert sorted(path.name for path in root.iterdir()) == ["key", "note.txt", "result.sealed"]


def test_a_disk_that_fails_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SealedFiles(root, "job lender")
    monkeypatch.setattr(sealed_files, "MAX_BYTES", 4)
    with pytest.raises(SpillError, match="would have 5 bytes, and at most 4 are kept"):
        files.put("result", b"12345")
    sealed_path(root, "result").write_bytes(bytes(100))
    with pytest.raises(SpillError, match="is damaged"):
        files.get("result")
    sealed_path(root, "agreed").mkdir()
    with pytest.raises(SpillError, match=r"agreed\.sealed cannot be removed"):
        files.drop("agreed")
    root.parent.joinpath("file").touch()
    with pytest.raises(SpillError, match="cannot be made"):
        SealedFiles(root.parent / "file", "job lender")
