"""What a join with hidden membership reveals, and what each result opened of one does."""

from __future__ import annotations

from mpc.reveals import Reveal

HIDDEN: tuple[Reveal, ...] = (
    Reveal(
        "hidden.sizes",
        "owners",
        "how many distinct valid identifiers the other owner brought; not which of them matched, nor how many",
        "size",
        ("hidden/hello",),
    ),
    Reveal(
        "hidden.shapes",
        "dealer",
        "how many identifiers one of the owners brought and how many columns there are, from the shapes of the randomness "
        "it is asked for; never a value, a share or a result",
        "size",
        ("dealer/request",),
    ),
    Reveal("hidden.traffic", "coordinator", "both set sizes, if it relays the encrypted messages", "size"),
)
"""The join alone."""

ENOUGH = Reveal(
    "measure.enough",
    "owners",
    "whether the matches are at least as many as the minimum that all agreed on; with noise, whether the number with noise "
    "is, which is the same number that is then told",
    "aggregate",
    ("measure/few", "measure/minimum"),
)
COUNT = Reveal("measure.count", "owners", "how many identifiers matched", "aggregate", ("measure/count",))
ROUNDED = Reveal(
    "measure.rounded",
    "owners",
    "how many identifiers matched, to the nearest multiple of a step",
    "aggregate",
    ("measure/rounded",),
)
NOISED = Reveal(
    "measure.noised",
    "owners",
    "how many identifiers matched, with noise of both owners that is drawn once; without its own, which it knows, the other "
    "one's is left",
    "aggregate",
    ("measure/count",),
)
SUMS = Reveal(
    "measure.sums",
    "owners",
    "the sum of each column over the rows that matched; an owner who chose the values of a column that is its own learns "
    "from its sum up to about as many bits about which of its rows matched as the sum has, about 60",
    "aggregate",
    ("measure/sums",),
)
GATE: tuple[Reveal, ...] = (ENOUGH,)
"""What a gate before something else reveals."""
MEASURES: tuple[Reveal, ...] = (ENOUGH, COUNT, ROUNDED, NOISED, SUMS)
"""Each is revealed only if it was asked for."""
