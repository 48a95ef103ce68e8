"""Results of jobs at their recipient, and the salted digest of them that the log holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from coordinator.envelope import canonical
from silos.errors import ConfigError
from silos.validation import write_private

MAX_RESULT_BYTES = 1 << 30


def result_digest(salt: str, result: Any) -> str:
    """Hex SHA-256 over the salt's bytes and the canonical result; without the salt it says nothing about the result.

    salt: hex, at least 16 bytes.
    Raises: ValueError if the salt is shorter.
    """
    raw = bytes.fromhex(salt)
    if len(raw) < 16:
        raise ValueError(f"a salt has at least 16 bytes, got {len(raw)}")
    return hashlib.sha256(raw + canonical(result)).hexdigest()


def write_result(path: Path, *, job: str, silo: str, spec_digest: str, salt: str, result: Any) -> None:
    """Store a released result for its recipient, readable by the silo's user only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {"v": 1, "job": job, "silo": silo, "spec_digest": spec_digest, "salt": salt, "result": result}
    write_private(path, json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """Raises: ConfigError if there is no readable result."""
    if not path.exists():
        raise ConfigError(f"there is no result of job {path.stem} here")
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise ConfigError(f"the result {path} has more than {MAX_RESULT_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        document["salt"], document["result"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ConfigError(f"the result {path} is damaged") from exc
    if not isinstance(document, dict):
        raise ConfigError(f"the result {path} is damaged")
    return document
