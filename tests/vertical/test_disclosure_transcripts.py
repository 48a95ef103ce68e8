"""What a job's disclosure says each party learns is what the messages that it receives tell it, for every kind of job.

Each job of JOBS is run from its spec to its results, with every message recorded.  Then, for each party: every tag that it
receives is in `mpc.messages.SILENT`, or a line that it was shown names it; and a message of every line that names some comes.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.engine import reveal, reveal_to, share_from
from mpc.messages import FOR_NO_JOB, KNOWN, SILENT, UNIFORM
from mpc.wire import Kind
from silos.disclosure import MATCHINGS, PROTOCOLS, SUPPLIES, disclosure, messages
from silos.spec import Glm
from silos.spec_training import GlmTrain
from silos.worker import may_be_told
from tests.declared import all_reveals
from tests.mpc.transcripts import tags
from tests.silos.world import make_spec
from tests.vertical.job_runs import N_COMMON, OWNERS, Played, people, play

ROOT = Path(__file__).parents[2]

KEYS = [{"silo": silo, "dataset": "data", "key": "email"} for silo in OWNERS]
LENDER, PLATFORM = ["a", {"column": "c", "as": "category"}], ["b", "d"]
MATCH = {"kind": "vertical.match", "dealer": None, "parties": KEYS[:2], "align": {"minimum_matches": 5}}
MEASURE = {**MATCH, "kind": "vertical.measure", "dealer": "dealer"}


def trained(kind: str, label: str, release: str, *, groups: str | None = None, **more: Any) -> dict[str, Any]:
    """A request for a model of two owners' columns."""
    first = {**KEYS[0], "label": label, "features": LENDER, **({"groups": [groups]} if groups else {})}
    return {
        "kind": f"vertical.{kind}",
        "parties": [first, {**KEYS[1], "features": PLATFORM}],
        "align": {"protocol": "ecdh-psi", "minimum_matches": 20},
        "encoding": {"rare_category": 5},
        "release": release.split(),
        **more,
    }


def matched(protocol: str, owners: int = 2, **more: Any) -> dict[str, Any]:
    """A request for matched rows."""
    return {**MATCH, "parties": KEYS[:owners], "align": {"protocol": protocol, "minimum_matches": 5}, **more}


def scored(output: str, **more: Any) -> dict[str, Any]:
    """A request for predictions; the model is put in when it is there."""
    parties = [{**party, "features": features} for party, features in zip(KEYS, (LENDER, PLATFORM), strict=False)]
    return {
        "kind": "vertical.score",
        "parties": parties,
        "align": {"protocol": "ecdh-psi", "minimum_matches": 20},
        "model": "ab" * 16,
        "output": output,
        "recipients": ["lender"],
        **more,
    }


SMALL_TREES = {"trees": 2, "depth": 2, "bins": 8}
SMALL_NETWORK = {"hidden": [3], "epochs": 1, "batch": 64}
TWO_KEYS = [{"silo": silo, "dataset": "data", "keys": ["email", "second"]} for silo in OWNERS[:2]]
SUMMED = [
    {**KEYS[0], "sums": [{"column": "cents", "lowest": "-50", "highest": "50"}]},
    {**KEYS[1], "sums": [{"column": "units", "lowest": "0", "highest": "9"}]},
]
JOBS: Mapping[str, dict[str, Any]] = {
    "glm": trained("glm", "y", "coefficients inference model auc contribution metrics counts", groups="c"),
    "glm plain": trained("glm", "y", "coefficients auc", train={"passes": 8}),
    "glm verified": trained("glm", "y", "coefficients auc", train={"passes": 2}, randomness="verified-dealer"),
    "glm ot": trained("glm", "y", "coefficients auc metrics", train={"passes": 1}, randomness="ot", dealer=None),
    "glm linear": trained("glm", "amount", "coefficients inference metrics", train={"family": "linear"}),
    "glm lasso": trained("glm", "y", "coefficients auc", train={"lasso": "2"}),
    "glm linear lasso": trained("glm", "amount", "coefficients", train={"family": "linear", "lasso": "2"}),
    "glm poisson": trained("glm", "count", "coefficients inference metrics", train={"family": "poisson"}),
    "glm gamma": trained("glm", "positive", "coefficients inference metrics", train={"family": "gamma"}),
    "glm tweedie": trained(
        "glm", "positive", "coefficients metrics", train={"family": "tweedie", "power": "1.5", "passes": 8}
    ),
    "glm multinomial": trained(
        "glm", "level", "coefficients model metrics", train={"family": "multinomial", "passes": 4}
    ),
    "trees": trained(
        "trees", "y", "model auc contribution metrics", train={**SMALL_TREES, "validation": 20, "patience": 1}
    ),
    "trees revealed": trained("trees", "y", "model", train={**SMALL_TREES, "routing": "revealed"}),
    "trees squared": trained("trees", "amount", "metrics", train={**SMALL_TREES, "objective": "squared"}),
    "trees poisson": trained("trees", "count", "metrics", train={**SMALL_TREES, "objective": "poisson"}),
    "network": trained("network", "y", "model auc contribution metrics", train=SMALL_NETWORK),
    "network classes": trained(
        "network", "level", "model metrics", train={**SMALL_NETWORK, "task": "multiclass", "classes": 3}
    ),
    "network regression": trained("network", "amount", "model metrics", train={**SMALL_NETWORK, "task": "regression"}),
    "statistics": trained(
        "statistics", "y", "label_correlations correlations vif woe information_values selection counts"
    ),
    "statistics plain": trained("statistics", "y", "vif"),
    "statistics woe": trained("statistics", "y", "woe"),
    "selection logistic": trained("statistics", "y", "selection", statistics={"family": "logistic"}),
    "match ecdh": matched("ecdh-psi"),
    "match vole": matched("vole-psi"),
    "match malicious": matched("vole-psi-malicious"),
    "match tokens": matched("oprf-psi"),
    "match kept tokens": matched("oprf-psi", keep_tokens=True),
    "match helper": matched("helper-psi", owners=3, helper="helper"),
    "match star": matched("vole-psi", owners=3),
    "match counted first": matched("vole-psi", count_first=True, randomness="dealer", dealer="dealer"),
    "match two keys": {
        **MATCH,
        "parties": TWO_KEYS,
        "align": {"minimum_matches": 5, "keys": ["email/v1", "text/v1"], "duplicates": "expand"},
    },
    "measure": {**MEASURE, "parties": SUMMED, "release": ["matches", "sums"]},
    "measure sums": {**MEASURE, "parties": SUMMED, "release": ["sums"]},
    "measure rounded": {**MEASURE, "round_to": 10},
    "measure noised": {**MEASURE, "epsilon": "1"},
    "measure ecdh": {**MEASURE, "dealer": None, "align": {"protocol": "ecdh-psi", "minimum_matches": 5}},
    "score decision": scored("decision", cuts=["0.5"]),
    "score decile": scored("decile", cuts=["0.2", "0.5"], recipients=["lender", "platform"]),
    "score rounded": scored("rounded", low="0", high="1", step="0.1"),
    "score probability": scored("probability"),
    "score online": scored("decision", cuts=["0.5"], questions=3),
    "score stability": scored(
        "decision",
        cuts=["0.5"],
        stability={"cuts": ["0"], "expected": ["0.5", "0.5"], "minimum": 10},
        release=["predictions", "stability"],
    ),
    "score class": scored("decision"),
    "score trees": scored("decision", cuts=["0.5"]),
    "score network": scored("probability"),
}
MODELS = {"score class": "glm multinomial", "score trees": "trees", "score network": "network"}
"""Of a job that predicts, the one that made its model, if that is not "glm"."""

SOMETIMES = {"metrics.range": "glm linear", "score.inputs": "score network"}
"""Lines of which a message comes in some runs only, and a job in which it does."""

WITHOUT_MESSAGE: Mapping[str, str] = {
    "counts": "follows from the matching",
    "linkage.keys": "follows from the matching",
    "linkage.early-items": "follows from the matching",
    "match.places": "follows from the matching",
    "star.together": "needs owners that put together what they have",
    **dict.fromkeys(
        ("psi.traffic", "matching.traffic", "star.traffic", "hidden.traffic", "delegated.traffic", "tokens.traffic"),
        "the sizes of encrypted messages",
    ),
    "linkage.traffic": "the sizes of encrypted messages",
}
"""Lines that no message is named for, and why."""
BESIDE_OTHERS: frozenset[str] = frozenset(
    {
        "intercept",
        "intercept-error",
        "sparse.zeros",
        "hessians",
        "label.classes",
        "selection.coefficients",
        "metrics.gains",
    }
    | {"trees.scale", "network.columns", "network.rows", "woe.positives", "woe.sizes", "hidden.shapes", "star.minima"}
    | {"matching.sizes", "matching.progress", "matching.matches", "matching.early-rows"}
    | {"tokens.matches", "tokens.early-rows", "tokens.kept", "delegated.minima", "delegated.sizes"}
)
"""Lines all of whose messages other lines of the same party name too."""

Play = Callable[[str], Played]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Runs a job of JOBS, once."""
    done: dict[str, Played] = {}

    def one(name: str) -> Played:
        if name not in done:
            model = one(MODELS.get(name, "glm")) if name.startswith("score") else None
            parts = None if model is None else {silo: model.results[silo]["part"] for silo in OWNERS[:2]}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("silos.questions.serve", ask_two)
                done[name] = play(tmp_path_factory.mktemp("job"), JOBS[name], parts=parts)
        return done[name]

    return one


def ask_two(_: Any, online: Any, __: Any, **___: Any) -> None:
    """The recipient of an online job asks for two rows."""
    online.ask(0)
    online.wait()
    online.ask(3)
    online.end()


def heard(played: Played, silo: str) -> set[str]:
    """Tags of messages to a party that may tell it something."""
    return {m.tag for m in played.run.transcript if m.receiver == silo} - SILENT.keys()


Lines = Mapping[str, Mapping[str, frozenset[str]]]


def differences(played: Played, shown: Lines | None = None) -> list[str]:
    """What the transcript and the disclosure do not agree in, as sentences; none if they do."""
    out = []
    for silo, lines in (messages(played.spec) if shown is None else shown).items():
        tags = heard(played, silo)
        named = frozenset().union(*lines.values())
        out += [f"{silo} receives '{tag}', which no line names" for tag in sorted(tags - named)]
        for name, by in lines.items():
            if by and not by & tags and name not in SOMETIMES:
                out.append(f"{silo} is told that it learns '{name}', and no message of it comes")
    return out


@pytest.mark.parametrize("name", JOBS)
def test_the_disclosure_is_what_the_messages_tell(name, played):
    job = played(name)
    assert differences(job) == []
    shown = {(line["silo"], line["name"]) for line in disclosure(job.spec)["lines"] if line["silo"] != "coordinator"}
    assert shown == {(silo, name) for silo, lines in messages(job.spec).items() for name in lines}
    allowed = may_be_told(job.spec)
    assert all(m.tag in allowed[m.receiver] for m in job.run.transcript), "the links of a worker would not send it"


def test_every_kind_of_job_and_every_matching_and_source_of_randomness_is_run():
    specs = [make_spec(**{"dealer": "dealer", **request}) for request in JOBS.values()]
    assert {spec.kind for spec in specs} == set(PROTOCOLS)
    assert {spec.matching for spec in specs} == set(MATCHINGS)
    assert {spec.randomness for spec in specs} - {None} == set(SUPPLIES)
    assert {spec.train.family for spec in specs if isinstance(spec, Glm)} == set(
        GlmTrain.model_fields["family"].annotation.__args__
    )
    told = {item for spec in specs for item in spec.release}
    kinds = {kind: next(s for s in specs if s.kind == kind) for kind in PROTOCOLS}
    assert told >= {
        i for spec in kinds.values() for i in type(spec).model_fields["release"].annotation.__args__[0].__args__
    }


def test_every_line_is_shown_in_some_job_and_says_by_which_messages_or_why_by_none(played):
    shown = {name for job in JOBS for lines in messages(played(job).spec).values() for name in lines}
    assert shown == {r.name for r in all_reveals() if r.to != "coordinator"}
    assert {r.name for r in all_reveals() if not r.tags} == WITHOUT_MESSAGE.keys()
    for name, job in SOMETIMES.items():
        assert any(lines[name] & heard(played(job), silo) for silo, lines in messages(played(job).spec).items())


# --- it fails when a message is added, and when a declaration is taken away ---


def one_more(patch: pytest.MonkeyPatch, target: str, send: Callable[..., None]) -> None:
    """Let a function of every owner that begins with the session do something before."""
    module, _, name = target.rpartition(".")
    before = getattr(importlib.import_module(module), name)

    def after(session: Any, *args: Any, **named: Any) -> Any:
        send(session)
        return before(session, *args, **named)

    patch.setattr(target, after)


def under_a_tag_of_its_own(session: Any) -> None:
    session.open_words("extra/count", np.ones(1, dtype=np.uint64))


def under_a_tag_that_another_job_declares(session: Any) -> None:
    session.open_words("measure/count", np.ones(1, dtype=np.uint64))


def by_the_engine(session: Any) -> None:
    reveal(share_from(0, [1.0] if session.me == 0 else None, (1,), 20))


def to_one_party(session: Any) -> None:
    reveal_to(share_from(0, [1.0] if session.me == 0 else None, (1,), 20), 1)


def whether_something_is_negative(session: Any) -> None:
    reveal_negative(session, session.correlations.plan(plan_reveal_negative(1)), np.ones(1, dtype=np.uint64))


@pytest.mark.parametrize(
    ("send", "tag", "hear"),
    [
        (under_a_tag_of_its_own, "extra/count", OWNERS[:2]),
        (under_a_tag_that_another_job_declares, "measure/count", OWNERS[:2]),
        (by_the_engine, "crypten/result", OWNERS[:2]),
        (to_one_party, "crypten/result-to", OWNERS[1:2]),
        (whether_something_is_negative, "compare/reveal", OWNERS[:2]),
    ],
)
def test_a_message_that_is_added_is_noticed(send, tag, hear, tmp_path, monkeypatch):
    one_more(monkeypatch, "vertical.statistics.statistics", send)
    job = play(tmp_path, JOBS["statistics plain"])
    assert differences(job) == [f"{silo} receives '{tag}', which no line names" for silo in hear]


def test_a_declaration_that_is_taken_away_is_noticed(played):
    """But where other lines of the same party name all its messages; then their words must say both."""
    noticed = set()
    for job in map(played, JOBS):
        shown = messages(job.spec)
        for line in {name for lines in shown.values() for name in lines} - noticed:
            left = {silo: {n: by for n, by in lines.items() if n != line} for silo, lines in shown.items()}
            if differences(job, left):
                noticed.add(line)
    assert {r.name for r in all_reveals() if r.tags} - noticed == BESIDE_OTHERS


def test_a_line_that_nothing_comes_of_is_noticed(played):
    job = played("match ecdh")
    more = {silo: {**lines, "rumour": frozenset({"rumour/told"})} for silo, lines in messages(job.spec).items()}
    assert differences(job, more) == [
        f"{silo} is told that it learns 'rumour', and no message of it comes" for silo in OWNERS[:2]
    ]


# --- what is opened is what the result says ---


def opened(job: Played, tag: str) -> list[int]:
    """What two owners opened to each other under a tag: the sums of their shares, read as signed."""
    shares = {
        silo: np.concatenate(
            [np.frombuffer(m.body, dtype="<u8") for m in job.run.transcript if (m.sender, m.tag) == (silo, tag)]
        )
        for silo in OWNERS[:2]
    }
    return (shares["lender"] + shares["platform"]).view(np.int64).tolist()


def numbers_to(job: Played, silo: str, tag: str) -> int:
    """How many ring words a party was sent under a tag."""
    return sum(m.size for m in job.run.transcript if (m.receiver, m.tag) == (silo, tag)) // 8


def test_what_a_measurement_opens_is_its_result(played):
    job, data = played("measure"), people()
    own = {silo: {mail: i for i, mail in enumerate(data[silo]["email"])} for silo in OWNERS[:2]}
    both = sorted(own["lender"].keys() & own["platform"].keys())
    sums = [
        int(sum(data[silo][column][own[silo][mail]] for mail in both))
        for silo, column in (("lender", "cents"), ("platform", "units"))
    ]
    assert opened(job, "measure/few") == [0]
    assert opened(job, "measure/count") == [len(both)] == [job.results["lender"]["matches"]]
    assert opened(job, "measure/sums") == sums == [int(one["sum"]) for one in job.results["lender"]["sums"]]
    (rounded,) = opened(played("measure rounded"), "measure/rounded")
    assert rounded * 10 == played("measure rounded").results["platform"]["matches"] == N_COMMON
    noised = played("measure noised")
    assert opened(noised, "measure/count") == [noised.results["lender"]["matches"]]


def test_what_a_matching_sends_gives_the_matched_rows_and_no_others(played):
    """Of each owner's tags, those that it gets back and those that it makes of the other one's points: as many meet."""
    for name, matches in (("match ecdh", "counts"), ("measure ecdh", "matches")):
        job = played(name)
        sets = [
            {m.body[i : i + 16] for m in job.run.transcript if (m.receiver, m.tag) == (silo, "psi/tags")
             for i in range(0, m.size, 16)}
            for silo in OWNERS[:2]
        ]  # fmt: skip
        told = job.results["lender"][matches]
        assert len(sets[0] & sets[1]) == (told["matched"] if name == "match ecdh" else told) == N_COMMON
        ordered = {m.tag for m in job.run.transcript} & {"psi/order"}
        assert bool(ordered) == (name == "match ecdh"), "which rows they are is told by the order alone"


def test_a_model_opens_to_each_owner_as_many_numbers_as_it_has_coefficients(played):
    job = played("glm")
    for silo, extra in (("lender", 1), ("platform", 0)):
        inputs = len(job.results[silo]["model"]["inputs"])
        assert numbers_to(job, silo, "inference/variances") == inputs + extra
        assert numbers_to(job, silo, "inference/flags") == 2 * (inputs + extra)
        assert numbers_to(job, silo, "glm/weights") <= inputs + extra, "one for each independent column"
    assert job.results["platform"]["model"]["intercept"] is None
    figures, (positives,) = job.results["platform"]["metrics"], opened(job, "metrics/bins")[-1:]
    assert positives == figures["positives"]
    reached = opened(job, "metrics/confusion")
    assert len(reached) == 2 * len(figures["confusion"])
    splits = played("trees").results["lender"]
    assert "coefficients" not in splits


FIELDS: Mapping[str, str] = {
    "checkpoint/agree": "kept nonce plan seed",
    "contribution/told": "",
    "evaluate/auc": "",
    "family/scale": "scale",
    "glm/shape": "alike inputs label size",
    "linear/shape": "facts facts.bound facts.scale inputs rows size",
    "losses/label": "",
    "metrics/request": "asked own",
    "multinomial/shape": "facts facts.classes inputs rows size",
    "network/shape": "inputs label rows",
    "score/model": "",
    "score/shape": "columns frac_bits shape",
    "segments/names": "",
    "sparse/shape": "facts inputs rows size",
    "statistics/names": "",
    "statistics/shape": "asked columns label rank rows",
    "stepwise/shape": "asked columns label rows",
    "trees/score": "exponent objective owners place rows",
    "trees/shape": "bins features label missing monotone rows settings",
    "woe/shape": "asked positives sizes",
    "woe/values": "",
}
"""What messages that hold several things say.  Of "asked" and "settings" a receiver checks that they are its own."""


def fields(value: Any, before: str = "") -> set[str]:
    """Names in a document, those within one after its name and a point."""
    if not isinstance(value, dict):
        return set()
    inner = {name for key in value.keys() - {"asked", "settings"} for name in fields(value[key], f"{before}{key}.")}
    return inner | {before + key for key in value}


def test_a_message_that_says_several_things_says_these(played):
    """A further field in a message that there is already needs a line, too, and a look at this table."""
    said: dict[str, set[str]] = {}
    for message in (m for name in JOBS for m in played(name).run.transcript if m.kind is Kind.JSON):
        if message.receiver not in ("dealer", "helper"):
            said.setdefault(message.tag, set()).update(fields(json.loads(message.body)))
    assert {tag: " ".join(sorted(names)) for tag, names in said.items()} == FIELDS


@pytest.mark.parametrize("name", ["glm linear lasso", "statistics plain", "trees revealed", "measure noised"])
def test_sizes_and_order_of_messages_follow_from_public_sizes(name, played, tmp_path):
    """Other values in as many rows and columns: the same messages, but for the text of what all are told."""

    def shape(job: Played) -> list[tuple[Any, ...]]:
        return [(s, r, tag, 0 if kind is Kind.JSON else size) for s, r, tag, kind, size in job.run.shape()]

    assert shape(play(tmp_path, JOBS[name], people(seed=2))) == shape(played(name))


# --- the tags ---


def sources(*packages: str) -> Iterator[tuple[str, str]]:
    """Path and text of every module; of silos those that send something on a link."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if path != ROOT / "mpc/messages.py" and (package != "silos" or "from mpc.wire import" in text):
                yield str(path.relative_to(ROOT)), text


def test_every_tag_is_of_one_class():
    known = {tag for path, text in sources("mpc", "vertical", "silos") for tag in tags(text, path)}
    declared = {tag for reveal in all_reveals() for tag in reveal.tags}
    classes = (UNIFORM.keys(), KNOWN.keys(), FOR_NO_JOB.keys(), declared)
    assert known == set().union(*classes)
    assert sum(map(len, classes)) == len(known)


def test_what_is_called_uniform_is_sent_by_the_protocols_that_make_it_so():
    """Nothing else opens a secret under a tag that tells nothing."""
    outside = {(path, tag) for path, text in sources("vertical", "silos") for tag in tags(text, path) if tag in UNIFORM}
    assert outside == {("vertical/network_layers.py", "matrix/mask")}


OPENING = {"reveal": 3, "reveal_to": 4, "reveal_negative": 3, "reveal_less_than": 4, "open_any": 2, "Range": None}
"""Functions that open something on purpose, and where they take the tag."""


def test_whatever_is_opened_on_purpose_has_a_tag():
    calls = [
        (path, node)
        for path, text in sources("vertical")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
    ]
    for path, call in calls:
        named = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        where = f"{path}, line {call.lineno}"
        assert not (isinstance(call.func, ast.Attribute) and named in ("reveal", "get_plain_text")), where
        if named == "Domain":
            checked = next((k.value for k in call.keywords if k.arg == "checked"), None)
            never = isinstance(checked, ast.Constant) and checked.value is False
            assert never or any(k.arg == "tag" for k in call.keywords), f"{where}: 'Domain' is checked under no tag"
        if named in OPENING:
            at = OPENING[named]
            tagged = any(k.arg == "tag" for k in call.keywords) or (at is not None and len(call.args) > at)
            assert tagged, f"{where}: '{named}' opens under no tag"
