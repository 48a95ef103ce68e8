"""`accord job`: what an analyst does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silos.commands import approve
from silos.commands.common import HomeOption, JsonOption, console, open_home, print_json, print_table, with_client

if TYPE_CHECKING:
    from silos.client import CoordinatorClient

app = typer.Typer(no_args_is_help=True, help="Submit jobs, follow them, get results.")

JobArgument = Annotated[str, typer.Argument(help="The job's id.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The job request, TOML or JSON.")],
    home: HomeOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what the job would reveal to whom.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Propose a job to its participants; prints its id and who would learn what."""
    from silos import diary
    from silos.disclosure import disclosure, render
    from silos.request import load_request
    from silos.spec import spec_digest

    place = open_home(home)
    spec = load_request(file)
    shown = disclosure(spec)
    if not dry_run:
        record = diary.Diary(
            place.job(spec.job), place.load_config().name, spec.job, spec_digest(spec), place.load_identity()
        )
        with_client(home, lambda client: diary.submit(client, record, spec.document(), shown))
    if as_json:
        print_json({"job": "" if dry_run else spec.job, "spec": spec.document(), "disclosure": shown})
        return
    typer.echo("\n".join(render(shown)))
    if not dry_run:
        typer.echo(f"job {spec.job}")


@app.command()
def watch(job: JobArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Follow a job to its end; exit code 1 unless it ends as done."""
    from silos.commands.watch import watch_job

    waiting = approve.waiting_line(open_home(home), job)
    if waiting:
        typer.echo(waiting, err=True)
    view = with_client(home, lambda client: watch_job(client, job, console(errors=True)))
    if as_json:
        print_json(_plain(view))
    else:
        _print_job(view)
    if view["state"] != "done":
        typer.echo(f"accord: job {job} is {view['state']}: {view['reason']}", err=True)
        raise typer.Exit(1)


@app.command()
def show(job: JobArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Show a job: its state, its statements, and who learns what."""
    from silos.disclosure import render

    view = with_client(home, lambda client: client.job(job))
    said = statements(view)
    if as_json:
        print_json({**_plain(view), "statements": said})
        return
    _print_job(view)
    waiting = approve.waiting_line(open_home(home), job)
    if waiting:
        typer.echo(waiting)
    print_table(["time", "silo", "statement"], [(s["time"], s["silo"], s["event"]) for s in said])
    _print_costs(said)
    for statement in said:
        if statement["event"] == "disclosed":
            typer.echo("\n".join(render(statement["body"]["disclosure"])))


@app.command("list")
def list_(home: HomeOption, as_json: JsonOption = False) -> None:
    """List the jobs this silo submitted or takes part in."""
    jobs = with_client(home, lambda client: client.jobs())
    if as_json:
        print_json(jobs)
    else:
        columns = ["job", "kind", "state", "submitter", "created", "reason"]
        print_table(columns, [[job[c] for c in columns] for job in jobs])


@app.command()
def result(job: JobArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Show what a job released to this silo; rows that matched are in a Parquet file, whose place is told."""
    from silos.results import read_result

    place = open_home(home)
    document = read_result(place.result(job))
    released = document["result"]
    table = place.table(job) if isinstance(released, dict) and "table" in released else None
    if as_json:
        print_json(document if table is None else {**document, "table_file": str(table)})
        return
    print_json(released)
    if table is not None:
        typer.echo(f"the table of {released['table']['rows']:,} rows is {table}", err=True)


@app.command()
def summary(job: JobArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Show the model that a job trained as a table, with this silo's coefficients."""
    from silos.results import read_result
    from silos.summary import summary as shown

    document = read_result(open_home(home).result(job))
    if as_json:
        print_json({name: document["result"].get(name) for name in ("model", "auc", "contribution", "metrics", "rows")})
        return
    typer.echo(shown(f"Job {job}", document), nl=False)


@app.command()
def report(
    job: JobArgument,
    home: HomeOption,
    output: Annotated[Path, typer.Option(help="The HTML file to write.", dir_okay=False)],
) -> None:
    """Write what a job released to this silo as one page with tables and curves; it loads nothing from elsewhere."""
    from silos.disclosure import render
    from silos.report import report as page
    from silos.results import read_result
    from silos.validation import write_private

    document = read_result(open_home(home).result(job))

    async def work(client: CoordinatorClient) -> list[str]:
        said = statements(await client.job(job))
        return [line for s in said if s["event"] == "disclosed" for line in render(s["body"]["disclosure"])]

    write_private(output, page(document, disclosure=with_client(home, work)))
    typer.echo(f"the report is {output}")


@app.command()
def cancel(
    job: JobArgument,
    home: HomeOption,
    reason: Annotated[str, typer.Option(help="One sentence for the log.")] = "cancelled by its submitter",
) -> None:
    """End a job that this silo submitted."""
    from coordinator.envelope import digest
    from silos.diary import Diary

    place = open_home(home)

    async def work(client: CoordinatorClient) -> None:
        view = await client.job(job)
        record = Diary(place.job(job), place.load_config().name, job, digest(view["spec"]), place.load_identity())
        await record.say(client, "cancelled", {"reason": reason})

    with_client(home, work)
    typer.echo(f"job {job} is cancelled")


for _answer in (approve.pending, approve.approve, approve.deny, approve.withdraw):
    app.command()(_answer)


def _plain(view: dict[str, Any]) -> dict[str, Any]:
    return {k: view[k] for k in ("job", "kind", "state", "submitter", "participants", "reason", "spec")}


def statements(view: dict[str, Any]) -> list[dict[str, Any]]:
    """A job's statements in log order, as the coordinator shows them: `time`, `silo`, `event`, `body`."""
    import base64

    from coordinator.envelope import parse

    said = [parse(base64.b64decode(entry["envelope"])).statement for entry in view["entries"]]
    return [{"time": s.time, "silo": s.silo, "event": s.event, "body": s.body} for s in said]


def _print_job(view: dict[str, Any]) -> None:
    rows = [(field, view[field]) for field in ("job", "kind", "state", "submitter")]
    rows.append(("participants", ", ".join(view["participants"])))
    spec = view["spec"]
    rows.append(("matching", spec["align"]["protocol"]))
    rows += [(role, spec[role]) for role in ("randomness", "dealer", "helper") if spec.get(role)]
    print_table(["", ""], [*rows, ("reason", view["reason"] or "-")])


def _print_costs(said: list[dict[str, Any]]) -> None:
    """What the silos say it cost, a line each; correlated randomness per kind: correlations (words at this silo)."""
    rows = []
    for statement in said:
        if statement["event"] == "finished":
            cost = statement["body"]["cost"]
            sent = ", ".join(f"{silo} {count:,}" for silo, count in sorted(cost["bytes_sent"].items()))
            used = [f"{n['correlations']:,} {kind} ({n['words']:,})" for kind, n in sorted(cost["randomness"].items())]
            rows.append((statement["silo"], cost["rounds"], sent or "-", cost["peak_mib"], ", ".join(used) or "-"))
    if rows:
        print_table(["silo", "rounds", "bytes sent to", "MiB", "correlated randomness"], rows)
