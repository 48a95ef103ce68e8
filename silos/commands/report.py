"""`accord audit report`: what a privacy officer files about a job or a period."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Annotated

import typer

from silos.commands.common import JsonOption, print_json


def report(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: a web page, or a PDF if its name ends in .pdf.")
    ],
    log_key: Annotated[str, typer.Option(help="The log's verifier key, from a source you trust.")] = "",
    pin: Annotated[list[str] | None, typer.Option(help="SILO=FINGERPRINT, from a source you trust.")] = None,
    allow_unfinished: Annotated[bool, typer.Option(help="Accept jobs that have not ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a compliance report: who did what with which data, why, by whose consent.  Exit code 1 if the bundle is refused.

    Everything in it is from the bundle, which is verified first; a bundle that does not verify is reported as such.
    """
    from silos.compliance import document
    from silos.errors import ConfigError
    from silos.verify import pin as read_pin
    from silos.verify import verify_bundle

    try:
        pins = dict(read_pin(text) for text in pin or [])
    except (ValueError, ArgumentTypeError) as exc:
        raise ConfigError(str(exc)) from exc
    checked = verify_bundle(file, log_key or None, pins, allow_unfinished=allow_unfinished)
    made = document(checked, file)
    if output.suffix.lower() == ".pdf":
        from silos.compliance_pdf import pdf

        output.write_bytes(pdf(made))
    else:
        from silos.compliance_html import html

        output.write_text(html(made), encoding="utf-8")
    if as_json:
        jobs = [story.spec["job"] for story in checked.stories]
        print_json({"report": str(output), "verified": checked.ok, "reason": checked.reason, "jobs": jobs})
    else:
        typer.echo(f"{made.verdict} Report of {len(checked.stories)} job(s) written to {output}")
    if not checked.ok:
        raise typer.Exit(1)
