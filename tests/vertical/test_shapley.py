"""Contributions on shares against the plain computation with the same rotations."""

import dataclasses
import json
from itertools import combinations
from math import factorial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mpc.engine import from_words, reveal
from mpc.errors import LocalProtocolError, RemoteProtocolError
from silos.disclosure import disclosure
from silos.errors import SpecError
from silos.report import report
from silos.spec_training import MOST_CONTRIBUTORS
from silos.summary import summary
from tests.silos.world import make_spec
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.job_runs import OWNERS, play
from tests.vertical.test_disclosure_transcripts import JOBS
from tests.vertical.tree_runs import labels, table
from vertical.families import Rows
from vertical.learners import GlmLearner, NetworkLearner, TreesLearner
from vertical.network import Settings as Network
from vertical.regression import Settings as Glm
from vertical.scores import Scores
from vertical.shapley import MOST_OWNERS, shapley, turned, weights
from vertical.trees.settings import Settings as Trees

BOUND = 64.0


def clear(value, owners):
    """Shapley values by the definition, from the value of each set of owners."""
    out = []
    for i in range(owners):
        others = [j for j in range(owners) if j != i]
        total = 0.0
        for size in range(owners):
            weight = factorial(size) * factorial(owners - size - 1) / factorial(owners)
            total += weight * sum(value({*s, i}) - value({*s}) for s in combinations(others, size))
        out.append(total)
    return out


def turns(n, owners):
    """Another rotation for each owner."""
    return [np.roll(np.arange(n), 17 * (i + 1)) for i in range(owners)]


def area(parts, y, absent):
    """The value of a set of owners, where scores are sums of their parts."""
    return lambda there: roc_auc_score(y, sum(p if i in there else p[absent[i]] for i, p in enumerate(parts)))


def secure(parts, y, absent, active=0, **options):
    def owner(i):
        def score(rows):
            return Scores.of_part(parts[i][rows], BOUND, len(parts))

        return lambda session: shapley(session, score, absent[i], y if i == active else None, active)

    return run_owners([owner(i) for i in range(len(parts))], **options)


def made(n, owners, seed):
    """Parts of scores on a grid that shares hold exactly, some equal, and labels that they make."""
    rng = np.random.default_rng(seed)
    parts = [np.round(rng.normal(size=n) * (i + 1), 1 + i % 2) for i in range(owners)]
    parts = [np.round(part * 2**8) / 2**8 for part in parts]
    return parts, (rng.random(n) < 1 / (1 + np.exp(-sum(parts)))).astype(float)


@pytest.mark.parametrize(("owners", "active", "n"), [(2, 0, 400), (2, 1, 61), (3, 2, 200), (4, 0, 60)])
def test_values_are_those_of_the_definition(owners, active, n):
    parts, y = made(n, owners, owners)
    names = ("lender", "platform", "shop", "bureau")[:owners]
    absent = turns(n, owners)
    run = secure(parts, y, absent, active) if owners < 4 else four(parts, y, absent)
    value = area(parts, y, absent)
    want = [f"{x:.4f}" for x in clear(value, owners)]
    for name in names:
        assert [float(x) for x in run[name]] == pytest.approx([float(x) for x in want], abs=1e-9)
    assert sum(map(float, run["lender"])) == pytest.approx(value(set(range(owners))) - value(set()), abs=1e-4 * owners)


def four(parts, y, absent):
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.session import Session
    from tests.harness import run_parties

    names = (*NAMES, "bureau")

    def party(i):
        def body(channel):
            session = Session(channel, names, i, Correlations(channel, "dealer", i, len(names)))
            with bind(session):
                told = shapley(
                    session,
                    lambda rows: Scores.of_part(parts[i][rows], BOUND, len(parts)),
                    absent[i],
                    y if i == 0 else None,
                    0,
                )
            session.correlations.close()
            return told

        return body

    return run_parties(
        {**{name: party(i) for i, name in enumerate(names)}, "dealer": lambda channel: run_dealer(channel, names)}
    )


def test_an_owner_of_noise_contributes_nothing_and_an_owner_of_all_contributes_all():
    rng = np.random.default_rng(3)
    signal = rng.normal(size=1000) * 2
    y = (rng.random(1000) < 1 / (1 + np.exp(-signal))).astype(float)
    run = secure([signal, rng.normal(size=1000) / 20], y, turns(1000, 2))
    first, second = map(float, run["platform"])
    assert abs(second) < 0.01
    assert first == pytest.approx(roc_auc_score(y, signal) - 0.5, abs=0.06)
    run = secure([signal, np.zeros(1000)], y, turns(1000, 2))
    assert run["lender"][1] == "0.0000"


KINDS = {
    "glm": GlmLearner(Glm(family="logistic", passes=4)),
    "trees": TreesLearner(Trees(trees=2, depth=2)),
    "network": NetworkLearner(Network(task="binary", hidden=(3,), epochs=1, batch=64)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_each_kind_of_model_the_rows_of_an_absent_owner_are_turned_before_predicting(kind):
    """The values of all sets are opened here beside the protocol, and only here."""
    learner, absent = KINDS[kind], turns(300, 2)
    blocks = table(300, (3, 3), 1)
    y = labels(blocks)
    if kind != "trees":
        rng = np.random.default_rng(4)
        blocks = [rng.normal(size=(300, 2)) for _ in range(2)]
        y = (rng.random(300) < 1 / (1 + np.exp(-2 * blocks[0][:, 0] + blocks[1][:, 0]))).astype(float)

    def owner(i):
        def body(session):
            fitted = learner.train(session, blocks[i], Rows(y) if i == 0 else None, lambda *_: None, None)

            def score(rows):
                return learner.scores(session, fitted, learner.take(blocks[i], rows), None)

            told = shapley(session, score, absent[i], y if i == 0 else None, 0)
            shown = []
            for there in range(4):
                scores = score(np.arange(300) if there >> i & 1 else absent[i])
                shown.append(reveal(from_words(scores.words, scores.frac_bits)))
            return told, shown

        return body

    run = run_owners([owner(0), owner(1)])
    told, shown = run["lender"]
    assert told == run["platform"][0]
    want = clear(lambda there: roc_auc_score(y, shown[sum(1 << i for i in there)]), 2)
    assert [float(x) for x in told] == pytest.approx(want, abs=1e-3)
    assert max(abs(float(x)) for x in told) > 0.01


def test_weights_of_three_owners_are_those_of_the_formula():
    assert weights(3).tolist()[0] == [-2, 2, -1, 1, -1, 1, -2, 2]
    assert (weights(4).sum(axis=0)[1:-1] == 0).all()  # only all and none are left in the sum
    assert weights(4).sum(axis=0)[[0, -1]].tolist() == [-24, 24]


def test_rows_are_turned_and_none_stays_in_its_place():
    seen = set()
    for _ in range(40):
        places = turned(5)
        seen.add(int(places[0]))
        assert np.array_equal(places, (np.arange(5) + places[0]) % 5)
    assert seen <= {1, 2, 3, 4}
    assert len(seen) > 1


def test_only_the_owner_of_the_label_is_sent_exact_values_and_no_set_has_its_value_opened():
    parts, y = made(60, 2, 5)
    run = secure(parts, y, turns(60, 2))
    told = [m for m in run.transcript if m.tag.startswith(("contribution/", "evaluate/"))]
    assert [(m.sender, m.receiver, m.tag) for m in told] == [
        ("platform", "lender", "contribution/exact"),
        ("lender", "platform", "contribution/told"),
    ]
    assert [float(x) for x in json.loads(told[1].body)] == [float(x) for x in run["lender"]]


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ('["0.1000"]', "states no 2 contributions"),
        ('"0.1000"', "states no 2 contributions"),
        ('["0.1", "0.1000"]', "states no contributions of four decimals"),
        ('[0.1, "0.1000"]', "states no contributions of four decimals"),
        ('["1.0001", "0.1000"]', "states no contributions of four decimals"),
        ('["nan", "0.1000"]', "states no contributions of four decimals"),
    ],
)
def test_values_that_are_none_are_noticed(stated, why):
    def tamper(message):
        if message.tag != "contribution/told":
            return message
        return dataclasses.replace(message, body=stated.encode())

    parts, y = made(40, 2, 6)
    with pytest.raises(RemoteProtocolError, match=why):
        secure(parts, y, turns(40, 2), tamper=tamper)


def test_too_few_of_a_class_are_refused_before_anything_is_sent():
    y = np.zeros(100)
    y[:9] = 1
    with pytest.raises(LocalProtocolError, match="fewer than 10 held-out rows"):
        secure([np.zeros(100)] * 2, y, turns(100, 2))


# --- as an item of a job ---

TWO_CLASSES = "'contribution' is released of a model of two classes only"
MANY = {**JOBS["glm plain"], "dealer": "dealer", "align": {"protocol": "vole-psi", "minimum_matches": 20}}


def test_a_job_hands_it_out_to_all_owners_and_shows_it(tmp_path):
    third = {"silo": "bureau", "dataset": "data", "key": "email", "features": ["e"]}
    job = play(tmp_path, {**MANY, "parties": [*MANY["parties"], third], "release": ["auc", "contribution"]})
    first = job.results["lender"]
    assert all(job.results[silo] == first for silo in OWNERS)
    told = first["contribution"]
    assert list(told) == list(OWNERS)
    none = float(first["auc"]) - sum(map(float, told.values()))
    assert -1e-3 < none < 1 + 1e-3  # an area, too
    document = {"job": "ab" * 16, "silo": "lender", "result": first}
    shown = summary("Job", document)
    assert f"{'columns of':<40}{'part of AUC':>12}\n" in shown
    assert all(f"{silo:<40}{told[silo]:>12}\n" in shown for silo in OWNERS)
    page = report(document)
    assert "<h2>part of the AUC that is due to each owner&#x27;s columns</h2>" in page
    assert all(f'<tr><th>{silo}</th><td class="n">{told[silo]}</td></tr>' in page for silo in OWNERS)


def test_nobody_absent_is_no_contribution(tmp_path, monkeypatch):
    """If rows stay where they are, all sets of owners have the same area."""
    monkeypatch.setattr("vertical.job.turned", np.arange)
    job = play(tmp_path, {**JOBS["glm plain"], "release": ["contribution"]})
    assert job.results["platform"] == {"contribution": {"lender": "0.0000", "platform": "0.0000"}}


@pytest.mark.parametrize(
    ("job", "why"),
    [
        *((job, TWO_CLASSES) for job in ("glm poisson", "glm multinomial", "trees squared", "network classes")),
        ("glm ot", "'contribution' is released of jobs with a dealer only"),
    ],
)
def test_what_it_is_not_computed_for_is_refused_with_the_spec(job, why):
    request = {"dealer": "dealer", **JOBS[job], "release": ["contribution"]}
    with pytest.raises(SpecError, match=f"{why}$"):
        make_spec(**request)


def test_more_than_four_owners_are_refused():
    assert MOST_CONTRIBUTORS == MOST_OWNERS == 4
    more = [{**MANY["parties"][1], "silo": f"silo{i}"} for i in range(4)]
    request = {**MANY, "parties": [MANY["parties"][0], *more], "release": ["contribution"]}
    with pytest.raises(SpecError, match=r"'contribution' is released of jobs of up to 4 owners, got 5$"):
        make_spec(**request)
    spec = make_spec(**{**request, "parties": request["parties"][:4]})
    lines = [(line["silo"], line["name"]) for line in disclosure(spec)["lines"] if "contribution" in line["name"]]
    assert lines == [("lender", "contribution.exact"), *((f"silo{i}", "contribution.told") for i in range(3))]
