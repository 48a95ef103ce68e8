"""Jobs that match rows, and jobs that measure matches, between real processes; and what happens when processes die."""

import asyncio
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from silos import catalogue, results
from silos.demo.run import export, job_costs, run_job, world
from silos.leftovers import MATCHING_FOLDER
from tests.e2e.test_failures import BOUND_S, signalled, workers

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OWNERS = ("lender", "platform")
RULE = """
[[allow]]
name = "{name}"
dataset = "{name}"
partners = ["lender", "platform", "insurer"]
dealers = ["dealer"]
kinds = ["vertical.match", "vertical.measure"]
purposes = ["test"]
join = ["email", "phone"]
release = ["rows", "counts", "matches", "sums"]
{more}
"""
HELPED = 'helpers = ["dealer"]\nsum = ["*"]\npartner_sums = 64'
MANY = 150_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    silos = ("lender", "platform", "insurer", "dealer")
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True), silos) as made:
        with made.home("dealer").policy.open("a") as policy:
            policy.write('\n[helper]\nfor = ["lender", "platform", "insurer"]\n')
        yield made


def people(numbers):
    return [f"person{i}@example.com" for i in numbers]


def register(made, silo, name, columns, more=HELPED):
    """A data set at a silo, and a policy rule that allows all of it."""
    path = made.home(silo).root / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    catalogue.add(made.home(silo).catalogue, name, path, "email")
    with made.home(silo).policy.open("a") as policy:
        policy.write(RULE.format(name=name, more=more))
    return path


@pytest.fixture(scope="module")
def small(made):
    """Three files of people, of which 300 are in the first two and 250 in all; the rows of each in an order of its own."""
    rng = np.random.default_rng(4)
    numbers = {"lender": range(600), "platform": range(300, 1100), "insurer": range(350, 900)}
    files = {}
    for silo, own in numbers.items():
        order = rng.permutation(np.array(own))
        columns = {
            "email": people(order.tolist()),
            "number": order,
            "amount": np.round(rng.normal(100, 30, len(order)), 2),
        }
        files[silo] = register(made, silo, "small", columns)
    return files


def party(silo, dataset, *keys, **more):
    return {"silo": silo, "dataset": dataset, "keys": [[key] for key in keys or ("email",)], **more}


def request(folder, parties, **settings):
    """A job request file."""
    body = {"kind": "vertical.match", "purpose": "test", "parties": parties, **settings}
    path = Path(folder) / "job.json"
    path.write_text(json.dumps(body))
    return path


def run(made, folder, parties, **settings):
    return asyncio.run(run_job(made, request(folder, parties, **settings)))


def done(made, folder, parties, **settings):
    """Run a job to its end; returns its spec and what each owner got: the result, and the table if there is one."""
    spec, view = run(made, folder, parties, **settings)
    assert (view["state"], view["reason"]) == ("done", "")
    return spec, {owner: got(made, owner, spec.job) for owner in spec.owners}


def got(made, owner, job):
    home = made.home(owner)
    result = results.read_result(home.result(job))["result"]
    return result, pq.read_table(home.table(job)) if home.table(job).exists() else None


def pairs(given, column="number"):
    """Row i of every table, as a set of tuples of one column; every one occurs once."""
    found = list(zip(*(table.column(column).to_pylist() for _, table in given.values()), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


def assert_nothing_left(made, job):
    """Of a job that is over, nothing stays but what was said, the log, and what was released; within a bounded wait."""
    deadline = time.monotonic() + BOUND_S
    for silo in made.silos:
        folder = made.home(silo).job(job)
        while not {p.name for p in folder.glob("*")} <= {"entries", "lock", "closed", "dataset.salt", "worker.log"}:
            assert time.monotonic() < deadline, sorted(p.name for p in folder.glob("*"))
            time.sleep(0.05)


def test_both_owners_get_their_rows_of_the_same_people(made, small, tmp_path):
    parties = [party("lender", "small", output=["number", "amount"]), party("platform", "small", output=["number"])]
    spec, given = done(made, tmp_path, parties)
    assert (spec.randomness, spec.dealer, spec.helper) == (None, None, None)
    assert pairs(given) == {(i, i) for i in range(300, 600)}
    for owner, (result, table) in given.items():
        source = pq.read_table(small[owner])
        assert result["counts"]["own"] == source.num_rows
        assert result["counts"]["matched"] == 300
        assert result["counts"]["keys"][0]["matched"] == 300
        assert result["table"]["rows"] == table.num_rows == 300
        assert table.column("_match").to_pylist() == list(range(300))
        rows = source.take(table.column("_row"))
        for name in ("number", "amount") if owner == "lender" else ("number",):
            assert table.column(name).to_pylist() == rows.column(name).to_pylist()
        assert made.home(owner).table(spec.job).stat().st_mode & 0o777 == 0o600
    assert given["lender"][1].column_names == ["_match", "_row", "number", "amount"]
    assert given["platform"][1].column_names == ["_match", "_row", "number"]
    report = export(made, spec, tmp_path / "bundle.zip")
    assert report.ok, report.reason
    assert report.summary.participants == list(OWNERS)
    assert_nothing_left(made, spec.job)


@pytest.fixture(scope="module")
def ran(made, small, tmp_path_factory):
    """The same matching in every other way and by two owners or three, a few jobs at a time: spec and view of each."""
    ways = [(2, "ecdh-psi"), (2, "vole-psi-malicious"), (2, "oprf-psi"), (2, "helper-psi"), (3, "vole-psi")]
    few = asyncio.Semaphore(2)  # a node takes four at a time, and one that is over counts until the node has tidied up

    async def one(n, protocol):
        helper = "dealer" if protocol == "helper-psi" else None
        parties = [party(owner, "small", output=["number"]) for owner in (*OWNERS, "insurer")[:n]]
        path = request(tmp_path_factory.mktemp("job"), parties, align={"protocol": protocol}, helper=helper)
        async with few:
            return await run_job(replace(made, console=Console(quiet=True)), path)

    async def everything():
        return await asyncio.gather(*(one(*way) for way in ways))

    return dict(zip(ways, asyncio.run(everything()), strict=True))


@pytest.mark.parametrize("protocol", ["ecdh-psi", "vole-psi-malicious", "oprf-psi", "helper-psi"])
def test_every_protocol_gives_the_same_pairs(made, ran, tmp_path, protocol):
    given = checked(made, *ran[2, protocol], tmp_path)
    assert pairs(given) == {(i, i) for i in range(300, 600)}
    assert given["lender"][0]["counts"]["matched"] == 300


def test_three_owners_get_their_rows_of_people_that_all_have(made, ran, tmp_path):
    assert pairs(checked(made, *ran[3, "vole-psi"], tmp_path)) == {(i, i, i) for i in range(350, 600)}


def checked(made, spec, view, folder):
    """What each owner got of a job that is done, whose bundle verifies, and of which nothing else is left."""
    assert (view["state"], view["reason"]) == ("done", "")
    report = export(made, spec, folder / "bundle.zip")
    assert report.ok, report.reason
    assert report.summary.participants == list(spec.participants)
    assert report.summary.randomness == "none"
    assert spec.helper == ("dealer" if spec.align.protocol == "helper-psi" else None)
    assert_nothing_left(made, spec.job)
    return {owner: got(made, owner, spec.job) for owner in spec.owners}


def test_tokens_are_kept_from_job_to_job(made, tmp_path):
    """The second job sends no tokens and comes to the same rows; after the data changed the third one is right."""
    register(made, "lender", "asked", {"email": people(range(100, 220)), "number": range(100, 220)})
    path = register(made, "platform", "known", {"email": people(range(4000)), "number": range(4000)})
    parties = [party("lender", "asked", output=["number"]), party("platform", "known", output=["number"])]

    def job():
        spec, view = run(made, tmp_path, parties, align={"protocol": "oprf-psi"}, keep_tokens=True)
        given = checked(made, spec, view, tmp_path)
        return given, job_costs(view)["platform"]["bytes_sent"]["lender"]

    (first, sent), (second, sent_again) = job(), job()
    assert pairs(first) == {(i, i) for i in range(100, 220)}
    assert [table.column("_row").to_pylist() for _, table in second.values()] == [
        table.column("_row").to_pylist() for _, table in first.values()
    ]
    assert sent > 11 * 4000 > 5 * sent_again
    now = list(reversed(range(110, 4100)))
    pq.write_table(pa.table({"email": people(now), "number": now}), path)
    catalogue.add(made.home("platform").catalogue, "known", path, "email", replace=True)
    third, sent = job()
    assert pairs(third) == {(i, i) for i in range(110, 220)}
    assert sent > 11 * len(now)
    for silo, names in (("lender", {"lock", "set"}), ("platform", {"lock", "set", "rows", "key"})):
        (folder,) = made.home(silo).tokens.iterdir()
        assert {kept.name for kept in folder.iterdir()} == names


# --- keys, duplicates, odd values


def pairs_of(given):
    """Pairs of row numbers, and the key of each."""
    left, right = (given[owner][1] for owner in OWNERS)
    keys = left.column("_key").to_pylist() if "_key" in left.column_names else [0] * left.num_rows
    return {(a, b): k for a, b, k in zip(left["_row"].to_pylist(), right["_row"].to_pylist(), keys, strict=True)}


def test_keys_in_their_order_with_odd_values_between(made, tmp_path):
    """60 match by e-mail, 60 by phone only.  A phone number of both is no match where either row has one by e-mail."""
    n, odd = 150, [None, b"", b"   ", b"\xff\xfe@example.com", b"no address", "\u00fc@example.com".encode("latin-1")]
    left = {
        "email": [f"left{i}@example.com".encode() for i in range(n)] + odd,
        "phone": [f"044 668 {i // 100:02d} {i % 100:02d}" for i in range(n)]
        + [None, "", "\u0661", "x" * 500, "044", "+"],
    }
    right = {
        "email": [f" LEFT{i}@Example.COM" for i in range(60)]
        + [f"right{i}@example.com" for i in range(60)]
        + [None, " "],
        "phone": ["+41 44 668 0130"]
        + [None] * 59
        + [f"(+41 44) 668-{i:04d}" for i in range(60, 120)]
        + ["", "044 668 00 00"],
    }
    left["email"].append(b"left0@example.com")  # a second row of the first person: left out
    left["phone"].append(None)
    register(made, "lender", "keys", {"email": pa.array(left["email"], pa.binary()), "phone": left["phone"]})
    register(made, "platform", "keys", right)
    align = {"keys": ["email/v1", {"rule": "phone/v1", "region": "CH"}], "duplicates": "first"}
    parties = [party(owner, "keys", "email", "phone", output=["phone"]) for owner in OWNERS]
    _, given = done(made, tmp_path, parties, align=align)
    assert pairs_of(given) == {(i, i): int(i >= 60) for i in range(120)}
    counts = given["lender"][0]["counts"]
    assert (counts["own"], counts["matched"]) == (n + len(odd) + 1, 120)
    assert [key["matched"] for key in counts["keys"]] == [60, 60]
    assert [key["duplicates"] for key in counts["keys"]] == [1, 0]
    assert [key["unusable"] for key in counts["keys"]] == [len(odd), len(odd) + 1]
    assert given["lender"][1].column("phone").to_pylist() == [left["phone"][i] for i, _ in pairs_of(given)]


def test_many_rows_of_one_person_are_paired_with_each_of_the_other(made, tmp_path):
    n = 150
    register(made, "lender", "orders", {"email": people([i % n for i in range(3 * n)])})
    register(made, "platform", "customers", {"email": people(range(20, 20 + n))})
    parties = [party("lender", "orders"), party("platform", "customers")]
    _, given = done(made, tmp_path, parties, align={"duplicates": "expand"})
    assert set(pairs_of(given)) == {(i, i % n - 20) for i in range(3 * n) if i % n >= 20}
    assert given["lender"][0]["counts"]["matched"] == given["lender"][1].num_rows == 3 * (n - 20)


# --- what stops a job


def refusal(made, folder, parties, **settings):
    _, view = run(made, folder, parties, **settings)
    assert view["state"] == "refused"
    return view["reason"]


def test_policies_refuse_matchings_helpers_sums_and_low_minima(made, small, tmp_path):
    columns = {"email": people(range(10)), "amount": range(10)}
    register(made, "lender", "strict", columns, 'matchings = ["ecdh-psi"]')
    register(made, "lender", "closed", columns, "")
    strict, closed, other = party("lender", "strict"), party("lender", "closed"), party("platform", "small")
    reason = refusal(made, tmp_path, [strict, other])
    assert "policy of lender, rule 'strict': matching by 'vole-psi' is not allowed" in reason
    reason = refusal(made, tmp_path, [strict, other], align={"protocol": "ecdh-psi", "minimum_matches": 99})
    assert "the job would go on with 99 matches, the minimum is 100" in reason
    reason = refusal(made, tmp_path, [closed, other], align={"protocol": "helper-psi"}, helper="dealer")
    assert "policy of lender, rule 'closed': dealer may not be the helper" in reason
    summed = {**closed, "sums": [{"column": "amount", "lowest": "0", "highest": "9"}]}
    reason = refusal(made, tmp_path, [summed, other], kind="vertical.measure", dealer="dealer", release=["sums"])
    assert "policy of lender, rule 'closed': column 'amount' may not be added up with platform" in reason


def test_too_few_matches_leave_nothing_behind(made, small, tmp_path):
    parties = [party(owner, "small") for owner in OWNERS]
    spec, view = run(made, tmp_path, parties, align={"minimum_matches": 301})
    assert view["state"] == "failed"
    assert "fewer matches" in view["reason"]
    assert "300" not in view["reason"]
    assert_nothing_left(made, spec.job)
    for owner in OWNERS:
        assert not made.home(owner).table(spec.job).exists()
        assert not made.home(owner).result(spec.job).exists()


# --- measuring


def test_matches_and_sums_are_those_of_a_join(made, small, tmp_path):
    """Amounts have two decimals; DuckDB adds them up as decimals."""
    summed = {"sums": [{"column": "amount", "decimals": 2, "lowest": "-200", "highest": "400"}]}
    number = {"sums": [{"column": "number", "lowest": "0", "highest": "2000"}]}
    parties = [party("lender", "small", **summed), party("platform", "small", **number)]
    settings = {"kind": "vertical.measure", "randomness": "ot", "release": ["matches", "sums"]}
    spec, given = done(made, tmp_path, parties, **settings)
    files = [str(small[owner]) for owner in OWNERS]
    (expected,) = duckdb.execute(
        "SELECT count(*), sum(a.amount::DECIMAL(18, 2)), sum(b.number) "
        "FROM read_parquet(?) a JOIN read_parquet(?) b USING (email)",
        files,
    ).fetchall()
    for owner in OWNERS:
        result, table = given[owner]
        assert table is None
        assert result["matches"] == expected[0] == 300
        assert [(s["silo"], s["column"], s["sum"]) for s in result["sums"]] == [
            ("lender", "amount", str(expected[1])),
            ("platform", "number", str(expected[2])),
        ]
    assert export(made, spec, tmp_path / "bundle.zip").ok
    assert_nothing_left(made, spec.job)


def test_matches_are_rounded(made, small, tmp_path):
    parties = [party(owner, "small") for owner in OWNERS]
    settings = {"kind": "vertical.measure", "dealer": "dealer", "round_to": 70}
    _, given = done(made, tmp_path, parties, **settings)
    assert {result["matches"] for result, _ in given.values()} == {280}


def test_matches_are_counted_by_ecdh(made, small, tmp_path):
    parties = [party(owner, "small") for owner in OWNERS]
    spec, given = done(made, tmp_path, parties, kind="vertical.measure", align={"protocol": "ecdh-psi"})
    assert spec.randomness is None
    assert {result["matches"] for result, _ in given.values()} == {300}


# --- processes that die


@pytest.fixture(scope="module")
def large(made):
    """So many rows that matching them takes a while, with a number that tells what row is whose."""
    rng = np.random.default_rng(5)
    for silo, low in (("lender", 0), ("platform", MANY // 2)):
        order = low + rng.permutation(MANY)
        register(made, silo, "large", {"email": people(order.tolist()), "number": order})


async def until(job, condition):
    """Wait for something that happens while the job runs."""
    while not (found := condition()):
        if job.done():
            _, view = job.result()
            raise AssertionError(f"the job was {view['state']} before it could be disturbed: {view['reason']}")
        await asyncio.sleep(0.002)
    return found


def kept(made, silo, name):
    """Files of a matching under way."""
    return list(made.home(silo).jobs.glob(f"*/{MATCHING_FOLDER}/{name}"))


async def in_the_middle(made, job, silo, name="gathered.json"):
    """Wait until `silo` has matched so far that it has written `name`, and stop both owners' workers there."""
    await until(job, lambda: kept(made, silo, name))
    found = [process for owner in OWNERS for process in workers(made, owner)]
    signalled(found, signal.SIGSTOP)
    return found


def resume(processes):
    signalled(processes, signal.SIGCONT)


def kill(processes):
    signalled(processes, signal.SIGKILL)


async def anew(made, job, silo, before):
    """Wait until a worker goes on at `silo` that is not one of those `before`."""
    await until(job, lambda: set(workers(made, silo)) - set(before))


def serve(made, silo):
    """Start the node of a silo again."""
    made.processes[silo].wait(BOUND_S)
    made.processes[silo].stdout.close()
    made.start(silo, "silo", "serve", "--home", str(made.home(silo).root))


def disturbed(made, folder, disturb):
    """A matching of the large data sets, with something that happens meanwhile; its spec, and what came of it."""

    async def both():
        parties = [party(owner, "large", output=["number"]) for owner in OWNERS]
        job = asyncio.create_task(run_job(made, request(folder, parties)))
        await disturb(job)
        return await job

    spec, view = asyncio.run(both())
    assert (view["state"], view["reason"]) == ("done", "")
    given = {owner: got(made, owner, spec.job) for owner in OWNERS}
    assert pairs(given) == {(i, i) for i in range(MANY // 2, MANY)}
    assert_nothing_left(made, spec.job)
    assert export(made, spec, folder / "bundle.zip").ok
    return view


def test_a_matching_goes_on_when_a_worker_is_killed(made, large, tmp_path):
    async def disturb(job):
        found = await in_the_middle(made, job, "lender")
        kill(workers(made, "lender"))
        resume(found)
        await anew(made, job, "platform", found)
        found = await in_the_middle(made, job, "lender", "steps/*.bucket")
        kill(workers(made, "platform"))
        resume(found)

    disturbed(made, tmp_path, disturb)


def test_a_matching_goes_on_when_nodes_are_stopped_or_killed(made, large, tmp_path):
    async def disturb(job):
        found = await in_the_middle(made, job, "platform")
        made.processes["platform"].terminate()
        resume(found)
        await asyncio.to_thread(serve, made, "platform")
        await anew(made, job, "lender", found)
        found = await in_the_middle(made, job, "lender", "steps/*.bucket")
        orphans = workers(made, "lender")
        made.processes["lender"].kill()
        resume(found)
        assert not psutil.wait_procs(orphans, timeout=BOUND_S)[1], "a worker has outlived its node"
        await asyncio.to_thread(serve, made, "lender")

    disturbed(made, tmp_path, disturb)


def test_a_secret_count_comes_before_the_rows(made, small, tmp_path):
    """With too few matches nobody's process has learnt a row; with enough the rows are those of any other matching."""
    parties = [party(owner, "small", output=["number"]) for owner in OWNERS]
    _, given = done(made, tmp_path, parties, count_first=True, randomness="dealer", dealer="dealer")
    assert pairs(given) == {(i, i) for i in range(300, 600)}
    align = {"minimum_matches": 301}
    spec, view = run(made, tmp_path, parties, count_first=True, randomness="dealer", dealer="dealer", align=align)
    assert view["state"] == "failed"
    assert "fewer matches" in view["reason"]
    assert_nothing_left(made, spec.job)
    for owner in OWNERS:
        assert not made.home(owner).table(spec.job).exists()
