"""What a single value of an identifier column is before any rule: text, or a reason to leave its row out."""

from __future__ import annotations

import unicodedata
from enum import Enum

# Control, format, surrogate, private-use and unassigned characters, and every kind of space.
INVISIBLE = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"])


class Reason(Enum):
    """Why a row has no identifier.  The set is closed and the reasons are counted; none is shown with a value."""

    BLANK = "blank"
    NOT_TEXT = "not-text"
    NOT_UTF8 = "not-utf8"
    TOO_LONG = "too-long"
    MALFORMED = "malformed"
    NOT_ASSIGNED = "not-assigned"


def text_of(value: object) -> str | Reason:
    """The text of a value: itself, or decoded from UTF-8 bytes.

    A number is not text: whether 7 and "007" name the same customer is for the file's owner to decide.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return Reason.BLANK
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return Reason.NOT_UTF8
    return Reason.NOT_TEXT


def nfkc(text: str) -> str:
    """Unicode's form for compatibility: ligatures, full-width letters and composed accents become one spelling."""
    return unicodedata.normalize("NFKC", text)
