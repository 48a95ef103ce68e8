"""From the values of an identifier column to the byte strings that are matched.

Two owners match the same person only if both normalise in the same way, so a rule has a name and a version, both are
part of the job's specification, and both are part of every prepared item.  A rule never changes: another behaviour is
another version.

Source: Unicode UAX #15 (NFKC) and UTS #46 (domain names); RFC 5321 section 4.5.3.1 (lengths); RFC 6531 (letters of any
script in the local part).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import idna

from mpc.errors import LocalProtocolError

MAX_OPAQUE_BYTES = 1024

_MAX_LOCAL_BYTES, _MAX_EMAIL_BYTES = 64, 254
_PLAIN_DOMAIN = re.compile(r"(?:(?![a-z0-9-]{2}--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.(?!$)|$))+")
_LOCAL_SPECIALS = frozenset('"(),:;<>[\\]')
# Control, format, surrogate, private-use and unassigned characters, and every kind of space.
_INVISIBLE = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"])


class DuplicateIdentifiersError(LocalProtocolError, ValueError):
    """One of our columns names the same person in several rows, and the job says to refuse that."""

    def __init__(self, n_rows: int, rule: str) -> None:
        super().__init__(f"{n_rows} rows repeat the identifier of an earlier row (rule {rule}), which the job refuses")
        self.n_rows, self.rule = n_rows, rule


@dataclass(frozen=True)
class Rule:
    """One named way to normalise: `normalise` returns None for a value that is no identifier of this type.

    It is idempotent, and so a value that is already in normal form is its own normal form.
    """

    name: str
    normalise: Callable[[str], str | None]

    @property
    def prefix(self) -> bytes:
        """The type and version in front of every item: "email/v1" gives b"email\\0v1\\0"."""
        return self.name.replace("/", "\0").encode() + b"\0"


@dataclass(frozen=True)
class Prepared:
    """Distinct identifiers ready for matching.

    items: normalised and tagged, in the order of their rows.  rows: the row of each item in the column, ascending.
    rejected: rows without a valid identifier.  duplicates: rows left out because an earlier row has their identifier.
    """

    items: list[bytes]
    rows: list[int]
    rejected: int
    duplicates: int


def prepare(values: Sequence[object], rule: str, duplicates: str) -> Prepared:
    """Normalise a column by a named rule and settle what happens to repeated identifiers.

    duplicates: "refuse" raises if any identifier occurs twice; "first" keeps its first row.
    Raises: ValueError for an unknown rule or way to treat duplicates; DuplicateIdentifiersError, which like every
    error here names numbers of rows and never a value.
    """
    if rule not in RULES:
        raise ValueError(f"unknown identifier rule '{rule}': expected one of {', '.join(sorted(RULES))}")
    if duplicates not in ("refuse", "first"):
        raise ValueError(f"unknown treatment of duplicates '{duplicates}': expected refuse or first")
    chosen, first_row = RULES[rule], dict[bytes, int]()
    prefix, rejected, repeated = chosen.prefix, 0, 0
    for row, value in enumerate(values):
        normal = chosen.normalise(value) if isinstance(value, str) else None
        if normal is None:
            rejected += 1
            continue
        item = prefix + normal.encode()
        repeated += first_row.setdefault(item, row) != row
    if repeated and duplicates == "refuse":
        raise DuplicateIdentifiersError(repeated, rule)
    return Prepared(list(first_row), list(first_row.values()), rejected, repeated)


def _email_v1(value: str) -> str | None:
    """NFKC, trimmed, lower case, one "@", the domain in its ASCII form.

    Lower case and not case folding, which would make different mailboxes equal (ß and ss).  Provider rules (dots,
    "+tag") are not applied.  Quoted local parts, address literals, domains without a dot and invisible characters are
    rejected: they are typing or export errors far more often than addresses.
    """
    # Lower-casing can produce sequences that are not in normal form, so it is applied again.
    text = _nfkc(_nfkc(value).strip().lower())
    local, at, domain = text.partition("@")
    if not at or not _is_local_part(local):
        return None
    ascii_domain = _domain(domain)
    if ascii_domain is None:
        return None
    email = f"{local}@{ascii_domain}"
    return email if len(email.encode()) <= _MAX_EMAIL_BYTES else None


def _is_local_part(local: str) -> bool:
    if local.isascii() and local.replace(".", "").replace("_", "").isalnum():  # most of them
        printable = True
    else:
        printable = not any(c in _LOCAL_SPECIALS or unicodedata.category(c) in _INVISIBLE for c in local)
    dots = local.startswith(".") or local.endswith(".") or ".." in local
    return printable and not dots and 1 <= len(local.encode()) <= _MAX_LOCAL_BYTES


def _domain(domain: str) -> str | None:
    """Lower-case ASCII form of a domain name with at least two labels."""
    if not _PLAIN_DOMAIN.fullmatch(domain):  # the library takes its time and would return a plain one unchanged
        if len(domain) > _MAX_EMAIL_BYTES:  # its cost grows with the length
            return None
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError:  # every error of the library is one
            return None
    return domain if "." in domain.rstrip(".") and not domain.endswith(".") else None


def _opaque_v1(value: str) -> str | None:
    """NFKC and trimmed, otherwise as it is (case matters); not empty, at most 1,024 bytes, no control characters."""
    text = _nfkc(value).strip()
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        return None
    return text if 1 <= len(text.encode()) <= MAX_OPAQUE_BYTES else None


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.name: rule for rule in (Rule("email/v1", _email_v1), Rule("opaque/v1", _opaque_v1))}
)
