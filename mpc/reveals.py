"""What a protocol lets a participant learn, declared beside the protocol and collected into a job's disclosure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

To = Literal["owners", "active", "passive", "dealer", "coordinator"]
Precision = Literal["exact", "aggregate", "size", "timing"]


@dataclass(frozen=True)
class Reveal:
    """One thing that one kind of participant learns.

    to: every data owner, only the owner of the label (active), only owners without it (passive), the dealer, or the
    coordinator.  what: a sentence fragment that completes "learns ...".  precision: how much of it.  name: a stable
    identifier for machines.
    """

    name: str
    to: To
    what: str
    precision: Precision
