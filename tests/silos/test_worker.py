"""What a worker makes of its spec before it computes: whom it waits for how long, and how it accounts for randomness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpc.correlations import Usage
from silos.errors import CatalogueError
from silos.inputs import read_columns, read_identifiers
from silos.link_tls import TlsLink
from silos.tables import Source
from silos.times import utcnow
from silos.worker import Order, Reporter, connect, patience, randomness_used
from tests.silos.world import MATCHERS, make_spec
from vertical.align import Identifiers


def test_the_owner_next_to_a_silent_dealer_speaks_first() -> None:
    spec = make_spec(limits={"timeout_s": 10})
    assert patience("lender", spec) == {"platform": 15.0}
    assert set(patience("dealer", spec)) == {"lender", "platform"}


@pytest.mark.parametrize("me", ["lender", "dealer"])
def test_links_are_waited_for_like_messages(monkeypatch: pytest.MonkeyPatch, me: str) -> None:
    """The dealer is there at once; an owner comes when it has read its data, which may take longer than an answer."""
    waited: list[dict[str, float]] = []

    def opened(*_: object, patience_s: dict[str, float]) -> dict[str, TlsLink]:
        waited.append(patience_s)
        return {}

    monkeypatch.setattr("silos.worker.open_links", opened)
    spec = make_spec(limits={"timeout_s": 10}, now=utcnow())
    order = {"me": me, "spec": {}, "dataset": None, "folder": "", "tokens": "", "session": "00" * 16, "fds": {}}
    connect(Order.model_validate({**order, "link_key": "", "link_certificates": {me: ""}, "part": None}), spec)
    (waits,) = waited
    assert waits.keys() == patience(me, spec).keys()
    assert all(seconds >= (15 if me == "lender" else 600) for seconds in waits.values())


def test_without_a_dealer_nobody_waits_for_one() -> None:
    spec = make_spec(randomness="ot", dealer=None)
    assert patience("lender", spec) == patience("platform", spec) == {}


def test_a_helper_is_waited_for_like_a_dealer() -> None:
    spec = make_spec(
        kind="vertical.match", dealer=None, helper="dealer", align={"protocol": "helper-psi"}, parties=MATCHERS,
        limits={"timeout_s": 10},
    )  # fmt: skip
    assert patience("lender", spec) == {"platform": 15.0}


def _items(path: Path, fmt: str, rule: str = "text/v1") -> tuple[dict[int, bytes], Identifiers]:
    own = Identifiers(((rule, None),))
    batches = [i for b in read_identifiers(Source("d", fmt, str(path)), [["no"]], own) for i in b]  # type: ignore[arg-type]
    return {int(row): item for i in batches for row, item in zip(i.rows, i.items(), strict=True)}, own


def test_identifiers_are_read_as_they_are_written(tmp_path: Path) -> None:
    csv = tmp_path / "usage.csv"
    csv.write_text("no,VISITS\n1e5,3\n,4\n7.0,5\n")
    found, own = _items(csv, "csv")
    assert found == {0: b"\0text\0v1\0" + b"1e5", 2: b"\0text\0v1\0" + b"7.0"}
    assert (own.n_rows, own.reasons[0].total()) == (3, 1)
    numbers = read_columns(Source("d", "csv", str(csv)), ["VISITS"], [], "lender")
    assert numbers["VISITS"].dtype == np.float64
    held = {
        "floats": ([42.0, None, float("nan"), 2.5], {0: b"42", 3: b"2.5"}),
        "whole numbers": ([42, None, 7, 0], {0: b"42", 2: b"7", 3: b"0"}),
        "bytes": ([b"a", None, b"\xff", b""], {0: b"a"}),
    }
    for name, (values, texts) in held.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"no": values, "VISITS": [1, 2, 3, 4]}), path)
        found, own = _items(path, "parquet")
        assert found == {row: b"\0text\0v1\0" + text for row, text in texts.items()}
        assert own.n_rows == 4


def test_a_column_that_holds_no_numbers_is_named_and_its_values_are_not(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": ["secret"]}), path)
    with pytest.raises(CatalogueError, match=r"column 'a' of lender holds values that are not numbers") as caught:
        read_columns(Source("d", "parquet", str(path)), ["a"], [], "lender")
    assert "secret" not in str(caught.value)


def test_randomness_is_counted_by_kind_in_one_order() -> None:
    used = {"triple": Usage(2, 30), "fourier": Usage(1, 7)}
    counted = {"fourier": {"correlations": 1, "words": 7}, "triple": {"correlations": 2, "words": 30}}
    assert randomness_used(used) == counted
    assert list(randomness_used(used)) == ["fourier", "triple"]


def test_no_size_can_be_read_from_progress(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    for done, total in ((0, 1), (3, 40), (123_456, 987_654), (987_654, 987_654)):
        reporter.progress(f"stage {total}", done, total)
    told = [json.loads(line)["progress"] for line in capsys.readouterr().out.splitlines()]
    assert [(one["done"], one["total"]) for one in told] == [(0, 1), (3, 40), (124, 1000), (1000, 1000)]


def test_bytes_are_told_where_they_say_no_more_than_both_set_sizes() -> None:
    three = [*MATCHERS, {**MATCHERS[0], "silo": "third"}]
    match = {"kind": "vertical.match", "dealer": None}
    told = {
        "two": make_spec(**match, parties=MATCHERS),
        "three": make_spec(**match, parties=three),
        "helped": make_spec(**match, parties=MATCHERS, helper="dealer", align={"protocol": "helper-psi"}),
        "expanded": make_spec(**match, parties=MATCHERS, align={"duplicates": "expand"}),
    }
    assert {name: spec.sizes_are_mutual for name, spec in told.items()} == {
        "two": True, "three": False, "helped": False, "expanded": False,
    }  # fmt: skip
