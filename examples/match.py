"""Match our rows with a partner's: look at the price first, then submit, wait, and write the rows to a file.

python examples/match.py HOME PARTNER:DATASET OUR_DATASET COLUMN OUTPUT.csv
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import silos.sdk as accord
from silos.errors import SiloError


def main(arguments: Sequence[str]) -> int:
    """Do it; returns the exit code."""
    home, partner, data, column, output = arguments
    try:
        with accord.open(home) as silo:
            print(silo.preview(partner, data, [column]))
            job = silo.match(partner, data, [column], purpose="trial", minimum=1)
            print("\n".join(job.disclosure))
            result = job.wait(progress=True).result()
    except SiloError as exc:
        print(f"match: {exc}", file=sys.stderr)
        return 1
    print(f"{result.matched} of {result.counts['own']} rows matched")
    print(result.head(5))
    print(f"all of them are in {result.write(output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
