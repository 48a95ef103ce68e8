"""Documents that a silo reads: specs and requests, its own settings, models, results and what it keeps of a job."""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coordinator.envelope import EnvelopeError
from mpc.errors import LocalProtocolError
from mpc.tokens import sets
from silos import catalogue, checkpoint_files, policy
from silos.asking import parse_key, parse_partners, parse_sum
from silos.checkpoint_files import SpillError, load_array
from silos.config import Home
from silos.errors import CatalogueError, ConfigError, SpecError
from silos.model_parts import kept, own_terms, read_export
from silos.request import build_spec
from silos.results import read_result, result_digest
from silos.sealed_files import SealedFiles
from silos.spec import parse_spec, spec_digest
from silos.validation import read_document
from tests.fuzz.target import NotJson, Target, json_of, text, written
from vertical import checkpoints

JOB, SALT = "0123456789abcdef" * 2, "00112233445566778899aabbccddeeff"
NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)
KEY = bytes(range(32))


def spec(data: bytes, _: Path) -> None:
    """A job spec from a submitter; what is accepted has one written form and a digest."""
    document = json_of(data)
    accepted = parse_spec(document)
    assert accepted.document() == document
    spec_digest(accepted)


def request(data: bytes, folder: Path, name: str) -> None:
    """A job request, TOML or JSON."""
    given = read_document(written(folder, name, data), "the job request", SpecError)
    build_spec(given, job=JOB, now=NOW, salt=SALT)


def policies(data: bytes, folder: Path) -> None:
    """policy.toml, and a pin put into it."""
    path = written(folder, "policy.toml", data)
    policy.load(path)
    policy.pin(path, "newcomer", "ab" * 32)
    policy.load(path)


def catalogues(data: bytes, folder: Path) -> None:
    """catalogue.toml."""
    catalogue.load(written(folder, "catalogue.toml", data))


def config(data: bytes, folder: Path) -> None:
    """silo.toml."""
    written(folder, "silo.toml", data)
    Home(folder).load_config()


def enrolment(data: bytes, folder: Path) -> None:
    """coordinator.json."""
    written(folder, "coordinator.json", data)
    Home(folder).load_enrolment()


def model_part(data: bytes, folder: Path) -> None:
    """An exported part of a model, and the model in it."""
    part = read_export(written(folder, "part.json", data))
    kept(part)
    own_terms(part)


def result(data: bytes, folder: Path) -> None:
    """A released result, and its digest."""
    document = read_result(written(folder, f"{JOB}.json", data))
    if isinstance(document["salt"], str):
        result_digest(document["salt"], document["result"])


def sealed_raw(data: bytes, folder: Path) -> None:
    """A sealed file as it lies on disk."""
    files = _sealed(folder)
    written(folder / "sealed", "state.sealed", data)
    files.get("state")


def sealed_state(data: bytes, folder: Path) -> None:
    """A state that was sealed with the right key."""
    files = _sealed(folder)
    nonce = bytes(12)
    body = AESGCM(KEY).encrypt(nonce, data, b"accord-sealed-1\nowner\nstate")
    written(folder / "sealed", "state.sealed", b"accord-sealed-1\n" + nonce + body)
    checkpoints.decode(files.get("state") or b"")


def _sealed(folder: Path) -> SealedFiles:
    root = folder / "sealed"
    root.mkdir(exist_ok=True)
    if not (root / "key").exists():
        (root / "key").write_bytes(KEY)
    return SealedFiles(root, "owner")


def array(data: bytes, folder: Path) -> None:
    """A kept array with a digest that holds."""
    label = b"bucket"
    digest = hashlib.sha256(len(label).to_bytes(8, "little") + label + data).digest()
    path = folder / "array"
    path.write_bytes(checkpoint_files._MAGIC + digest + data)
    load_array(path, "bucket")


def server_key(data: bytes, _: Path) -> None:
    """A kept key, with a digest that holds."""
    sets.ServerKey.from_bytes(sets._KEY + data + sets._seal(sets._KEY, data))


def tokens(data: bytes, _: Path) -> None:
    """Kept tokens, with a digest that holds."""
    sets.TokenSet.from_bytes(sets._SET + data + sets._seal(sets._SET, data))


def words(data: bytes, _: Path) -> None:
    """What a person writes on the command line: keys, sums, partners."""
    for read in (parse_key, parse_sum, lambda given: parse_partners(given.split("\n"))):
        try:
            read(text(data))
        except SpecError:
            continue


TARGETS = (
    Target("spec", spec, (NotJson, SpecError, EnvelopeError), "canonical"),
    Target("request_toml", partial(request, name="job.toml"), (SpecError,), "text"),
    Target("request_json", partial(request, name="job.json"), (SpecError,), "json"),
    Target("policy", policies, (ConfigError,), "text"),
    Target("catalogue", catalogues, (CatalogueError,), "text"),
    Target("config", config, (ConfigError,), "text", 2048),
    Target("enrolment", enrolment, (ConfigError,), "json", 2048),
    Target("model_part", model_part, (ConfigError,), "json"),
    Target("result", result, (ConfigError, ValueError), "json"),
    Target("sealed_file", sealed_raw, (SpillError,), limit_bytes=1024),
    Target("sealed_state", sealed_state, (LocalProtocolError,), limit_bytes=4096),
    Target("array", array, (SpillError,), limit_bytes=1024),
    Target("kept_key", server_key, (ValueError,), limit_bytes=512),
    Target("kept_tokens", tokens, (ValueError,), limit_bytes=2048),
    Target("words", words, (), "text", 512),
)
