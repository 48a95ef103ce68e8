"""`accord silo`: one organisation's node."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table, with_client

app = typer.Typer(no_args_is_help=True, help="Run one organisation's node.")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The silo's name: a-z, 0-9 and '-'.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Make a silo's home: identity key, configuration, and a policy that permits nothing."""
    from silos.config import init_home

    fingerprint = init_home(home, name).fingerprint
    if as_json:
        print_json({"silo": name, "fingerprint": fingerprint})
    else:
        typer.echo(f"silo {name} made in {home}; give partners its fingerprint:\n{fingerprint}")


@app.command()
def join(
    token: Annotated[str, typer.Argument(help="The one-time token from the coordinator's operator.")],
    url: Annotated[str, typer.Option(help="The coordinator's address, https://host:port.")],
    home: HomeOption,
) -> None:
    """Enrol with a coordinator; the token proves that it is the right one."""
    from silos.enrol import join as join_coordinator

    enrolment = asyncio.run(join_coordinator(open_home(home), url, token))
    typer.echo(f"{enrolment['silo']} has joined {enrolment['url']}")


@app.command()
def serve(home: HomeOption) -> None:
    """Work on jobs until SIGTERM or Ctrl-C; connects out only."""
    from silos.node import Node

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    node = Node(open_home(home))

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await node.run(stop)

    asyncio.run(run())


@app.command()
def status(home: HomeOption, as_json: JsonOption = False) -> None:
    """Show who this silo is, what it has joined, and its data sets."""
    from silos import catalogue, policy
    from silos.errors import ConfigError

    place = open_home(home)
    try:
        url = place.load_enrolment().url
    except ConfigError:
        url = ""
    rules = policy.load(place.policy)
    facts = {
        "silo": place.load_config().name,
        "fingerprint": place.load_identity().fingerprint,
        "coordinator": url,
        "datasets": [d.name for d in catalogue.load(place.catalogue).datasets],
        "partners": sorted(rules.partners),
        "rules": [rule.name for rule in rules.allow],
        "dealer_for": list(rules.dealer.for_),
        "helper_for": list(rules.helper.for_),
    }
    if as_json:
        print_json(facts)
    else:
        rows = [(k, (", ".join(v) if isinstance(v, list) else v) or "-") for k, v in facts.items()]
        print_table(["", ""], rows)


@app.command()
def partners(home: HomeOption, as_json: JsonOption = False) -> None:
    """List the enrolled silos with their fingerprints, and which of them are pinned here."""
    from silos import policy, roster, watch

    place = open_home(home)
    pins = policy.load(place.policy).partners
    rows = []
    for silo in with_client(home, lambda client: watch.roster(client, place)):
        name, shown = silo["silo"], silo["fingerprint"]
        known = pins.get(name)
        if known is None:
            state = "no"
        elif known.fingerprint == shown:
            state = "yes"
        elif roster.load(place).followed({name: known.fingerprint})[name] == shown:
            state = "rotated from the pinned key; compare it and pin it again"
        else:
            state = "another key"
        rows.append({"silo": name, "fingerprint": shown, "pinned": state})
    if as_json:
        print_json(rows)
    else:
        print_table(["silo", "fingerprint", "pinned"], [list(row.values()) for row in rows])


@app.command()
def rotate(
    home: HomeOption,
    force: Annotated[bool, typer.Option("--force", help="Although jobs that you consented to will fail.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Replace this silo's identity key by a new one; the old one says so in the log, and speaks for nothing afterwards."""
    from silos.rotation import rotate as rotate_key

    place = open_home(home)
    done = asyncio.run(rotate_key(place, force=force))
    silo = place.load_config().name
    if as_json:
        print_json({"silo": silo, "old_fingerprint": done.old, "fingerprint": done.new, "index": done.index})
    else:
        typer.echo(
            f"{silo} has a new key since entry {done.index} of the log; give partners its fingerprint:\n{done.new}"
        )


@app.command()
def pin(
    name: Annotated[str, typer.Argument(help="The partner's name.")],
    fingerprint: Annotated[str, typer.Argument(help="Its fingerprint, as the partner told you it.")],
    home: HomeOption,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a key that is pinned already.")] = False,
) -> None:
    """Accept a partner's identity key from now on."""
    from silos import policy

    policy.pin(open_home(home).policy, name, fingerprint, replace=replace)
    typer.echo(f"{name} is pinned")
