"""An analyst's short request, completed with defaults into a full job spec.

kind = "vertical.logistic"
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
_SECTIONS: dict[str, dict[str, Any]] = {
    "align": {
        "protocol": "ecdh-psi",
        "identifier": "email/v1",
        "region": None,
        "duplicates": "refuse",
        "minimum_matches": 100,
    },
    "encoding": {"winsorise_sd": 8, "rare_category": 100},
    "train": {"ridge": "1.0", "passes": 40, "period": 64, "harmonics": 12},
    "evaluate": {"holdout_percent": 30},
    "limits": {"timeout_s": 60},
}
_PLAIN: dict[str, Any] = {
    "kind": "vertical.logistic",
    "randomness": "dealer",
    "dealer": None,
    "release": ["coefficients", "auc", "counts"],
    "links": "auto",
}


def _section(request: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = request.get(name, {})
    if not isinstance(given, dict):
        raise SpecError(f"the job request: '{name}' must be a table")
    return {**_SECTIONS[name], **given}


def _feature(feature: Any) -> Any:
    if isinstance(feature, str):
        return {"column": feature, "as": "number"}
    if isinstance(feature, dict):
        return {"as": "number", **feature}
    return feature


def _party(party: Any) -> Any:
    if not isinstance(party, dict) or not isinstance(party.get("features", []), list):
        return party
    key = {"key": [party["key"]]} if isinstance(party.get("key"), str) else {}
    return {"label": None, **party, **key, "features": [_feature(f) for f in party.get("features", [])]}


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
    document: dict[str, Any] = {
        **_PLAIN,
        **{k: v for k, v in request.items() if k != "valid_for_s"},
        **{name: _section(request, name) for name in _SECTIONS},
        "v": 1,
        "job": job,
        "created": to_text(now),
        "valid_until": to_text(now + dt.timedelta(seconds=valid_for_s)),
    }
    ridge = document["train"]["ridge"]
    if isinstance(ridge, (int, float)) and not isinstance(ridge, bool):
        document["train"]["ridge"] = format(Decimal(repr(ridge)), "f")
    document["evaluate"].setdefault("salt", salt)
    if isinstance(document.get("parties"), list):
        document["parties"] = [_party(p) for p in document["parties"]]
    return parse_spec(document)


def load_request(path: Path) -> Spec:
    """Read a request file (TOML, or JSON by its suffix) and give the job its id, times and salt.

    Raises: SpecError.
    """
    request = read_document(path, "the job request", SpecError)
    return build_spec(request, job=uuid.uuid4().hex, now=utcnow(), salt=secrets.token_hex(16))
