"""Telephone numbers in the international form of ITU-T E.164, by the numbering plans of libphonenumber.

Source: ITU-T E.164; libphonenumber (Google) in its Python port, whose metadata say which numbers are assigned.
"""

from __future__ import annotations

import unicodedata

import phonenumbers

from vertical.values import Reason, nfkc

REGIONS: frozenset[str] = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""Regions that have a numbering plan, as ISO 3166-1 codes of two letters."""

_MAX_CHARACTERS = 64
_SEPARATORS = frozenset("+()./")


def phone_v1(value: str, *, region: str) -> str | Reason:
    """The number as "+", country code and national number, without separators.

    region: what a number without a country code is read in; one of REGIONS.  Letters are rejected, and so extensions
    and numbers spelt in words: what stands beside a number in a customer file is a remark more often than a part of it.
    """
    # Address books put marks for the direction of writing around numbers; they are not part of them.
    text = "".join(c for c in nfkc(value) if unicodedata.category(c) != "Cf").strip()
    if not text:
        return Reason.BLANK
    if len(text) > _MAX_CHARACTERS:
        return Reason.TOO_LONG
    if not all(_may_stand(c) for c in text) or "+" in text.lstrip("( ")[1:]:
        return Reason.MALFORMED
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return Reason.MALFORMED
    if not phonenumbers.is_valid_number(number):
        return Reason.NOT_ASSIGNED
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _may_stand(c: str) -> bool:
    return c in _SEPARATORS or unicodedata.category(c) in ("Nd", "Zs", "Pd") or c == "\t"
