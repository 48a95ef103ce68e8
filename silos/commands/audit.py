"""`accord audit`: evidence about jobs, checkable without trusting anyone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, with_client

if TYPE_CHECKING:
    from silos.bundle import Choice, Summary

app = typer.Typer(
    no_args_is_help=True, help="Export evidence about jobs, and verify it offline; keep checkpoints of the log."
)

Since = Annotated[
    str,
    typer.Option(
        help="A checkpoint of this log that you kept, or a place in the log: all jobs with an entry from there on."
        " With a job, and a checkpoint: the bundle will show that the log has only grown since."
    ),
]
Begin = Annotated[str, typer.Option("--from", help="Jobs with an entry said at or after this time (RFC 3339, UTC).")]
End = Annotated[str, typer.Option("--to", help="Jobs with an entry said at or before this time (RFC 3339, UTC).")]


@app.command()
def export(
    home: HomeOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip file to write.")],
    job: Annotated[str, typer.Argument(help="The job's id; without it, all jobs that the options choose.")] = "",
    since: Since = "",
    begin: Begin = "",
    end: End = "",
    as_json: JsonOption = False,
) -> None:
    """Write jobs' signed entries with proofs that the log holds them."""
    from silos import bundle
    from silos.diary import said_paths

    place = open_home(home)
    log_key = place.load_enrolment().log_key

    def own(name: str) -> list[bytes]:
        return [path.read_bytes() for path in said_paths(place.job(name))]

    earlier, choice = chosen(since, begin, end, alone=not job)
    if job:
        summary = with_client(
            home, lambda client: bundle.export(client, job, output, log_key=log_key, own=own(job), earlier=earlier)
        )
    else:
        summary = with_client(
            home,
            lambda client: bundle.export_many(client, output, log_key=log_key, choice=choice, own=own, earlier=earlier),
        )
    tell(summary, as_json)


def chosen(since: str, begin: str, end: str, *, alone: bool) -> tuple[str | None, Choice]:
    """The earlier checkpoint, if one is named, and which jobs are meant."""
    from silos import bundle
    from silos.times import from_text

    for name, text in (("--from", begin), ("--to", end)):
        try:
            if text:
                from_text(text)
        except ValueError as exc:
            raise typer.BadParameter("a time is written YYYY-MM-DDTHH:MM:SSZ", param_hint=name) from exc
    if not alone and (begin or end or since.isdecimal()):
        raise typer.BadParameter("a place or a time chooses among all jobs; leave the job out", param_hint="JOB")
    if alone and not (since or begin or end):
        raise typer.BadParameter("name a job, or choose jobs with --since, --from or --to", param_hint="JOB")
    if since.isdecimal():
        return None, bundle.Choice(int(since), begin, end)
    earlier = Path(since).read_bytes().decode(errors="replace") if since else None
    return earlier, bundle.Choice(0, begin, end)


def tell(summary: Summary, as_json: bool) -> None:
    """What was exported, and whether it is right."""
    if as_json:
        figures = {"entries": summary.entries, "log_size": summary.log_size}
        print_json({"bundle": str(summary.path), "jobs": list(summary.jobs), **figures})
    else:
        what = "" if len(summary.jobs) == 1 else f" of {len(summary.jobs)} jobs"
        typer.echo(f"bundle of {summary.entries} entries{what} written to {summary.path}")
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
    witness: Annotated[list[str] | None, typer.Option(help="The verifier key of a witness that is no silo.")] = None,
    quorum: Annotated[int, typer.Option(min=0, help="How many witnesses must have cosigned the checkpoint.")] = 0,
    allow_unfinished: Annotated[bool, typer.Option(help="Accept jobs that have not ended.")] = False,
    every_signature: Annotated[
        bool, typer.Option("--every-signature", help="With many jobs: check also signatures that a later one covers.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say of each check what it proves.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Check a bundle without network: signatures, order, consents, releases, proofs.  Exit code 1 if it is refused."""
    from silos.verify import main

    arguments = [str(file), f"--quorum={quorum}"]
    arguments += [f"--log-key={log_key}"] if log_key else []
    arguments += [f"--pin={text}" for text in pin or []]
    arguments += [f"--result={path}" for path in result or []]
    arguments += [f"--since={since}"] if since else []
    arguments += [f"--witness={text}" for text in witness or []]
    flags = {"--allow-unfinished": allow_unfinished, "--every-signature": every_signature}
    flags |= {"--explain": explain, "--json": as_json}
    raise typer.Exit(main([*arguments, *(flag for flag, wanted in flags.items() if wanted)]))


@app.command()
def script(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("verify.py"),
) -> None:
    """Write the verifier out as one file, which needs Python and `cryptography` only."""
    from silos import verify as verifier

    output.write_bytes(Path(verifier.__file__).read_bytes())
    typer.echo(f"verifier written to {output}; run it with: python {output} BUNDLE.zip")


@app.command()
def proof(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    index: Annotated[int, typer.Argument(min=0, help="The entry's place in the log.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The C2SP tlog-proof to write.")],
    envelope: Annotated[Path | None, typer.Option(help="Where to write the entry itself, a DSSE envelope.")] = None,
) -> None:
    """Write one entry's proof in the standard form, for other tools than ours."""
    from silos.proofs import entry_of

    entry = entry_of(file, index)
    output.write_text(entry.proof, encoding="utf-8")
    if envelope is not None:
        envelope.write_bytes(entry.envelope)
    typer.echo(f"proof of entry {index} written to {output}")
