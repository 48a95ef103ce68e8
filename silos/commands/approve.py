"""`accord approver`, `accord approvals` and the commands of `accord job` that a person answers with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table, with_client

if TYPE_CHECKING:
    from silos.config import Home

approver_app = typer.Typer(no_args_is_help=True, help="Make the keys of persons who approve jobs.")
approvals_app = typer.Typer(no_args_is_help=True, help="Approve jobs in a browser on this machine.")

VARIABLE = "ACCORD_PASSPHRASE"

JobArgument = Annotated[str, typer.Argument(help="The job's id.")]
PersonOption = Annotated[str, typer.Option("--as", help="The approver's name, as the policy has it.")]
PassphraseOption = Annotated[
    Path | None, typer.Option(help=f"A file with the passphrase; else {VARIABLE}, else it is asked for.")
]


@approver_app.command()
def new(
    name: Annotated[str, typer.Argument(help="The person's full name.")],
    home: Annotated[
        Path | None,
        typer.Option(envvar="ACCORD_HOME", help="The silo's home, to keep the key there.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Another file for the key.")] = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a person's key, which only a passphrase opens, and print what the policy needs."""
    from silos.approvers import create_key, policy_lines
    from silos.errors import ConfigError

    if output is None and home is None:
        raise ConfigError("it is not said where the key goes; use --home or --output")
    path = output or _key_path(open_home(home or Path()), name)
    key = create_key(path, name, _passphrase(f"new passphrase of {name}", passphrase_file, confirm=True))
    if as_json:
        print_json({"name": name, "key": key, "file": str(path)})
        return
    typer.echo(f"the key of {name} is {path}; the policy needs these lines:", err=True)
    typer.echo(policy_lines(name, key))


def pending(home: HomeOption, as_json: JsonOption = False) -> None:
    """List the jobs that wait for a person here."""
    from silos.approvals import all_pending, approver_keys, said
    from silos.approvals_text import plain

    place = open_home(home)
    keys, rows = approver_keys(place), []
    for one in all_pending(place):
        rows.append(
            {
                "job": one.job,
                "submitter": one.submitter,
                "kind": one.spec["kind"],
                "purpose": one.spec["purpose"],
                "rule": one.rule,
                "needed": one.needed,
                "approved_by": [approval.name for approval in said(place, one, keys)],
                "asked_at": one.asked_at,
                "valid_until": one.valid_until,
                "spec_digest": one.spec_digest,
                "disclosure_digest": one.disclosure_digest,
            }
        )
    if as_json:
        print_json(rows)
        return
    shown = ["job", "submitter", "kind", "purpose", "asked_at", "valid_until"]
    table = [[*(plain(str(r[c])) for c in shown), f"{len(r['approved_by'])} of {r['needed']}"] for r in rows]
    print_table([*(column.replace("_", " ") for column in shown), "approved"], table)


def approve(
    job: JobArgument,
    home: HomeOption,
    person: PersonOption,
    key: Annotated[
        Path | None, typer.Option("--key", help="The person's key file, if it is not in the home.", show_default=False)
    ] = None,
    passphrase_file: PassphraseOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after showing the job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a waiting job would do and reveal, and say yes to it with a person's key."""
    from silos.approvals import approve as approve_job
    from silos.approvals import approver_keys, read_pending, said
    from silos.approvals_text import text, when
    from silos.approvers import load_key
    from silos.times import utcnow

    place = open_home(home)
    asked = read_pending(place, job)
    typer.echo(text(asked), err=as_json)
    for one in said(place, asked, approver_keys(place)):
        typer.echo(f"{one.name} approved it on {when(one.time)}", err=as_json)
    if not yes and not typer.confirm(f"\n{person}, do you approve this job?", err=as_json):
        typer.echo("nothing was said", err=True)
        raise typer.Exit(1)
    private = load_key(key or _key_path(place, person), _passphrase(f"passphrase of {person}", passphrase_file))
    missing = approve_job(place, asked, person, private, approver_keys(place), utcnow())
    if as_json:
        print_json({"job": job, "approved_by": person, "missing": missing})
        return
    more = f"; {missing} more must" if missing else ""
    typer.echo(f"{person} has approved job {job}{more}")


def deny(
    job: JobArgument,
    home: HomeOption,
    person: PersonOption,
    reason: Annotated[str, typer.Option(help="One sentence; the log and all participants get it.")],
    as_json: JsonOption = False,
) -> None:
    """Say no to a waiting job; the node refuses it with this name and reason."""
    from silos.approvals import approver_keys, read_pending
    from silos.approvals import deny as deny_job
    from silos.times import utcnow

    place = open_home(home)
    deny_job(place, read_pending(place, job), person, reason, approver_keys(place), utcnow())
    if as_json:
        print_json({"job": job, "denied_by": person})
    else:
        typer.echo(f"{person} has said no to job {job}; the node refuses it")


def withdraw(
    job: JobArgument,
    home: HomeOption,
    reason: Annotated[str, typer.Option(help="One sentence; the log and all participants get it.")],
    as_json: JsonOption = False,
) -> None:
    """Take this silo's consent back; the job ends.  Possible until this silo has released its result."""
    from silos.withdraw import withdraw as take_back

    place = open_home(home)
    said = with_client(home, lambda client: take_back(place, client, job, reason))
    if as_json:
        print_json({"job": job, "said": said})
    elif said == "asked":
        typer.echo(f"the node of {place.load_config().name} will refuse job {job}")
    else:
        typer.echo(f"the consent to job {job} is withdrawn" if said == "withdrawn" else f"job {job} is refused")


@approvals_app.command()
def serve(
    home: HomeOption,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
) -> None:
    """Show waiting jobs as a page that only this machine can open; the address that is printed works once."""
    import asyncio
    import signal

    from silos.approvals_server import serving

    place = open_home(home)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(place, port) as address:
            typer.echo(f"open {address}")
            await stop.wait()

    asyncio.run(run())


def waiting_line(home: Home, job: str) -> str:
    """What a person who follows a job at this silo should know: that it waits for somebody here; "" if it does not."""
    from silos.approvals import approver_keys, read_pending, said
    from silos.errors import SiloError

    try:
        asked = read_pending(home, job)
        missing = asked.needed - len(said(home, asked, approver_keys(home)))
    except SiloError:
        return ""
    people = "1 person" if missing == 1 else f"{missing} persons"
    return f"waiting for approval by {people} at {asked.silo}; run 'accord job approve {job}'" if missing > 0 else ""


def _key_path(home: Home, name: str) -> Path:
    from silos.approvers import key_file

    return key_file(home.root / "approvers", name)


def _passphrase(prompt: str, file: Path | None, *, confirm: bool = False) -> str:
    """From the file, else the environment, else the terminal."""
    import os

    if file is not None:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    given = os.environ.get(VARIABLE)
    if given is not None:
        return given
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm))
