"""An analyst's short request, completed with defaults into a full job spec.

kind = "vertical.glm"
purpose = "credit risk"
dealer = "dealer"

[[parties]]
silo = "lender"
dataset = "loans"
key = "email"                            # or a list of columns, if the rule for identifiers takes several
label = "default"
features = ["LIMIT_BAL", { column = "SEX", as = "category" }]     # a bare name is a number
"""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from silos.errors import SpecError
from silos.spec import Spec, parse_spec
from silos.times import to_text, utcnow
from silos.validation import read_document

DEFAULT_VALID_FOR_S = 3600
_GIVEN_BY_US = ("v", "job", "created", "valid_until")
_ALIGN: dict[str, Any] = {"protocol": "vole-psi", "duplicates": "refuse", "minimum_matches": 100}
_ENCODING = {"winsorise_sd": 8, "rare_category": 100}
_TRAINS: dict[str, dict[str, Any]] = {
    "vertical.glm": {
        "family": "logistic",
        "power": None,
        "ridge": "1.0",
        "lasso": "0",
        "passes": 40,
        "period": 64,
        "harmonics": 12,
    },
    "vertical.trees": {
        "objective": "logistic",
        "trees": 20,
        "depth": 5,
        "bins": 32,
        "learning_rate": "0.3",
        "reg_lambda": "1",
        "gamma": "0",
        "min_child_weight": "1",
        "max_leaf": None,
        "subsample": 100,
        "colsample": 100,
        "validation": 0,
        "patience": 0,
        "routing": "hidden",
    },
    "vertical.network": {
        "task": "binary",
        "classes": 2,
        "hidden": [64, 32],
        "activation": "tanh",
        "epochs": 10,
        "batch": 512,
        "learning_rate": "0.05",
        "momentum": "0.9",
        "weight_decay": "0.0001",
        "weight_limit": "4",
    },
}
_DECIMALS = frozenset(
    {"ridge", "lasso", "power", "learning_rate", "reg_lambda", "gamma", "min_child_weight", "max_leaf", "momentum"}
    | {"weight_decay", "weight_limit"}
)
"""Settings that the spec has as text and a request may have as numbers."""
_SECTIONS: dict[str, dict[str, dict[str, Any]]] = {
    **{
        kind: {
            "align": _ALIGN,
            "encoding": _ENCODING,
            "train": train,
            "evaluate": {"holdout_percent": 30, "thresholds": ["0.5"], "bins": 10},
            "limits": {"timeout_s": 60},
        }
        for kind, train in _TRAINS.items()
    },
    "vertical.statistics": {
        "align": _ALIGN,
        "encoding": _ENCODING,
        "statistics": {
            "minimum": 100,
            "rows_per_column": 10,
            "bins": 11,
            "floor": 10,
            "share": "0.05",
            "merge": "similar",
            "select": "both",
            "enter": "0.05",
            "remove": "0.10",
            "most": 100,
            "family": "linear",
        },
        "limits": {"timeout_s": 60},
    },
    "vertical.score": {"align": _ALIGN, "limits": {"timeout_s": 60}},
    "vertical.match": {"align": _ALIGN, "limits": {"timeout_s": 60}},
    "vertical.measure": {"align": {**_ALIGN, "protocol": "hidden"}, "limits": {"timeout_s": 60}},
}
_PLAIN: dict[str, dict[str, Any]] = {
    "vertical.glm": {"randomness": "dealer", "release": ["coefficients", "auc", "counts"]},
    "vertical.trees": {"randomness": "dealer", "release": ["model", "auc", "counts"]},
    "vertical.network": {"randomness": "dealer", "release": ["model", "auc", "counts"]},
    "vertical.statistics": {"randomness": "dealer", "release": ["vif", "counts"]},
    "vertical.score": {
        "randomness": "dealer",
        "release": ["predictions", "counts"],
        "output": "decision",
        "cuts": [],
        "low": None,
        "high": None,
        "step": None,
        "questions": None,
        "stability": None,
    },
    "vertical.match": {"randomness": None, "release": ["rows", "counts"], "count_first": False, "keep_tokens": False},
    "vertical.measure": {"randomness": "dealer", "release": ["matches"], "round_to": None, "epsilon": None},
}
_PARTY: dict[str, dict[str, Any]] = {
    **{kind: {"label": None, "offset": None, "weight": None, "groups": []} for kind in _TRAINS},
    "vertical.statistics": {"label": None},
    "vertical.score": {"offset": None},
    "vertical.match": {"output": []},
    "vertical.measure": {"sums": []},
}
_DEFAULT_KIND = "vertical.glm"


def _section(request: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    given = request.get(name, {})
    if not isinstance(given, dict):
        raise SpecError(f"the job request: '{name}' must be a table")
    return {**defaults, **given}


def _align(align: dict[str, Any]) -> dict[str, Any]:
    """`identifier` and `region` stand for one key; a key may be a bare rule."""
    if "keys" not in align:
        rest = {name: value for name, value in align.items() if name not in ("identifier", "region")}
        return {**rest, "keys": [{"rule": align.get("identifier", "email/v1"), "region": align.get("region")}]}
    if not isinstance(align["keys"], list):
        return align
    keys = [{"rule": key} if isinstance(key, str) else key for key in align["keys"]]
    return {**align, "keys": [{"region": None, **key} if isinstance(key, dict) else key for key in keys]}


def _feature(feature: Any) -> Any:
    if isinstance(feature, str):
        feature = {"column": feature}
    if isinstance(feature, dict):
        return {"as": "number", "monotone": 0, **feature}
    return feature


def _decimal(value: Any) -> Any:
    """A number as the text that a spec has for it; anything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(repr(value)), "f")
    return value


def _key(key: Any) -> Any:
    return [key] if isinstance(key, str) else key


def _party(party: Any, defaults: Mapping[str, Any]) -> Any:
    """`key` stands for one key; a key of one column may be its bare name."""
    if not isinstance(party, dict):
        return party
    party = {**defaults, **party}
    if "key" in party and "keys" not in party:
        party["keys"] = [party.pop("key")]
    if isinstance(party.get("keys"), list):
        party["keys"] = [_key(key) for key in party["keys"]]
    if isinstance(party.get("features"), list):
        party["features"] = [_feature(f) for f in party["features"]]
    if isinstance(party.get("sums"), list):
        party["sums"] = [{"decimals": 0, **s} if isinstance(s, dict) else s for s in party["sums"]]
    return party


def build_spec(request: Mapping[str, Any], *, job: str, now: dt.datetime, salt: str) -> Spec:
    """Complete a request; pure, so the same request, id, time and salt give the same spec.

    job: uuid4 hex.  salt: 32 hex digits that decide the held-out rows, unknown before the job exists.
    Raises: SpecError.
    """
    valid_for_s = request.get("valid_for_s", DEFAULT_VALID_FOR_S)
    if type(valid_for_s) is not int or valid_for_s < 1:
        raise SpecError("the job request: 'valid_for_s' must be a whole number of seconds above 0")
    if valid_for_s > 366 * 86_400:
        raise SpecError("the job request: 'valid_for_s' is more than a year")
    given = [name for name in _GIVEN_BY_US if name in request]
    if given:
        raise SpecError(
            f"the job request: '{given[0]}' is set when the job is made; use 'valid_for_s' for how long it may take"
        )
    kind = request.get("kind", _DEFAULT_KIND)
    if not isinstance(kind, str) or kind not in _SECTIONS:
        raise SpecError(f"the job request: 'kind' must be one of {', '.join(_SECTIONS)}, got '{kind}'")
    document: dict[str, Any] = {
        "kind": kind,
        "dealer": None,
        "helper": None,
        "links": "auto",
        **_PLAIN[kind],
        **{k: v for k, v in request.items() if k != "valid_for_s"},
        **{name: _section(request, name, defaults) for name, defaults in _SECTIONS[kind].items()},
        "v": 1,
        "job": job,
        "created": to_text(now),
        "valid_until": to_text(now + dt.timedelta(seconds=valid_for_s)),
    }
    document["align"] = _align(document["align"])
    if kind == "vertical.measure" and "randomness" not in request and document["align"].get("protocol") != "hidden":
        document["randomness"] = None
    if kind == "vertical.score":
        ends = {name: _decimal(document[name]) for name in ("low", "high", "step")}
        cuts = document["cuts"]
        document |= {**ends, "cuts": [_decimal(cut) for cut in cuts] if isinstance(cuts, list) else cuts}
    if kind in _TRAINS:
        document["train"] = {
            key: _decimal(value) if key in _DECIMALS else value for key, value in document["train"].items()
        }
        document["evaluate"].setdefault("salt", salt)
    if isinstance(document.get("parties"), list):
        document["parties"] = [_party(p, _PARTY[kind]) for p in document["parties"]]
    return parse_spec(document)


def load_request(path: Path) -> Spec:
    """Read a request file (TOML, or JSON by its suffix) and give the job its id, times and salt.

    Raises: SpecError.
    """
    request = read_document(path, "the job request", SpecError)
    return build_spec(request, job=uuid.uuid4().hex, now=utcnow(), salt=secrets.token_hex(16))
