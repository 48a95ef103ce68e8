"""What a silo can say to a person: every error is one sentence that names what is wrong and whose it is."""

from __future__ import annotations

import re


class SiloError(Exception):
    """Base of everything the node and the command line raise on purpose."""

    @property
    def public(self) -> str:
        """The sentence for partners, who read why a job was refused or failed: without paths on this silo's machines."""
        return re.sub(r"(?<!\S)/\S+", "(a file here)", str(self))


class SpecError(SiloError):
    """A job request or a job spec is not acceptable."""


class ConfigError(SiloError):
    """A file of the silo's own home directory is missing or wrong."""

    @property
    def public(self) -> str:
        """What is wrong with it is for the operator."""
        return "a file of this silo is not as it should be; its operator sees which"


class CatalogueError(SiloError):
    """A data set cannot be used as it is registered or as the job asks for it."""


class DisclosureError(SiloError):
    """It cannot be stated what a job reveals, so the job cannot run."""


class EnrolError(SiloError):
    """Joining a coordinator, or renewing with it, did not work."""


class ConsentError(SiloError):
    """The consents of a job's participants do not fit together."""

    def __init__(self, why: str, silo: str = "") -> None:
        super().__init__(why)
        self.silo = silo


class PolicyDenied(SiloError):
    """The silo's own policy forbids a job; names the rule and the clause that failed."""

    def __init__(self, silo: str, rule: str, clause: str) -> None:
        where = f"policy of {silo}, rule '{rule}'" if rule else f"policy of {silo}"
        super().__init__(f"{where}: {clause}")
        self.silo, self.rule, self.clause = silo, rule, clause


class CoordinatorUnreachable(SiloError):
    """The coordinator did not answer; trying again later may help."""


class CoordinatorRefused(SiloError):
    """The coordinator answered with a refusal; the message is its sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class LogRewritten(SiloError):
    """The coordinator's log is not the one that this silo has seen before; no job can rest on it."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the log of {url} has been rewritten: {why}")


class LogForked(SiloError):
    """The coordinator shows this silo another log than it shows another silo; no job can rest on it."""

    def __init__(self, url: str, silo: str, why: str) -> None:
        super().__init__(f"the log of {url} is not the one that {silo} was shown: {why}")
        self.silo = silo


class RosterForged(SiloError):
    """The coordinator says of a silo's key what no signed entry of its log says."""

    def __init__(self, url: str, silo: str, why: str) -> None:
        super().__init__(f"the roster of {url} is not to be trusted about {silo or 'a silo'}: {why}")
        self.silo = silo


class OwnNameTaken(SiloError):
    """An entry of the log gives this silo's name to a key that it does not have, or takes it away."""

    def __init__(self, url: str, silo: str, why: str) -> None:
        super().__init__(f"{silo} no longer speaks for itself in the log of {url}: {why}")
        self.silo = silo


class JobFailed(SiloError):
    """A job ended here; names the step and, where one is to blame, the silo.

    silent: that silo just did not answer, so there is no use in waiting for what it has to say.  lost: a process or a link
    is gone, and nobody said anything wrong; another attempt may succeed.
    """

    def __init__(self, step: str, reason: str, party: str = "", *, silent: bool = False, lost: bool = False) -> None:
        super().__init__(reason)
        self.step, self.party, self.silent, self.lost = step, party, silent, lost
