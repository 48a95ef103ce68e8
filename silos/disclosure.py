"""Who learns what: computed from the job spec and from what each protocol declares about itself, never written by hand.

Every owner recomputes the disclosure and signs its digest, so an analyst cannot show people one text and run another.
A kind of job whose protocols do not all declare what they reveal cannot be disclosed, and so cannot run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpc.reveals import Reveal
from silos.errors import DisclosureError
from silos.spec import Glm, Match, Measure, Score, Spec, Statistics, Training, Trees, spec_digest

Registry = Callable[[str, str, str | None], Mapping[str, Sequence[Reveal]]]
"""(kind of job, how rows are matched, where randomness comes from) -> what each of its protocols reveals, by module."""

# The protocols that a kind of job runs, in order, and where each declares what it reveals.  Declarations stand apart from
# the code that needs the tensor engine, so that a node can state a disclosure without loading it.
_EVALUATION = {
    "vertical.evaluate": ("vertical.reveals", "EVALUATE"),
    "vertical.metrics": ("vertical.reveals", "METRICS"),
    "vertical.resuming": ("vertical.reveals", "RESUMING"),
}
PROTOCOLS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "vertical.glm": {
        "vertical.glm": ("vertical.reveals", "LOGISTIC"),
        "vertical.regression": ("vertical.reveals", "FAMILIES"),
        "vertical.inference": ("vertical.reveals", "INFERENCE"),
        **_EVALUATION,
    },
    "vertical.trees": {
        "vertical.trees": ("vertical.reveals", "TREES"),
        "vertical.trees.routing": ("vertical.reveals", "TREES_ROUTED"),
        **_EVALUATION,
    },
    "vertical.network": {"vertical.network": ("vertical.reveals", "NETWORK"), **_EVALUATION},
    "vertical.statistics": {
        "vertical.statistics": ("vertical.column_reveals", "STATISTICS"),
        "vertical.woe": ("vertical.column_reveals", "WEIGHTS"),
        "vertical.stepwise": ("vertical.column_reveals", "SELECTION"),
        "vertical.glm": ("vertical.reveals", "LOGISTIC"),
        "vertical.inference": ("vertical.reveals", "INFERENCE"),
    },
    "vertical.score": {"vertical.score": ("vertical.row_reveals", "SCORE")},
    "vertical.match": {"vertical.match": ("vertical.row_reveals", "MATCH")},
    "vertical.measure": {"mpc.measure": ("mpc.matching.hidden_reveals", "MEASURES")},
}

# The same for how rows are matched, which comes first, by the spec's `matching`.
MATCHINGS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "ecdh-psi": {"mpc.psi": ("mpc.psi", "REVEALS")},
    "ecdh-psi, counting": {"mpc.psi": ("mpc.psi", "COUNT_REVEALS")},
    "vole-psi": {"mpc.matching": ("mpc.matching.reveals", "REVEALS")},
    "vole-psi-malicious": {"mpc.matching": ("mpc.matching.reveals", "REVEALS")},
    "vole-psi, many owners": {"mpc.matching.star": ("mpc.matching.star_reveals", "REVEALS")},
    "oprf-psi": {"mpc.tokens": ("mpc.tokens.reveals", "REVEALS")},
    "helper-psi": {"mpc.delegated": ("mpc.delegated.reveals", "REVEALS")},
    "hidden": {"mpc.matching.hidden": ("mpc.matching.hidden_reveals", "HIDDEN")},
}

# What several keys, or rows that match more than one, add to that.
LINKAGE = {"vertical.linkage": ("vertical.row_reveals", "LINKAGE")}

# What counting in secret adds, before anybody's process learns which rows matched.
GATE = {
    "mpc.matching.hidden": ("mpc.matching.hidden_reveals", "HIDDEN"),
    "mpc.measure": ("mpc.matching.hidden_reveals", "GATE"),
}

# The same for the protocols that supply correlated randomness, by the spec's `randomness`.  Of these one may declare that
# it reveals nothing, with an empty tuple.
SUPPLIES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "dealer": {"mpc.dealer": ("mpc.dealer", "REVEALS")},
    "verified-dealer": {
        "mpc.dealer": ("mpc.dealer", "REVEALS")
    },  # mpc.verified.source opens uniform words and zeros only
    "ot": {"mpc.ot.source": ("mpc.ot.source", "REVEALS")},
}

# What the coordinator sees of every job.  It stands here because the coordinator may not import protocol code.
COORDINATOR_REVEALS = (
    Reveal(
        name="job-record",
        to="coordinator",
        what="the job spec with its column names, every signed statement about the job, "
        "and salted digests of data sets and results",
        precision="exact",
    ),
    Reveal(
        name="traffic",
        to="coordinator",
        what="the sizes and times of the ciphertext it relays, and the network address of every silo",
        precision="timing",
    ),
)

ASSUMPTIONS = (
    "Each silo's computers are its own; whoever controls one reads that silo's data and shares.",
    "The coordinator needs no trust for confidentiality; it can delay or refuse the job.",
    "Nobody checks that a silo's input data is true.",
)

# What is assumed where rows are matched in a way that needs it.
MATCHING_ASSUMES: Mapping[str, str] = {
    "vole-psi-malicious": "While rows are matched, an owner may deviate from the protocol: it can lie about its rows or stop "
    "the job, and learns nothing more about the other one's.",
    "vole-psi, many owners": "The first owner, {first}, works with none of the others: with some of them it would learn which "
    "of its rows all the rest have, even if these are fewer than a minimum.",
    "helper-psi": "The silo that compares tokens, {helper}, works with none of the data owners: together with one it could "
    "test guesses of everybody's identifiers.",
}

# Who has to follow the protocol and what is assumed of the correlated randomness; it is read before the assumptions above.
_EVERY_SILO = "Every silo follows the protocol; one that does not may learn more or spoil the result."
_EVERY_OWNER = "Every data owner follows the protocol; one that does not may learn more or spoil the result."
_NO_COLLUSION = "The silo that deals randomness, {dealer}, passes nothing that it knows on to a data owner of this job."
RANDOMNESS: Mapping[str | None, tuple[str, ...]] = {
    None: (_EVERY_SILO,),
    "dealer": (_EVERY_SILO, _NO_COLLUSION),
    "verified-dealer": (
        _EVERY_OWNER,
        _NO_COLLUSION,
        "What {dealer} deals wrongly stops the job before a result is released, except with probability 2^-58; but m wrong "
        "rows of the tables for approximated functions, or of truncations of more than 65,536 words at once, are missed "
        "with probability 2^-m.",
    ),
    "ot": (
        _EVERY_SILO,
        "No silo deals randomness: the data owners make it between them by oblivious transfer, which is safe if the "
        "Diffie-Hellman problem is hard on Curve25519, hash functions behave as random oracles and AES as an ideal cipher.",
    ),
}


def load_reveals(kind: str, matching: str, randomness: str | None) -> Mapping[str, Sequence[Reveal]]:
    """The declarations of every protocol that a kind of job runs, by module name.

    matching, randomness: how rows are matched and where correlated randomness comes from; they are protocols like others.
    Raises: DisclosureError if one of the three is unknown or one of the protocols declares nothing.
    """
    if kind not in PROTOCOLS:
        raise DisclosureError(f"there is no job kind '{kind}'")
    if matching not in MATCHINGS:
        raise DisclosureError(f"there is no matching by '{matching}'")
    if randomness is not None and randomness not in SUPPLIES:
        raise DisclosureError(f"there is no correlated randomness from '{randomness}'")
    supplies = {} if randomness is None else SUPPLIES[randomness]
    return _declared({**MATCHINGS[matching], **PROTOCOLS[kind], **supplies}, kind, frozenset(supplies))


def _declared(
    protocols: Mapping[str, tuple[str, str]], kind: str, may_be_empty: frozenset[str] = frozenset()
) -> dict[str, Sequence[Reveal]]:
    declared: dict[str, Sequence[Reveal]] = {}
    for protocol, (module, name) in protocols.items():
        reveals = getattr(importlib.import_module(module), name, None)
        if reveals == () and protocol in may_be_empty:
            continue
        if not reveals or not all(isinstance(r, Reveal) for r in reveals):
            raise DisclosureError(f"protocol '{protocol}' does not declare what it reveals, so '{kind}' cannot run")
        declared[protocol] = reveals
    return declared


def _assumptions(spec: Spec) -> list[str]:
    texts = [*RANDOMNESS[spec.randomness], MATCHING_ASSUMES.get(spec.matching, "")]
    return [
        *(text.format(dealer=spec.dealer, helper=spec.helper, first=spec.owners[0]) for text in texts if text),
        *ASSUMPTIONS,
    ]


def _learners(to: str, spec: Spec) -> tuple[str, ...]:
    active = spec.active if isinstance(spec, Training | Statistics) else None
    recipients = spec.recipients if isinstance(spec, Score) else ()
    return {
        "owners": spec.owners,
        "first": spec.owners[:1],
        "others": spec.owners[1:],
        "active": () if active is None else (active,),
        "passive": tuple(o for o in spec.owners if o != active),
        "dealer": () if spec.dealer is None else (spec.dealer,),
        "helper": () if spec.helper is None else (spec.helper,),
        "recipients": recipients,
        "answering": tuple(o for o in spec.owners if o not in recipients),
        "coordinator": ("coordinator",),
    }[to]


def declarations(spec: Spec, registry: Registry = load_reveals) -> Mapping[str, Sequence[Reveal]]:
    """What the job's protocols declare, by module, in the order that they run; of some not all is asked for by the spec.

    Raises: DisclosureError if one declares nothing.
    """
    declared = {**registry(spec.kind, spec.matching, spec.randomness), "coordinator": COORDINATOR_REVEALS}
    if isinstance(spec, Match) and spec.count_first:
        declared = {**_declared(GATE, spec.kind), **declared}
    if spec.links_rows:
        declared = {**_declared(LINKAGE, spec.kind), **declared}
    missing = [name for name, reveals in declared.items() if not reveals]
    if missing:
        raise DisclosureError(f"protocol '{missing[0]}' does not declare what it reveals, so '{spec.kind}' cannot run")
    return declared


def messages(spec: Spec, registry: Registry = load_reveals) -> dict[str, dict[str, frozenset[str]]]:
    """For each participant the lines that it is shown, by name, and the tags of the messages by which it learns them.

    Whatever else it receives in this job is in `mpc.messages.SILENT`.  Raises: DisclosureError.
    """
    shown: dict[str, dict[str, frozenset[str]]] = {silo: {} for silo in spec.participants}
    for reveals in declarations(spec, registry).values():
        for reveal in reveals:
            for silo in _learners(reveal.to, spec) if _asked(spec, reveal.name) else ():
                if silo in shown:
                    shown[silo][reveal.name] = shown[silo].get(reveal.name, frozenset()) | set(reveal.tags)
    return shown


def disclosure(spec: Spec, registry: Registry = load_reveals) -> dict[str, Any]:
    """The disclosure of a job as a canonical-JSON document; the same spec and code give the same digest everywhere.

    registry: where declarations come from; another one is for tests.
    Raises: DisclosureError.
    """
    declared = declarations(spec, registry)
    order = (*spec.participants, "coordinator")
    lines = [
        {"silo": silo, "learns": r.what, "precision": r.precision, "name": r.name, "protocol": protocol}
        for protocol, reveals in declared.items()
        for r in reveals
        if _asked(spec, r.name)
        for silo in _learners(r.to, spec)
    ]
    lines.sort(key=lambda line: order.index(line["silo"]))  # stable: protocols stay in the order they run
    return {
        "v": 1,
        "spec_digest": spec_digest(spec),
        "lines": lines,
        "assumptions": _assumptions(spec),
        "thresholds": _thresholds(spec),
    }


def _asked(spec: Spec, name: str) -> bool:
    """Whether the spec asks for a result; what is no result of a measurement is always revealed."""
    if isinstance(spec, Match) and spec.count_first and name == "matching.early-rows":
        return False  # rows come after the gate
    if name == "tokens.kept":
        return isinstance(spec, Match) and spec.keep_tokens
    if isinstance(spec, Training):
        return _asked_of_a_model(spec, name)
    if isinstance(spec, Statistics):
        return _asked_of_columns(spec, name)
    if isinstance(spec, Score):
        return _asked_of_a_prediction(spec, name)
    if not isinstance(spec, Measure):
        return True
    matches = "matches" in spec.release
    asked = {
        "measure.enough": spec.computes,
        "measure.count": spec.computes and matches and spec.round_to is None and spec.epsilon is None,
        "measure.rounded": matches and spec.round_to is not None,
        "measure.noised": matches and spec.epsilon is not None,
        "measure.sums": "sums" in spec.release,
    }
    return asked.get(name, True)


_FIGURES: Mapping[str, frozenset[str]] = {
    "logistic": frozenset({"counts", "auc", "ks", "gains", "curves", "calibration", "confusion", "loss"}),
    "multinomial": frozenset({"counts", "auc", "accuracy", "loss"}),
}
"""What an evaluation opens, by what the label is; of amounts and counts `_MEANS`."""
_ORDERED = frozenset({"ks", "gains", "curves", "calibration"})
"""What takes rows in order, which is done with a dealer only."""
_MEANS = frozenset({"counts", "gains", "calibration", "loss", "range"})


def _asked_of_a_model(spec: Training, name: str) -> bool:
    """Whether training and evaluating this model reveals it."""
    what, dot, item = name.partition(".")
    if name == "training.resumed":
        return spec.resumes
    if what == "contribution":
        return what in spec.release
    if dot and what == "metrics":
        if item in ("groups", "group-names"):
            return "metrics" in spec.release and bool(spec.groups)
        opened = _FIGURES.get(spec.family, _MEANS) - (frozenset() if spec.dealer is not None else _ORDERED)
        return "metrics" in spec.release and item in opened
    if isinstance(spec, Glm):
        sparse = float(spec.train.lasso) > 0
        solved = spec.family == "linear" and not sparse
        of_families = {
            "label.scale": spec.family not in ("logistic", "multinomial"),
            "label.classes": spec.family == "multinomial",
            "period": not solved,
            "converged": not solved and not sparse and spec.family != "multinomial",
            "curvature": sparse or ("inference" in spec.release and spec.family in ("poisson", "tweedie")),
            "residual-variance": solved,
            "sparse.zeros": sparse,
            **dict.fromkeys(
                ("standard-errors", "intercept-error", "estimable"),
                "inference" in spec.release or solved,
            ),
            "hessians": "inference" in spec.release and spec.family != "linear",
        }
        if name in of_families:
            return of_families[name]
    if isinstance(spec, Trees):
        asked = {
            "trees.routing": spec.train.routing == "revealed",
            "trees.stop": spec.train.patience > 0,
            "trees.scale": spec.family != "logistic",
        }
        return asked.get(name, name != "auc" or "auc" in spec.release)
    return name != "auc" or "auc" in spec.release


_OF_A_LOGISTIC_MODEL = frozenset(
    {"coefficients", "intercept", "columns", "period", "converged"}
    | {"standard-errors", "intercept-error", "estimable", "hessians"}
)
"""What of a look at columns only a selection for a logistic regression reveals."""


_FIGURES_OF_COLUMNS = frozenset({"label_correlations", "correlations", "vif"})


def _asked_of_columns(spec: Statistics, name: str) -> bool:
    """Whether looking at these columns in this way reveals it."""
    what, dot, item = name.partition(".")
    weighs = bool({"woe", "information_values"} & set(spec.release))
    if what == "woe" and dot:
        return weighs and (item != "values" or "information_values" in spec.release)
    if what == "selection" and dot:
        return spec.selects == "logistic" if item == "coefficients" else spec.selects is not None
    if name == "curvature":
        return False
    if what == "statistics" and dot:
        return item in spec.release or (item == "sizes" and bool(_FIGURES_OF_COLUMNS & set(spec.release)))
    return spec.selects == "logistic" or name not in _OF_A_LOGISTIC_MODEL  # for which the whole model is trained first


def _asked_of_a_prediction(spec: Score, name: str) -> bool:
    """Whether predicting in this way reveals it.  Which kind of model it is, the spec does not say: all are counted."""
    told = {"score.decision", "score.class", "score.decile", "score.rounded", "score.probability"}
    if name in told:
        chosen = {f"score.{spec.output}"} if spec.output != "decision" or spec.cuts else {"score.class"}
        return name in chosen
    return {"score.asked": spec.questions is not None, "score.stability": spec.stability is not None}.get(name, True)


def _thresholds(spec: Spec) -> dict[str, Any]:
    limits: dict[str, Any] = {"minimum_matches": spec.align.minimum_matches, "release": list(spec.release)}
    if isinstance(spec, Training | Statistics):
        limits["rare_category"] = spec.encoding.rare_category
    if isinstance(spec, Score):
        limits |= {"questions": spec.questions}
    if isinstance(spec, Measure):
        limits |= {"round_to": spec.round_to, "epsilon": spec.epsilon}
    return limits


def render(document: Mapping[str, Any]) -> list[str]:
    """The disclosure in plain language, one heading per silo and one line per thing it learns."""
    text: list[str] = []
    current = None
    for line in document["lines"]:
        if line["silo"] != current:
            current = line["silo"]
            text.append(f"{current} learns")
        text.append(f"  - {line['learns']} ({line['precision']})")
    text.append("Limits")
    text.extend(f"  - {limit}" for limit in limits(document["thresholds"]))
    text.append("This holds if")
    text.extend(f"  - {assumption}" for assumption in document["assumptions"])
    return text


def limits(thresholds: Mapping[str, Any]) -> list[str]:
    """What bounds that which is learned, a sentence each without a full stop."""
    text = [f"fewer than {thresholds['minimum_matches']} matching rows stop the job before more is revealed"]
    if "rare_category" in thresholds:
        text.append(f"categories with fewer than {thresholds['rare_category']} rows are merged before encoding")
    if thresholds.get("round_to") is not None:
        text.append(f"the number of matches is told to the nearest multiple of {thresholds['round_to']}")
    if thresholds.get("epsilon") is not None:
        text.append(
            f"the number of matches has noise of each owner: epsilon {thresholds['epsilon']} towards the other one"
        )
    if thresholds.get("questions") is not None:
        text.append(f"at most {thresholds['questions']:,} questions are answered, one row at a time")
    return [*text, f"of this, handed out as results: {', '.join(thresholds['release'])}; nothing else"]
