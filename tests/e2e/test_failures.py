"""What goes wrong between real processes ends with one sentence that names whose fault it is and at which step."""

import asyncio
import contextlib
import json
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from silos import catalogue
from silos.demo.run import run_job, world

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BOUND_S = 60
"""How long a test waits at most for what comes a moment after the state that everybody sees."""
RULE = """
[[allow]]
name = "{name}"
dataset = "{name}"
partners = ["lender", "platform"]
dealers = ["dealer"]
kinds = ["vertical.glm"]
purposes = ["test"]
join = ["email"]
label = ["label"]
train = ["*"]
release = ["coefficients", "auc", "counts"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True)) as made:
        yield made


def people(numbers):
    return [f"person{i}@example.com" for i in numbers]


def register(made, silo, name, emails, *, label=None, extra=None):
    """A small data set of random columns at a silo, and a policy rule that allows all of it."""
    rng = np.random.default_rng(len(emails))
    columns = {"email": emails, "a": rng.normal(size=len(emails)), "b": rng.normal(size=len(emails))}
    if label is not None:
        columns["label"] = label
    path = made.home(silo).root / f"{name}.parquet"
    pq.write_table(pa.table({**columns, **(extra or {})}), path)
    catalogue.add(made.home(silo).catalogue, name, path, "email")
    with made.home(silo).policy.open("a") as policy:
        policy.write(RULE.format(name=name))
    return path


def request(tmp_path, lender, platform, **settings):
    """A job request file; settings are sections of the request."""
    body = {
        "kind": "vertical.glm",
        "purpose": "test",
        "dealer": "dealer",
        "parties": [
            {"silo": "lender", "dataset": lender, "key": "email", "label": "label", "features": ["a", "b"]},
            {"silo": "platform", "dataset": platform, "key": "email", "features": ["a", "b"]},
        ],
        **settings,
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(body))
    return path


def outcome(made, path):
    _, view = asyncio.run(run_job(made, path))
    return view["state"], view["reason"], view


def labels(n):
    return np.tile([0, 1, 0, 0], n)[:n]


def test_too_few_matches_are_refused_before_a_row_is_revealed(made, tmp_path):
    register(made, "lender", "few-a", people(range(500)), label=labels(500))
    register(made, "platform", "few-b", people(range(450, 900)))
    state, reason, view = outcome(made, request(tmp_path, "few-a", "few-b", align={"minimum_matches": 100}))
    assert state == "failed"
    assert "fewer matches" in reason
    assert "minimum" in reason
    assert "50" not in reason
    assert not [e for e in view["entries"] if b"released" in e["envelope"].encode()]
    assert not made.home("lender").result(view["job"]).exists()


def test_no_match_at_all(made, tmp_path):
    register(made, "lender", "none-a", people(range(300)), label=labels(300))
    register(made, "platform", "none-b", people(range(300, 600)))
    state, reason, _ = outcome(made, request(tmp_path, "none-a", "none-b"))
    assert state == "failed"
    assert "fewer matches" in reason


def test_duplicate_identifiers_name_the_silo_and_the_count(made, tmp_path):
    doubled = people([*range(400), 7, 8, 9])
    register(made, "lender", "double-a", people(range(400)), label=labels(400))
    register(made, "platform", "double-b", doubled)
    state, reason, _ = outcome(made, request(tmp_path, "double-a", "double-b"))
    assert state == "failed"
    assert "3" in reason
    assert "platform" in reason
    assert "person" not in reason


def test_duplicates_are_resolved_by_the_rule_that_was_asked_for(made, tmp_path):
    state, reason, _ = outcome(
        made, request(tmp_path, "double-a", "double-b", align={"duplicates": "first"}, train={"passes": 5})
    )
    assert (state, reason or "") == ("done", "")


def test_a_label_that_is_not_binary(made, tmp_path):
    register(made, "lender", "label-a", people(range(400)), label=np.arange(400) % 3)
    state, reason, _ = outcome(made, request(tmp_path, "label-a", "double-b", align={"duplicates": "first"}))
    assert state == "failed"
    assert "label" in reason
    assert "lender" in reason


def test_data_changed_after_registration(made, tmp_path):
    path = register(made, "platform", "changed-b", people(range(400)))
    pq.write_table(pa.table({"email": people(range(400)), "a": np.zeros(400), "b": np.ones(400)}), path)
    state, reason, _ = outcome(made, request(tmp_path, "double-a", "changed-b"))
    assert state == "refused"
    assert "'changed-b' has changed since it was registered" in reason


def test_a_type_that_does_not_fit(made, tmp_path):
    register(made, "platform", "types-b", people(range(400)), extra={"city": ["Kyoto", "Turin"] * 200})
    parties = json.loads(request(tmp_path, "double-a", "types-b").read_text())["parties"]
    parties[1]["features"] = [{"column": "city", "as": "number"}]
    state, reason, _ = outcome(made, request(tmp_path, "double-a", "types-b", parties=parties))
    assert state == "refused"
    assert "column 'city' of data set 'types-b' is text, it cannot be used as a number" in reason


def test_unknown_column_and_policy_refusal_name_column_and_rule(made, tmp_path):
    parties = json.loads(request(tmp_path, "double-a", "double-b").read_text())["parties"]
    parties[1]["features"] = ["a", "bb"]
    state, reason, _ = outcome(made, request(tmp_path, "double-a", "double-b", parties=parties))
    assert state == "refused"
    assert "has no column 'bb'" in reason
    state, reason, _ = outcome(made, request(tmp_path, "double-a", "double-b", purpose="something else"))
    assert state == "refused"
    assert "rule 'double-" in reason
    assert "something else" in reason


def workers(made, silo):
    found = []
    for process in psutil.Process(made.processes[silo].pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end while we look
            found += [process] if "silos.worker" in " ".join(process.cmdline()) else []
    return found


def signalled(processes, number):
    """Send a signal to each of them that has not ended since it was found."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def assert_no_workers(made):
    """Within a bounded wait nothing of a failed job is left running."""
    deadline = time.monotonic() + BOUND_S
    while any(workers(made, silo) for silo in ("lender", "platform", "dealer")):
        assert time.monotonic() < deadline, "a worker of a failed job is still there"
        time.sleep(0.1)
