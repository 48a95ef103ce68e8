"""The deployment files and the documentation say what the code does: commands, settings, errors, files.

Every `accord` command that a page or a deployment file shows is given to the real command line parser, and everything a
user can set or meet (commands, options, keys, states, errors, metrics) is named in the page about it.
"""

import ast
import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coordinator.jobs import State
from coordinator.metrics import Metrics
from silos import request, verify
from silos.cli import app
from silos.config import NodeLimits, SiloConfig
from silos.disclosure import MATCHINGS, PROTOCOLS, SUPPLIES, load_reveals
from silos.policy import Approver, AssistantRule, Budget, Partner, Policy, Record, Rule, Terms
from silos.spec import KINDS, parse_spec
from silos.spec_parts import Align, Encoding, Evaluate, Feature, Key, Limits, Matcher, Measurer, Sum, Trainer
from silos.spec_scoring import Predictor, Stability
from silos.spec_statistics import Examined, Figures
from silos.spec_training import GlmTrain, NetworkTrain, TreesTrain

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "THREATS", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "deploy" / "README.md",
]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSE = ROOT / "deploy" / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
CLI = typer.main.get_command(app)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


# --- commands


def leaf(arguments: list[str]) -> tuple[Any, list[str]]:
    """Walk down the command tree; returns the command and its arguments."""
    command, rest = CLI, list(arguments)
    while hasattr(command, "commands"):
        assert rest, f"'accord {shlex.join(arguments)}' names a group and no command"
        assert rest[0] in command.commands, f"there is no command 'accord {shlex.join(arguments)}'"
        command = command.commands[rest.pop(0)]
    return command, rest


def options(command: Any) -> set[str]:
    return {text for p in command.params if p.param_type_name == "option" for text in (*p.opts, *p.secondary_opts)} - {
        "--help"
    }


def accept(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command line without running it."""
    monkeypatch.setenv("ACCORD_HOME", "home")
    monkeypatch.setenv("ACCORD_COORDINATOR_HOME", "home")
    command, rest = leaf(arguments)
    try:
        command.make_context("accord", rest)
    except Exception as exc:
        pytest.fail(f"'accord {shlex.join(arguments)}' is not accepted: {exc}")


def commands_in_shell(text: str) -> Iterator[list[str]]:
    """The arguments of every `accord` in a shell script, also inside $( ) and through `docker compose run`."""
    while inner := re.search(r"\$\(([^()]*)\)", text):
        yield from commands_in_shell(inner[1])
        text = text.replace(inner[0], "X")
    for part in re.split(r"\|\||[|;&\n]", text):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # a piece of a quoted text of several lines
            assert "accord " not in part, part
            continue
        stop = next((i for i, word in enumerate(words) if word.startswith(">")), len(words))
        words = words[:stop]
        called = [i for i, word in enumerate(words) if word == "accord" or word.endswith("/bin/accord")]
        if called:
            yield words[called[0] + 1 :]
        elif words[:3] == ["docker", "compose", "run"]:
            service = next(i for i, word in enumerate(words) if i > 2 and not word.startswith("-"))
            yield words[service + 1 :]


def shell_blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_commands_are_found_where_they_hide():
    found = list(
        commands_in_shell('J=$(accord job list | sed s/x/y/)\n[ a = b ] || x/bin/accord silo pin "$(cat f)" > out &')
    )
    assert found == [["job", "list"], ["silo", "pin", "X"]]
    assert list(commands_in_shell("docker compose run --rm s silo serve")) == [["silo", "serve"]]


@pytest.mark.parametrize("name", names(PAGES))
def test_command_lines_in_pages_are_accepted(name, monkeypatch):
    for block in shell_blocks(page(name)):
        for arguments in commands_in_shell(block):
            accept(arguments, monkeypatch)


@pytest.mark.parametrize("name", names(PAGES))
def test_commands_mentioned_in_text_exist(name):
    text = re.sub(r"^```.*?^```", "", page(name), flags=re.DOTALL | re.MULTILINE)
    for mention in re.findall(r"`accord ([^`]+)`", text):
        words = shlex.split(mention)
        if words[0].isupper():  # a placeholder for any command
            continue
        command, rest = leaf(words)
        unknown = {word.split("=")[0] for word in rest if word.startswith("--")} - options(command) - {"--help"}
        assert not unknown, f"`accord {mention}` has unknown options"


def every_command(command: Any = CLI, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


@pytest.mark.parametrize(
    ("path", "command"), list(every_command()), ids=lambda value: value if type(value) is str else ""
)
def test_every_command_and_option_is_documented(path, command):
    rows = [r for r in page("docs/operations.md").splitlines() if re.match(rf"\| `accord {path}[ `]", r)]
    assert len(rows) == 1, f"docs/operations.md has {len(rows)} rows about 'accord {path}'"
    shown = set(re.findall(r"`(--?[a-z-]+)`", rows[0]))
    assert shown == options(command)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    assert len(re.findall(r"[A-Z]+", rows[0].split("`")[1])) == len(arguments)


# --- settings, states, errors, metrics


def in_code(text: str) -> set[str]:
    """Every word that stands between backticks or in a code block."""
    return {word for code in re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL) for word in re.findall(r"[\w.]+", code)}


def keys(*models: type) -> set[str]:
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def test_every_policy_key_is_documented():
    known = {word for key in in_code(page("docs/policy.md")) for word in key.split(".")}
    assert keys(Policy, Partner, Rule, AssistantRule, Approver, Budget, Record, Terms) <= known


def test_the_policy_example_is_a_policy():
    example = re.search(r"```toml\n(.*?)```", page("docs/policy.md"), re.DOTALL)
    assert example is not None
    document = tomllib.loads(re.sub(r'"[0-9a-f]{4}\.\.\.[^"]*"', f'"{"0" * 64}"', example[1]))
    assert keys(Policy) == set(document)
    assert keys(Rule) == set(document["allow"][0])


def test_every_setting_of_a_silo_is_documented():
    assert keys(SiloConfig) - {"limits"} | {f"limits.{k}" for k in keys(NodeLimits)} <= in_code(
        page("docs/operations.md")
    )


def request_keys() -> set[str]:
    sections = {"align": Align, "encoding": Encoding, "evaluate": Evaluate, "limits": Limits, "statistics": Figures}
    dotted = {f"{name}.{key}" for name, model in sections.items() for key in keys(model)}
    dotted |= {f"train.{key}" for key in keys(GlmTrain, TreesTrain, NetworkTrain)}
    lists = {
        "parties": (Trainer, Matcher, Measurer, Predictor, Examined),
        "stability": (Stability,),
        "parties.features": (Feature,),
        "parties.sums": (Sum,),
        "align.keys": (Key,),
    }
    dotted |= {f"{name}.{key}" for name, models in lists.items() for key in keys(*models)}
    short = {"valid_for_s", "parties.key", "align.identifier", "align.region"}
    return keys(*KINDS.values()) - {*sections, "train"} | dotted | short


def test_every_request_and_spec_key_is_documented():
    missing = request_keys() - in_code(page("docs/job.md"))
    assert not missing


def test_the_defaults_in_the_page_are_those_of_the_code():
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `([\w.]+)` \|.*$", page("docs/job.md"), re.MULTILINE)}
    defaults = {
        (f"{name}.{key}", str(value))
        for sections in request._SECTIONS.values()
        for name, section in sections.items()
        for key, value in section.items()
    }
    defaults |= {(key, str(plain[key])) for plain in request._PLAIN.values() for key in ("randomness",) if plain[key]}
    defaults |= {("kind", request._DEFAULT_KIND), ("links", "auto"), ("valid_for_s", str(request.DEFAULT_VALID_FOR_S))}
    for key, value in defaults:
        shown = rows[key].split("|")[3].strip()
        assert shown.strip("`") == value or f"`{value}`" in shown, f"default of {key}"


@pytest.mark.parametrize("name", ["README.md", "docs/job.md"])
def test_the_request_in_the_page_is_a_request(name):
    (example,) = re.findall(r"```toml\n(.*?)```", page(name), re.DOTALL)
    now = request.utcnow()
    spec = request.build_spec(tomllib.loads(example), job="0" * 32, now=now, salt="0" * 32)
    assert parse_spec(spec.document()) == spec


def test_every_state_and_event_is_documented():
    assert {state.value for state in State} - {"absent"} <= in_code(page("docs/job.md"))
    assert verify.EVENTS.keys() <= in_code(page("docs/audit.md"))


def test_every_check_of_the_verifier_is_documented():
    rows = re.findall(r"^\| ([a-zN ]+) \|", page("docs/audit.md"), re.MULTILINE)
    source = ast.parse(page("silos/verify.py"))
    run = [n for n in ast.walk(source) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    named = {c.args[0].value for c in run if c.func.attr == "run" and isinstance(c.args[0], ast.Constant)}
    rules = next(n for n in ast.walk(source) if isinstance(n, ast.FunctionDef) and n.name == "rules_of")
    pairs = [n.elts[0] for n in ast.walk(rules) if isinstance(n, ast.Tuple) and len(n.elts) == 2]
    named |= {e.value for e in pairs if isinstance(e, ast.Constant)}
    assert len(named) > 10
    assert named | {"entry N", "result N"} <= set(rows)


def error_classes() -> set[str]:
    """Every class of ours that is raised: its name ends in Error, or its base is an exception."""
    found: set[str] = set()
    classes = [
        node
        for package in ("coordinator", "mpc", "silos", "vertical")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    while True:
        more = {c.name for c in classes if {ast.unparse(b) for b in c.bases} & (found | {"Exception", "ValueError"})}
        if more <= found:
            return found
        found |= more


def test_every_error_class_is_documented():
    assert len(error_classes()) > 25
    missing = error_classes() - in_code(page("docs/job.md"))
    assert not missing


def test_every_metric_is_documented():
    shown = in_code(page("docs/operations.md"))
    for metric in Metrics().registry.collect():
        suffix = "_total" if metric.type == "counter" else ""
        assert metric.name + suffix in shown


@pytest.mark.parametrize("matching", list(MATCHINGS))
@pytest.mark.parametrize("randomness", list(SUPPLIES))
@pytest.mark.parametrize("kind", list(PROTOCOLS))
def test_everything_a_job_reveals_is_in_the_threats_page(kind, randomness, matching):
    text = page("THREATS.md")
    assert f"### `{kind}`" in text
    for reveals in load_reveals(kind, matching, randomness).values():
        for reveal in reveals:
            assert f"\n| `{reveal.name}` |" in text, reveal.name


# --- pages


@pytest.mark.parametrize("name", names(PAGES))
def test_links_between_pages_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page(name)):
        if "://" not in target:
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "THREATS.md"])
def test_files_named_in_pages_exist(name):
    for path in re.findall(r"`((?:coordinator|mpc|silos|vertical|tests|docs)/[\w/.]+\.\w+)`", page(name)):
        assert (ROOT / path).exists(), f"{name} names {path}"


def test_decision_records_are_short_and_numbered():
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for number, record in enumerate(records, 1):
        text = record.read_text(encoding="utf-8")
        assert record.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number:04d} ")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert text.count("\n") <= 45


# --- deployment files


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictSUIDSGID": "yes",
    "UMask": "0077",
    "LimitCORE": "0",
}


@pytest.mark.parametrize("name", names(UNITS))
def test_a_unit_runs_a_command_that_exists_as_an_ordinary_user(name, monkeypatch):
    service = unit(ROOT / name)["Service"]
    program, *arguments = shlex.split(service["ExecStart"].replace("%i", "lender"))
    assert program == "/opt/accord/bin/accord"
    accept(arguments, monkeypatch)
    assert service["User"] not in ("", "root")
    assert {key: service[key] for key in HARDENING} == HARDENING
    assert arguments[arguments.index("--home") + 1].startswith(f"/var/lib/{service['StateDirectory'].split()[0]}/")


def test_only_the_coordinator_forbids_executable_memory():
    """Workers compile kernels; a unit that forbade it would let every job fail."""
    forbids = {path.name: "MemoryDenyWriteExecute" in unit(path)["Service"] for path in UNITS}
    assert forbids == {"accord-coordinator.service": True, "accord-silo@.service": False}


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def test_compose_has_one_coordinator_three_silos_and_a_dealer():
    services = compose()["services"]
    assert set(services) == {"coordinator", "lender", "platform", "retailer", "dealer"}
    serving = [service["command"][0] for service in services.values()]
    assert sorted(serving) == ["coordinator", "silo", "silo", "silo", "silo"]


def test_compose_commands_are_accepted_and_services_confined(monkeypatch):
    document = compose()
    for name, service in document["services"].items():
        accept(service["command"], monkeypatch)
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "ports" not in service, f"{name} opens a port to the outside"
        volumes = [volume.split(":")[0] for volume in service["volumes"]]
        assert {v for v in volumes if not v.startswith(".")} <= document["volumes"].keys(), name
        assert set(service["networks"]) <= document["networks"].keys(), name


def test_silos_in_compose_share_nothing_but_the_coordinator():
    services = compose()["services"]
    silos = {name: service for name, service in services.items() if name != "coordinator"}
    for kind in ("networks", "volumes"):
        used = [item for silo in silos.values() for item in silo[kind]]
        assert len(set(used)) == len(used), kind
    assert {network for silo in silos.values() for network in silo["networks"]} == set(
        services["coordinator"]["networks"]
    )


def test_the_image_has_the_packages_and_an_ordinary_user():
    text = DOCKERFILE.read_text(encoding="utf-8")
    copied = {word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    project = tomllib.loads(page("pyproject.toml"))
    packages = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    assert packages | {"pyproject.toml", project["project"]["readme"], "LICENSE"} == copied
    assert all((ROOT / name).exists() for name in copied)
    users = re.findall(r"^USER (\w+)$", text, re.MULTILINE)
    assert users
    assert "root" not in users
    assert 'ENTRYPOINT ["accord"]' in text
    assert set(project["project"]["scripts"]) == {"accord"}
