"""What matching through a helper reveals, apart from the code that needs its kernels."""

from __future__ import annotations

from mpc.reveals import Reveal

REVEALS: tuple[Reveal, ...] = (
    Reveal(
        "delegated.rows",
        "owners",
        "which of its own rows every other owner has too, once the helper has found them to be enough for all owners; "
        "before that, and if they are not enough, nothing",
        "exact",
        ("delegated/map", "delegated/verdict"),
    ),
    Reveal(
        "delegated.sizes",
        "helper",
        "how many distinct valid identifiers each owner brought",
        "size",
        ("delegated/hello",),
    ),
    Reveal(
        "delegated.overlaps",
        "helper",
        "how many identifiers any two or more of the owners have in common, for each choice of owners, even if the matches "
        "are fewer than a minimum; it sees tokens under a key that it does not have, and no identifier",
        "size",
        ("delegated/tokens",),
    ),
    Reveal("delegated.minima", "helper", "the fewest matches that each owner accepts", "exact", ("delegated/hello",)),
    Reveal("delegated.traffic", "coordinator", "all set sizes, if it relays the encrypted messages", "size"),
)
