"""`accord model`: the parts of trained models that this silo keeps."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table

if TYPE_CHECKING:
    from silos.models import ModelStore

app = typer.Typer(
    no_args_is_help=True, help="Look at, export and delete the parts of models that this silo keeps, encrypted."
)
ModelArgument = Annotated[str, typer.Argument(help="The model: the id of the job that made it.")]


class Format(StrEnum):
    """How a model is exported."""

    json = "json"
    onnx = "onnx"
    pmml = "pmml"


def _store(home: Path) -> ModelStore:
    from silos.models import ModelStore

    open_home(home)
    return ModelStore(home)


@app.command("list")
def list_(home: HomeOption, as_json: JsonOption = False) -> None:
    """List the models of which this silo keeps its part."""
    from silos.errors import ConfigError

    store = _store(home)
    parts = []
    for model in store.models():
        try:
            parts.append(store.load(model))
        except ConfigError as exc:
            typer.echo(f"accord: {exc}", err=True)
    if as_json:
        print_json([part.summary() for part in parts])
        return
    rows = [(p.model, p.kind, p.family, p.created, ", ".join(p.owners), p.rows.get("training", "-")) for p in parts]
    print_table(["model", "kind", "family", "made", "owners", "training rows"], rows)


@app.command()
def show(model: ModelArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Show this silo's own part of a model, coefficients included."""
    from silos.model_parts import own_terms

    part = _store(home).load(model)
    if as_json:
        print_json(part.document())
        return
    print_table(["", ""], [(key, _shown(value)) for key, value in part.summary().items()])
    if table := own_terms(part):
        print_table(["input", "coefficient"], table)


@app.command()
def card(model: ModelArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Print the model's card: purpose, owners, own columns, metrics and limits, without coefficients."""
    from silos import model_card

    made = model_card.card(_store(home).load(model))
    if as_json:
        print_json(made)
    else:
        typer.echo(model_card.markdown(made), nl=False)


@app.command()
def export(
    model: ModelArgument,
    home: HomeOption,
    to: Annotated[Path, typer.Option(help="The file to write; it must not be there yet.")],
    as_: Annotated[
        Format, typer.Option("--as", help="json: this silo's part.  onnx, pmml: the whole model.")
    ] = Format.json,
    parts: Annotated[
        list[Path] | None,
        typer.Option("--part", help="A part that another owner has exported; for onnx and pmml, all."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write this silo's part without encryption; or, with the parts that all others have exported, the whole model."""
    from silos.errors import ConfigError
    from silos.model_parts import read_export, whole_model, write_export
    from silos.validation import write_private

    own = _store(home).load(model)
    if (as_ is Format.json) == bool(parts):
        raise typer.BadParameter("--part is for onnx and pmml, and they take the part of every other owner")
    if to.exists():
        raise ConfigError(f"{to} is there already")
    if as_ is Format.json:
        body = write_export(own)
    else:
        from silos.model_export import to_onnx, to_pmml

        whole = whole_model([own, *(read_export(path) for path in parts or [])])
        body = to_onnx(whole) if as_ is Format.onnx else to_pmml(whole).encode()
    write_private(to, body)
    if as_json:
        print_json({"model": model, "format": as_.value, "path": str(to), "bytes": len(body)})
    else:
        typer.echo(f"{to}: {as_.value}, {len(body)} bytes")


@app.command()
def delete(
    model: ModelArgument,
    home: HomeOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove this silo's part.  The other owners cannot predict with theirs alone."""
    store = _store(home)
    if model not in store.models():
        store.load(model)  # says that there is none
    if not yes:
        typer.confirm(f"delete the part of model {model} for good?", abort=True)
    store.delete(model)
    if as_json:
        print_json({"model": model, "deleted": True})
    else:
        typer.echo(f"the part of model {model} is deleted")


@app.command()
def drift(
    model: ModelArgument,
    home: HomeOption,
    data: Annotated[str, typer.Option(help="The data set whose rows are compared with those of training.")],
    as_json: JsonOption = False,
) -> None:
    """Compare this silo's own columns with those of training: a stability index for each, computed here."""
    from dataclasses import asdict

    from silos import catalogue
    from silos.model_parts import drift as compare

    found = compare(_store(home).load(model), catalogue.load(open_home(home).catalogue).dataset(data))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print_table(["column", "index", ""], [(one.column, f"{one.index:.3f}", one.verdict) for one in found])


@app.command()
def scorecard(
    model: ModelArgument,
    home: HomeOption,
    base_points: Annotated[float, typer.Option(help="Points at the base odds.")] = 600.0,
    base_odds: Annotated[float, typer.Option(help="Odds of the good outcome, to one, at the base points.")] = 50.0,
    pdo: Annotated[float, typer.Option(help="Points that double the odds.")] = 20.0,
    good: Annotated[int, typer.Option(help="The label's value that earns points: 0 or 1.", min=0, max=1)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Print the points of this silo's own columns; a row's points are the sum over all owners' columns."""
    from dataclasses import asdict

    from mpc.errors import LocalProtocolError
    from silos.model_parts import card_of_points
    from vertical.scorecard import Scale

    try:
        scale = Scale(base_points, base_odds, pdo, 1 if good else 0)
    except LocalProtocolError as exc:
        raise typer.BadParameter(str(exc)) from exc
    lines = card_of_points(_store(home).load(model), scale)
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [(x.column, x.attribute, f"{x.points:g}", "" if x.to is None else f"to {x.to:g}") for x in lines]
    print_table(["column", "attribute", "points", ""], rows)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "-"
    return ", ".join(value) if isinstance(value, list) else str(value)
