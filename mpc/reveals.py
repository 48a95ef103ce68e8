"""What a protocol lets a participant learn, declared beside the protocol and collected into a job's disclosure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

To = Literal[
    "owners", "first", "others", "active", "passive", "recipients", "answering", "dealer", "helper", "coordinator"
]
Precision = Literal["exact", "aggregate", "size", "timing"]


@dataclass(frozen=True)
class Reveal:
    """One thing that one kind of participant learns.

    to: every data owner, only the first one in the job, only the others, only the owner of the label (active), only owners
    without it (passive), only those that a result is for (recipients), only those that it is not for (answering), the dealer,
    the helper of a matching, or the coordinator.  what: a sentence fragment that completes "learns ...".  precision: how much
    of it.
    name: a stable identifier for machines.  tags: of the messages by which it is learned, as they travel; none if it follows
    from other lines, or from sizes and times alone.  Every message of a job has a tag that some Reveal of the job names, or
    that `mpc.messages.SILENT` has.
    """

    name: str
    to: To
    what: str
    precision: Precision
    tags: tuple[str, ...] = ()
