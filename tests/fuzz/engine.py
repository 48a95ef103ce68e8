"""Run targets over inputs: replay with bounded mutations for the suite, and libFuzzer (atheris) for long runs.

Every input runs under an alarm of `HANG_S` seconds of CPU time and, in a replay, a limit on the address space: `ROOM_BYTES`
more than what the process has when it starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import random  # noqa: TID251  a replay must be repeatable from its seed
import resource
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

CORPUS = Path(__file__).parent / "corpus"
MODULES = ("targets_wire", "targets_coordinator", "targets_silos", "targets_bundle")
HANG_S = 10.0
ROOM_BYTES = 512 << 20


class Hung(BaseException):
    """A target did not come back; not an Exception, so that no parser's own handler can swallow it."""


@dataclass(frozen=True)
class Failure:
    """What a target must not do.  data: the input that made it."""

    target: str
    data: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.target}, {len(self.data)} bytes {self.data[:200]!r}: {self.what}"


def targets() -> dict[str, Target]:
    """Every target by its name."""
    found = [target for name in MODULES for target in import_module(f"tests.fuzz.{name}").TARGETS]
    by_name = {target.name: target for target in found}
    if len(by_name) != len(found):
        raise ValueError("two targets have one name")
    return by_name


def inputs(target: str) -> list[bytes]:
    """The kept inputs of a target, in one order."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def keep(target: str, data: bytes, prefix: str = "") -> Path:
    """Add an input to the corpus, under a name that is made of its content."""
    path = CORPUS / target / f"{prefix}{hashlib.sha256(data).hexdigest()[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tried(target: Target, data: bytes, folder: Path) -> Failure | None:
    """One input; a failure is an exception that the target does not declare, or no end."""
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        target(data, folder)
    except (Exception, Hung) as exc:
        return Failure(target.name, data, f"{type(exc).__name__}: {exc}"[:500])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


@contextlib.contextmanager
def guarded(room_bytes: int | None = ROOM_BYTES) -> Iterator[Path]:
    """The alarm, the limit on memory, and a scratch directory.  The limit stays until the process ends."""
    signal.signal(signal.SIGPROF, _hung)
    if room_bytes is not None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + room_bytes, resource.RLIM_INFINITY))
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def _hung(_number: int, _frame: object) -> None:
    raise Hung(f"no end within {HANG_S:g} s of CPU time")


def replayed(target: Target, n_mutations: int, folder: Path, seed: str = "replay") -> tuple[int, list[Failure]]:
    """Every kept input, then mutations of them; returns how many were tried and what failed."""
    chance = random.Random(f"{seed} {target.name}")
    kept = inputs(target.name) or [b""]
    failures, n = [], 0
    for data in kept:
        n += 1
        failures += [failure] if (failure := tried(target, data, folder)) else []
    for _ in range(n_mutations):
        data = mutated(chance.choice(kept), chance.choice(kept), target.form, target.limit_bytes, chance)
        n += 1
        failures += [failure] if (failure := tried(target, data, folder)) else []
        if len(failures) > 20:
            break
    return n, failures
