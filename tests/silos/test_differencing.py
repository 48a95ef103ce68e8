"""The guard against differencing, and what is taken into account for a job from its review to its end."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from silos import admission, catalogue, differencing, policy
from silos.budget import BudgetError, Ledger
from silos.catalogue import Dataset
from silos.config import Home, init_home
from silos.differencing import DifferencingRefused, differing, labels_of, row_sets, tells_figures
from silos.plan import plan
from silos.spec import Spec
from silos.validation import write_private
from tests.silos.world import MATCHERS, RULE, make_spec, policy_text

FLOOR = 100
ALIGN: dict[str, Any] = {"protocol": "hidden", "minimum_matches": FLOOR}
SUMS: list[dict[str, Any]] = [{"column": "amount", "decimals": 0, "lowest": "0", "highest": "1000000"}]
Rows = list[tuple[str | None, str, int]]
ROWS: Rows = [(f"p{i}@x.org", f"+4366412345{i:02d}", i) for i in range(400)]


def rows_but(gone: int = 0, new: int = 0, changed: int = 0) -> Rows:
    """ROWS without the first ones, with new ones, and with other amounts in the last ones."""
    kept = [(mail, tel, n + 7 * (i >= len(ROWS) - changed)) for i, (mail, tel, n) in enumerate(ROWS)]
    return [*kept[gone:], *((f"new{i}@x.org", "", i) for i in range(new))]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    init_home(tmp_path / "lender", "lender")
    home = Home(tmp_path / "lender")
    set_policy(home)
    return home


def set_policy(home: Home, budget: str = '{ rho = "0.3", delta = "1e-6" }', uses: int = 9) -> None:
    rule = {**RULE, "name": "count", "kinds": ["vertical.measure"], "uses": uses}
    text = policy_text(rule, {"platform": "0" * 64}, minimum=FLOOR)
    text += policy_text({**rule, "name": "other", "dataset": "others"}, {}, minimum=FLOOR).split("\n", 2)[2]
    write_private(home.policy, text + (f"[datasets.loans]\nbudget = {budget}\n" if budget else ""))


def register(home: Home, rows: Rows, name: str = "loans", kind: str = "parquet") -> Dataset:
    mail, tel, amount = zip(*rows, strict=True)
    table = pa.table({"email": pa.array(mail), "tel": pa.array(tel), "amount": pa.array(amount)})
    path = home.root.parent / f"{name}.{kind}"
    (pyarrow.csv.write_csv if kind == "csv" else pq.write_table)(table, path)
    return catalogue.add(home.catalogue, name, path, "email", replace=True)


def asks(number: int, dataset: str = "loans", partner: str = "platform", **changes: Any) -> Spec:
    """A job that counts matches, and adds up if it is told to."""
    sums = changes.pop("sums", ())
    parties = [
        {**MATCHERS[0], "dataset": dataset, **({"sums": list(sums)} if sums else {})},
        {**MATCHERS[1], "silo": partner},
    ]
    release = ["matches", "sums"] if sums else ["matches"]
    document = {"kind": "vertical.measure", "parties": parties, "align": ALIGN, "release": release, **changes}
    return make_spec(job=f"{number:032x}", **document)


def admit(home: Home, spec: Spec, dataset: Dataset) -> list[dict[str, str]]:
    rules, rule = policy.load(home.policy), "other" if dataset.name == "others" else "count"
    foreseen = admission.foresee(home, spec, "lender", rules, rule, dataset)
    made = admission.admit(home, spec, "lender", rules, rule, dataset)
    assert foreseen == admission.foresee(home, spec, "lender", rules, rule, dataset) == made
    assert admission.admit(home, spec, "lender", rules, rule, dataset) == made
    admission.started(home, spec.job)
    return made


# --- the guard


@pytest.mark.parametrize(
    ("kind", "change", "refused"),
    [
        ("parquet", {}, False),
        ("parquet", {"gone": 1}, True),
        ("csv", {"new": 1}, True),
        ("parquet", {"gone": FLOOR - 1, "new": FLOOR - 1}, True),
        ("csv", {"gone": FLOOR}, False),
        ("parquet", {"new": FLOOR}, False),
        ("parquet", {"gone": 1, "new": FLOOR}, False),
        ("csv", {"changed": 1}, False),  # nobody has asked about amounts
    ],
)
def test_counts_over_nearly_the_same_rows_are_refused(
    home: Home, kind: str, change: dict[str, int], refused: bool
) -> None:
    admit(home, asks(1), register(home, ROWS, kind=kind))
    second = register(home, rows_but(**change), kind=kind)
    if not refused:
        admit(home, asks(2), second)
        return
    today = dt.datetime.now(dt.UTC).date()
    sentence = (
        f"^job {1:032x} of {today} asked about rows of lender from which those of job {2:032x} of {today} differ by fewer "
        "than 100, so both answers together would tell platform about these few$"
    )
    for question in (
        lambda: differencing.guard(home, asks(2), "lender", second, FLOOR),
        lambda: admit(home, asks(2), second),
    ):
        with pytest.raises(DifferencingRefused, match=sentence) as told:
            question()
        assert told.value.public == "the job asks about nearly the rows of an earlier one"
    with Ledger(home) as ledger:
        assert ledger.uses() == {"count": 1}


def test_a_sum_is_refused_if_few_values_changed_and_a_count_is_not(home: Home) -> None:
    admit(home, asks(1, sums=SUMS), register(home, ROWS))
    changed = register(home, rows_but(changed=3))
    with pytest.raises(DifferencingRefused, match="differ by fewer than 100"):
        admit(home, asks(2, sums=SUMS), changed)
    admit(home, asks(3), changed)
    admit(home, asks(4, sums=SUMS), register(home, rows_but(changed=FLOOR)))


def test_every_earlier_version_counts_and_not_the_last_one_only(home: Home) -> None:
    admit(home, asks(1), register(home, ROWS))
    admit(home, asks(2), register(home, rows_but(gone=200)))
    with pytest.raises(DifferencingRefused, match=f"^job {1:032x} of"):
        admit(home, asks(3), register(home, rows_but(new=1)))
    with pytest.raises(DifferencingRefused, match=f"^job {2:032x} of"):
        admit(home, asks(4), register(home, rows_but(gone=201)))


def test_another_data_set_of_nearly_the_same_people_is_seen(home: Home) -> None:
    admit(home, asks(1), register(home, ROWS))
    with pytest.raises(DifferencingRefused, match="differ by fewer than 100"):
        admit(home, asks(2, dataset="others"), register(home, rows_but(gone=1), name="others"))
    admit(home, asks(3, dataset="others"), register(home, rows_but(gone=300), name="others"))


def test_another_partner_or_another_key_is_another_question(home: Home) -> None:
    admit(home, asks(1), register(home, ROWS))
    nearly = register(home, rows_but(gone=1))
    admit(home, asks(2, partner="retailer"), nearly)
    by_phone = {**ALIGN, "identifier": "phone/v1", "region": "AT"}
    parties = [{**party, "key": "tel"} for party in MATCHERS]
    admit(home, asks(3, parties=parties, align=by_phone), nearly)
    with pytest.raises(DifferencingRefused):
        admit(home, asks(4), nearly)


def test_a_job_that_never_started_told_nothing(home: Home) -> None:
    first = register(home, ROWS)
    rules = policy.load(home.policy)
    admission.admit(home, asks(1), "lender", rules, "count", first)
    nearly = register(home, rows_but(gone=1))
    with pytest.raises(DifferencingRefused):
        admit(home, asks(2), nearly)  # it may start yet
    assert admission.unstarted(home) == [asks(1).job]
    assert admission.ended(home, asks(1).job)
    admit(home, asks(2), nearly)


def test_a_job_that_is_admitted_again_before_it_starts_is_about_the_rows_of_then(home: Home) -> None:
    """As of a node that is stopped before it consents, and its data set is registered anew."""
    rules = policy.load(home.policy)
    admission.admit(home, asks(1), "lender", rules, "count", register(home, ROWS))
    nearly = register(home, rows_but(new=1))
    assert admission.foresee(home, asks(1), "lender", rules, "count", nearly) == []
    admit(home, asks(1), nearly)
    assert question(home, asks(1)) == ("loans", nearly.sha256)
    admit(home, asks(2), nearly)
    before = register(home, ROWS)
    with pytest.raises(DifferencingRefused, match=f"^job {1:032x} of"):
        admit(home, asks(3), before)
    with pytest.raises(DifferencingRefused, match=f"^job {2:032x} of"):
        admit(home, asks(1), before)  # it is not compared with itself
    far = register(home, rows_but(gone=300))
    with pytest.raises(
        DifferencingRefused, match=f"^job {1:032x} has started with other rows of data set 'loans'$"
    ) as started:
        admission.admit(home, asks(1), "lender", rules, "count", far)
    assert started.value.public == f"job {1:032x} has started before"
    assert question(home, asks(1)) == ("loans", nearly.sha256)
    assert admission.used(home, "") == {"count": 2}


def test_a_job_that_is_admitted_while_another_one_is_compared_is_seen(home: Home) -> None:
    data = register(home, ROWS)
    compared = differencing.guard(home, asks(2), "lender", data, FLOOR)
    assert compared == frozenset()
    admit(home, asks(1, dataset="others"), register(home, rows_but(gone=1), name="others"))
    with Ledger(home) as ledger:
        ledger.reserve_use(asks(2).job, "count", None)
        with pytest.raises(DifferencingRefused, match=f"^job {1:032x} of .* differ by fewer than 100"):
            differencing.record(ledger, asks(2), "lender", data, FLOOR, compared)
    with pytest.raises(BudgetError, match=f"^this silo has admitted no job {2:032x} to its data$"):
        admission.dataset_of(home, asks(2).job)


def test_what_was_compared_is_not_compared_again_while_others_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    admit(home, asks(1), register(home, ROWS))
    far, seen = register(home, rows_but(gone=200)), []
    compare = differencing.differing

    def noted(a: differencing.Digests, b: differencing.Digests) -> int:
        with Ledger(home, busy_s=0.0) as ledger, ledger.transaction():  # nobody else writes
            seen.append(len(a))
        return compare(a, b)

    monkeypatch.setattr(differencing, "differing", noted)
    admission.admit(home, asks(2), "lender", policy.load(home.policy), "count", far)
    assert seen == [200]


def test_a_ledger_that_another_one_writes_to_keeps_what_is_reserved(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "VOID_BUSY_S", 0.1)
    admission.admit(home, asks(1), "lender", policy.load(home.policy), "count", register(home, ROWS))
    with Ledger(home) as other, other.transaction():
        assert not admission.ended(home, asks(1).job)
        assert admission.ended(home, asks(2).job)  # it took nothing
    assert caplog.messages == [
        f"job {1:032x}: what it took of the privacy budget stays reserved: the ledger state/ledger.db in the silo's home "
        "cannot be used (OperationalError), so no job can begin"
    ]
    admit(home, asks(3, epsilon="0.5"), register(home, ROWS))
    assert admission.unstarted(home) == [asks(1).job]
    assert admission.ended(home, asks(1).job)
    assert admission.unstarted(home) == []
    assert admission.ended(home, asks(1).job)


def question(home: Home, spec: Spec) -> Any:
    """The data set and the version that a job is recorded with."""
    with Ledger(home) as ledger:
        return ledger.execute("SELECT dataset, version FROM question WHERE job = ?", (spec.job,))[0]


def test_noise_passes_the_guard_and_is_charged_every_time(home: Home) -> None:
    admit(home, asks(1), register(home, ROWS))
    nearly = register(home, rows_but(gone=1))
    charge = {"counterparty": "platform", "rho": "0.125", "limit": "0.3", "delta": "0.000001"}
    assert admit(home, asks(2, epsilon="0.5"), nearly) == [{**charge, "before": "0"}]
    assert admit(home, asks(3, epsilon="0.5"), nearly) == [{**charge, "before": "0.125"}]
    with pytest.raises(BudgetError, match=r"is rho 0\.3, 0\.25 of it is spent, and the job takes 0\.125$"):
        admit(home, asks(4, epsilon="0.5"), nearly)
    with pytest.raises(DifferencingRefused):
        admit(home, asks(5), nearly)
    assert admission.dataset_of(home, asks(2).job) == "loans"
    with pytest.raises(BudgetError, match=f"^this silo has admitted no job {9:032x} to its data$"):
        admission.dataset_of(home, f"{9:032x}")


def test_a_count_is_compared_with_jobs_that_told_which_rows_match_and_those_are_not_refused(home: Home) -> None:
    match: dict[str, Any] = {
        "kind": "vertical.match",
        "parties": MATCHERS,
        "dealer": None,
        "release": ["rows", "counts"],
    }
    admit(home, make_spec(job=f"{1:032x}", **match), register(home, ROWS))
    nearly = register(home, rows_but(gone=1))
    with pytest.raises(DifferencingRefused, match=f"^job {1:032x} of"):
        admit(home, asks(2), nearly)
    admit(home, make_spec(job=f"{3:032x}", **match), nearly)


def test_without_a_budget_and_beyond_the_uses_nothing_is_reserved(home: Home) -> None:
    data = register(home, ROWS)
    set_policy(home, budget="", uses=1)
    with pytest.raises(BudgetError, match=r"^data set 'loans' has no privacy budget"):
        admit(home, asks(1, epsilon="0.5"), data)
    assert admission.used(home, "") == {}
    admit(home, asks(2), data)
    assert admission.used(home, "") == {"count": 1}
    assert admission.used(home, asks(2).job) == {}
    with pytest.raises(BudgetError, match=r"^rule 'count' allows 1 job, and it has admitted 1$"):
        admit(home, asks(3), data)
    set_policy(home, budget="")
    admit(home, asks(2), data)  # it was admitted before
    admission.released(home, asks(2).job)
    assert not admission.ended(home, asks(2).job)
    assert admission.admit(home, asks(2), "dealer", policy.load(home.policy), "dealer", None) == []


def test_what_cannot_be_compared_is_refused(home: Home) -> None:
    data = register(home, ROWS)
    admit(home, asks(1), data)
    with Ledger(home) as ledger:
        ledger.execute("DELETE FROM rowset WHERE version = ?", (data.sha256,))
    other = register(home, rows_but(gone=300))
    with pytest.raises(DifferencingRefused, match=r"are not in the ledger, so it cannot be compared with$") as lost:
        differencing.guard(home, asks(2), "lender", other, FLOOR)
    assert lost.value.public == "this silo cannot compare the job with earlier ones"
    (home.state / "ledger.db").write_bytes(b"x" * 8192)
    with pytest.raises(
        DifferencingRefused,
        match=r"^it cannot be told what earlier jobs asked: the ledger state/ledger.db in the silo's home cannot be used",
    ) as damaged:
        differencing.guard(home, asks(3), "lender", other, FLOOR)
    assert damaged.value.public == lost.value.public


# --- what is compared


def test_what_tells_figures() -> None:
    match: dict[str, Any] = {"kind": "vertical.match", "parties": MATCHERS, "dealer": None}
    assert tells_figures(plan(make_spec()), "lender")
    assert tells_figures(plan(asks(1, round_to=10)), "lender")
    assert not tells_figures(plan(asks(1, epsilon="1")), "lender")
    assert tells_figures(plan(make_spec(**match, release=["counts"])), "lender")
    assert not tells_figures(plan(make_spec(**match, release=["rows", "counts"])), "lender")


def test_the_sets_of_a_job() -> None:
    assert labels_of(make_spec(), "lender") == {
        "who email/v1": (("email",), ()),
        "email/v1, default": (("email",), ("default",)),
        "email/v1, LIMIT_BAL": (("email",), ("LIMIT_BAL",)),
        "email/v1, SEX": (("email",), ("SEX",)),
    }
    assert labels_of(make_spec(), "dealer") == {}
    many = [f"c{i}" for i in range(differencing.MAX_COLUMNS)]
    request = [
        {"silo": "lender", "dataset": "loans", "key": "email", "label": "default", "features": many},
        {"silo": "platform", "dataset": "usage", "key": "email", "features": ["VISITS"]},
    ]
    label, columns = list(labels_of(make_spec(parties=request), "lender").items())[1]
    assert label.startswith("email/v1, 33 columns ")
    assert len(columns[1]) == 33


def test_sets_of_rows_are_those_of_distinct_values_under_a_key(home: Home) -> None:
    rows: Rows = [("a", "1", 5), ("b", "1", 5), ("a", "1", 5), (None, "1", 5), ("b", "2", 5)]
    data = register(home, rows)
    wanted: dict[str, Any] = {
        "who": (("email",), ()),
        "pair": (("email", "tel"), ()),
        "value": (("email",), ("amount",)),
        "both": (("email",), ("tel", "amount")),
    }
    sets = row_sets(data, wanted, bytes(32))
    assert {label: len(digests) for label, digests in sets.items()} == {"who": 2, "pair": 3, "value": 2, "both": 3}
    again = row_sets(register(home, rows[::-1], kind="csv"), wanted, bytes(32))
    assert np.array_equal(again["pair"], sets["pair"])
    assert not np.isin(row_sets(data, wanted, b"\1" * 32)["who"], sets["who"]).any()
    assert differing(sets["who"], sets["who"][1:]) == 1
    assert all(np.all(np.diff(digests) > 0) for digests in sets.values())


def test_charges_are_exact(home: Home) -> None:
    set_policy(home, budget='{ rho = "0.000001", delta = "1e-6" }')
    data = register(home, ROWS)
    (charge,) = admit(home, asks(1, epsilon="0.000001"), data)
    assert charge["rho"] == "0.0000000000005"
    with Ledger(home) as ledger:
        assert ledger.balance("loans", "platform") == Decimal("5e-13")


def plain_digest(value: bytes | None, key: bytes) -> int:
    """As the module describes it: a CBC-MAC of what is there, its length and its bytes."""
    data = b"\0" + bytes(4) if value is None else b"\1" + len(value).to_bytes(4, "little") + value
    encrypt = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    last = encrypt.update(data + bytes(-len(data) % 16))[-16:]
    return int.from_bytes(last[:8], "little")


def test_digests_of_values_are_what_is_said_of_them() -> None:
    key = bytes(range(32))
    texts = [None, "", *("x" * n for n in (1, 10, 11, 12, 27, 28, 70, 300)), "ä€"]
    array = pa.array(texts, pa.string())
    for column in (array, array.dictionary_encode(), pa.concat_arrays([array, array]).slice(len(texts))):
        digests, there = differencing._cells(column, "text", key)
        assert digests.tolist() == [plain_digest(None if t is None else t.encode(), key) for t in texts]
        assert there.tolist() == [t is not None for t in texts]
    numbers, _ = differencing._cells(pa.array([5, -1], pa.int32()), "int32", key)
    assert numbers.tolist() == [plain_digest(n.to_bytes(4, "little", signed=True), key) for n in (5, -1)]
    lists, _ = differencing._cells(pa.array([[1, 2]]), "json", key)
    assert lists.tolist() == [plain_digest(b"[1, 2]", key)]
    assert len(differencing._cells(pa.array([], pa.string()), "text", key)[0]) == 0
