"""What one fuzz target is, and the forms of input that targets share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Form = Literal["bytes", "text", "json", "canonical"]


@dataclass(frozen=True)
class Target:
    """One parser under test.

    run(data, folder): feed it `data`; folder: an empty scratch directory of its own, kept between calls.
    allowed: the only exceptions it may raise; anything else is a failure, and so is an assertion of `run` itself.
    form: what its input mostly is, for the mutator.  limit_bytes: the longest input that is tried.
    """

    name: str
    run: Callable[[bytes, Path], object]
    allowed: tuple[type[BaseException], ...] = ()
    form: Form = "bytes"
    limit_bytes: int = 1 << 14

    def __call__(self, data: bytes, folder: Path) -> bool:
        """Whether the parser accepted `data`.  Raises: whatever the parser may not raise."""
        try:
            self.run(data, folder)
        except self.allowed:
            return False
        return True


def text(data: bytes) -> str:
    """Text as it comes from a decoder that replaces what is no UTF-8."""
    return data.decode("utf-8", "replace")


class NotJson(Exception):
    """The input of a target that starts from parsed JSON is none; nothing was tried."""


def json_of(data: bytes) -> Any:
    """Parsed JSON, for targets that are given documents.  Raises: NotJson."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise NotJson from exc


def object_of(data: bytes) -> Mapping[str, Any]:
    """A parsed JSON object.  Raises: NotJson."""
    document = json_of(data)
    if not isinstance(document, dict):
        raise NotJson
    return document


def written(folder: Path, name: str, data: bytes) -> Path:
    """A file of this content."""
    path = folder / name
    path.write_bytes(data)
    return path
