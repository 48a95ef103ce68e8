"""The Python interface: the same jobs as the command line's, from ordinary functions, also where a loop runs already."""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa
import pytest

import silos.sdk as accord
from silos.asking import Question
from silos.commands.match import Asked
from silos.config import init_home
from silos.errors import CatalogueError, ConfigError, CoordinatorRefused, JobFailed, SiloError, SpecError
from silos.sdk import Job, Key, Network, Options, Silo, Sum
from tests.silos.matching_world import fake_matchers, matching_world, nodes

T = TypeVar("T")
TERMS: Any = {"purpose": "trial", "minimum": 1, "partner_keys": {"platform": [("mail",)]}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.participation.GRACE_S", 0.5)


async def using(root: Path, work: Callable[[Silo], T]) -> T:
    """Do something with a silo in another thread, as the coordinator of these tests runs in this one."""

    def inside() -> T:
        with accord.open(root) as silo:
            return work(silo)

    return await asyncio.to_thread(inside)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


# --- jobs


async def test_a_matching_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_matchers(monkeypatch)
    async with matching_world(tmp_path) as world, nodes(world, "lender", "platform"):

        def work(silo: Silo) -> Job:
            assert (silo.name, repr(silo), silo.datasets()) == ("lender", "Silo('lender')", {"loans": 3})
            job = silo.match("platform:usage", "loans", ["email"], **TERMS)
            assert repr(job) == f"Job('{job.id}')"
            assert job.wait(timeout_s=60) is job
            assert job.state == "done"
            assert job.disclosure[0] == "lender learns"
            assert silo.job(job.id).wait() == job
            with pytest.raises(CoordinatorRefused, match="that is done takes no 'cancelled'"):
                job.cancel()
            return job

        job = await using(world.home("lender").root, work)
    result = job.result()
    assert (result.matched, result.counts["own"]) == (2, 3)
    assert result.parquet == world.home("lender").table(job.id)
    assert isinstance(result.table(), pa.Table)
    assert result.table().to_pydict() == {"_match": [0, 1], "_row": [2, 0], "who": ["é", "lender"]}
    assert result.head(1).num_rows == 1
    assert result.write(tmp_path / "out.csv") == tmp_path / "out.csv"
    assert "accord-sdk" not in threads()


async def test_a_job_that_is_refused_is_an_error_and_a_slow_one_goes_on(tmp_path: Path) -> None:
    async with matching_world(tmp_path) as world:
        root = world.home("lender").root

        def slow(silo: Silo) -> Job:
            job = silo.match({"platform": "usage"}, "loans", [Key(("email",))], **{**TERMS, "purpose": "another"})
            with pytest.raises(TimeoutError):
                job.wait(timeout_s=0.1)
            assert job.state == "disclosed"
            with pytest.raises(ConfigError, match="there is no result"):
                job.result()
            return job

        job = await using(root, slow)
        async with nodes(world, "platform"):
            with pytest.raises(JobFailed, match=f"job {job.id} is refused: platform refused: .*'another'"):
                await using(root, lambda silo: silo.job(job.id).wait(timeout_s=60))


async def test_requests_of_any_kind_and_cancelling(tmp_path: Path) -> None:
    async with matching_world(tmp_path) as world:
        request = {
            "kind": "vertical.match",
            "purpose": "trial",
            "parties": (
                {"silo": "lender", "dataset": "loans", "key": "email"},
                {"silo": "platform", "dataset": "usage", "key": "mail"},
            ),
        }
        file = tmp_path / "job.json"
        file.write_text(json.dumps(request))

        def work(silo: Silo) -> list[str]:
            jobs = [silo.submit(request), silo.submit(file), silo.submit(str(file))]
            for job in jobs:
                job.cancel("not needed")
            jobs.append(silo.measure("platform:usage", "loans", ["email"], randomness="ot", round_to=2, **TERMS))
            assert jobs[-1].view["spec"]["round_to"] == 2
            jobs[-1].cancel()
            assert len({job.id for job in jobs}) == 4
            return [job.state for job in jobs]

        assert await using(world.home("lender").root, work) == ["cancelled"] * 4


async def test_it_works_where_a_loop_runs_already(tmp_path: Path) -> None:
    """As in a notebook: called from a coroutine, with the coordinator in another thread."""
    started, done = threading.Event(), threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        async with matching_world(tmp_path) as world:
            found.append(world)
            started.set()
            await asyncio.to_thread(done.wait)

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    try:
        await asyncio.to_thread(started.wait)
        with accord.open(found[0].home("lender").root) as silo:
            job = silo.match("platform:usage", "loans", ["email"], **TERMS)
            assert job.state == "disclosed"
    finally:
        done.set()
        await asyncio.to_thread(server.join)


# --- without a coordinator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A silo with data that has joined nothing."""
    from silos import catalogue
    from silos.config import Home
    from tests.silos.matching_world import LOANS

    init_home(tmp_path / "lender", "lender")
    (tmp_path / "loans.csv").write_text(LOANS)
    catalogue.add(Home(tmp_path / "lender").catalogue, "loans", tmp_path / "loans.csv", "email")
    return tmp_path / "lender"


def test_a_preview(root: Path) -> None:
    with accord.open(root) as silo:
        seen = silo.preview("platform:usage", "loans", ["email"], partner_rows=500, network=Network(10, 50))
        assert (seen.rows, seen.chosen.name) == ({"lender": 3, "platform": 500}, "vole-psi")
        assert seen.disclosure[0] == "lender learns"
        assert "-> vole-psi: 0.0" in str(seen)
        many = silo.preview(["b-1:d", "c-1:d"], "loans", ["email"], partner_rows={"c-1": 9}, first="c-1", helper="d-1")
        assert many.rows == {"c-1": 9, "lender": 3, "b-1": 3}
        assert many.chosen.name == "helper-psi"
        sums: Any = {"sums": ["LIMIT_BAL:0:1000:2"], "partner_sums": {"b-1": [Sum("x", "0", "1")]}, "randomness": "ot"}
        measured = silo.preview("b-1:d", "loans", ["email"], **sums)
        assert measured.chosen.name == "hidden, ot"
        assert measured.spec.release == ("matches", "sums")
    assert "accord-sdk" not in threads()


@pytest.mark.parametrize(
    ("work", "error", "sentence"),
    [
        (lambda s: s.match("platform", "loans", ["email"], purpose="x"), SpecError, "a partner is 'SILO:DATASET'"),
        (lambda s: s.match("platform:d", "loan", ["email"], purpose="x"), CatalogueError, "did you mean 'loans'"),
        (lambda s: s.match("platform:d", "loans", ["mail"], purpose="x"), CatalogueError, "did you mean 'email'"),
        (lambda s: s.match("platform:d", "loans", ["email"], purpose=""), SpecError, "its purpose is empty"),
        (lambda s: s.match("platform:d", "loans", ["email"], purpose="x"), ConfigError, "has not joined a coordinator"),
        (lambda s: s.submit({"kind": "vertical.match"}), SpecError, "'purpose' is missing"),
        (lambda s: s.submit("none.toml"), SpecError, "cannot be read"),
        (lambda s: s.job("../x").result(), ConfigError, "'../x' is not a job id"),
    ],
)
def test_every_error_is_a_sentence(
    root: Path, work: Callable[[Silo], Any], error: type[SiloError], sentence: str
) -> None:
    with accord.open(root) as silo, pytest.raises(error, match=sentence):
        work(silo)
    assert "accord-sdk" not in threads()


def test_a_closed_silo_and_one_that_is_none(root: Path, tmp_path: Path) -> None:
    silo = accord.open(root)
    silo.close()
    silo.close()
    with pytest.raises(ConfigError, match="the connection of lender is closed"):
        silo.job("0" * 32).wait()
    with pytest.raises(ConfigError, match="is not a silo's home"):
        accord.open(tmp_path / "none")


def test_without_pandas_the_way_out_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from silos.config import Home
    from tests.silos.test_match_cli import released

    home = Home(root)
    result = accord.Result.read(home, released(home))
    assert result.to_pandas()["_match"].tolist() == [0, 1]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pandas is not installed; install it, or use table"):
        result.to_pandas()
    numbers = accord.Result.read(home, released(home, result={"matches": 3}))
    assert numbers.values == {"matches": 3}
    for use in (numbers.table, numbers.to_pandas, lambda: numbers.head(1)):
        with pytest.raises(ConfigError, match="released no table"):
            use()
    assert numbers.matched == 3
    silent = accord.Result.read(home, released(home, result={"sums": []}))
    with pytest.raises(ConfigError, match="did not release how many"):
        _ = silent.matched


def test_python_and_the_command_line_offer_the_same() -> None:
    python = set(get_type_hints(accord.Asked)) - {"numbers_only"}
    question = set(Question.__dataclass_fields__) - {"data", "partners", "keys", "purpose", "numbers_only"}
    assert python == question
    renamed = {"sum_": "sums", "partner_sum": "partner_sums", "partner_key": "partner_keys"}
    renamed |= {"timeout": "timeout_s", "valid_for": "valid_for_s"}
    line = {renamed.get(name, name) for name in Asked.__dataclass_fields__}
    assert line - {"with_", "data", "key", "purpose", "count_only"} == question
    assert set(Options.__annotations__) < python


async def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_matchers(monkeypatch)
    main = runpy.run_path(str(Path(__file__).parent.parent.parent / "examples" / "match.py"))["main"]
    async with matching_world(tmp_path, same_names=True) as world, nodes(world, "lender", "platform"):
        arguments = [str(world.home("lender").root), "platform:usage", "loans", "email", str(tmp_path / "out.csv")]
        assert await asyncio.to_thread(main, arguments) == 0
        said = capsys.readouterr().out
        assert "2 of 3 rows matched" in said
        assert "platform: match, " in said
        assert (tmp_path / "out.csv").read_text().splitlines()[0] == '"_match","_row","who"'
        assert await asyncio.to_thread(main, [*arguments[:3], "mail", arguments[4]]) == 1
        assert "match: data set 'loans' has no column 'mail'" in capsys.readouterr().err
