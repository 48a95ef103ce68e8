"""`accord dataset`: which files and queries of this silo jobs may name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Register data sets.  They are read where they are and never copied.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name jobs will use.")],
    home: HomeOption,
    key: Annotated[str, typer.Option(help="The column that identifies a row's subject.")],
    path: Annotated[Path | None, typer.Argument(help="A .csv or .parquet file.")] = None,
    sql: Annotated[str | None, typer.Option(help="A SELECT over local files or the database, instead.")] = None,
    database: Annotated[Path | None, typer.Option(help="The DuckDB file that the query runs on.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Register changed data anew.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register a file or a query; what partners may do with it is the policy's business."""
    from silos import catalogue, commitments

    if (path is None) == (sql is None):
        raise typer.BadParameter("a data set is either a file or a query given with --sql")
    if database is not None and sql is None:
        raise typer.BadParameter("--database is for a query given with --sql")
    place = open_home(home)
    registered = place.catalogue
    if path is not None:
        dataset = catalogue.add(registered, name, path, key, replace=replace)
    else:
        dataset = catalogue.add_query(registered, name, sql or "", key, database=database, replace=replace)
    commitments.root_of(place, dataset)  # so that no job has to wait for it
    if as_json:
        print_json(dataset.model_dump(mode="json"))
    else:
        typer.echo(f"data set {name}: {dataset.rows} rows, {len(dataset.columns)} columns")


@app.command("list")
def list_(home: HomeOption, as_json: JsonOption = False) -> None:
    """List the registered data sets."""
    from silos import catalogue

    datasets = catalogue.load(open_home(home).catalogue).datasets
    if as_json:
        print_json([d.model_dump(mode="json") for d in datasets])
    else:
        rows = [(d.name, d.rows, len(d.columns), d.key, d.path or "a query over files") for d in datasets]
        print_table(["data set", "rows", "columns", "key", "file"], rows)


@app.command()
def prove(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    home: HomeOption,
    row: Annotated[int, typer.Option(help="Which row of the data set, counted from 0.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; it holds the row's values.")],
) -> None:
    """Show one row of what a job used here, with the proof that this silo committed to it."""
    import json

    from silos import admission, catalogue, commitments
    from silos.validation import write_private

    place = open_home(home)
    dataset = catalogue.load(place.catalogue).dataset(admission.dataset_of(place, job))
    catalogue.verify_unchanged(dataset)
    opening = commitments.open_row(place, job, dataset, row)
    write_private(output, json.dumps(opening.document(), indent=1) + "\n")
    typer.echo(
        f"row {row} of data set {dataset.name} in job {job} written to {output}: whoever has the file can read it"
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The file of 'accord dataset prove'.")],
    commitment: Annotated[str, typer.Option(help="The data set commitment of the silo's consent.")] = "",
    bundle: Annotated[Path | None, typer.Option(help="An audit bundle with that consent, instead.")] = None,
    log_key: Annotated[str, typer.Option(help="The log's verifier key, from a source you trust.")] = "",
) -> None:
    """Check, without network, that a row is one that a silo committed to when it consented to a job."""
    from silos import commitments, row_bytes

    if bool(commitment) == (bundle is not None):
        raise typer.BadParameter("a row is checked against a --commitment or a --bundle")
    opening = commitments.load_opening(file)
    if bundle is not None:
        commitment = commitments.commitment_in(bundle, opening, log_key or None)
    commitments.verify_opening(opening, commitment.lower())
    rows = zip(opening.row, opening.values(), strict=True)
    print_table(
        ["column", "value"], [(_plain(one.column), _plain(row_bytes.shown(one.kind, value))) for one, value in rows]
    )
    typer.echo(f"row {opening.index} of {opening.size} rows that {opening.silo} committed to in job {opening.job}")


def _plain(text: str) -> str:
    """Nothing of somebody else's file reaches the terminal as a control sequence."""
    return "".join(c if c.isprintable() else "?" for c in text)
