"""What the commands share: common options, output for people and for programs, and one way to reach the coordinator."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from silos.client import CoordinatorClient
    from silos.config import Home

T = TypeVar("T")

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="ACCORD_HOME", help="The silo's home directory.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_WIDTH_IN_FILES = 200


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True))


def console(*, errors: bool = False) -> Console:
    """For people; where the output is not a terminal, lines are not cut to a screen's width."""
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDTH_IN_FILES, highlight=False, markup=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A plain table on standard output."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console().print(table)


def open_home(root: Path) -> Home:
    """A silo's home that has been set up.  Raises: ConfigError."""
    from silos.config import Home

    home = Home(root)
    home.load_config()
    return home


def with_client(root: Path, work: Callable[[CoordinatorClient], Awaitable[T]]) -> T:
    """Run `work` with a connection to the coordinator that the silo has joined.

    Raises: ConfigError, CoordinatorRefused, CoordinatorUnreachable.
    """
    home = open_home(root)

    async def run() -> T:
        from silos.client import connect

        async with connect(home) as client:
            return await work(client)

    return asyncio.run(run())
