"""Every declaration of what a protocol reveals, as disclosures are made of."""

from __future__ import annotations

import importlib

from mpc.reveals import Reveal
from silos.disclosure import GATE, LINKAGE, MATCHINGS, PROTOCOLS, SUPPLIES


def all_reveals() -> list[Reveal]:
    """Each once; those of one name are one."""
    places = [*PROTOCOLS.values(), *MATCHINGS.values(), *SUPPLIES.values(), GATE, LINKAGE]
    found: dict[str, Reveal] = {}
    for module, name in (place for protocols in places for place in protocols.values()):
        for one in getattr(importlib.import_module(module), name):
            assert found.setdefault(one.name, one) == one
    return list(found.values())
