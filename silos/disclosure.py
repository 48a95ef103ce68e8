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
from silos.spec import Spec, spec_digest

Registry = Callable[[str, str, str], Mapping[str, Sequence[Reveal]]]
"""(kind of job, how rows are matched, where randomness comes from) -> what each of its protocols reveals, by module."""

# The protocols that a kind of job runs, in order, and where each declares what it reveals.  Declarations stand apart from
# the code that needs the tensor engine, so that a node can state a disclosure without loading it.
PROTOCOLS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "vertical.logistic": {
        "vertical.logistic": ("vertical.reveals", "LOGISTIC"),
        "vertical.evaluate": ("vertical.reveals", "EVALUATE"),
    },
}

# The same for how rows are matched, which comes first, by the spec's `align.protocol`.
MATCHINGS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "ecdh-psi": {"mpc.psi": ("mpc.psi", "REVEALS")},
    "vole-psi": {"mpc.matching": ("mpc.matching.reveals", "REVEALS")},
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

# Who has to follow the protocol and what is assumed of the correlated randomness; it is read before the assumptions above.
_EVERY_SILO = "Every silo follows the protocol; one that does not may learn more or spoil the result."
_EVERY_OWNER = "Every data owner follows the protocol; one that does not may learn more or spoil the result."
_NO_COLLUSION = "The silo that deals randomness, {dealer}, passes nothing that it knows on to a data owner of this job."
RANDOMNESS: Mapping[str, tuple[str, ...]] = {
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


def load_reveals(kind: str, matching: str, randomness: str) -> Mapping[str, Sequence[Reveal]]:
    """The declarations of every protocol that a kind of job runs, by module name.

    matching, randomness: how rows are matched and where correlated randomness comes from; they are protocols like others.
    Raises: DisclosureError if one of the three is unknown or one of the protocols declares nothing.
    """
    if kind not in PROTOCOLS:
        raise DisclosureError(f"there is no job kind '{kind}'")
    if matching not in MATCHINGS:
        raise DisclosureError(f"there is no matching by '{matching}'")
    if randomness not in SUPPLIES:
        raise DisclosureError(f"there is no correlated randomness from '{randomness}'")
    declared: dict[str, Sequence[Reveal]] = {}
    for protocol, (module, name) in {**MATCHINGS[matching], **PROTOCOLS[kind], **SUPPLIES[randomness]}.items():
        reveals = getattr(importlib.import_module(module), name, None)
        if reveals == () and protocol in SUPPLIES[randomness]:
            continue
        if not reveals or not all(isinstance(r, Reveal) for r in reveals):
            raise DisclosureError(f"protocol '{protocol}' does not declare what it reveals, so '{kind}' cannot run")
        declared[protocol] = reveals
    return declared


def _assumptions(spec: Spec) -> list[str]:
    return [*(text.format(dealer=spec.dealer) for text in RANDOMNESS[spec.randomness]), *ASSUMPTIONS]


def _learners(to: str, spec: Spec) -> tuple[str, ...]:
    return {
        "owners": spec.owners,
        "active": (spec.active,),
        "passive": tuple(o for o in spec.owners if o != spec.active),
        "dealer": () if spec.dealer is None else (spec.dealer,),
        "coordinator": ("coordinator",),
    }[to]


def disclosure(spec: Spec, registry: Registry = load_reveals) -> dict[str, Any]:
    """The disclosure of a job as a canonical-JSON document; the same spec and code give the same digest everywhere.

    registry: where declarations come from; another one is for tests.
    Raises: DisclosureError.
    """
    declared = {**registry(spec.kind, spec.align.protocol, spec.randomness), "coordinator": COORDINATOR_REVEALS}
    missing = [name for name, reveals in declared.items() if not reveals]
    if missing:
        raise DisclosureError(f"protocol '{missing[0]}' does not declare what it reveals, so '{spec.kind}' cannot run")
    order = (*spec.participants, "coordinator")
    lines = [
        {"silo": silo, "learns": r.what, "precision": r.precision, "name": r.name, "protocol": protocol}
        for protocol, reveals in declared.items()
        for r in reveals
        for silo in _learners(r.to, spec)
    ]
    lines.sort(key=lambda line: order.index(line["silo"]))  # stable: protocols stay in the order they run
    return {
        "v": 1,
        "spec_digest": spec_digest(spec),
        "lines": lines,
        "assumptions": _assumptions(spec),
        "thresholds": {
            "minimum_matches": spec.align.minimum_matches,
            "rare_category": spec.encoding.rare_category,
            "release": list(spec.release),
        },
    }


def render(document: Mapping[str, Any]) -> list[str]:
    """The disclosure in plain language, one heading per silo and one line per thing it learns."""
    text: list[str] = []
    current = None
    for line in document["lines"]:
        if line["silo"] != current:
            current = line["silo"]
            text.append(f"{current} learns")
        text.append(f"  - {line['learns']} ({line['precision']})")
    thresholds = document["thresholds"]
    text.append("Limits")
    text.append(f"  - fewer than {thresholds['minimum_matches']} matching rows stop the job before training")
    text.append(f"  - categories with fewer than {thresholds['rare_category']} rows are merged before encoding")
    text.append(f"  - of this, handed out as results: {', '.join(thresholds['release'])}; nothing else")
    text.append("This holds if")
    text.extend(f"  - {assumption}" for assumption in document["assumptions"])
    return text
