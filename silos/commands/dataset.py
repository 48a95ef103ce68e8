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
    from silos import catalogue

    if (path is None) == (sql is None):
        raise typer.BadParameter("a data set is either a file or a query given with --sql")
    if database is not None and sql is None:
        raise typer.BadParameter("--database is for a query given with --sql")
    registered = open_home(home).catalogue
    if path is not None:
        dataset = catalogue.add(registered, name, path, key, replace=replace)
    else:
        dataset = catalogue.add_query(registered, name, sql or "", key, database=database, replace=replace)
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
