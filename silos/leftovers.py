"""What lies in a job's folder while the job runs, and is gone or handed out afterwards.

Its worker and its node both know the names.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from silos.catalogue import file_sha256
from silos.errors import JobFailed
from silos.link_tls import LinkCredentials
from silos.sealed_files import KEY_FILE, SealedFiles, sealed_path
from silos.validation import write_private
from silos.workers import Outcome

TABLE = "table.parquet"
"""The table that the job releases, until it is released."""
MATCHING_FOLDER = "matching"
"""What a matching keeps, so that it can go on after a crash."""
STEPS_FOLDER = "steps"
OWN_KEPT, ALL_KEPT = "linked", "everywhere"
"""What it keeps when it is done: our matched rows, and that the others have theirs, in the same order."""
TRAINING_FOLDER = "training"
"""What a training keeps, encrypted, so that it can go on after a crash."""
RESULT_KEPT, RESULTS_AGREED = "result.00000001", "agreed"
"""What it keeps when it is done: our result, and that the others have theirs, of the same attempt."""
SOCKET = "score.sock"
"""Where a prediction that stays open is asked."""
WORKER_LOCK = "worker.lock"
"""Held by the job's worker: one of a node that died may still be there for a moment."""
_LINK_KEY, _LINK_CERTIFICATE, _OUTCOME = "link.key", "link.crt", "outcome"


def keep_link(folder: Path, link: LinkCredentials) -> None:
    """Keep the link key of a job that resumes: its certificate is in our consent, so there can be no other."""
    write_private(folder / _LINK_KEY, link.key_pem.decode())
    write_private(folder / _LINK_CERTIFICATE, base64.b64encode(link.certificate_der).decode())


def kept_link(folder: Path) -> LinkCredentials | None:
    """The link key of a job that resumes, if there is one."""
    if not (folder / _LINK_CERTIFICATE).exists():
        return None
    certificate = base64.b64decode((folder / _LINK_CERTIFICATE).read_text(encoding="ascii"), validate=True)
    return LinkCredentials((folder / _LINK_KEY).read_bytes(), certificate)


def own_kept(folder: Path) -> bool:
    """Whether a worker of ours has found its rows, or trained its model, and has what came of it on disk."""
    return _step(folder, OWN_KEPT).exists() or sealed_path(folder / TRAINING_FOLDER, RESULT_KEPT).exists()


def all_kept(folder: Path) -> bool:
    """Whether the other owners said so, too."""
    return _step(folder, ALL_KEPT).exists() or sealed_path(folder / TRAINING_FOLDER, RESULTS_AGREED).exists()


def _step(folder: Path, name: str) -> Path:
    return folder / MATCHING_FOLDER / STEPS_FOLDER / f"{0:08d}.{name}"


def keep_outcome(folder: Path, outcome: Outcome, salt: str) -> None:
    """Keep what a worker came to until it is released.  salt: of the digest that the log gets."""
    kept = json.dumps({"outcome": asdict(outcome), "salt": salt})
    SealedFiles(folder / _OUTCOME, folder.name).put(_OUTCOME, kept.encode())


def kept_outcome(folder: Path) -> tuple[Outcome, str] | None:
    """The outcome that was kept, and its salt, if there is one."""
    if not (folder / _OUTCOME).exists():
        return None
    kept = SealedFiles(folder / _OUTCOME, folder.name).get(_OUTCOME)
    if kept is None:
        return None
    document = json.loads(kept)
    return Outcome(**document["outcome"]), document["salt"]


def take_turn(folder: Path) -> None:
    """Be the only worker of the job from here to the end of this process; wait for one that is not gone yet."""
    fcntl.flock(os.open(folder / WORKER_LOCK, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed could not: directories of what did not fit into memory, and half-written files."""
    for path in folder.glob("accord-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Once the job is over, remove what was only kept to go on with it, matches that were never released among it."""
    for name in (_LINK_KEY, _LINK_CERTIFICATE, WORKER_LOCK, TABLE, SOCKET):
        (folder / name).unlink(missing_ok=True)
    _sweep(folder)
    for name in (TRAINING_FOLDER, _OUTCOME):
        (folder / name / KEY_FILE).unlink(missing_ok=True)  # first: without it the rest says nothing
    for name in (MATCHING_FOLDER, TRAINING_FOLDER, _OUTCOME):
        shutil.rmtree(folder / name, ignore_errors=True)


def check_table(folder: Path, to: Path, silo: str, result: Mapping[str, Any]) -> None:
    """A released table, handed out or not, is the one whose digest is in the released result.  Raises: JobFailed."""
    if "table" not in result:
        return
    made = folder / TABLE if (folder / TABLE).exists() else to
    if not made.exists() or file_sha256(str(made)) != result["table"].get("sha256"):
        raise JobFailed("release", f"the worker of {silo} released another table than it wrote")


def hand_out_table(folder: Path, to: Path, result: Mapping[str, Any]) -> None:
    """Move the released table, if there is one and it is still here, to where the silo's people find it."""
    if "table" in result and (folder / TABLE).exists():
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / TABLE).replace(to)
