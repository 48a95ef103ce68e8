"""`accord audit`: evidence about a job, checkable without trusting anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, with_client

app = typer.Typer(
    no_args_is_help=True, help="Export evidence about a job, and verify it offline; keep checkpoints of the log."
)


@app.command()
def export(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    home: HomeOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip file to write.")],
    since: Annotated[
        Path | None, typer.Option(help="A checkpoint of this log that you kept; the bundle will prove growth since.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a job's signed entries with proofs that the log holds them."""
    from silos import bundle
    from silos.diary import said_paths

    place = open_home(home)
    log_key = place.load_enrolment().log_key
    own = [path.read_bytes() for path in said_paths(place.job(job))]
    earlier = since.read_bytes().decode(errors="replace") if since else None
    summary = with_client(
        home, lambda client: bundle.export(client, job, output, log_key=log_key, own=own, earlier=earlier)
    )
    if as_json:
        print_json({"bundle": str(output), "job": job, "entries": summary.entries, "log_size": summary.log_size})
    else:
        typer.echo(f"bundle of {summary.entries} entries written to {output}")
    if not summary.report.ok:
        typer.echo(f"accord: the bundle will not verify: {summary.report.reason}", err=True)


@app.command()
def checkpoint(
    home: HomeOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Keep the log's latest checkpoint, to show later that the log has only grown since."""
    from silos import checkpoints

    enrolment = open_home(home).load_enrolment()
    size = with_client(home, lambda client: checkpoints.save(client, enrolment, output)).size
    if as_json:
        print_json({"checkpoint": str(output), "log_size": size})
    else:
        typer.echo(f"checkpoint of {size} entries written to {output}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    log_key: Annotated[str, typer.Option(help="The log's verifier key, from a source you trust.")] = "",
    pin: Annotated[list[str] | None, typer.Option(help="SILO=FINGERPRINT, from a source you trust.")] = None,
    result: Annotated[list[Path] | None, typer.Option(help="A result file to compare with the log.")] = None,
    since: Annotated[Path | None, typer.Option(help="A checkpoint of this log that you kept.")] = None,
    allow_unfinished: Annotated[bool, typer.Option(help="Accept a job that has not ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Check a bundle without network: signatures, order, consents, releases, proofs.  Exit code 1 if it is refused."""
    from silos.verify import main

    arguments = [str(file)]
    arguments += [f"--log-key={log_key}"] if log_key else []
    arguments += [f"--pin={text}" for text in pin or []]
    arguments += [f"--result={path}" for path in result or []]
    arguments += [f"--since={since}"] if since else []
    arguments += ["--allow-unfinished"] if allow_unfinished else []
    arguments += ["--json"] if as_json else []
    raise typer.Exit(main(arguments))
