"""What matching by tokens reveals, apart from the code that needs the group."""

from __future__ import annotations

from mpc.reveals import Reveal

REVEALS: tuple[Reveal, ...] = (
    Reveal(
        "tokens.sizes",
        "owners",
        "how many distinct valid identifiers the other owner brought",
        "size",
        ("tokens/hello",),
    ),
    Reveal(
        "tokens.matches",
        "owners",
        "how many identifiers matched; the process of the owner who asks learns it even when they are fewer than a minimum, "
        "that of the other one when they are not fewer than the first one's; the software then stops without putting it out",
        "size",
        ("tokens/set", "tokens/vote"),
    ),
    Reveal(
        "tokens.early-rows",
        "first",
        "in its process: which of its own rows matched, before anybody found the matches to be "
        "enough; if they are not, the software stops without putting this out",
        "exact",
        ("tokens/set",),
    ),
    Reveal(
        "tokens.rows",
        "owners",
        "which of its own rows matched, once both owners found the matches to be enough",
        "exact",
        ("tokens/vote", "tokens/rows"),
    ),
    Reveal(
        "tokens.kept",
        "owners",
        "of the owner who asks, where tokens are kept: which tokens of the other owner's set stay, come and go from one "
        "token set to the next of the same key, and in which of its runs the same one matched; the other owner learns "
        "whether the token set was still held",
        "exact",
        ("tokens/hello",),
    ),
    Reveal("tokens.traffic", "coordinator", "both set sizes, if it relays the encrypted messages", "size"),
)
