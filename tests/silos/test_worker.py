"""What a worker makes of its spec before it computes: whom it waits for how long, and how it accounts for randomness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mpc.correlations import Usage
from silos.worker import patience, plan_of, randomness_used, read_columns
from tests.silos.world import make_spec, request


def test_the_owner_next_to_a_silent_dealer_speaks_first() -> None:
    spec = make_spec(limits={"timeout_s": 10})
    assert patience("lender", spec) == {"platform": 15.0}
    assert set(patience("dealer", spec)) == {"lender", "platform"}


def test_without_a_dealer_nobody_waits_for_one() -> None:
    spec = make_spec(randomness="ot", dealer=None)
    assert patience("lender", spec) == patience("platform", spec) == {}


def test_the_plan_says_where_randomness_comes_from() -> None:
    for spec in (make_spec(), make_spec(randomness="verified-dealer"), make_spec(randomness="ot", dealer=None)):
        plan = plan_of(spec, "platform")
        assert (plan.randomness, plan.dealer) == (spec.randomness, spec.dealer)


def test_the_plan_has_the_columns_and_the_region_of_the_identifier() -> None:
    plan = plan_of(make_spec(), "lender")
    assert (plan.key, plan.identifier, plan.region) == (("email",), "email/v1", None)
    plan = plan_of(make_spec(align={"identifier": "phone/v1", "region": "CH"}), "lender")
    assert (plan.key, plan.identifier, plan.region) == (("email",), "phone/v1", "CH")
    columns = ["first", "last", "born", "zip"]
    parties = [{**p, "key": columns} for p in request()["parties"]]
    plan = plan_of(make_spec(parties=parties, align={"identifier": "person/v1"}), "lender")
    assert plan.columns == [*columns, "default", "LIMIT_BAL", "SEX"]


def test_identifiers_are_read_as_they_are_written(tmp_path: Path) -> None:
    parties = [{**p, "key": "no"} for p in request()["parties"]]
    plan = plan_of(make_spec(parties=parties, align={"identifier": "text/v1"}), "platform")
    csv = tmp_path / "usage.csv"
    csv.write_text("no,VISITS\n1e5,3\n,4\n7.0,5\n")
    columns = read_columns({"path": str(csv), "format": "csv"}, plan)
    assert list(columns["no"]) == ["1e5", None, "7.0"]
    assert columns["VISITS"].dtype == np.float64
    held = {
        "floats": ([42.0, None, float("nan"), 2.5], ["42", None, None, "2.5"]),
        "whole numbers": ([42, None, 7, 0], ["42", None, "7", "0"]),
        "bytes": ([b"a", None, b"\xff", b""], [b"a", None, b"\xff", b""]),
    }
    for name, (values, texts) in held.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"no": values, "VISITS": [1, 2, 3, 4]}), path)
        assert list(read_columns({"path": str(path), "format": "parquet"}, plan)["no"]) == texts


def test_randomness_is_counted_by_kind_in_one_order() -> None:
    used = {"triple": Usage(2, 30), "fourier": Usage(1, 7)}
    counted = {"fourier": {"correlations": 1, "words": 7}, "triple": {"correlations": 2, "words": 30}}
    assert randomness_used(used) == counted
    assert list(randomness_used(used)) == ["fourier", "triple"]
