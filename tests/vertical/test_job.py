"""The whole job as its owners run it, in one process: what each gets, and what their own data can do wrong."""

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, Refused
from tests.harness import run_parties
from vertical.align import Identifiers, Terms
from vertical.batches import column
from vertical.encoding import Feature
from vertical.job import Data, Label, Plan, run
from vertical.learners import Encoding, GlmLearner
from vertical.regression import Settings

SALT = bytes(16)
N = 400


def plan(me, **changed):
    made = Plan(
        terms=Terms(("lender", "platform"), me, "ecdh-psi", (("email/v1", None),), "refuse", 50),
        randomness="dealer", dealer="dealer", active=0,
        label=Label("y") if me == 0 else None,
        features=(Feature("a", "number"), Feature("c", "category")),
        encoding=Encoding(8, 5), learner=GlmLearner(Settings(ridge=1.0, passes=4, inference=False)),
        holdout_percent=30, salt=SALT,
        release=("coefficients", "auc", "counts"),
    )  # fmt: skip
    names = {f.name for f in fields(Terms)} & changed.keys()
    terms = replace(made.terms, **{name: changed.pop(name) for name in names})
    return replace(made, terms=terms, **changed)


def data_of(chosen, columns, key):
    own = Identifiers(chosen.terms.keys)
    batches = own.add([[text_column(columns[name]) for name in key]])
    return Data(own, batches, columns)


def text_column(values):
    return column(pa.array([v.encode() if isinstance(v, str) else v for v in values], pa.binary()))


def columns(me, first, last):
    rng = np.random.default_rng(me)
    n = last - first
    made = {
        "email": np.array(
            [f"P{i}@Example.org" if me else f"p{i}@example.org" for i in range(first, last)], dtype=object
        ),
        "a": rng.normal(size=n),
        "c": np.array([("x", "y", "z")[i % 3] for i in range(n)], dtype=object),
    }
    if me == 0:
        made["y"] = (np.arange(n) % 3 == 0).astype(float)
    return made


def run_job(lender=None, platform=None, data=None, progress=None, key=("email",)):
    sides = data or (columns(0, 0, N), columns(1, 50, N + 60))
    steps = progress if progress is not None else []

    def owner(me, chosen):
        def body(channel):
            return run(
                chosen,
                data_of(chosen, sides[me], key),
                channel,
                b"session-of-test",
                lambda *step: steps.append((me, *step)),
            )

        return body

    plans = lender or plan(0), platform or plan(1)
    return run_parties(
        {
            "lender": owner(0, plans[0]),
            "platform": owner(1, plans[1]),
            "dealer": lambda channel: run_dealer(channel, ("lender", "platform")),
        }
    )


@pytest.mark.parametrize("matching", ["ecdh-psi", "vole-psi"])
def test_each_owner_gets_its_part(matching):
    steps = []
    run = run_job(plan(0, protocol=matching), plan(1, protocol=matching), progress=steps)
    lender, platform = (run.results[name].result for name in ("lender", "platform"))
    assert lender["rows"]["matched"] == platform["rows"]["matched"] == N - 50
    assert lender["rows"]["training"] + lender["rows"]["held_out"] == N - 50
    assert lender["auc"] == platform["auc"]
    assert next(i["input"] for i in lender["model"]["inputs"]) == "a"
    assert lender["model"]["intercept"] is not None
    assert platform["model"]["intercept"] is None
    assert {step[1] for step in steps} == {"align", "train", "evaluate"}
    assert (0, "train", 4, 4) in steps


@pytest.mark.parametrize("release", [("auc",), ("counts",), ("coefficients",), ("coefficients", "counts")])
def test_a_result_holds_what_is_released_and_nothing_else(release):
    run = run_job(plan(0, release=release), plan(1, release=release))
    names = {"auc": "auc", "counts": "rows", "coefficients": "model"}
    for owner in ("lender", "platform"):
        assert set(run.results[owner].result) == {names[item] for item in release}


def test_no_number_in_a_result_is_a_float():
    def walk(value):
        assert not isinstance(value, float)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(run_job().results["lender"].result)


def test_both_owners_say_what_randomness_they_used():
    run = run_job()
    lender, platform = (run.results[name].used for name in ("lender", "platform"))
    assert {kind: usage.count for kind, usage in lender.items()} == {k: u.count for k, u in platform.items()}
    assert lender["fourier"].count == 4, "a tuple for each pass"
    assert all(usage.words > 0 for usage in (*lender.values(), *platform.values()))


@pytest.mark.parametrize("labels", [np.arange(N) % 3, np.zeros(N), np.full(N, np.nan), np.full(N, 0.5)])
def test_labels_must_be_zero_and_one(labels):
    data = columns(0, 0, N), columns(1, 50, N + 60)
    data[0]["y"] = labels.astype(float)
    with pytest.raises(LocalProtocolError, match="label column 'y' of lender must hold both 0 and 1"):
        run_job(data=data)


def test_too_few_matches_stop_before_training():
    with pytest.raises(Refused):
        run_job(plan(0, minimum=351), plan(1, minimum=351))


def test_duplicates_stop_it_or_the_first_row_counts():
    data = columns(0, 0, N), columns(1, 50, N + 60)
    data[1]["email"][5] = data[1]["email"][9]
    with pytest.raises(LocalProtocolError, match="email"):
        run_job(data=data)
    run = run_job(plan(0, duplicates="first"), plan(1, duplicates="first"), data=data)
    assert run.results["platform"].result["rows"]["keys"][0]["duplicates"] == 1
    assert run.results["platform"].result["rows"]["matched"] == N - 51


def test_people_are_matched_by_several_columns():
    person = ("first", "last", "born", "zip")
    data = columns(0, 0, N), columns(1, 50, N + 60)
    for me, (side, first) in enumerate(zip(data, (0, 50), strict=True)):
        numbers = range(first, first + len(side.pop("email")))
        names = [("JOSÉ-%s" if me else "jose %s") % "".join(chr(97 + int(c)) for c in str(i)) for i in numbers]
        made = names, ["Müller" if me else "muller"] * len(names), ["19900201" if me else "1990-02-01"] * len(names)
        for name, values in zip(person, (*made, ["SW1A 1AA" if me else "sw1a1aa"] * len(names)), strict=True):
            side[name] = np.array(values, dtype=object)
    data[1]["born"][3], data[1]["zip"][4], data[1]["first"][5] = None, "?", b"\xff"
    plans = [plan(me, keys=(("person/v1", None),)) for me in (0, 1)]
    run = run_job(*plans, data=data, key=person)
    assert run.results["lender"].result["rows"]["matched"] == N - 53
    rows = run.results["platform"].result["rows"]
    assert (rows["own"], rows["keys"][0]["unusable"]) == (N + 10, 3)
    assert rows["keys"][0]["reasons"] == {"blank": 1, "malformed": 1, "not-utf8": 1}


def test_columns_that_never_vary_are_an_error_of_their_owner():
    data = columns(0, 0, N), columns(1, 50, N + 60)
    data[1]["a"][:] = 1.0
    data[1]["c"][:] = "x"
    with pytest.raises(LocalProtocolError, match="no feature column of platform varies"):
        run_job(data=data)
