"""What matching of large sets reveals, apart from the code that needs its kernels."""

from __future__ import annotations

from mpc.reveals import Reveal

REVEALS: tuple[Reveal, ...] = (
    Reveal(
        "matching.sizes",
        "owners",
        "how many distinct valid identifiers the other owner brought",
        "size",
        ("matching/hello",),
    ),
    Reveal(
        "matching.matches",
        "owners",
        "how many identifiers matched; the process of the first owner learns it even when they are fewer than a minimum, that "
        "of the second when they are not fewer than the first one's; the software then stops without putting it out",
        "size",
        ("matching/upper", "matching/tags", "matching/ends", "matching/vote"),
    ),
    Reveal(
        "matching.early-rows",
        "first",
        "in its process: which of its own rows matched, before anybody found the matches to be enough; "
        "if they are not, the software stops without putting this out",
        "exact",
        ("matching/upper", "matching/tags", "matching/ends"),
    ),
    Reveal(
        "matching.rows",
        "owners",
        "which of its own rows matched, once both owners found the matches to be enough",
        "exact",
        ("matching/upper", "matching/tags", "matching/ends", "matching/vote", "matching/rows"),
    ),
    Reveal(
        "matching.progress",
        "owners",
        "how far an interrupted matching had come at the other owner",
        "size",
        ("matching/hello",),
    ),
    Reveal("matching.traffic", "coordinator", "both set sizes, if it relays the encrypted messages", "size"),
)
