"""One target under libFuzzer, in a process of its own: python -m tests.fuzz.libfuzzer NAME [libFuzzer's options] [folders]."""

from __future__ import annotations

import random  # noqa: TID251  libFuzzer gives the seed
import sys

import atheris

MEASURED = [
    "coordinator",
    "silos",
    "mpc.wire",
    "mpc.correlations",
    "mpc.noise",
    "mpc.tokens.sets",
    "vertical.checkpoints",
]


def main(name: str, options: list[str]) -> None:
    """Does not return: libFuzzer ends the process, with status 77 or 70 and a file of the input after a failure."""
    with atheris.instrument_imports(include=MEASURED):
        from tests.fuzz import engine
        from tests.fuzz.mutate import mutated

        target = engine.targets()[name]
    kept = engine.inputs(name) or [b""]

    def custom(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return mutated(data, chance.choice(kept), target.form, min(max_size, target.limit_bytes), chance)

    with engine.guarded(None) as folder:

        def one(data: bytes) -> None:
            failure = engine.tried(target, data, folder)
            if failure is not None:
                raise RuntimeError(str(failure))

        atheris.Setup([sys.argv[0], *options], one, custom_mutator=custom)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
