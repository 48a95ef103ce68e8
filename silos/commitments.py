"""What a silo commits to when it consents: a Merkle tree over the rows of the very version of its data set.

    leaf i            RFC 6962 leaf hash of salt_i || row i          row i: the bytes of silos.row_bytes
    salt_i            the first 16 bytes of HMAC-SHA256(seed, i)     i: 64 bits, big-endian
    commitment        hex SHA-256 of the job's salt (16 bytes) || the root

The seed is of one version of a data set, which its SHA-256 in the catalogue names, and stays in the silo's home.  Because of
it a leaf says nothing about a row whose values can be guessed, and because of the job's salt nobody can tell that two jobs
used one version.  One row of a job's data can be shown later (`open_row`): that tells its values, and nothing of other rows.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from coordinator import merkle
from coordinator.envelope import EnvelopeError, parse
from silos import catalogue, row_bytes
from silos.diary import said_paths
from silos.errors import CatalogueError, SiloError
from silos.row_bytes import Header
from silos.validation import Frozen, read_document, validate, write_private
from silos.verify import verify_bundle

if TYPE_CHECKING:
    from silos.catalogue import Dataset
    from silos.config import Home

SALT_BYTES = 16
SEED_BYTES = 32
MAX_OPENING_BYTES = 1 << 26
_OPENING = "accord row opening, version 1"
_SALT_FILE = "dataset.salt"
_CHANGED = "the data of this silo have changed since the consent"
_COMMITMENT = re.compile(r"[0-9a-f]{64}")


class CommitmentError(SiloError):
    """A row, or a version of a data set, is not what was committed to.

    public: what partners may read of it: nothing of files, whose names tell of a version.
    """

    def __init__(self, why: str, public: str = "this silo cannot commit to its data") -> None:
        super().__init__(why)
        self._public = public

    @property
    def public(self) -> str:
        """The sentence for partners."""
        return self._public


class _Version(Frozen):
    """What is kept of a version of a data set.  size: how many rows the tree has."""

    root: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Value(Frozen):
    """One value of an opened row.  value: None for none, text as it is, and any other kind as the hex of its bytes."""

    column: str
    kind: str
    value: str | None


class Opening(Frozen):
    """One row of a job's data set, and why it is that.

    job_salt, salt: of the commitment and of the leaf, hex.  size: rows of the data set.  proof: hashes of siblings, hex, from
    the leaf upwards.
    """

    format: str = Field(pattern=rf"^{_OPENING}$")
    job: str = Field(pattern=r"^[0-9a-f]{32}$")
    silo: str = Field(max_length=64)
    dataset: str = Field(max_length=64)
    job_salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    root: str = Field(pattern=r"^[0-9a-f]{64}$")
    index: int = Field(ge=0, lt=2**53)
    size: int = Field(ge=1, lt=2**53)
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    row: tuple[_Value, ...] = Field(max_length=10_000)
    proof: tuple[str, ...] = Field(max_length=64)

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return self.model_dump(mode="json")

    @property
    def header(self) -> Header:
        """What the row says of its data set."""
        return Header(self.size, tuple((one.column, one.kind) for one in self.row))

    def values(self) -> list[bytes | None]:
        """The bytes of each value.  Raises: ValueError."""
        return [
            None if v.value is None else v.value.encode() if _is_text(v.kind) else bytes.fromhex(v.value)
            for v in self.row
        ]


def _is_text(kind: str) -> bool:
    return kind in ("text", row_bytes.NESTED)


def read_opening(document: Any) -> Opening:
    """Read an opening strictly.  Raises: CommitmentError."""
    return validate(Opening, document, "the opening", CommitmentError)


def load_opening(path: Path) -> Opening:
    """Read an opening from a file.  Raises: CommitmentError; OSError if the file cannot be read."""
    with open(path, "rb") as file:
        raw = file.read(MAX_OPENING_BYTES + 1)
    try:
        if len(raw) > MAX_OPENING_BYTES:
            raise CommitmentError(f"{path} has more than {MAX_OPENING_BYTES} bytes, it is no opening")
        return read_opening(json.loads(raw))
    except (ValueError, RecursionError) as exc:
        raise CommitmentError(f"{path} is not well-formed JSON") from exc


class _Tree:
    """Grows a tree a batch of leaves at a time, and keeps the right edge and the nodes that are wanted, nothing else.

    wanted: places as (level, place) of complete subtrees.
    """

    def __init__(self, wanted: Sequence[tuple[int, int]] = ()) -> None:
        self.size = 0
        self._wanted = set(wanted)
        self._edge: dict[int, tuple[int, bytes]] = {}
        self.found: dict[tuple[int, int], bytes] = {}

    def add(self, leaves: list[bytes]) -> None:
        level, start, nodes = 0, self.size, leaves
        self.size += len(leaves)
        while nodes:
            for at, place in [w for w in self._wanted if w[0] == level and start <= w[1] < start + len(nodes)]:
                self.found[at, place] = nodes[place - start]
            if start & 1:  # the left sibling of the first one was the last of an earlier batch
                nodes, start = [self._edge.pop(level)[1], *nodes], start - 1
            if len(nodes) & 1:
                self._edge[level] = (start + len(nodes) - 1, nodes[-1])
            pairs = list(zip(nodes[::2], nodes[1::2], strict=False))
            nodes, start, level = [sha256(b"\x01" + a + b).digest() for a, b in pairs], start >> 1, level + 1

    def stored(self, level: int, place: int) -> bytes:
        """The hash of a complete subtree that is wanted or on the right edge."""
        on_edge = self._edge.get(level)
        return on_edge[1] if on_edge is not None and on_edge[0] == place else self.found[level, place]

    def root(self) -> bytes:
        return merkle.root(self.size, self.stored)


def _leaf_salt(seed: bytes, index: int) -> bytes:
    return hmac.digest(seed, index.to_bytes(8, "big"), "sha256")[:SALT_BYTES]


def _grow(
    dataset: Dataset, seed: bytes, scratch: Path | None, wanted: Sequence[tuple[int, int]] = (), index: int = -1
) -> tuple[_Tree, Header, bytes]:
    """The tree of a data set's rows, and the bytes of row `index`.

    Raises: CatalogueError if it cannot be read; CommitmentError if it has another number of rows than it is registered with.
    """
    tree, found = _Tree(wanted), b""
    header, stream = row_bytes.open_rows(dataset, scratch)
    with stream:
        for batch in stream:
            start, rows = tree.size, list(row_bytes.encode(header, batch))
            if start <= index < start + len(rows):
                found = rows[index - start]
            salts = (_leaf_salt(seed, i) for i in range(start, start + len(rows)))
            tree.add([sha256(b"\x00" + salt + row).digest() for salt, row in zip(salts, rows, strict=True)])
    if tree.size != dataset.rows:
        raise CommitmentError(f"data set '{dataset.name}' has {tree.size} rows, it is registered with {dataset.rows}")
    return tree, header, found


# --- versions of a data set


def _folder(home: Home) -> Path:
    folder = home.root / "commitments"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _seed(home: Home, version: str) -> bytes:
    """The seed of a version, made when it is first asked for.  Raises: CommitmentError if what is kept is not one."""
    path = _folder(home) / f"{version}.seed"
    if not path.exists():
        temporary = path.with_name(f".{version}.{secrets.token_hex(8)}")
        write_private(temporary, secrets.token_hex(SEED_BYTES) + "\n")
        try:
            os.link(temporary, path)  # of two who make one at a time the first wins, and both use it
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        _sync(path.parent)
    try:
        seed = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as exc:
        raise CommitmentError(f"the seed commitments/{path.name} in the silo's home cannot be read") from exc
    if len(seed) != SEED_BYTES:
        raise CommitmentError(f"the seed commitments/{path.name} in the silo's home is damaged")
    return seed


def _sync(folder: Path) -> None:
    """A new name in a folder is on disk; without this a crash could take a seed that a consent rests on."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def root_of(home: Home, dataset: Dataset, scratch: Path | None = None) -> bytes:
    """The root of this version of a data set (32 bytes); the rows are read the first time only.

    The caller sees to it that the data still is this version (silos.catalogue.verify_unchanged).
    Raises: CatalogueError, CommitmentError.
    """
    path = _folder(home) / f"{dataset.sha256}.json"
    if not path.exists():
        tree, _, _ = _grow(dataset, _seed(home, dataset.sha256), scratch)
        _write(path, _Version(root=tree.root().hex(), size=tree.size))
        return tree.root()
    document = read_document(path, "the commitment", CommitmentError)
    return bytes.fromhex(validate(_Version, document, f"the commitment {path}", CommitmentError).root)


def _write(path: Path, version: _Version) -> None:
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")
    write_private(temporary, version.model_dump_json())
    temporary.replace(path)
    _sync(path.parent)


# --- jobs


def commitment(salt: bytes, root: bytes) -> str:
    """Hex SHA-256 of a job's salt and a root: binds the job to the rows, tells nobody which without the salt.

    Raises: ValueError for another length of either.
    """
    if len(salt) != SALT_BYTES or len(root) != merkle.HASH_BYTES:
        raise ValueError(f"a salt of {SALT_BYTES} bytes and a root of 32, got {len(salt)} and {len(root)}")
    return sha256(salt + root).hexdigest()


def commit(home: Home, job: str, dataset: Dataset, scratch: Path | None = None) -> str:
    """The commitment of a job to a version of our data set, under a salt that is kept in the job's folder.

    Raises: CatalogueError, CommitmentError.
    """
    root, path = root_of(home, dataset, scratch), home.job(job) / _SALT_FILE
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, secrets.token_hex(SALT_BYTES) + "\n")
        _sync(path.parent)
    return commitment(_job_salt(home, job), root)


def _job_salt(home: Home, job: str) -> bytes:
    try:
        salt = bytes.fromhex((home.job(job) / _SALT_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError) as exc:
        raise CommitmentError(f"this silo has committed to no data in job {job}") from exc
    if len(salt) != SALT_BYTES:
        raise CommitmentError(f"the salt of job {job} is damaged")
    return salt


def check_consented(home: Home, job: str, dataset: Dataset, consented: str) -> None:
    """Before anything starts: the data set still is registered as, and holds, the version that our consent commits to.

    dataset: as the job was reviewed; the catalogue and the data are read again.
    Raises: CommitmentError if another version has been registered since, or the data are not what was registered.
    """
    salt, why = _job_salt(home, job), f"data set '{dataset.name}' has changed since the consent to job {job}"
    try:
        registered = catalogue.load(home.catalogue).dataset(dataset.name)
        same = registered.sha256 == dataset.sha256
        if same:
            catalogue.verify_unchanged(dataset)
            same = hmac.compare_digest(commitment(salt, root_of(home, dataset)), consented)
    except CatalogueError as exc:
        raise CommitmentError(f"{why}: {exc}", _CHANGED) from exc
    if not same:
        raise CommitmentError(why, _CHANGED)


def _consented(home: Home, job: str) -> tuple[str, str]:
    """Our name and our commitment in a job.  Raises: CommitmentError."""
    for path in said_paths(home.job(job)):
        if path.stem.endswith("-consented"):
            try:
                statement = parse(path.read_bytes()).statement
            except (OSError, EnvelopeError) as exc:
                raise CommitmentError(f"the consent to job {job} cannot be read") from exc
            return statement.silo, str(statement.body.get("dataset_commitment", ""))
    raise CommitmentError(f"this silo has not consented to job {job}")


def open_row(home: Home, job: str, dataset: Dataset, index: int, scratch: Path | None = None) -> Opening:
    """Show one row of what a job used here: all its values, and the proof.  The whole data set is read.

    index: counted from 0.  Raises: CommitmentError if the job used another version, or there is no such row; CatalogueError.
    """
    silo, consented = _consented(home, job)
    seed, salt = _seed(home, dataset.sha256), _job_salt(home, job)
    if not 0 <= index < dataset.rows:
        raise CommitmentError(f"data set '{dataset.name}' has rows 0 to {dataset.rows - 1}, there is no row {index}")
    wanted: list[tuple[int, int]] = []

    def noted(level: int, place: int) -> bytes:
        wanted.append((level, place))
        return bytes(merkle.HASH_BYTES)

    merkle.inclusion_proof(index, dataset.rows, noted)
    tree, header, row = _grow(dataset, seed, scratch, wanted, index)
    root = tree.root()
    if not hmac.compare_digest(commitment(salt, root), consented):
        raise CommitmentError(f"job {job} used other rows than data set '{dataset.name}' has now")
    values = zip(header.columns, row_bytes.split(header, row), strict=True)
    return Opening(
        format=_OPENING,
        job=job,
        silo=silo,
        dataset=dataset.name,
        job_salt=salt.hex(),
        root=root.hex(),
        index=index,
        size=dataset.rows,
        salt=_leaf_salt(seed, index).hex(),
        row=tuple(_Value(column=name, kind=kind, value=_written(kind, value)) for (name, kind), value in values),
        proof=tuple(one.hex() for one in merkle.inclusion_proof(index, dataset.rows, tree.stored)),
    )


def _written(kind: str, value: bytes | None) -> str | None:
    return None if value is None else value.decode() if _is_text(kind) else value.hex()


def verify_opening(opening: Opening, consented: str) -> None:
    """Check that a row is row `index` of the data that a consent commits to.

    consented: the `dataset_commitment` of the consent, hex.  Raises: CommitmentError.
    """
    if not _COMMITMENT.fullmatch(consented):
        raise CommitmentError("a data set commitment has 64 hex digits")
    if not hmac.compare_digest(commitment(bytes.fromhex(opening.job_salt), bytes.fromhex(opening.root)), consented):
        raise CommitmentError(f"the consent of {opening.silo} to job {opening.job} commits to other data")
    try:
        row = row_bytes.join(opening.header, opening.values())
        leaf = merkle.leaf_hash(bytes.fromhex(opening.salt) + row)
        path = [bytes.fromhex(one) for one in opening.proof]
        merkle.verify_inclusion(leaf, opening.index, opening.size, path, bytes.fromhex(opening.root))
    except ValueError as exc:  # ProofError is one
        raise CommitmentError(f"the row is not row {opening.index} of what {opening.silo} committed to: {exc}") from exc


def commitment_in(bundle: Path, opening: Opening, log_key: str | None = None) -> str:
    """The commitment of the opening's silo in an audit bundle, which is verified first.

    log_key: the log's verifier key, from a source that is trusted.
    Raises: CommitmentError if the bundle does not verify, or holds no consent of the silo to the job.
    """
    report = verify_bundle(bundle, log_key, allow_unfinished=True)
    if not report.ok:
        raise CommitmentError(f"the bundle does not verify: {report.reason}")
    for entry in (entry for story in report.stories for entry in story.entries):
        if (entry.job, entry.silo, entry.event) == (opening.job, opening.silo, "consented"):
            return str(entry.body["dataset_commitment"])
    raise CommitmentError(f"the bundle has no consent of {opening.silo} to job {opening.job}")
