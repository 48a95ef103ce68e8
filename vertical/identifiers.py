"""From the values of identifier columns to the byte strings that are matched.

Two owners match the same person only if both normalise in the same way, so a rule has a name and a version, both are
part of the job's specification, and both are part of every prepared item.  A rule never changes: another behaviour is
another version.  docs/identifiers.md says what each rule makes equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mpc.errors import LocalProtocolError
from vertical import people
from vertical.emails import email_provider_v1, email_v1
from vertical.phones import REGIONS, phone_v1
from vertical.values import INVISIBLE, Reason, nfkc, text_of

MAX_TEXT_BYTES = 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")


class DuplicateIdentifiersError(LocalProtocolError, ValueError):
    """One of our columns names the same person in several rows, and the job says to refuse that."""

    def __init__(self, n_rows: int, rule: str) -> None:
        super().__init__(f"{n_rows} rows repeat the identifier of an earlier row (rule {rule}), which the job refuses")
        self.n_rows, self.rule = n_rows, rule


@dataclass(frozen=True)
class Rule:
    """One named way to normalise.

    roles: what its columns hold, in their order.  normalise: takes one text per role and gives the normal form or the
    reason why there is none; it raises for no text.  The normal form of a single column is its own normal form.
    regional: it also takes `region`, which decides how values are read and is not part of the item.
    """

    name: str
    roles: tuple[str, ...]
    normalise: Callable[..., str | Reason]
    regional: bool = False

    @property
    def prefix(self) -> bytes:
        """The type and version in front of every item: "email/v1" gives b"email\\0v1\\0"."""
        return self.name.replace("/", "\0").encode() + b"\0"

    def item(self, values: Sequence[object], region: str | None = None) -> bytes | Reason:
        """What is matched for one row; the same values give the same item always and everywhere.

        Raises: ValueError for another number of values than roles, or a region that is missing or means nothing.
        """
        self.check(len(values), region)
        texts = [text_of(value) for value in values]
        reason = next((text for text in texts if isinstance(text, Reason)), None)
        if reason is not None:
            return reason
        normal = self.normalise(*texts, region=region) if self.regional else self.normalise(*texts)
        return normal if isinstance(normal, Reason) else self.prefix + normal.encode()

    def check(self, n_columns: int, region: str | None) -> None:
        """Refuse, with a ValueError, another number of columns than roles, and a region that is of no use."""
        if n_columns != len(self.roles):
            expected = f"{len(self.roles)} column{'s' if len(self.roles) > 1 else ''} ({', '.join(self.roles)})"
            raise ValueError(f"rule {self.name} takes {expected}, got {n_columns}")
        if not self.regional and region is not None:
            raise ValueError(f"rule {self.name} takes no region")
        if self.regional and region not in REGIONS:
            raise ValueError(f"rule {self.name} needs a region that has a numbering plan")


def _text_v1(value: str) -> str | Reason:
    """NFKC and trimmed, otherwise as it is (case matters); at most 1,024 bytes, no invisible characters but spaces."""
    text = nfkc(value).strip()
    if not text:
        return Reason.BLANK
    plain = text.isascii() and text.isprintable()
    # What is not assigned yet may get another normal form one day, and counts as invisible.
    if not plain and any(c != " " and unicodedata.category(c) in INVISIBLE for c in text):
        return Reason.MALFORMED
    return text if len(text.encode()) <= MAX_TEXT_BYTES else Reason.TOO_LONG


def _hashed_sha256_v1(value: str) -> str | Reason:
    """64 hex digits of any case: what was hashed is not seen, so both owners must have hashed the same normal form."""
    text = value.strip().lower()
    if not text:
        return Reason.BLANK
    # str.lower makes ASCII letters of two others (the Kelvin sign, a dotted capital I); neither is a hex digit.
    return text if _SHA256.fullmatch(text) else Reason.MALFORMED


def _roles(*which: int) -> tuple[str, ...]:
    return tuple(people.ROLES[i] for i in which)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("email/v1", ("e-mail address",), email_v1),
            Rule("email-provider/v1", ("e-mail address",), email_provider_v1),
            Rule("phone/v1", ("telephone number",), phone_v1, regional=True),
            Rule("person/v1", people.ROLES, people.person_v1),
            Rule("name-birth/v1", _roles(0, 1, 2), people.name_birth_v1),
            Rule("name-postcode/v1", _roles(0, 1, 3), people.name_postcode_v1),
            Rule("given-birth-postcode/v1", _roles(0, 2, 3), people.one_name_birth_postcode_v1),
            Rule("family-birth-postcode/v1", _roles(1, 2, 3), people.one_name_birth_postcode_v1),
            Rule("hashed-sha256/v1", ("SHA-256 in hex",), _hashed_sha256_v1),
            Rule("text/v1", ("customer number",), _text_v1),
        )
    }
)
