"""From a few words to a job request: what `accord match` and the Python interface ask for, with the same forms.

A key is written as the column that holds e-mail addresses, or as "rule=phone/v1,region=CH,columns=tel", with "+" between
several columns.  A sum is written as "amount:0:10000" or, with digits behind the point, "amount:0:10000:2".
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from silos.errors import SpecError
from silos.request import build_spec
from silos.spec import Spec, spec_digest
from silos.times import utcnow

if TYPE_CHECKING:
    from silos.client import CoordinatorClient
    from silos.config import Home

DEFAULT_RULE = "email/v1"
_KEY_FIELDS = ("rule", "region", "columns")


@dataclass(frozen=True)
class Key:
    """One way to tell who a row is about.

    columns: ours, as many as the rule takes.  rule: how they are normalised.  region: where the rule asks for one.
    """

    columns: tuple[str, ...]
    rule: str = DEFAULT_RULE
    region: str | None = None

    @classmethod
    def of(cls, value: Key | str) -> Key:
        """A key from its written form.  Raises: SpecError."""
        return value if isinstance(value, Key) else parse_key(value)


@dataclass(frozen=True)
class Sum:
    """A column whose sum over the matched rows is asked for; see `silos.spec_parts.Sum`."""

    column: str
    lowest: str
    highest: str
    decimals: int = 0

    @classmethod
    def of(cls, value: Sum | str) -> Sum:
        """A sum from its written form.  Raises: SpecError."""
        return value if isinstance(value, Sum) else parse_sum(value)


def parse_key(text: str) -> Key:
    """Raises: SpecError."""
    if "=" not in text:
        return Key(tuple(text.split("+")))
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name not in _KEY_FIELDS or not equals or not value or name in given:
            raise SpecError(
                f"a key is a column, or 'rule=RULE,columns=COLUMN', with 'region=REGION' if the rule asks for one, got '{text}'"
            )
        given[name] = value
    if "columns" not in given:
        raise SpecError(f"the key '{text}' must name its columns, as in 'columns=email'")
    return Key(tuple(given["columns"].split("+")), given.get("rule", DEFAULT_RULE), given.get("region"))


def parse_sum(text: str) -> Sum:
    """Raises: SpecError."""
    parts = text.split(":")
    if len(parts) not in (3, 4) or (len(parts) == 4 and not parts[3].isdecimal()):
        raise SpecError(f"a sum is 'COLUMN:LOWEST:HIGHEST', perhaps with ':DECIMALS', got '{text}'")
    return Sum(parts[0], parts[1], parts[2], int(parts[3]) if len(parts) == 4 else 0)


def parse_partner(text: str) -> tuple[str, str]:
    """A partner and its data set, from 'SILO:DATASET'.  Raises: SpecError."""
    silo, colon, dataset = text.partition(":")
    if not (silo and colon and dataset):
        raise SpecError(f"a partner is 'SILO:DATASET', its name and that of its data set, got '{text}'")
    return silo, dataset


def parse_partners(texts: Sequence[str]) -> dict[str, str]:
    """Data sets by silo, in this order.  Raises: SpecError, also for a silo that is named twice."""
    partners: dict[str, str] = {}
    for silo, dataset in map(parse_partner, texts):
        if silo in partners:
            raise SpecError(f"{silo} is named as a partner twice")
        partners[silo] = dataset
    return partners


def by_partner(texts: Sequence[str], partners: Sequence[str]) -> dict[str, list[str]]:
    """What is said of each partner: 'SILO:WORDS' of one, anything else of all."""
    said: dict[str, list[str]] = {partner: [] for partner in partners}
    for text in texts:
        silo, colon, words = text.partition(":")
        if colon and silo in said:
            said[silo].append(words)
        else:
            for all_of_them in said.values():
                all_of_them.append(text)
    return said


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of whom; what is None or empty is left to the defaults of a request.

    partners: data sets by silo, in the job's order.  data: our data set.  keys: the best one first.  partner_keys,
    partner_sums: by silo; without keys of its own a partner's columns are called like ours.  columns, partner_columns: of an
    owner's data set, for its own table; left out, those of its keys.  numbers_only: nobody learns which rows match.  first:
    the owner who is first in the job.  count_first: before any process learns a row, find out in secret whether the matches
    are enough.  keep_tokens: keep the second owner's tokens for later jobs; rows are then matched by "oprf-psi".
    """

    data: str
    partners: Mapping[str, str]
    keys: tuple[Key, ...]
    purpose: str
    partner_keys: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    partner_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers_only: bool = False
    sums: tuple[Sum, ...] = ()
    partner_sums: Mapping[str, Sequence[Sum]] = field(default_factory=dict)
    round_to: int | None = None
    epsilon: str | None = None
    count_first: bool = False
    keep_tokens: bool = False
    protocol: str | None = None
    duplicates: str | None = None
    minimum: int | None = None
    helper: str | None = None
    randomness: str | None = None
    dealer: str | None = None
    release: tuple[str, ...] = ()
    first: str | None = None
    timeout_s: int | None = None
    valid_for_s: int | None = None

    @property
    def measures(self) -> bool:
        """Whether this is about numbers only."""
        return self.numbers_only or bool(self.sums or any(self.partner_sums.values()))

    def request(self, me: str) -> dict[str, Any]:
        """The job request.  me: our silo's name.  Raises: SpecError."""
        self._check(me)
        own = self._party(me, self.data, [key.columns for key in self.keys], self.columns, self.sums)
        parties = [own]
        for silo, dataset in self.partners.items():
            keys = self.partner_keys.get(silo) or [key.columns for key in self.keys]
            columns, sums = self.partner_columns.get(silo), self.partner_sums.get(silo, ())
            parties.append(self._party(silo, dataset, keys, columns, sums))
        parties.sort(key=lambda party: party["silo"] != self.first)
        align = {
            "protocol": self.protocol or self._implied,
            "keys": [{"rule": key.rule, "region": key.region} for key in self.keys],
            "duplicates": self.duplicates,
            "minimum_matches": self.minimum,
        }
        document: dict[str, Any] = {
            "kind": "vertical.measure" if self.measures else "vertical.match",
            "purpose": self.purpose,
            "parties": parties,
            "align": _given(align),
            **_given(
                {
                    "helper": self.helper,
                    "randomness": self.randomness,
                    "dealer": self.dealer,
                    "round_to": self.round_to,
                    "epsilon": self.epsilon,
                    "count_first": self.count_first or None,
                    "keep_tokens": self.keep_tokens or None,
                    "valid_for_s": self.valid_for_s,
                    "limits": None if self.timeout_s is None else {"timeout_s": self.timeout_s},
                    "release": list(self._release) or None,
                }
            ),
        }
        return document

    def spec(self, me: str) -> Spec:
        """The job, with an id of its own.  Raises: SpecError."""
        return build_spec(self.request(me), job=uuid.uuid4().hex, now=utcnow(), salt=secrets.token_hex(16))

    @property
    def _implied(self) -> str | None:
        """The protocol that goes with what is asked for, if only one does."""
        if self.helper is not None:
            return "helper-psi"
        return "oprf-psi" if self.keep_tokens else None

    @property
    def _release(self) -> tuple[str, ...]:
        if self.release or not (self.sums or any(self.partner_sums.values())):
            return self.release
        return ("matches", "sums")

    def _check(self, me: str) -> None:
        if not self.purpose:
            raise SpecError("a job must say what it is for, and its purpose is empty")
        if not self.partners:
            raise SpecError("a matching has at least one partner, got none")
        if not self.keys:
            raise SpecError("a matching has at least one key, got none")
        if self.first is not None and self.first not in (me, *self.partners):
            raise SpecError(f"'{self.first}' is to be the first owner, but is none of them")
        if self.measures and (self.columns or any(self.partner_columns.values())):
            raise SpecError("columns are for a table of matched rows, which nobody gets where only numbers are told")
        for silo, keys in self.partner_keys.items():
            if keys and len(keys) != len(self.keys):
                raise SpecError(f"{silo} must have {len(self.keys)} keys, as we have, got {len(keys)}")

    def _party(
        self, silo: str, dataset: str, keys: Sequence[Sequence[str]], columns: Sequence[str] | None, sums: Sequence[Sum]
    ) -> dict[str, Any]:
        party: dict[str, Any] = {"silo": silo, "dataset": dataset, "keys": [list(key) for key in keys]}
        if self.measures:
            return {**party, "sums": [vars(one) for one in sums]}
        by_key = dict.fromkeys(column for key in keys for column in key)
        return {**party, "output": list(by_key if columns is None else columns)}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def propose(client: CoordinatorClient, home: Home, spec: Spec, shown: Mapping[str, Any]) -> str:
    """Submit a job with its disclosure; returns its id.

    Raises: CoordinatorRefused, CoordinatorUnreachable, EnvelopeError, ConfigError.
    """
    from silos import diary

    name = home.load_config().name
    record = diary.Diary(home.job(spec.job), name, spec.job, spec_digest(spec), home.load_identity())
    return await diary.submit(client, record, spec.document(), shown)
