"""`accord match`: which rows of several owners are about the same people, or only how many, without a request file."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from silos.commands.common import HomeOption, JsonOption, console, open_home, print_json, print_table, with_client

if TYPE_CHECKING:
    from silos.asking import Question
    from silos.calibration import Rates
    from silos.client import CoordinatorClient
    from silos.config import Home
    from silos.estimate import Estimate
    from silos.released import Result
    from silos.spec import Spec

app = typer.Typer(no_args_is_help=True, help="Find the rows that several owners share, or count and add them up.")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options that say what is asked of whom."""

    with_: Annotated[list[str], typer.Option("--with", help="SILO:DATASET, a partner and its data set; repeatable.")]
    data: Annotated[str, typer.Option(help="Our data set, as registered.")]
    key: Annotated[
        list[str],
        typer.Option(
            help="Our column of e-mail addresses, or rule=RULE,region=REGION,columns=COLUMN+COLUMN; "
            "repeatable, the best key first."
        ),
    ]
    purpose: Annotated[str, typer.Option(help="What it is for; policies compare it word for word.")] = ""
    partner_key: Annotated[
        list[str] | None,
        typer.Option(help="SILO:COLUMN+COLUMN, where a partner's columns have other names; once for each key."),
    ] = None
    protocol: Annotated[
        Literal["vole-psi", "vole-psi-malicious", "ecdh-psi", "oprf-psi", "helper-psi", "hidden"] | None,
        typer.Option(help="How rows are matched; `accord match preview` compares."),
    ] = None
    duplicates: Annotated[
        Literal["refuse", "first", "expand"] | None, typer.Option(help="What rows that share an identifier lead to.")
    ] = None
    minimum: Annotated[int | None, typer.Option(min=1, help="Fewer matches stop the job.")] = None
    columns: Annotated[
        list[str] | None, typer.Option(help="COLUMN,COLUMN of ours, for our own table; otherwise those of the keys.")
    ] = None
    partner_columns: Annotated[
        list[str] | None,
        typer.Option(help="SILO:COLUMN,COLUMN of a partner, for its own table; otherwise those of its keys."),
    ] = None
    helper: Annotated[str | None, typer.Option(help="A silo without data that compares keyed tokens.")] = None
    first: Annotated[str | None, typer.Option(help="The owner who is first in the job; otherwise we are.")] = None
    count_only: Annotated[bool, typer.Option("--count-only", help="Tell numbers only, and no rows.")] = False
    sum_: Annotated[
        list[str] | None,
        typer.Option("--sum", help="COLUMN:LOWEST:HIGHEST:DECIMALS of ours; its sum over the matched rows is told."),
    ] = None
    partner_sum: Annotated[list[str] | None, typer.Option(help="The same of a partner's, perhaps after SILO:.")] = None
    round_to: Annotated[int | None, typer.Option(min=2, help="Tell the number of matches as a multiple of it.")] = None
    epsilon: Annotated[str | None, typer.Option(help="Noise for the number of matches; less is more noise.")] = None
    count_first: Annotated[
        bool, typer.Option("--count-first", help="Check the minimum in secret before any process learns a row.")
    ] = False
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Keep the second owner's tokens for later jobs; with oprf-psi.")
    ] = False
    randomness: Annotated[
        Literal["dealer", "verified-dealer", "ot"] | None,
        typer.Option(help="Where correlated randomness comes from, for numbers and for --count-first."),
    ] = None
    dealer: Annotated[str | None, typer.Option(help="The silo that makes it; none with ot.")] = None
    release: Annotated[
        list[str] | None, typer.Option(help="An item that is put out: rows, counts, matches, sums; repeatable.")
    ] = None
    timeout: Annotated[int | None, typer.Option(min=1, help="Seconds to wait for a peer at every step.")] = None
    valid_for: Annotated[int | None, typer.Option(min=1, help="Seconds that the job may take in all.")] = None

    def question(self) -> Question:
        """The same, parsed.  Raises: SpecError."""
        from silos.asking import Question, by_partner, parse_key, parse_partners, parse_sum

        partners = parse_partners(self.with_)
        names = list(partners)
        keys = by_partner(self.partner_key or [], names)
        columns = by_partner(self.partner_columns or [], names)
        sums = by_partner(self.partner_sum or [], names)
        return Question(
            data=self.data,
            partners=partners,
            keys=tuple(parse_key(text) for text in self.key),
            purpose=self.purpose,
            partner_keys={silo: [tuple(text.split("+")) for text in said] for silo, said in keys.items()},
            columns=_listed(self.columns) if self.columns else None,
            partner_columns={silo: _listed(said) for silo, said in columns.items() if said},
            numbers_only=self.count_only or self.protocol == "hidden",
            sums=tuple(parse_sum(text) for text in self.sum_ or []),
            partner_sums={silo: [parse_sum(text) for text in said] for silo, said in sums.items()},
            round_to=self.round_to,
            epsilon=self.epsilon,
            protocol=self.protocol,
            duplicates=self.duplicates,
            minimum=self.minimum,
            count_first=self.count_first,
            keep_tokens=self.keep_tokens,
            helper=self.helper,
            randomness=self.randomness,
            dealer=self.dealer,
            release=tuple(self.release or []),
            first=self.first,
            timeout_s=self.timeout,
            valid_for_s=self.valid_for,
        )


def _listed(texts: list[str]) -> tuple[str, ...]:
    return tuple(name for text in texts for name in text.split(","))


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Asked` in place of its first parameter."""
    hints, names = get_type_hints(Asked, include_extras=True), [field.name for field in fields(Asked)]
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    asked = [
        inspect.Parameter(f.name, kind, default=empty if f.default is MISSING else f.default, annotation=hints[f.name])
        for f in fields(Asked)
    ]
    parameters = [*asked, *(one.replace(kind=kind) for one in own)]

    @functools.wraps(command)
    def asking(**given: Any) -> None:
        command(Asked(**{name: given.pop(name) for name in names}), **given)

    asking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asking.__annotations__ = {one.name: one.annotation for one in parameters}
    return asking


def _checked(place: Home, asked: Asked) -> Spec:
    """The job, if our own data set can play its part.  Raises: SpecError, CatalogueError, ConfigError."""
    from silos import catalogue
    from silos.errors import SpecError

    me = place.load_config().name
    spec = asked.question().spec(me)
    party = spec.party(me)
    if party is None:
        raise SpecError(f"{me} is no data owner in the job")
    catalogue.load(place.catalogue).dataset(party.dataset).check(party)
    return spec


@app.command()
@_asks
def run(
    asked: Asked,
    home: HomeOption,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .parquet or .csv file for our rows.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what the job would reveal to whom.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the job is submitted.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Submit a matching, follow it, and show what it found; exit code 1 unless it ends as done."""
    from silos.asking import propose
    from silos.disclosure import disclosure, render

    if output is not None and output.suffix.lower() not in (".parquet", ".csv"):
        raise typer.BadParameter("--output must end in .parquet or .csv")
    if output is not None and not wait:
        raise typer.BadParameter("--output is for a job that is waited for; use 'accord match result' later")
    place = open_home(home)
    spec = _checked(place, asked)
    shown = disclosure(spec)
    report = {"job": "" if dry_run else spec.job, "spec": spec.document(), "disclosure": shown}
    if not as_json:
        typer.echo("\n".join(render(shown)))
    if dry_run:
        if as_json:
            print_json(report)
        return
    if not (yes or as_json) and sys.stdin.isatty():
        typer.confirm("Submit the job?", abort=True)
    with_client(home, lambda client: propose(client, place, spec, shown))
    if not as_json:
        typer.echo(f"job {spec.job}")
    if wait:
        report |= _followed(place, spec.job, output, as_json)
    if as_json:
        print_json(report)
    if report.get("state", "done") != "done":
        typer.echo(f"accord: job {spec.job} is {report['state']}: {report['reason']}", err=True)
        raise typer.Exit(1)


def _followed(place: Home, job: str, output: Path | None, as_json: bool) -> dict[str, Any]:
    """Wait for the job's end, and show or write what it released."""
    from silos.commands.watch import watch_job
    from silos.released import Result

    async def follow(client: CoordinatorClient) -> dict[str, Any]:
        return await watch_job(client, job, console(errors=True))

    view = with_client(place.root, follow)
    report = {"state": view["state"], "reason": view["reason"]}
    if view["state"] != "done":
        return report
    found = Result.read(place, job)
    if output is not None:
        found.write(output)
    if not as_json:
        _show(found, output, 0)
    return {**report, **_plain(found, output)}


def _plain(found: Result, output: Path | None) -> dict[str, Any]:
    written = output or found.parquet
    return {"result": found.values, "table": None if written is None else str(written)}


@app.command()
@_asks
def preview(
    asked: Asked,
    home: HomeOption,
    partner_rows: Annotated[
        list[str] | None, typer.Option(help="How many rows partners have, N or SILO:N; otherwise as many as we.")
    ] = None,
    bandwidth_mbit: Annotated[float, typer.Option(min=0.001, help="Megabits a second of the slowest link.")] = 1000,
    latency_ms: Annotated[float, typer.Option(min=0, help="Milliseconds there and back.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Estimate time and bytes of a matching with every protocol, and send nothing to anybody."""
    from silos import estimate

    place = open_home(home)
    spec, me = _checked(place, replace(asked, purpose=asked.purpose or "preview")), place.load_config().name
    rows = _rows(place, spec, me, partner_rows or [])
    network = estimate.Network(bandwidth_mbit, latency_ms)
    found = estimate.estimates(spec, rows, _calibrated(), network)
    number = spec.owners.index(me)
    if as_json:
        described = [one.document(spec.owners) for one in found]
        print_json({"rows": dict(zip(spec.owners, rows, strict=True)), "estimates": described})
        return
    owners = ", ".join(f"{owner} {n:,}" for owner, n in zip(spec.owners, rows, strict=True))
    typer.echo(f"rows: {owners}; {bandwidth_mbit:g} Mbit/s, {latency_ms:g} ms there and back")
    columns = ["", "protocol", "we send", "we get", "in a row", "memory", "disk", "about"]
    print_table(columns, [_line(one, number) for one in found])
    for one in found:
        typer.echo(f"{one.name}: {one.unusable or one.reveals}")


def _rows(place: Home, spec: Spec, me: str, said: list[str]) -> list[int]:
    """How many rows each owner has, as far as we know."""
    from silos import catalogue
    from silos.asking import by_partner

    party = spec.party(me)
    own = catalogue.load(place.catalogue).dataset(party.dataset if party else "").rows
    given = by_partner(said, [owner for owner in spec.owners if owner != me])
    numbers = [text for texts in given.values() for text in texts]
    if not all(text.isdecimal() for text in numbers):
        raise typer.BadParameter("--partner-rows is a number of rows, or SILO:N")
    return [int(given[owner][-1]) if given.get(owner) else own for owner in spec.owners]


class _Compiling(logging.Handler):
    """Says once that kernels are compiled: the first calibration after an installation takes a minute."""

    said = False

    def emit(self, record: logging.LogRecord) -> None:
        """Another kernel."""
        if not self.said:
            self.said = True
            typer.echo("compiling kernels, once for this machine", err=True)


def _calibrated() -> Rates:
    """How fast this machine is."""
    from silos.calibration import calibrate

    logger, told = logging.getLogger("accord.compile"), _Compiling()
    logger.setLevel(logging.INFO)
    logger.addHandler(told)
    try:
        return calibrate()
    finally:
        logger.removeHandler(told)


def _line(one: Estimate, me: int) -> list[str]:
    from silos.commands.watch import duration

    sizes = [f"{n / 1e6:,.3f} MB" for n in (one.traffic.by(me), one.traffic.to(me))]
    disk = f"{one.disk_mib:,} MiB" if one.disk_mib else "-"
    about = "not possible" if one.unusable else duration(one.seconds)
    mark = "->" if one.chosen else ""
    return [mark, one.name, *sizes, f"{one.rounds:,}", f"{one.memory_mib:,} MiB", disk, about]


@app.command()
def result(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    home: HomeOption,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .parquet or .csv file to write.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows of the table to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show what a matching released to this silo, and write its table to a file."""
    from silos.released import Result

    found = Result.read(open_home(home), job)
    if output is not None:
        found.write(output)
    if as_json:
        print_json({"job": job, **_plain(found, output)})
    else:
        _show(found, output, 0 if output is not None else rows)


def _show(found: Result, output: Path | None, rows: int) -> None:
    if found.parquet is not None and rows:
        table = found.head(rows)
        print_table(table.column_names, [list(row.values()) for row in table.to_pylist()])
    if "matches" in found.values:
        typer.echo(f"matches: {found.matched:,}")
    if found.sums:
        print_table(["silo", "column", "sum"], [(*where, total) for where, total in found.sums.items()])
    counts = found.counts
    if counts:
        told = f"{counts['matched']:,} of {counts['own']:,} rows matched" if "matched" in counts else ""
        typer.echo(told or f"{counts['own']:,} rows of our own")
        columns = ["key", "matched", "unusable", "repeated"]
        rows_by_key = [[k["rule"], k.get("matched", "-"), k["unusable"], k["duplicates"]] for k in counts["keys"]]
        print_table(columns, rows_by_key)
    if found.parquet is not None:
        typer.echo(f"table of {found.values['table']['rows']:,} rows: {output or found.parquet}")
