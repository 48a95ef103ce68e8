"""What a silo commits to: the root over its rows, one row opened later, and data that changed after the consent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as some

from coordinator import merkle
from coordinator.envelope import Statement, seal
from silos import catalogue, commitments, row_bytes
from silos.catalogue import Dataset
from silos.cli import main
from silos.commitments import CommitmentError, Opening, commitment, open_row, root_of, verify_opening
from silos.config import Home, init_home
from silos.diary import Diary
from tests.silos import bundles
from tests.silos.world import JOB

N = 500
TABLE = pa.table(
    {
        "email": [f"person{i}@example.org" if i % 7 else None for i in range(N)],
        "city": pa.array(["Graz", "Linz", None, ""] * (N // 4)).dictionary_encode(),
        "amount": pa.array([None if i % 11 == 0 else i / 3 - 100 for i in range(N)]),
        "count": pa.array([i - 500 for i in range(N)], pa.int16()),
        "sure": pa.array([None, True, False, True, True] * (N // 5)),
        "day": pa.array([i * 11 for i in range(N)], pa.date32()),
        "at": pa.array([i * 10**9 for i in range(N)], pa.timestamp("us")),
        "price": pa.array([Decimal(i - 500) / 100 for i in range(N)], pa.decimal128(12, 2)),
        "raw": pa.array([bytes([i % 256]) * (i % 5) for i in range(N)], pa.binary()),
        "list": [[i, None] for i in range(N)],
    }
)
OTHER = TABLE.set_column(3, "count", pa.array([i // 2 for i in range(N)], pa.int16()))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    init_home(tmp_path / "lender", "lender")
    return Home(tmp_path / "lender")


def registered(home: Home, kind: str = "parquet", table: pa.Table = TABLE, **options: Any) -> Dataset:
    path = home.root.parent / f"loans.{'csv' if kind == 'csv' else 'parquet'}"
    if kind == "csv":
        pyarrow.csv.write_csv(table.drop_columns(["list", "raw"]), path)
    else:
        pq.write_table(table.drop_columns(["list"]) if kind == "sql" else table, path, row_group_size=300)
    if kind == "sql":
        return catalogue.add_query(home.catalogue, "loans", f"FROM '{path}' ORDER BY count", "email", **options)
    return catalogue.add(home.catalogue, "loans", path, "email", **options)


def consent(home: Home, dataset: Dataset, job: str = JOB) -> str:
    """Commit, and have it signed in the job's diary."""
    said = commitments.commit(home, job, dataset)
    diary = Diary(home.job(job), "lender", job, "0" * 64, home.load_identity())
    diary.write("consented", {"dataset_commitment": said})
    return said


def plain_root(dataset: Dataset, seed: bytes) -> bytes:
    """The root as the module describes it, one row after the other."""
    header, stream = row_bytes.open_rows(dataset)
    nodes: dict[tuple[int, int], bytes] = {}
    for index, row in enumerate(row for batch in stream for row in row_bytes.encode(header, batch)):
        salt = hmac.digest(seed, index.to_bytes(8, "big"), "sha256")[:16]
        for node in merkle.grow(index, salt + row, lambda level, place: nodes[level, place]):
            nodes[node.level, node.place] = node.hash
    return merkle.root(dataset.rows, lambda level, place: nodes[level, place])


@pytest.mark.parametrize("kind", ["parquet", "csv", "sql"])
def test_the_root_is_that_of_the_rows_in_order_and_every_row_can_be_shown(home: Home, kind: str) -> None:
    dataset = registered(home, kind)
    said = consent(home, dataset)
    (seed_file,) = (home.root / "commitments").glob("*.seed")
    assert stat.S_IMODE(seed_file.stat().st_mode) == 0o600
    assert root_of(home, dataset) == plain_root(dataset, bytes.fromhex(seed_file.read_text()))
    for index in (0, 7, 299, N - 1):
        opening = commitments.read_opening(json.loads(json.dumps(open_row(home, JOB, dataset, index).document())))
        verify_opening(opening, said)
        seen = {v.column: row_bytes.shown(v.kind, b) for v, b in zip(opening.row, opening.values(), strict=True)}
        assert seen["email"] == ("(none)" if index % 7 == 0 else f"person{index}@example.org")
        assert seen["count"] == str(index - 500)
        assert seen["day"] == str(TABLE["day"][index].as_py())
        assert Decimal(seen["price"]) == Decimal(index - 500) / 100


def test_every_size_of_tree_is_that_of_the_merkle_module() -> None:
    for size in range(1, 40):
        leaves = [hashlib.sha256(bytes([i])).digest() for i in range(size)]
        nodes: dict[tuple[int, int], bytes] = {}
        for i, leaf in enumerate(leaves):
            nodes |= {(n.level, n.place): n.hash for n in merkle.grow_leaf(i, leaf, lambda a, b: nodes[a, b])}  # noqa: B023
        for cut in (1, 3, 8, 40):
            tree = commitments._Tree([(level, place) for level, place in nodes])
            for start in range(0, size, cut):
                tree.add(leaves[start : start + cut])
            assert tree.root() == merkle.root(size, lambda a, b: nodes[a, b])  # noqa: B023
            assert tree.found == nodes


cells = some.one_of(some.none(), some.text(max_size=5))


@settings(max_examples=30, deadline=None)
@given(
    some.lists(some.tuples(cells, cells, some.one_of(some.none(), some.integers(-128, 127))), min_size=1, max_size=8)
)
def test_two_rows_have_the_same_bytes_only_if_they_hold_the_same_values(rows: list[tuple[Any, Any, Any]]) -> None:
    a, b, c = zip(*rows, strict=True)
    batch = pa.record_batch({"a": pa.array(a, pa.string()), "b": pa.array(b, pa.string()), "c": pa.array(c, pa.int8())})
    header = row_bytes.Header(len(rows), tuple((f.name, row_bytes.kind_of(f)) for f in batch.schema))
    encoded = list(row_bytes.encode(header, batch))
    assert len(set(encoded)) == len(set(rows))
    assert list(row_bytes.encode(header, batch.slice(1))) == encoded[1:]
    for row in encoded:
        assert row_bytes.join(header, row_bytes.split(header, row)) == row


def test_a_root_is_computed_once_and_two_at_a_time_agree(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registered(home)
    both = threading.Barrier(2)
    roots: list[bytes] = []
    grow = commitments._grow

    def together(*arguments: Any) -> Any:
        both.wait(60)
        return grow(*arguments)

    monkeypatch.setattr(commitments, "_grow", together)
    threads = [threading.Thread(target=lambda: roots.append(root_of(home, dataset))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(roots)) == 1
    monkeypatch.setattr(commitments, "_grow", None)
    assert root_of(home, dataset) == roots[0]


def test_jobs_of_one_version_cannot_be_linked_and_other_rows_have_another_root(home: Home) -> None:
    dataset = registered(home)
    first, second = (commitments.commit(home, job, dataset) for job in (JOB, "f" * 32))
    assert first != second
    assert commitments.commit(home, JOB, dataset) == first
    root = root_of(home, dataset)
    assert root_of(home, registered(home, table=OTHER, replace=True)) != root


@pytest.mark.parametrize("kind", ["parquet", "csv", "sql"])
def test_data_that_changed_after_the_consent_are_noticed(home: Home, kind: str) -> None:
    reviewed = registered(home, kind)
    first = commitments.commit(home, JOB, reviewed)
    commitments.check_consented(home, JOB, reviewed, first)
    changed = registered(home, kind, OTHER, replace=True)
    why = f"data set 'loans' has changed since the consent to job {JOB}"
    for dataset in (reviewed, changed):  # as the node reviewed it before, and as one that starts anew does
        not_consented(home, dataset, first, why)
    kept = home.catalogue.read_text()
    registered(home, kind, replace=True)
    commitments.check_consented(home, JOB, reviewed, first)
    not_consented(home, reviewed, "0" * 64, why)
    home.catalogue.unlink()
    not_consented(home, reviewed, first, f"{why}: the catalogue has no data set 'loans'")
    home.catalogue.write_text(kept)
    not_consented(home, reviewed, first, why)


@pytest.mark.parametrize(("kind", "what"), [("parquet", "file"), ("csv", "file"), ("sql", "result of the query")])
def test_data_that_changed_under_their_registration_are_noticed(home: Home, kind: str, what: str) -> None:
    reviewed = registered(home, kind)
    first = commitments.commit(home, JOB, reviewed)
    kept = home.catalogue.read_text()
    registered(home, kind, OTHER, replace=True)
    home.catalogue.write_text(kept)
    why = f"data set 'loans' has changed since the consent to job {JOB}"
    not_consented(home, reviewed, first, f"{why}: the {what} of data set 'loans' has changed since it was registered")


def not_consented(home: Home, dataset: Dataset, consented: str, sentence: str) -> None:
    with pytest.raises(CommitmentError) as refused:
        commitments.check_consented(home, JOB, dataset, consented)
    assert str(refused.value) == sentence
    assert refused.value.public == "the data of this silo have changed since the consent"


def test_what_cannot_be_shown_is_a_sentence(home: Home) -> None:
    dataset = registered(home)
    with pytest.raises(CommitmentError, match=f"^this silo has not consented to job {JOB}$"):
        open_row(home, JOB, dataset, 0)
    said = consent(home, dataset)
    with pytest.raises(CommitmentError, match=r"^data set 'loans' has rows 0 to 499, there is no row 500$"):
        open_row(home, JOB, dataset, N)
    with pytest.raises(CommitmentError, match=f"^this silo has committed to no data in job {'f' * 32}$"):
        commitments.check_consented(home, "f" * 32, dataset, said)
    changed = registered(home, table=TABLE.slice(1), replace=True)
    with pytest.raises(CommitmentError, match=f"^job {JOB} used other rows than data set 'loans' has now$"):
        open_row(home, JOB, changed, 0)
    with pytest.raises(CommitmentError, match=r"^data set 'loans' has 499 rows, it is registered with 5$"):
        root_of(home, changed.model_copy(update={"rows": 5, "sha256": "0" * 64}))
    (seed,) = (home.root / "commitments").glob(f"{dataset.sha256}.seed")
    seed.write_text("00")
    with pytest.raises(CommitmentError, match=r"^the seed .* is damaged$") as damaged:
        open_row(home, JOB, dataset, 0)
    assert damaged.value.public == "this silo cannot commit to its data"
    with pytest.raises(ValueError, match="a salt of 16 bytes and a root of 32, got 4 and 32"):
        commitment(b"salt", bytes(32))


def edits(opening: Opening) -> dict[str, dict[str, Any]]:
    """Every part of an opening, changed."""
    whole = opening.document()
    row, proof = whole["row"], whole["proof"]
    flip = {"root": opening.root, "job_salt": opening.job_salt, "salt": opening.salt}
    changed = {name: {**whole, name: f"{int(text[0], 16) ^ 1:x}{text[1:]}"} for name, text in flip.items()}
    email = next(i for i, v in enumerate(row) if v["column"] == "email")
    return changed | {
        "index": {**whole, "index": opening.index ^ 1},
        "size": {**whole, "size": opening.size + 1},
        "value": {**whole, "row": [{**v, "value": "x@example.org"} if i == email else v for i, v in enumerate(row)]},
        "no value": {**whole, "row": [{**v, "value": None} if i == email else v for i, v in enumerate(row)]},
        "column": {**whole, "row": [{**v, "column": "mail"} if i == email else v for i, v in enumerate(row)]},
        "kind": {**whole, "row": [{**v, "kind": "json"} if i == email else v for i, v in enumerate(row)]},
        "width": {**whole, "row": [{**v, "value": "00"} if v["column"] == "day" else v for v in row]},
        "unknown kind": {**whole, "row": [{**v, "kind": "int7"} if v["column"] == "count" else v for v in row]},
        "surrogate": {**whole, "row": [{**v, "value": "\ud800"} if i == email else v for i, v in enumerate(row)]},
        "left out": {**whole, "row": row[:-1]},
        "proof": {**whole, "proof": [proof[1], proof[0], *proof[2:]]},
        "short proof": {**whole, "proof": proof[:-1]},
        "bad proof": {**whole, "proof": ["zz", *proof[1:]]},
    }


def refused(name: str, document: Any, said: str) -> None:
    """Named, so that a failure says which."""
    verify_opening(commitments.read_opening(document), said)
    pytest.fail(f"an opening with another {name} was accepted")


def test_an_opening_that_was_changed_anywhere_is_refused(home: Home) -> None:
    said = consent(home, dataset := registered(home))
    opening = open_row(home, JOB, dataset, 5)
    for name, document in edits(opening).items():
        with pytest.raises(CommitmentError):
            refused(name, document, said)
    with pytest.raises(CommitmentError, match=f"^the consent of lender to job {JOB} commits to other data$"):
        verify_opening(opening, "0" * 64)
    with pytest.raises(CommitmentError, match=r"^a data set commitment has 64 hex digits$"):
        verify_opening(opening, "é" * 64)


def test_a_row_is_shown_and_checked_on_the_command_line(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = TABLE.set_column(0, "email", pa.array(["\x1b[31mred"] * N))
    said = consent(home, dataset := registered(home, table=odd))
    monkeypatch.setattr("silos.admission.dataset_of", lambda _home, _job: "loans")
    place, file = ["--home", str(home.root)], str(tmp_path / "row.txt")
    for arguments in (["prove", JOB, *place, "--row", "3", "-o", file], ["check", file, "--commitment", said]):
        with pytest.raises(SystemExit) as ended:
            main(["dataset", *arguments])
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"row 3 of data set loans in job {JOB} written to {file}: whoever has the file can read it" in shown
    assert f"row 3 of 500 rows that lender committed to in job {JOB}" in shown
    assert "?[31mred" in shown
    assert "\x1b[31m" not in shown
    assert main(["dataset", "check", file, "--commitment", "0" * 64]) == 1
    assert "commits to other data" in capsys.readouterr().err
    (tmp_path / "row.txt").write_text("{")
    assert main(["dataset", "check", file, "--commitment", said]) == 1
    assert "is not well-formed JSON" in capsys.readouterr().err
    assert dataset.rows == N


def test_a_row_is_checked_against_an_audit_bundle(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = registered(home)
    play = bundles.honest()
    play.get("lender", "consented").body["dataset_commitment"] = consent(home, dataset, bundles.JOB)
    bundle = bundles.write(tmp_path, bundles.ledger().record(play).files())
    opening = open_row(home, bundles.JOB, dataset, 3)
    file = tmp_path / "row.json"
    file.write_text(json.dumps(opening.document()))
    arguments = ["dataset", "check", str(file), "--bundle", str(bundle), "--log-key", bundles.vkey()]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "person3@example.org" in capsys.readouterr().out
    for name, why in (
        ("platform", "commits to other data"),
        ("analyst", "the bundle has no consent of analyst to job"),
    ):
        file.write_text(json.dumps({**opening.document(), "silo": name}))
        assert main(arguments) == 1
        assert why in capsys.readouterr().err
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("accord: the bundle does not verify: ")


def test_no_partner_sees_a_root_or_a_seed(home: Home) -> None:
    said = consent(home, dataset := registered(home))
    root = root_of(home, dataset).hex()
    statement = Statement(
        "consented", JOB, "0" * 64, "lender", 0, "", "2026-03-01T12:00:00Z", {"dataset_commitment": said}
    )
    envelope = seal(statement, Ed25519PrivateKey.generate())
    payload = base64.b64decode(json.loads(envelope)["payload"]).decode()
    assert said in payload
    assert root not in payload
