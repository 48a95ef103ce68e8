"""What matching of three or more sets reveals, apart from the code that needs its kernels."""

from __future__ import annotations

from mpc.reveals import Reveal

REVEALS: tuple[Reveal, ...] = (
    Reveal(
        "star.sizes",
        "owners",
        "how many distinct valid identifiers the first owner brought; the first owner: how many each other one did",
        "size",
        ("star/size",),
    ),
    Reveal("star.minima", "first", "the fewest matches that each other one accepts", "exact", ("star/size",)),
    Reveal(
        "star.early-rows",
        "first",
        "in its process: which of its own rows all the others have too, before anybody found the matches "
        "to be enough; if they are not, the software stops without putting this out",
        "exact",
        ("star/hint",),
    ),
    Reveal(
        "star.rows",
        "owners",
        "which of its own rows all the others have too, once the matches were found to be enough for every owner",
        "exact",
        ("star/answer", "star/verdict", "star/agreed"),
    ),
    Reveal(
        "star.together",
        "owners",
        "of a group that works together with the first owner and puts together all that it has: which of the first owner's "
        "rows all owners outside the group have, even if some inside it do not have them or they are fewer than a minimum",
        "exact",
    ),
    Reveal(
        "star.traffic",
        "coordinator",
        "the set sizes, and whether the matches were enough, if it relays messages",
        "size",
    ),
)
