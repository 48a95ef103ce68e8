"""From the values of identifier columns to the byte strings that are matched.

Two owners match the same person only if both normalise in the same way, so a rule has a name and a version, both are
part of the job's specification, and both are part of every prepared item.  A rule never changes: another behaviour is
another version.  docs/identifiers.md says what each rule makes equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        self._check(len(values), region)
        return _item(self.prefix, self._reader(region), values)

    def _check(self, n_columns: int, region: str | None) -> None:
        if n_columns != len(self.roles):
            expected = f"{len(self.roles)} column{'s' if len(self.roles) > 1 else ''} ({', '.join(self.roles)})"
            raise ValueError(f"rule {self.name} takes {expected}, got {n_columns}")
        if not self.regional and region is not None:
            raise ValueError(f"rule {self.name} takes no region")
        if self.regional and region not in REGIONS:
            raise ValueError(f"rule {self.name} needs a region that has a numbering plan")

    def _reader(self, region: str | None) -> Callable[..., str | Reason]:
        return partial(self.normalise, region=region) if self.regional else self.normalise


@dataclass(frozen=True)
class Prepared:
    """Distinct identifiers ready for matching.

    items: normalised and tagged, in the order of their rows.  rows: the row of each item in the columns, ascending.
    reasons: rows without a valid identifier, per reason that occurred.  duplicates: rows left out because an earlier
    row has their identifier.
    """

    items: list[bytes]
    rows: list[int]
    reasons: Mapping[Reason, int]
    duplicates: int

    @property
    def rejected(self) -> int:
        """Rows without a valid identifier, blank ones among them."""
        return sum(self.reasons.values())

    @property
    def blank(self) -> int:
        """Rows in which a column holds nothing."""
        return self.reasons.get(Reason.BLANK, 0)

    @property
    def n_rows(self) -> int:
        """All rows of the columns."""
        return len(self.rows) + self.rejected + self.duplicates


def prepare(columns: Sequence[Sequence[object]], rule: str, duplicates: str, region: str | None = None) -> Prepared:
    """Normalise the columns of an identifier by a named rule and settle what happens to repeated identifiers.

    columns: one per role of the rule, in its order, of equal length.  duplicates: "refuse" raises if any identifier
    occurs twice; "first" keeps its first row.  region: as the rule asks.
    Raises: ValueError for an unknown rule or way to treat duplicates and for what Rule.item refuses;
        DuplicateIdentifiersError, which like every error here names numbers of rows and never a value.
    """
    if rule not in RULES:
        raise ValueError(f"unknown identifier rule '{rule}': expected one of {', '.join(sorted(RULES))}")
    if duplicates not in ("refuse", "first"):
        raise ValueError(f"unknown treatment of duplicates '{duplicates}': expected refuse or first")
    chosen, first_row = RULES[rule], dict[bytes, int]()
    chosen._check(len(columns), region)
    if len({len(column) for column in columns}) > 1:
        raise ValueError("the columns of an identifier must be of equal length")
    prefix, reader = chosen.prefix, chosen._reader(region)
    reasons, repeated = Counter[Reason](), 0
    for row, values in enumerate(zip(*columns, strict=True)):
        item = _item(prefix, reader, values)
        if isinstance(item, Reason):
            reasons[item] += 1
        else:
            repeated += first_row.setdefault(item, row) != row
    if repeated and duplicates == "refuse":
        raise DuplicateIdentifiersError(repeated, rule)
    return Prepared(list(first_row), list(first_row.values()), MappingProxyType(dict(reasons)), repeated)


def _item(prefix: bytes, reader: Callable[..., str | Reason], values: Sequence[object]) -> bytes | Reason:
    for value in values:
        if not isinstance(value, str):
            texts = [text_of(v) for v in values]
            reason = next((text for text in texts if isinstance(text, Reason)), None)
            return _item(prefix, reader, texts) if reason is None else reason
    normal = reader(*values)
    return normal if isinstance(normal, Reason) else prefix + normal.encode()


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


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("email/v1", ("e-mail address",), email_v1),
            Rule("email-provider/v1", ("e-mail address",), email_provider_v1),
            Rule("phone/v1", ("telephone number",), phone_v1, regional=True),
            Rule("person/v1", people.ROLES, people.person_v1),
            Rule("hashed-sha256/v1", ("SHA-256 in hex",), _hashed_sha256_v1),
            Rule("text/v1", ("customer number",), _text_v1),
        )
    }
)
