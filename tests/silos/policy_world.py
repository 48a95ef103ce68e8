"""Jobs of every kind in which every column has its own name, policies that permit them, and strategies for many more."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from silos.errors import ConfigError
from silos.plan import Plan
from silos.policy import Policy
from silos.policy_rules import PERMISSIONS
from silos.request import build_spec
from silos.spec import Spec
from silos.validation import validate
from tests.silos.world import JOB, NOW, SALT

PINS = {"lender": "c" * 64, "platform": "a" * 64, "dealer": "b" * 64, "helper": "d" * 64}
MONDAY_NOON = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
OWNERS: Mapping[str, Any] = {"lender": ("loans", "email"), "platform": ("usage", "mail")}


def _parties(lender: dict[str, Any], platform: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"silo": "lender", "dataset": "loans", "key": "email", **lender},
        {"silo": "platform", "dataset": "usage", "key": "mail", **platform},
    ]


_FEATURES = {"features": ["LIMIT", {"column": "SEX", "as": "category"}]}, {"features": ["VISITS"]}
_TRAINED = _parties({**_FEATURES[0], "label": "default"}, _FEATURES[1])
_BASE = {"purpose": "credit risk", "dealer": "dealer"}

REQUESTS: Mapping[str, dict[str, Any]] = {
    "glm": {**_BASE, "parties": _TRAINED},
    "poisson": {
        **_BASE,
        "train": {"family": "poisson"},
        "release": ["coefficients", "metrics"],
        "parties": _parties({**_FEATURES[0], "label": "claims", "offset": "exposure", "weight": "w"}, _FEATURES[1]),
    },
    "grouped": {
        **_BASE,
        "release": ["metrics"],
        "parties": _parties({**_FEATURES[0], "label": "default", "groups": ["AGE"]}, _FEATURES[1]),
    },
    "trees": {**_BASE, "kind": "vertical.trees", "parties": _TRAINED},
    "routed": {**_BASE, "kind": "vertical.trees", "train": {"routing": "revealed"}, "parties": _TRAINED},
    "network": {**_BASE, "kind": "vertical.network", "parties": _TRAINED},
    "statistics": {
        **_BASE,
        "kind": "vertical.statistics",
        "release": ["correlations", "woe", "counts"],
        "parties": _TRAINED,
    },
    "score": {
        **_BASE,
        "kind": "vertical.score",
        "model": JOB,
        "output": "decile",
        "cuts": ["0.5"],
        "recipients": ["lender", "platform"],
        "stability": {"cuts": ["0"], "expected": ["0.5", "0.5"], "minimum": 20},
        "release": ["predictions", "stability", "counts"],
        "parties": _parties({**_FEATURES[0], "offset": "prior"}, _FEATURES[1]),
    },
    "asked": {
        **_BASE,
        "kind": "vertical.score",
        "model": JOB,
        "cuts": ["0.5"],
        "recipients": ["platform"],
        "questions": 50,
        "parties": _parties(*_FEATURES),
    },
    "match": {
        "purpose": "credit risk",
        "kind": "vertical.match",
        "parties": _parties({"output": ["LIMIT"]}, {"output": ["CITY"]}),
    },
    "helped": {
        "purpose": "credit risk",
        "kind": "vertical.match",
        "helper": "helper",
        "align": {"protocol": "helper-psi"},
        "parties": _parties({}, {}),
    },
    "keys": {
        "purpose": "credit risk",
        "kind": "vertical.match",
        "align": {"keys": ["email/v1", "name-birth/v1"]},
        "parties": [
            {"silo": "lender", "dataset": "loans", "keys": ["email", ["first", "last", "born"]]},
            {"silo": "platform", "dataset": "usage", "keys": ["mail", ["given", "family", "birth"]]},
        ],
    },
    "measure": {
        **_BASE,
        "kind": "vertical.measure",
        "release": ["matches", "sums"],
        "parties": _parties(
            {"sums": [{"column": "LIMIT", "lowest": "0", "highest": "9"}]},
            {"sums": [{"column": "VISITS", "lowest": "0", "highest": "9"}]},
        ),
    },
    "noised": {**_BASE, "kind": "vertical.measure", "epsilon": "1", "parties": _parties({}, {})},
}
"""A request of each kind and way, acceptable as it is."""

PERMITTED: Mapping[str, Any] = {
    "name": "all-of-it",
    "dataset": "loans",
    "partners": ["platform"],
    "dealers": ["dealer"],
    "helpers": ["helper"],
    "kinds": [
        *(f"vertical.{k}" for k in ("glm", "trees", "network", "statistics", "score", "match", "measure")),
    ],
    "purposes": ["credit risk"],
    "join": ["email", "first", "last", "born"],
    "label": ["default", "claims"],
    "train": ["LIMIT", "SEX", "exposure", "w"],
    "compare": ["LIMIT", "SEX"],
    "sum": ["LIMIT"],
    "groups": ["AGE"],
    "predict": ["LIMIT", "SEX", "prior"],
    "partner_sums": 1,
    "routing": ["hidden", "revealed"],
    "outputs": ["decision", "decile"],
    "questions": 50,
    "release": [
        *("coefficients", "model", "auc", "metrics", "counts", "correlations", "woe", "predictions", "stability"),
        *("rows", "matches", "sums"),
    ],
}
"""A rule of the lender that permits each of these jobs, word for word."""


def changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values at dotted places; None as a value removes what is there."""
    made: Any = copy.deepcopy(dict(document))
    at: Any
    for path, value in changes.items():
        *way, last = path.split(".")
        at = made
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        if value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value
    return dict(made)


def spec_of(job: str, **changes: Any) -> Spec:
    return build_spec(changed(REQUESTS[job], changes), job=JOB, now=NOW, salt=SALT)


def policy_of(*rules: Mapping[str, Any], **top: Any) -> Policy:
    """A policy of the lender with these rules, in which everybody is pinned."""
    partners = {name: {"fingerprint": pin} for name, pin in PINS.items() if name != "lender"}
    return validate(Policy, {"version": 1, "partners": partners, "allow": list(rules), **top}, "it", ConfigError)


def permitting(plan: Plan, me: str) -> dict[str, Any]:
    """The narrowest rule that permits a plan at one of its owners."""
    columns: dict[str, list[str]] = {}
    for use in plan.of(me):
        permission = PERMISSIONS[use.operation]
        if permission is not None:
            columns.setdefault(permission.clause, []).append(use.column)
    return {
        "name": "narrow",
        "dataset": plan.dataset(me),
        "partners": [name for name in plan.owners if name != me],
        "matchings": [plan.protocol],
        "randomness": [plan.randomness] if plan.randomness else [],
        "dealers": [plan.dealer] if plan.dealer else [],
        "helpers": [plan.helper] if plan.helper else [],
        "kinds": [plan.kind],
        "purposes": [plan.purpose],
        **{clause: sorted(set(named)) for clause, named in columns.items()},
        "partner_sums": sum(use.operation == "sum" and use.silo != me for use in plan.uses),
        "routing": [plan.routing] if plan.routing else [],
        "outputs": [plan.output] if plan.output else [],
        "questions": plan.questions or 0,
        "release": [one.item for one in plan.released],
    }


# --- any job

_COLUMNS = [f"c{i}" for i in range(12)]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Acceptable specs of every kind and way, with columns drawn anew."""
    made = copy.deepcopy(REQUESTS[draw(st.sampled_from(sorted(REQUESTS)))])
    for party in made["parties"]:
        names = iter(draw(st.permutations(_COLUMNS)))
        for field in ("label", "offset", "weight"):
            if field in party:
                party[field] = next(names)
        for field, most in (("features", 4), ("groups", 2), ("output", 3)):
            if field in party:
                party[field] = [next(names) for _ in range(draw(st.integers(1, most)))]
        if "features" in party and made.get("kind") != "vertical.match":
            forms = ["number", "category"]
            party["features"] = [{"column": c, "as": draw(st.sampled_from(forms))} for c in party["features"]]
        if "sums" in party:
            n = draw(st.integers(1, 3))
            party["sums"] = [{"column": next(names), "lowest": "0", "highest": "9"} for _ in range(n)]
        if "output" in party and draw(st.booleans()):
            party["output"].append(party["key"])
    return build_spec(made, job=JOB, now=NOW, salt=SALT)
