"""The catalogue: what is registered, what a job may ask of it, and files that change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from silos import catalogue
from silos.catalogue import Dataset
from silos.errors import CatalogueError
from silos.spec_parts import Feature, Trainer
from silos.tables import Source, load_table
from tests.silos.world import write_data

TABLE = pa.table(
    {
        "email": ["a@x.org", "b@x.org", None],
        "LIMIT_BAL": [1.5, None, 3.0],
        "SEX": ["f", "m", "f"],
        "default": [True, False, True],
        "since": pa.array([1, 2, 3], pa.date32()),
        "history": [[1], [2], [3]],
        'od"d; name': [1, 2, 3],
    }
)


@pytest.fixture
def loans(tmp_path: Path) -> Dataset:
    path = tmp_path / "loans.parquet"
    pq.write_table(TABLE, path)
    return catalogue.add(tmp_path / "catalogue.toml", "loans", path, "email")


def party(features: list[tuple[str, Any]], label: str | None = None, key: str | tuple[str, ...] = "email") -> Trainer:
    return Trainer(
        silo="lender",
        dataset="loans",
        keys=((key,) if isinstance(key, str) else key,),
        label=label,
        features=tuple(Feature.model_validate({"column": c, "as": kind, "monotone": 0}) for c, kind in features),
        offset=None,
        weight=None,
        groups=(),
    )


def test_registering_keeps_types_rows_and_digest(tmp_path: Path, loans: Dataset) -> None:
    assert {c.name: c.type for c in loans.columns} == {
        "email": "text",
        "LIMIT_BAL": "number",
        "SEX": "text",
        "default": "boolean",
        "since": "time",
        "history": "other",
        'od"d; name': "number",
    }
    assert (loans.rows, loans.format, loans.key) == (3, "parquet", "email")
    assert loans.sha256 == hashlib.sha256(Path(loans.path).read_bytes()).hexdigest()
    assert Path(loans.path).is_absolute()
    assert catalogue.load(tmp_path / "catalogue.toml").dataset("loans") == loans


def test_csv_types_come_from_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("id,x\n" + "".join(f"u{i},1\n" for i in range(30_000)) + "last,one\n")
    assert catalogue.add(tmp_path / "c.toml", "late", path, "id").column("x").type == "text"


def test_columns_come_in_the_asked_order_and_the_files_row_order(tmp_path: Path, loans: Dataset) -> None:
    table = load_table(loans, ["SEX", "LIMIT_BAL", 'od"d; name'])
    assert table.to_pydict() == {"SEX": ["f", "m", "f"], "LIMIT_BAL": [1.5, None, 3.0], 'od"d; name': [1, 2, 3]}
    csv = write_data(tmp_path)["lender"]
    assert load_table(Source("loans", "csv", str(csv)), ["LIMIT_BAL"]).to_pydict() == {
        "LIMIT_BAL": [100.0, None, 300.5]
    }


def test_text_of_a_csv_file_is_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("no,born,zip,x\n1e5,01/02/1990,1067,1\n2.50,03/04/1991,,2\n")
    source, names = Source("people", "csv", str(path)), ["born", "no", "zip"]
    guessed = load_table(source, names).to_pydict()
    assert guessed["no"] == [100000.0, 2.5]
    written = {"born": ["01/02/1990", "03/04/1991"], "no": ["1e5", "2.50"], "zip": ["1067", None]}
    assert load_table(source, names, as_text=names).to_pydict() == written
    mixed = load_table(source, ["no", "x"], as_text=["no"]).to_pydict()
    assert mixed == {"no": written["no"], "x": [1, 2]}


def test_an_unknown_column_is_named_with_what_is_spelt_like_it(loans: Dataset) -> None:
    with pytest.raises(CatalogueError) as caught:
        loans.check(party([("LIMIT_BALL", "number")]))
    assert str(caught.value) == "data set 'loans' has no column 'LIMIT_BALL'; did you mean 'LIMIT_BAL'?"
    with pytest.raises(CatalogueError, match="has no column 'sex'; did you mean 'SEX'"):
        load_table(loans, ["sex"])


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (party([("SEX", "number")]), "column 'SEX' of data set 'loans' is text, it cannot be used as a number"),
        (party([("since", "number")]), "column 'since' of data set 'loans' is time, it cannot be used as a number"),
        (party([("history", "category")]), "column 'history' of data set 'loans' cannot be a category"),
        (
            party([("SEX", "category")], "since"),
            "column 'since' of data set 'loans' is time, it cannot be used as a number",
        ),
        (party([("SEX", "category")], key="phone"), "data set 'loans' has no column 'phone'"),
        (party([("SEX", "category")], key=("email", "zip")), "data set 'loans' has no column 'zip'"),
    ],
)
def test_a_type_that_does_not_fit_is_refused(loans: Dataset, asked: Trainer, sentence: str) -> None:
    with pytest.raises(CatalogueError, match=f"^{sentence}"):
        loans.check(asked)


def test_what_fits_is_accepted(loans: Dataset) -> None:
    loans.check(party([("LIMIT_BAL", "number"), ("SEX", "category")], "default"))


def test_a_changed_file_is_noticed(loans: Dataset) -> None:
    catalogue.verify_unchanged(loans)
    with open(loans.path, "ab") as file:
        file.write(b"\n")
    with pytest.raises(CatalogueError, match=r"^the file of data set 'loans' has changed since it was registered$"):
        catalogue.verify_unchanged(loans)
    Path(loans.path).unlink()
    with pytest.raises(CatalogueError, match=r"cannot be read: No such file or directory$"):
        catalogue.verify_unchanged(loans)


def test_files_that_cannot_be_registered(tmp_path: Path) -> None:
    home = tmp_path / "catalogue.toml"
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.xlsx").write_bytes(b"")
    (tmp_path / "a*.csv").write_text("email\n")
    for name, sentence in [
        ("none.csv", "does not exist"),
        ("bad.parquet", "is not readable as parquet"),
        ("x.xlsx", "must end in .csv or .parquet"),
        ("a*.csv", "must not contain"),
    ]:
        with pytest.raises(CatalogueError, match=sentence):
            catalogue.add(home, "d1", tmp_path / name, "email")
    good = write_data(tmp_path)["lender"]
    with pytest.raises(CatalogueError, match="data set 'loans' has no column 'mail'; did you mean 'email'"):
        catalogue.add(home, "loans", good, "mail")
    with pytest.raises(CatalogueError, match="'name' does not have the form"):
        catalogue.add(home, "My Loans", good, "email")
    assert not home.exists()


def test_a_name_is_taken_once(tmp_path: Path, loans: Dataset) -> None:
    home, csv = tmp_path / "catalogue.toml", write_data(tmp_path)["lender"]
    with pytest.raises(CatalogueError, match="a data set is called 'loans' already"):
        catalogue.add(home, "loans", csv, "email")
    assert catalogue.add(home, "loans", csv, "email", replace=True).format == "csv"
    assert [d.format for d in catalogue.load(home).datasets] == ["csv"]
    with pytest.raises(CatalogueError, match="the catalogue has no data set 'loan'; did you mean 'loans'"):
        catalogue.load(home).dataset("loan")
