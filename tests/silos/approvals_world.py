"""Persons with keys, a silo's home whose policy names them, and a job that waits for them."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.envelope import digest
from silos.approvals import Pending, approved, read_pending
from silos.approvers import create_key, key_file, load_key, policy_lines, public_text
from silos.config import Home, init_home
from silos.disclosure import disclosure
from silos.errors import SiloError
from silos.spec import Spec, spec_digest
from silos.times import utcnow
from silos.validation import write_private
from tests.silos.world import BOUND_S, RULE, make_spec, policy_text, registry

ANA, BO = "Ana Ruiz", 'Bo "B" Łukasz'
PASSPHRASE = "correct horse battery"


@functools.cache
def key_files() -> Path:
    """A folder with the keys of both persons; making one takes a while on purpose."""
    folder = Path(tempfile.mkdtemp(prefix="accord-approvers-"))
    for name in (ANA, BO):
        create_key(key_file(folder, name), name, PASSPHRASE)
    return folder


@functools.cache
def private_key(name: str) -> Ed25519PrivateKey:
    """The opened key of one of them."""
    return load_key(key_file(key_files(), name), PASSPHRASE)


def public(*names: str) -> dict[str, str]:
    """Name -> key, as a policy says it."""
    return {name: public_text(private_key(name)) for name in names or (ANA, BO)}


def name_approvers(home: Home, *names: str, needed: int = 0, base: str | None = None) -> None:
    """Write a policy that names persons, and a rule that asks for so many of them."""
    text = policy_text(RULE, {"platform": "1" * 64, "dealer": "2" * 64}) if base is None else base
    text = text.replace("[[allow]]\n", f"[[allow]]\napproval = {needed}\n") if needed else text
    write_private(home.policy, text + "".join(policy_lines(*item) + "\n" for item in public(*names).items()))


def keep_keys(home: Home) -> None:
    """Copy the persons' keys into a home."""
    shutil.copytree(key_files(), home.root / "approvers")


async def until(look: Callable[[], bool]) -> None:
    """Wait, but not for ever, until something is so."""
    async with asyncio.timeout(BOUND_S):
        while True:
            if look():
                return
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Rule:
    """What a decision says of its rule."""

    rule: str = "credit-model"


@dataclass(frozen=True)
class Reviewed:
    """What waiting for persons needs to know of a reviewed job."""

    spec: Spec
    spec_digest: str
    disclosure_digest: str
    decision: Rule = Rule()


def reviewed(**changes: Any) -> Reviewed:
    """A job that is valid for an hour."""
    spec = make_spec(now=utcnow(), valid_for_s=3600, **changes)
    return Reviewed(spec, spec_digest(spec), digest(disclosure(spec, registry)))


@dataclass
class Desk:
    """One silo whose node waits for persons."""

    home: Home
    job: Reviewed
    over: bool = False

    def wait(self, needed: int = 1, until: dt.datetime | None = None, **options: Any) -> Any:
        """The node's side, to be awaited."""
        return approved(
            self.home,
            "lender",
            self.job,  # type: ignore[arg-type]
            needed,
            options.pop("approvers", public()),
            until or utcnow() + dt.timedelta(minutes=30),
            submitter="platform",
            registry=registry,
            ended=lambda: self.over,
            **options,
        )

    async def asked(self) -> Pending:
        """The question, once it is there."""
        return await self.until(lambda: read_pending(self.home, self.job.spec.job))

    async def until(self, look: Any) -> Any:
        """What `look` finds once it finds something, or the last error after a bounded wait."""
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    return look()
                except SiloError:
                    await asyncio.sleep(0.02)

    def folder(self) -> Path:
        """Where the job's files are."""
        return self.home.job(self.job.spec.job)


@contextmanager
def desk(root: Path, **changes: Any) -> Iterator[Desk]:
    """A lender with two approvers and a job."""
    init_home(root / "lender", "lender")
    home = Home(root / "lender")
    name_approvers(home)
    yield Desk(home, reviewed(**changes))


def entries(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
