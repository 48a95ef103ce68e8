"""Parts of models at their owner: one file for each model, encrypted, of which the other owners have the other parts.

    offset  size  field
    0       16    magic "accord-model-01\n"
    16      12    nonce
    28      ...   AES-256-GCM of the part's canonical JSON, with the magic and the model's id as associated data

The key is made once for a silo and lies in its home, beside the folder of the models and not in it, so that a copy of the
folder alone says nothing.  A file that was changed, or put in the place of another model's, is refused.

Source: NIST SP 800-38D, with random nonces; a silo keeps far fewer than 2^32 models.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from coordinator.envelope import canonical
from silos.config import Home
from silos.errors import ConfigError
from silos.spec_parts import Feature, Hex32, SiloName, Time
from silos.validation import Frozen, validate, write_private

MAGIC = b"accord-model-01\n"
MAX_BYTES = 1 << 30
_NONCE_BYTES, _KEY_BYTES, _TAG_BYTES = 12, 32, 16
_SUFFIX = ".part"


class Learns(Frozen):
    """One line of a job's disclosure: who learned what."""

    silo: str
    learns: str


class ModelPart(Frozen):
    """What one owner keeps of a model, and all that it needs to predict with it.

    model: the id of the job that made it.  features: the columns that it reads; exposed: whether an offset is added.
    purpose, disclosure: from that job.  encoder: how inputs are made of columns, as `vertical.encoding.Encoder` or
    `vertical.binning.Binner` writes it.  fitted: as the model writes it.  rows, metrics: how many rows it was trained on, and
    how good it is, as far as the job released that, as decimal text.  reference: what `vertical.stability` compares with.
    """

    v: Literal[1]
    model: Hex32
    kind: str = Field(pattern=r"^[a-z]+\.[a-z]+$")
    family: str = Field(pattern=r"^[a-z]{1,32}$")
    created: Time
    purpose: str
    silo: SiloName
    owners: tuple[SiloName, ...] = Field(min_length=2)
    active: SiloName
    dataset: str
    spec_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    schema_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    features: tuple[Feature, ...]
    exposed: bool
    encoder: dict[str, Any] = Field(repr=False)
    fitted: dict[str, Any] = Field(repr=False)
    rows: dict[str, int]
    metrics: dict[str, Any]
    reference: dict[str, Any] = Field(repr=False)
    disclosure: tuple[Learns, ...]

    def document(self) -> dict[str, Any]:
        """The part as plain data."""
        return self.model_dump(mode="json")

    def summary(self) -> dict[str, Any]:
        """What a list of models says about one: no columns, no coefficients."""
        hidden = {"v", "features", "encoder", "fitted", "reference", "disclosure"}
        return {key: value for key, value in self.document().items() if key not in hidden}


def parse_part(document: Any) -> ModelPart:
    """Raises: ConfigError if the document is no part of a model."""
    return validate(ModelPart, document, "the part of a model", ConfigError)


PART = "part"
"""Where a worker's result has the part of a model; the result that is handed out has a digest of it in its place."""


def without_part(result: Mapping[str, Any]) -> tuple[dict[str, Any], ModelPart | None]:
    """A worker's result as it is handed out, and the part of a model that was in it.

    The result has the SHA-256 of the canonical part as "model_digest", so its own digest in the log binds the part too.
    Raises: ConfigError if the part is none.
    """
    if PART not in result:
        return dict(result), None
    part = parse_part(result[PART])
    rest = {name: value for name, value in result.items() if name != PART}
    return {**rest, "model_digest": hashlib.sha256(canonical(part.document())).hexdigest()}, part


class ModelStore:
    """The parts that a silo keeps.

    root: its home directory.
    """

    def __init__(self, root: Path) -> None:
        self._home = Home(root)
        self._folder, self._key_file = root / "models", root / "models.key"

    def __repr__(self) -> str:
        return f"ModelStore({self._folder})"

    def save(self, part: ModelPart) -> Path:
        """Keep a part, in place of an earlier one of the same model; when this returns it is on disk.

        Raises: ConfigError; OSError.
        """
        path = self._path(part.model)
        body = canonical(part.document())
        if len(body) > MAX_BYTES:
            raise ConfigError(f"the part of model {part.model} has more than {MAX_BYTES} bytes")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        write_private(path, MAGIC + nonce + AESGCM(self._key()).encrypt(nonce, body, _bound_to(part.model)))
        return path

    def load(self, model: str) -> ModelPart:
        """Raises: ConfigError if there is no such part, or the file is not what was kept."""
        path = self._path(model)
        if not path.exists():
            raise ConfigError(f"there is no part of model {model} here")
        if path.stat().st_size > len(MAGIC) + _NONCE_BYTES + MAX_BYTES + _TAG_BYTES:
            raise ConfigError(f"the part {path} is damaged")
        raw = path.read_bytes()
        start = len(MAGIC) + _NONCE_BYTES
        if raw[: len(MAGIC)] != MAGIC or len(raw) < start + _TAG_BYTES:
            raise ConfigError(f"the part {path} is damaged")
        try:
            body = AESGCM(self._key(made=True)).decrypt(raw[len(MAGIC) : start], raw[start:], _bound_to(model))
        except InvalidTag as exc:
            raise ConfigError(f"the part {path} is damaged, of another model, or kept under another key") from exc
        part = parse_part(json.loads(body))
        if part.model != model:
            raise ConfigError(f"the part {path} is of another model")
        return part

    def models(self) -> list[str]:
        """The models of which there is a part, by their ids."""
        return sorted(path.stem for path in self._folder.glob(f"*{_SUFFIX}") if not path.name.startswith("."))

    def delete(self, model: str) -> None:
        """Remove a part; the other owners can predict with the model no longer.  Raises: ConfigError if there is none."""
        path = self._path(model)
        if not path.exists():
            raise ConfigError(f"there is no part of model {model} here")
        path.unlink()

    def _path(self, model: str) -> Path:
        self._home.job(model)  # so it is never a path elsewhere
        return self._folder / f"{model}{_SUFFIX}"

    def _key(self, *, made: bool = False) -> bytes:
        """The silo's key for models.  made: it must be there already."""
        if not made and not self._key_file.exists():
            self._make_key()
        try:
            key = self._key_file.read_bytes()
        except FileNotFoundError as exc:
            raise ConfigError(f"the key {self._key_file} of the kept models is gone") from exc
        if len(key) != _KEY_BYTES:
            raise ConfigError(f"the key {self._key_file} is damaged")
        return key

    def _make_key(self) -> None:
        """A whole key or none appears under its name, and of two processes that make one at once the first one's stays."""
        own = self._key_file.with_name(f".{self._key_file.name}.{secrets.token_hex(8)}")
        write_private(own, secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(own, self._key_file)
        except FileExistsError:
            return
        finally:
            own.unlink()


def _bound_to(model: str) -> bytes:
    return MAGIC + model.encode("ascii")
