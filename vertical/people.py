"""A person by name, date of birth and postcode, where there is no better identifier.

Two people can share all of them, and one person can be spelt in two ways that no rule makes equal; so this finds fewer
matches than an address or a number, and a few wrong ones.

Source: Unicode UAX #15 (NFKD) and the Unicode Standard, section 3.13, D146 (compatibility caseless matching); ISO 8601
(dates).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from vertical.values import Reason, nfkc

ROLES = ("given name", "family name", "date of birth", "postcode")

_MAX_NAME_BYTES = 256
# Letters that Unicode does not take apart into a base letter and a mark.  After case folding only small ones are left.
_LETTERS = str.maketrans("øđðħıĸłŋŧ", "oddhiklnt") | str.maketrans({"æ": "ae", "œ": "oe", "þ": "th"})
# Accents and points: what many files leave out.  Vowel signs of other scripts are also marks, but they are spelling.
# The block of modifier letters is in the list because it holds the apostrophes that count as letters.
_DROPPED = (
    (0x02B0, 0x036F), (0x0483, 0x0487), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670),
    (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F),
)  # fmt: skip
_NO_TEXT = frozenset(["Cc", "Cs", "Co", "Cn"])
_DATE = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_FIRST_YEAR, _LAST_YEAR = 1800, 2199
_POSTCODE = re.compile(r"[A-Z0-9]{2,12}")


def person_v1(given: str, family: str, born: str, postcode: str) -> str | Reason:
    """The four parts in this order, each in its own normal form, with NUL between them."""
    return _joined((given, name), (family, name), (born, date), (postcode, code))


def name_birth_v1(given: str, family: str, born: str) -> str | Reason:
    """As person_v1 without the postcode: for people who have moved."""
    return _joined((given, name), (family, name), (born, date))


def name_postcode_v1(given: str, family: str, postcode: str) -> str | Reason:
    """As person_v1 without the date of birth: where one file has none, or a wrong one."""
    return _joined((given, name), (family, name), (postcode, code))


def one_name_birth_postcode_v1(one_name: str, born: str, postcode: str) -> str | Reason:
    """As person_v1 with only one of the two names: where the other one is misspelt, missing or has changed."""
    return _joined((one_name, name), (born, date), (postcode, code))


def _joined(*values: tuple[str, Callable[[str], str | Reason]]) -> str | Reason:
    parts: list[str] = []
    for text, rule in values:
        part = rule(text)
        if isinstance(part, Reason):
            return part
        parts.append(part)
    return "\0".join(parts)


def name(text: str) -> str | Reason:
    """Letters, digits and the vowel signs that belong to letters; no case, accents, punctuation or spaces.

    "Anne-Marie", "Anne Marie" and "ANNEMARIE" are one name, and so are "Łukasz" and "Lukasz".  A letter with two dots
    loses them and gets no e: "Müller" is "Muller" and not "Mueller".  Nothing goes from one script to another.
    """
    if text.isascii() and text.isprintable():
        kept = "".join(filter(str.isalnum, text.lower()))
    else:
        if any(unicodedata.category(c) in _NO_TEXT and not c.isspace() for c in text):
            return Reason.MALFORMED
        folded = text
        for _ in range(2):  # folding can undo the form, and the form can bring capitals
            folded = unicodedata.normalize("NFKD", folded).casefold()
        folded = unicodedata.normalize("NFKD", folded).translate(_LETTERS)
        # What was apart may now stand side by side, so the order of marks is settled again.
        kept = unicodedata.normalize("NFKD", "".join(c for c in folded if _belongs(c)))
    if not any(map(str.isalpha, kept)):
        return Reason.MALFORMED if text.strip() else Reason.BLANK
    return kept if len(kept.encode()) <= _MAX_NAME_BYTES else Reason.TOO_LONG


def _belongs(c: str) -> bool:
    if c < "\x80":
        return c.isalnum()
    return unicodedata.category(c)[0] in "LMN" and not any(first <= ord(c) <= last for first, last in _DROPPED)


def date(text: str) -> str | Reason:
    """The day as YYYY-MM-DD, from that, YYYYMMDD, or a date with a time, whose day is taken as it is written.

    No other order of day and month is guessed: a wrong guess would be a wrong person.
    """
    text = nfkc(text).strip()
    found = _DATE.fullmatch(text)
    if found is None:
        return Reason.MALFORMED if text else Reason.BLANK
    year, month, day = int(found[1]), int(found[3]), int(found[4])
    if not (_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= month <= 12 and 1 <= day <= _days(year, month)):
        return Reason.MALFORMED
    return f"{found[1]}-{found[3]}-{found[4]}"


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def code(text: str) -> str | Reason:
    """A postcode: ASCII capitals and digits, without spaces and dashes."""
    kept = "".join(c for c in nfkc(text) if not c.isspace() and unicodedata.category(c) != "Pd")
    if not kept:
        return Reason.MALFORMED if text.strip() else Reason.BLANK
    if not kept.isascii() or not _POSTCODE.fullmatch(kept.upper()):
        return Reason.MALFORMED
    return kept.upper()
