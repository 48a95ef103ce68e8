"""`accord dataset`: which files of this silo jobs may name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Register data files.  They are read where they are and never copied.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name jobs will use.")],
    path: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    home: HomeOption,
    key: Annotated[str, typer.Option(help="The column that identifies a row's subject.")],
    replace: Annotated[bool, typer.Option("--replace", help="Register a changed file anew.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register a file; what partners may do with it is the policy's business."""
    from silos import catalogue

    dataset = catalogue.add(open_home(home).catalogue, name, path, key, replace=replace)
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
        rows = [(d.name, d.rows, len(d.columns), d.key, d.path) for d in datasets]
        print_table(["data set", "rows", "columns", "key", "file"], rows)
