"""`accord coordinator`: for its operator.  Imports neither torch, numpy nor protocol code."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from silos.commands import audit
from silos.commands.common import JsonOption, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Run a coordinator: post office and notary, without any data.")

CoordinatorHome = Annotated[
    Path, typer.Option("--home", envvar="ACCORD_COORDINATOR_HOME", help="The coordinator's home.", show_default=False)
]


@app.command()
def init(
    home: CoordinatorHome,
    host: Annotated[list[str], typer.Option("--host", help="A name or address it is reached by; repeatable.")],
    origin: Annotated[str, typer.Option(help="The log's name, for example example.org/accord.")] = "accord.local/log",
    database: Annotated[
        str,
        typer.Option(help="An empty PostgreSQL database, postgresql://...; without it, an SQLite file in the home."),
    ] = "",
) -> None:
    """Make the keys, certificates and database of a new coordinator."""
    from coordinator.server import init_home

    init_home(home, host, origin, database)
    typer.echo(f"coordinator made in {home}")


@app.command()
def serve(
    home: CoordinatorHome,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8443,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from coordinator.server import serve as serve_forever

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(
        serve_forever(home, host, port, lambda bound: typer.echo(f"coordinator is listening on {host}:{bound}"))
    )


@app.command()
def token(
    silo: Annotated[str, typer.Argument(help="The name the silo will have.")],
    home: CoordinatorHome,
    ttl: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds until it expires.")] = 600,
    replace: Annotated[bool, typer.Option("--replace", help="Let it take over an enrolled name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a join token: it works once, for one name, for a short time."""
    from coordinator.server import create_token

    text = create_token(home, silo, ttl, replace)
    if as_json:
        print_json({"silo": silo, "token": text, "ttl_s": ttl})
    else:
        typer.echo(text)


@app.command()
def tiles(
    home: CoordinatorHome,
    output: Annotated[Path, typer.Option(help="The directory to write; what is there already is added to.")],
    entries: Annotated[
        bool, typer.Option("--entries", help="Also the entries of all jobs; for who may read every one of them.")
    ] = False,
) -> None:
    """Write the log as static C2SP tiles, with the newest checkpoint and its cosignatures."""
    from coordinator.server import export_tiles

    written, size = export_tiles(home, output, entries=entries)
    typer.echo(f"{output} has the log's {size} entries; {written} files are new")


@app.command("silos")
def silos_(home: CoordinatorHome, as_json: JsonOption = False) -> None:
    """List every silo that was enrolled."""
    from coordinator.envelope import fingerprint
    from coordinator.server import list_silos

    rows = [
        {
            "silo": silo.name,
            "fingerprint": fingerprint(silo.identity_key),
            "enrolled_at": str(silo.enrolled_at),
            "revoked": silo.revoked,
        }
        for silo in list_silos(home)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(["silo", "fingerprint", "enrolled", "revoked"], [list(row.values()) for row in rows])


@app.command()
def revoke(
    silo: Annotated[str, typer.Argument(help="The silo's name.")],
    home: CoordinatorHome,
    reason: Annotated[str, typer.Option(help="Why; it stands in the log.")] = "revoked by the operator",
) -> None:
    """Stop accepting a silo's key, and say so in the log; its open connections are closed within seconds."""
    from coordinator.server import revoke as revoke_silo

    revoke_silo(home, silo, reason)
    typer.echo(f"{silo} is revoked")


@app.command()
def export(
    home: CoordinatorHome,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip file to write.")],
    since: audit.Since = "",
    begin: audit.Begin = "",
    end: audit.End = "",
    as_json: JsonOption = False,
) -> None:
    """Write the evidence of all jobs that the options choose, or of all, as `accord audit export` does for a silo."""
    from silos.bundle import export_all

    earlier, choice = audit.chosen(since or ("" if begin or end else "0"), begin, end, alone=True)
    audit.tell(export_all(home, output, choice, earlier), as_json)
