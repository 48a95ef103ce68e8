"""A silo's home directory: where each file is, and the settings a person writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from silos.errors import ConfigError
from silos.identity import Identity, create_identity, load_identity
from silos.policy import initial
from silos.spec import RESERVED_NAMES
from silos.spec_parts import SiloName
from silos.validation import Frozen, read_document, validate, write_private

HOME_VARIABLE = "ACCORD_HOME"
_JOB = re.compile(r"^[0-9a-f]{32}$")

URL_PATTERN = r"^https://[^/\s]+$"
PROXY = re.compile(r"http://(?P<user>[^/@\s]*@)?(?P<place>[^/@:\s]+:\d{1,5})/?")
Url = Annotated[str, Field(pattern=URL_PATTERN)]
HostPort = Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]


class NodeLimits(Frozen):
    """Bounds this silo sets itself.  Times in seconds."""

    concurrent_jobs: int = Field(ge=1, le=64, default=4)
    job_timeout_s: int = Field(ge=1, le=86_400, default=3600)


class SiloConfig(Frozen):
    """silo.toml.  `listen` and `advertise` let partners reach this silo directly; without them the relay is used.  proxy: an
    HTTP proxy that everything to the coordinator goes through; it may hold a password.
    """

    version: Literal[1]
    name: SiloName
    listen: HostPort | None = None
    advertise: HostPort | None = None
    proxy: str | None = Field(default=None, repr=False)
    limits: NodeLimits = NodeLimits()

    @field_validator("proxy")
    @classmethod
    def _proxy_form(cls, value: str | None) -> str | None:
        if value is not None and not PROXY.fullmatch(value):
            raise ValueError("must have the form http://host:port or http://user:password@host:port")
        return value


class Enrolment(Frozen):
    """coordinator.json: what joining gave us."""

    url: Url
    log_key: str
    origin: str
    silo: SiloName


@dataclass(frozen=True)
class Home:
    """Every path below a silo's home directory."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "silo.toml"

    @property
    def policy(self) -> Path:
        return self.root / "policy.toml"

    @property
    def catalogue(self) -> Path:
        return self.root / "catalogue.toml"

    @property
    def identity(self) -> Path:
        return self.root / "identity.key"

    @property
    def tls_key(self) -> Path:
        return self.root / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        return self.root / "tls.pem"

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def coordinator(self) -> Path:
        return self.root / "coordinator.json"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def next_identity(self) -> Path:
        return self.root / "identity.next"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def checkpoint(self) -> Path:
        return self.state / "checkpoint"

    @property
    def cosigned(self) -> Path:
        return self.state / "cosigned"

    @property
    def roster(self) -> Path:
        return self.state / "roster.json"

    def job(self, job: str) -> Path:
        """The directory of one job.  Raises: ConfigError if `job` is not a job id, so it is never a path elsewhere."""
        return self.jobs / self._job_id(job)

    def result(self, job: str) -> Path:
        """The result file of one job.  Raises: ConfigError if `job` is not a job id."""
        return self.root / "results" / f"{self._job_id(job)}.json"

    def table(self, job: str) -> Path:
        """The table that one job released.  Raises: ConfigError if `job` is not a job id."""
        return self.root / "results" / f"{self._job_id(job)}.parquet"

    @staticmethod
    def _job_id(job: str) -> str:
        if not _JOB.match(job):
            raise ConfigError(f"'{job}' is not a job id")
        return job

    def load_config(self) -> SiloConfig:
        """Raises: ConfigError, also when this is not a silo's home at all."""
        if not self.config.exists():
            raise ConfigError(f"{self.root} is not a silo's home; run 'accord silo init NAME --home {self.root}'")
        document = read_document(self.config, "the configuration", ConfigError)
        return validate(SiloConfig, document, f"the configuration {self.config}", ConfigError)

    def load_identity(self) -> Identity:
        """Raises: ConfigError."""
        return load_identity(self.identity)

    def load_enrolment(self) -> Enrolment:
        """Raises: ConfigError if this silo has not joined a coordinator."""
        if not self.coordinator.exists():
            raise ConfigError(
                f"the silo in {self.root} has not joined a coordinator; run 'accord silo join TOKEN --url URL'"
            )
        document = read_document(self.coordinator, "the enrolment", ConfigError)
        return validate(Enrolment, document, f"the enrolment {self.coordinator}", ConfigError)


def init_home(root: Path, name: str) -> Identity:
    """Make a silo's home: directories, identity key, configuration, a policy that permits nothing.

    Raises: ConfigError if the name is not a silo's name or a silo lives there already; then nothing is changed.
    """
    config = validate(SiloConfig, {"version": 1, "name": name}, "the configuration", ConfigError)
    if config.name in RESERVED_NAMES:
        raise ConfigError(f"'{name}' is reserved and cannot be a silo's name")
    home = Home(root)
    if home.config.exists() or home.identity.exists():
        raise ConfigError(f"a silo lives in {root} already")
    try:
        for directory in (root, home.jobs, home.state, root / "results"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{exc.filename} cannot be made: {exc.strerror}") from exc
    identity = create_identity(home.identity)
    if not home.policy.exists():
        write_private(home.policy, initial(name))
    write_private(home.config, _CONFIG.replace("@NAME@", json.dumps(name)))
    return identity


_CONFIG = """\
version = 1
name = @NAME@

# Where partners may connect directly; without these two lines the coordinator relays (ciphertext only).
# listen = "0.0.0.0:7443"
# advertise = "silo.example.org:7443"

# Where the way to the coordinator leads through an HTTP proxy.
# proxy = "http://user:password@proxy.example.org:3128"

[limits]
concurrent_jobs = 4
job_timeout_s = 3600
"""
