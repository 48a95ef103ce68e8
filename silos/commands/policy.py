"""`accord policy`: what the policy file says, before and after a job asks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table, with_client

if TYPE_CHECKING:
    from silos.config import Home
    from silos.spec import Spec

app = typer.Typer(no_args_is_help=True, help="Check, explain and try out what partners may do with the data.")

AnyHome = Annotated[
    Path | None, typer.Option("--home", envvar="ACCORD_HOME", help="The silo's home directory.", show_default=False)
]
RequestOption = Annotated[Path | None, typer.Option("--request", help="A job request, TOML or JSON.")]


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A policy file; without it, the silo's own.")] = None,
    home: AnyHome = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a policy is well-formed, and what in it can hardly be meant."""
    from silos import catalogue, policy
    from silos.errors import ConfigError
    from silos.policy_explain import doubts

    place = None if home is None else open_home(home)
    path = file if file is not None else None if place is None else place.policy
    if path is None:
        raise ConfigError("there is no policy to check: name a file, or the silo's home with --home")
    read, digest = policy.load_with_digest(path)
    known = catalogue.load(place.catalogue) if place is not None else None
    said = doubts(read, _now().date(), known)
    if as_json:
        print_json({"policy": str(path), "sha256": digest, "rules": [rule.name for rule in read.allow], "doubts": said})
        return
    typer.echo(f"{path} is well-formed: {_count(len(read.allow), 'rule')}, {_count(len(read.partners), 'pinned silo')}")
    for line in said:
        typer.echo(f"  - {line}")


@app.command()
def explain(
    home: HomeOption,
    job: Annotated[str | None, typer.Argument(help="The id of a job that the coordinator knows.")] = None,
    spec: Annotated[Path | None, typer.Option("--spec", help="A job spec, JSON.")] = None,
    request: RequestOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which rule and clause allows or refuses each use of each column of ours, and what would have to change."""
    from silos import policy
    from silos.admission import used
    from silos.plan import plan
    from silos.policy_explain import explain as explained

    place = open_home(home)
    asked = _spec(home, job, spec, request)
    me = place.load_config().name
    document = explained(policy.load(place.policy), plan(asked), me, _now(), used(place, asked.job))
    if as_json:
        print_json(document)
    else:
        _print_explanation(document)


@app.command()
def simulate(
    request: Annotated[Path, typer.Option("--request", help="A job request, TOML or JSON.")],
    policies: Annotated[
        list[str] | None, typer.Option("--policy", help="FILE or SILO=FILE: the policy to try; may be repeated.")
    ] = None,
    home: AnyHome = None,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many rows a made-up table has.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Say whether a job would start, and why not, on made-up data; exit code 1 if it would not."""
    from silos import catalogue, policy
    from silos.admission import used
    from silos.request import load_request
    from silos.simulate import simulate as tried

    place = None if home is None else open_home(home)
    me = None if place is None else place.load_config().name
    files = _policies(policies or [], place, me)
    known = {me: catalogue.load(place.catalogue)} if place is not None and me is not None else {}
    counted = {me: used(place, "")} if place is not None and me is not None else {}
    loaded = {silo: policy.load(path) for silo, path in files.items()}
    document = tried(load_request(request), loaded, _now(), known, rows, counted)
    if as_json:
        print_json(document)
    else:
        _print_simulation(document)
    if not document["starts"]:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the policy file."""
    from silos import policy

    print_json(policy.schema())


def _now() -> dt.datetime:
    from silos.times import utcnow

    return utcnow()


def _spec(home: Path, job: str | None, spec: Path | None, request: Path | None) -> Spec:
    """The job that is asked about, from the one place that is named.  Raises: SpecError."""
    from silos.errors import SpecError
    from silos.request import load_request
    from silos.spec import parse_spec
    from silos.validation import read_document

    if sum(given is not None for given in (job, spec, request)) != 1:
        raise SpecError("name one job: by its id, or with --spec or --request")
    if job is not None:
        wanted = job
        return parse_spec(with_client(home, lambda client: client.job(wanted))["spec"])
    if spec is not None:
        return parse_spec(read_document(spec, "the job spec", SpecError))
    return load_request(request or Path())


def _policies(given: list[str], place: Home | None, me: str | None) -> dict[str, Path]:
    """Whose policy is in which file; the silo's own file unless another one is given.  Raises: ConfigError."""
    from silos.errors import ConfigError

    files: dict[str, Path] = {} if place is None or me is None else {me: place.policy}
    for one in given:
        silo, equals, path = one.partition("=")
        if not equals:
            if me is None:
                raise ConfigError(f"it is not said whose policy {one} is: write SILO={one}, or name a home with --home")
            silo, path = me, one
        files[silo] = Path(path)
    if not files:
        raise ConfigError("there is no policy to try: name one with --policy SILO=FILE, or the silo's home with --home")
    return files


# --- for people


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _yes(allowed: bool) -> str:
    return "yes" if allowed else "NO"


def _print_explanation(document: dict[str, Any]) -> None:
    silo = document["silo"]
    others = ", ".join(name for name in document["owners"] if name != silo)
    whose = f"data set '{document['dataset']}' of {silo}" if document["dataset"] else f"{silo} assists"
    typer.echo(f"{document['kind']} for '{document['purpose']}' with {others}: {whose}\n")
    if document["uses"]:
        rows = [
            (
                u["column"],
                u["operation"],
                _yes(u["allowed"]),
                u["rule"] or "-",
                f"{u['clause']}: {u['said']}".strip(": "),
            )
            for u in document["uses"]
        ]
        print_table(["column", "operation", "allowed", "rule", "by"], rows)
        typer.echo("")
    if document["clauses"]:
        print_table(
            ["the job", "allowed", "the rule says", ""],
            [(c["clause"], _yes(c["allowed"]), c["said"], c["sentence"]) for c in _once(document["clauses"])],
        )
        typer.echo("")
    _print_verdict(document)


def _once(clauses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each clause: what refuses, else what allows."""
    shown: dict[str, dict[str, Any]] = {}
    for clause in clauses:
        if clause["clause"] not in shown or not clause["allowed"]:
            shown[clause["clause"]] = clause
    return list(shown.values())


def _print_verdict(document: dict[str, Any]) -> None:
    if document["allowed"]:
        persons = document["approval"]
        waits = f"; {_count(persons, 'person')} must say yes" if persons else ""
        typer.echo(f"allowed by rule '{document['rule']}'{waits}")
        return
    by = f" by rule '{document['rule']}'" if document["rule"] else ""
    typer.echo(f"refused{by}: {document['reason']}")
    if document["changes"]:
        typer.echo("for this job the rule would need:")
        for change in document["changes"]:
            typer.echo(f"  - {change['clause']}: {change['change']}")
    for name, sentences in document["rules"].items():
        more = f"; {_count(len(sentences) - 1, 'more clause')}" if len(sentences) > 1 else ""
        typer.echo(f"rule '{name}' refuses too: {sentences[0]}{more}")


def _print_simulation(document: dict[str, Any]) -> None:
    from silos.disclosure import render

    for silo, told in document["silos"].items():
        typer.echo(f"== {silo}" + ("" if told else ": its policy is not given, so it is not judged"))
        if told:
            _print_explanation(told)
        typer.echo("")
    print_table(
        ["made-up data of", "data set", "rows", "columns", "problem"],
        [(d["silo"], d["dataset"], f"{d['rows']:,}", d["columns"], d["problem"] or "-") for d in document["data"]],
    )
    print_table(
        ["threshold", "limit", "made-up rows that match", "goes on"],
        [(t["what"], f"{t['limit']:,}", f"{t['mock']:,}", _yes(t["holds"])) for t in document["thresholds"]],
    )
    print_table(
        ["released", "to", "rows behind a number", "noise"],
        [
            (r["item"], ", ".join(r["recipients"]), r["form"] if r["rows"] is None else f"{r['rows']:,}", _noise(r))
            for r in document["released"]
        ],
    )
    typer.echo("\n" + "\n".join(render(document["disclosure"])) + "\n")
    typer.echo("the job would start" if document["starts"] else "the job would not start:")
    for line in document["why_not"]:
        typer.echo(f"  - {line}")


def _noise(one: dict[str, Any]) -> str:
    return "-" if one["epsilon"] is None else f"epsilon {one['epsilon']}"
