"""Accord from Python and from notebooks: the same jobs as `accord match` and `accord job`, without asyncio.

    import silos.sdk as accord

    with accord.open("/var/lib/accord/lender") as silo:
        print(silo.preview("platform:payments", "loans", ["email"]))
        job = silo.match("platform:payments", "loans", ["email"], purpose="fraud", columns=["income"])
        job.wait(progress=True)
        frame = job.result().to_pandas()

The silo's node has to run, here or elsewhere on the same home: it does the work.  Every error is one of `silos.errors`, with
one sentence.  Work on the network happens in a thread of its own, so that all of this also runs where an event loop runs
already, as in a notebook.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from silos import catalogue
from silos.asking import Key, Question, Sum, parse_partners, propose
from silos.client import CoordinatorClient, connect
from silos.config import Home
from silos.disclosure import disclosure, render
from silos.errors import ConfigError, JobFailed
from silos.estimate import Estimate, Network, estimates
from silos.estimators import (
    Joined,
    VerticalGammaRegression,
    VerticalGradientBoosting,
    VerticalLinearRegression,
    VerticalLogisticRegression,
    VerticalMultinomialRegression,
    VerticalNetwork,
    VerticalPoissonRegression,
    VerticalTweedieRegression,
    join_request,
    prediction_request,
)
from silos.options import Asked, Columns, Numbers, Options, Prediction
from silos.released import Result
from silos.request import build_spec, load_request
from silos.spec import Spec
from silos.times import utcnow

if TYPE_CHECKING:
    from silos.questions import Scorer

__all__ = [
    "Job",
    "Joined",
    "Key",
    "Network",
    "Options",
    "Preview",
    "Result",
    "Silo",
    "Sum",
    "VerticalGammaRegression",
    "VerticalGradientBoosting",
    "VerticalLinearRegression",
    "VerticalLogisticRegression",
    "VerticalMultinomialRegression",
    "VerticalNetwork",
    "VerticalPoissonRegression",
    "VerticalTweedieRegression",
    "open",
]

T = TypeVar("T")
Keys = Sequence[Key | str]
Partners = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Preview:
    """What a matching would take and reveal.  rows: by owner; those of partners are what was said, or ours."""

    spec: Spec
    rows: Mapping[str, int]
    estimates: tuple[Estimate, ...]

    @property
    def chosen(self) -> Estimate:
        """The way that the job would be done."""
        return next(one for one in self.estimates if one.chosen)

    @property
    def disclosure(self) -> list[str]:
        """Who would learn what, line by line.  Raises: DisclosureError."""
        return render(disclosure(self.spec))

    def __str__(self) -> str:
        lines = [f"{owner}: {n:,} rows" for owner, n in self.rows.items()]
        for one in self.estimates:
            cost = one.unusable or f"{one.traffic.total / 1e6:,.3f} MB in all, about {one.seconds:.1f} s"
            lines.append(f"{'->' if one.chosen else '  '} {one.name}: {cost}; {one.reveals}")
        return "\n".join(lines)


def open(home: str | Path) -> Silo:  # noqa: A001 - read as accord.open
    """A silo by its home directory; use it in a `with` block, or call `close`.

    Raises: ConfigError if it is not a silo's home.
    """
    return Silo(Path(home))


class Silo:
    """Our silo: its data sets, and the jobs it submits."""

    def __init__(self, root: Path) -> None:
        """Raises: ConfigError."""
        self.home = Home(root)
        self.name = self.home.load_config().name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: CoordinatorClient | None = None
        self._stack, self._lock, self._closed = AsyncExitStack(), asyncio.Lock(), False

    def __repr__(self) -> str:
        return f"Silo({self.name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and its thread; jobs go on.  Calling it again does nothing."""
        self._closed = True
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def call(self, work: Callable[[CoordinatorClient], Awaitable[T]]) -> T:
        """Run `work` with the connection to the coordinator, in its own thread, and return what it returns.

        Raises: what `work` raises; ConfigError if the silo is closed or has not joined a coordinator.
        """
        if self._closed:
            raise ConfigError(f"the connection of {self.name} is closed")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="accord-sdk", daemon=True)
            self._thread.start()

        async def run() -> T:
            async with self._lock:
                if self._client is None:
                    self._client = await self._stack.enter_async_context(connect(self.home))
            return await work(self._client)

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # if the call was interrupted; nothing happens to one that is over

    # --- what there is

    def datasets(self) -> dict[str, int]:
        """Rows of each registered data set.  Raises: CatalogueError."""
        return {one.name: one.rows for one in catalogue.load(self.home.catalogue).datasets}

    def job(self, job: str) -> Job:
        """A job that this silo submitted or takes part in, by its id."""
        return Job(self, job)

    # --- asking

    def match(self, with_: Partners, data: str, keys: Keys, *, purpose: str, **options: Unpack[Options]) -> Job:
        """Submit a matching: every owner gets a table of its own matched rows.

        with_: "SILO:DATASET", several of these, or data sets by silo.  data: our data set.  keys: the best one first, as
        columns of e-mail addresses, "rule=phone/v1,region=CH,columns=tel" or `Key`.

            job = silo.match("platform:payments", "loans", ["email", "rule=phone/v1,region=CH,columns=tel"],
                             purpose="fraud", columns=["income"], minimum=1000)

        Raises: SpecError, CatalogueError, DisclosureError, CoordinatorRefused, CoordinatorUnreachable.
        """
        return self._submit(self._spec(with_, data, keys, purpose, options))

    def measure(self, with_: Partners, data: str, keys: Keys, *, purpose: str, **options: Unpack[Numbers]) -> Job:
        """Submit a measurement: how many rows match, and sums over them, and no rows.

            job = silo.measure("platform:payments", "loans", ["email"], purpose="reach", randomness="ot", round_to=100)

        Raises: as `match`.
        """
        return self._submit(self._spec(with_, data, keys, purpose, {**options, "numbers_only": True}))

    def join(self, with_: Partners, data: str, keys: Keys, **options: Unpack[Columns]) -> Joined:
        """Say which rows a model is for, and which columns of whom; nothing is sent until a model is fitted.

        with_, data, keys: as in `match`.

            joined = silo.join("platform:payments", "loans", ["email"], purpose="credit risk", dealer="dealer",
                               label="default", features={"lender": ["income"], "platform": ["PAY_3:category"]})
            model = VerticalLogisticRegression().fit(joined)

        Raises: SpecError.
        """
        return Joined(self, join_request(self.name, with_, data, keys, options))

    def predict(self, model: str, with_: Partners, data: str, **options: Unpack[Prediction]) -> Job:
        """Submit predictions for rows of these data sets with a model that all its owners have kept.

        model: the id of the job that made it; its keys and columns are used unless `keys` says otherwise.

            job = silo.predict(model.job_.id, "platform:payments-may", "loans-may", purpose="credit risk",
                               output="decision", cuts=[0.2])
            frame = job.wait().result().to_pandas()

        Raises: SpecError, CatalogueError, DisclosureError, CoordinatorRefused, CoordinatorUnreachable.
        """
        trained = self.call(lambda client: client.job(model))["spec"]
        return self.submit(prediction_request(self.name, model, trained, with_, data, options))

    def scorer(self, job: str) -> Scorer:
        """Ask a running job with `questions` about one row at a time; use it in a `with` block.  Raises: ConfigError."""
        from silos.questions import Scorer

        return Scorer(self.home.job(job))

    def preview(
        self,
        with_: Partners,
        data: str,
        keys: Keys,
        *,
        partner_rows: int | Mapping[str, int] | None = None,
        network: Network | None = None,
        **options: Unpack[Asked],
    ) -> Preview:
        """What a matching would take with every protocol; nothing is sent to anybody.

        partner_rows: how many rows partners have; otherwise as many as we.  The first call on a machine compiles kernels.
        Raises: SpecError, CatalogueError.
        """
        from silos.calibration import calibrate

        spec = self._spec(with_, data, keys, "preview", options)
        own = self.datasets()[data]
        said = partner_rows if isinstance(partner_rows, Mapping) else dict.fromkeys(spec.owners, partner_rows)
        rows = {owner: said.get(owner) or own for owner in spec.owners} | {self.name: own}
        found = estimates(spec, list(rows.values()), calibrate(), network or Network())
        return Preview(spec, rows, tuple(found))

    def submit(self, request: Mapping[str, Any] | str | Path) -> Job:
        """Submit a job of any kind from a request, as a mapping or a TOML or JSON file.  Raises: as `match`."""
        if isinstance(request, Mapping):
            # By way of JSON, so that tuples and other mappings are what a file would hold.
            plain = json.loads(json.dumps(request, default=_plain))
            return self._submit(build_spec(plain, job=uuid.uuid4().hex, now=utcnow(), salt=secrets.token_hex(16)))
        return self._submit(load_request(Path(request)))

    def _spec(self, with_: Partners, data: str, keys: Keys, purpose: str, options: Mapping[str, Any]) -> Spec:
        given = dict(options)
        given["release"] = tuple(given.get("release", ()))
        given["columns"] = None if given.get("columns") is None else tuple(given["columns"])
        given["sums"] = tuple(map(Sum.of, given.get("sums", ())))
        given["partner_sums"] = {silo: [*map(Sum.of, sums)] for silo, sums in given.get("partner_sums", {}).items()}
        partners = (
            dict(with_) if isinstance(with_, Mapping) else parse_partners([with_] if isinstance(with_, str) else with_)
        )
        question = Question(data=data, partners=partners, keys=tuple(map(Key.of, keys)), purpose=purpose, **given)
        spec = question.spec(self.name)
        party = spec.party(self.name)
        if party is not None:
            catalogue.load(self.home.catalogue).dataset(party.dataset).check(party)
        return spec

    def _submit(self, spec: Spec) -> Job:
        shown = disclosure(spec)
        return Job(self, self.call(lambda client: propose(client, self.home, spec, shown)))


def _plain(value: Any) -> Any:
    """What JSON has no form for: numbers and arrays of NumPy, tuples' relatives, other mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else list(value)


@dataclass(frozen=True)
class Job:
    """A job by its id; it goes on whether or not anybody watches."""

    silo: Silo
    id: str

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @property
    def view(self) -> dict[str, Any]:
        """The job as the coordinator shows it now."""
        return self.silo.call(lambda client: client.job(self.id))

    @property
    def state(self) -> str:
        """One of those in docs/job.md."""
        return str(self.view["state"])

    @property
    def disclosure(self) -> list[str]:
        """Who learns what, line by line, as its submitter signed it.  Raises: ConfigError if it was not disclosed."""
        from silos.commands.job import statements

        for statement in statements(self.view):
            if statement["event"] == "disclosed":
                return render(statement["body"]["disclosure"])
        raise ConfigError(f"job {self.id} has not been disclosed")

    def wait(self, *, progress: bool = False, timeout_s: float | None = None) -> Self:
        """Wait until the job is over.  progress: show bars with the time that is left.

        Raises: JobFailed with the reason unless it ends as done; TimeoutError if it is not over in time, and goes on.
        """
        view = self.silo.call(lambda client: self._over(client, progress, timeout_s))
        if view["state"] != "done":
            raise JobFailed("wait", f"job {self.id} is {view['state']}: {view['reason']}")
        return self

    async def _over(self, client: CoordinatorClient, progress: bool, timeout_s: float | None) -> dict[str, Any]:
        from rich.console import Console

        from silos.commands.watch import watch_job

        shown = Console() if progress else Console(quiet=True, force_terminal=False, force_jupyter=False)
        async with asyncio.timeout(timeout_s):
            return await watch_job(client, self.id, shown)

    def result(self) -> Result:
        """What it released to this silo.  Raises: ConfigError if there is nothing, or not yet."""
        return Result.read(self.silo.home, self.id)

    def cancel(self, reason: str = "cancelled by its submitter") -> None:
        """End a job that this silo submitted.  Raises: CoordinatorRefused if it is over already."""
        from coordinator.envelope import digest
        from silos.diary import Diary

        async def work(client: CoordinatorClient) -> None:
            home, view = self.silo.home, await client.job(self.id)
            diary = Diary(home.job(self.id), self.silo.name, self.id, digest(view["spec"]), home.load_identity())
            await diary.say(client, "cancelled", {"reason": reason})

        self.silo.call(work)
