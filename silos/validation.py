"""Turn a document that a person or a partner wrote into a frozen model, or into one sentence saying what is wrong."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from silos.errors import SiloError

MAX_DOCUMENT_BYTES = 1 << 20
_MAX_SHOWN = 60

Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """Base of every document model: immutable, no unknown settings, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _place(loc: tuple[int | str, ...]) -> str:
    """`("parties", 0, "key")` as `parties[0].key`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_TYPES = {
    "int": "a whole number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "a table",
    "model": "a table",
}


def sentence(error: Mapping[str, Any]) -> str:
    """One pydantic error as one sentence without a full stop: where, what was expected, what was there."""
    where, kind, ctx = _place(error["loc"]) or "the document", error["type"], error.get("ctx", {})
    got = f", got {_shown(error.get('input'))}"
    if kind == "missing":
        return f"'{where}' is missing"
    if kind == "extra_forbidden":
        return f"'{where}' is not a known setting"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"'{where}' {words} {ctx[name]}{got}"
    if kind == "literal_error":
        return f"'{where}' must be {ctx['expected']}{got}"
    if kind == "string_pattern_mismatch":
        return f"'{where}' does not have the form {ctx['pattern']}{got}"
    if kind in ("string_too_short", "too_short"):
        return f"'{where}' has too few {'characters' if kind.startswith('string') else 'entries'}"
    if kind in ("string_too_long", "too_long"):
        return f"'{where}' has too many {'characters' if kind.startswith('string') else 'entries'}"
    if kind == "value_error":
        text = str(ctx["error"])  # of our own validators: a predicate about one field, or a whole sentence
        return f"'{where}' {text}" if text.startswith("must ") else text
    stem = kind.removesuffix("_type")
    if stem in _TYPES:
        return f"'{where}' must be {_TYPES[stem]}{got}"
    return f"'{where}' is not acceptable: {error['msg'].lower()}{got}"


def validate(model: type[Model], document: Any, what: str, error: type[SiloError]) -> Model:
    """Check a parsed document against a model; JSON types, so a list stands for a tuple.

    what: how the sentence begins, for example "the job spec".
    Raises: `error` with the first thing that is wrong.
    """
    try:
        return model.model_validate_json(json.dumps(document, default=str))
    except ValidationError as exc:
        raise error(f"{what}: {sentence(exc.errors(include_url=False)[0])}") from exc
    except (ValueError, TypeError, RecursionError) as exc:
        raise error(f"{what} is not a document of plain values") from exc


def read_document(path: Path, what: str, error: type[SiloError]) -> dict[str, Any]:
    """Read a TOML file, or a JSON file when its name ends in `.json`.

    Raises: `error` if the file is missing, too large, or not well-formed.
    """
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise error(f"{what} {path} has more than {MAX_DOCUMENT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as exc:
        raise error(f"{what} {path} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise error(f"{what} {path} is not well-formed {kind}: {exc}") from exc
    if not isinstance(document, dict):
        raise error(f"{what} {path} must be a table of settings")
    return document


def write_private(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole, readable by its owner only; a crash leaves the old file or the new one."""
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
