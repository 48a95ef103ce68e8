"""`accord`: the command line, and the outermost loop of every process it starts.

Nothing heavy is imported before a command runs, so help is instant and `accord coordinator serve` never loads torch,
numpy or mpc.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator.envelope import EnvelopeError
from coordinator.errors import Corrupt, Refusal, Unavailable
from coordinator.home import HomeError
from coordinator.note import NoteError
from silos.commands import approve, audit, budget, coordinator, dataset, job, match, model, policy, report, silo
from silos.errors import SiloError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Organisations that may not show each other their data compute on it together, and prove what ran.",
)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(silo.app, name="silo")
app.add_typer(dataset.app, name="dataset")
app.add_typer(job.app, name="job")
app.add_typer(match.app, name="match")
app.add_typer(model.app, name="model")
app.add_typer(policy.app, name="policy")
app.add_typer(approve.approver_app, name="approver")
app.add_typer(approve.approvals_app, name="approvals")
app.add_typer(budget.app, name="budget")
app.add_typer(audit.app, name="audit")
audit.app.command("report")(report.report)


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Leave all homes, logs and the audit bundle in this directory.")
    ] = None,
    randomness: Annotated[
        Literal["dealer", "verified-dealer", "ot"], typer.Option(help="Where correlated randomness comes from.")
    ] = "dealer",
) -> None:
    """Run two organisations, a coordinator and perhaps a dealer on this machine, from enrolment to a verified result."""
    from silos.demo.run import main as run_demo

    raise typer.Exit(run_demo(keep, randomness))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: errors that the project raises on purpose become one sentence and exit code 1."""
    try:
        app(args=None if arguments is None else list(arguments))
    except (SiloError, EnvelopeError, NoteError, Refusal, Corrupt, Unavailable, HomeError) as exc:
        typer.echo(f"accord: {exc}", err=True)
    except OSError as exc:
        typer.echo(f"accord: {exc.filename or 'the system'}: {exc.strerror or exc}", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
