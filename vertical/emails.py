"""E-mail addresses in one spelling, with and without what single mail providers ignore.

Source: Unicode UAX #15 (NFKC) and UTS #46 (domain names); RFC 5321 section 4.5.3.1 (lengths); RFC 6531 (letters of any
script in the local part); RFC 5233 (the part after "+").
"""

from __future__ import annotations

import re
import unicodedata

import idna

from vertical.values import INVISIBLE, Reason, nfkc

GMAIL_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
# Providers that deliver "ada+anything" to "ada".  The list is part of the rule: another list is another version.
PLUS_DOMAINS = GMAIL_DOMAINS | {
    *("outlook.com", "hotmail.com", "live.com", "msn.com"),
    *("icloud.com", "me.com", "mac.com"),
    *("fastmail.com", "fastmail.fm"),
    *("proton.me", "protonmail.com", "pm.me"),
}

_MAX_LOCAL_BYTES, _MAX_EMAIL_BYTES = 64, 254
_PLAIN_DOMAIN = re.compile(r"(?:(?![a-z0-9-]{2}--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.(?!$)|$))+")
_LOCAL_SPECIALS = frozenset('"(),:;<>[\\]')


def email_v1(value: str) -> str | Reason:
    """NFKC, trimmed, lower case, one "@", the domain in its ASCII form.

    Lower case and not case folding, which would make different mailboxes equal (ß and ss).  Provider rules (dots,
    "+tag") are not applied.  Quoted local parts, address literals, domains without a dot and invisible characters are
    rejected: they are typing or export errors far more often than addresses.
    """
    # Lower-casing can produce sequences that are not in normal form, so it is applied again.
    text = nfkc(nfkc(value).strip().lower())
    local, at, domain = text.partition("@")
    if not at or not _is_local_part(local):
        return Reason.MALFORMED if text else Reason.BLANK
    ascii_domain = _domain(domain)
    if ascii_domain is None:
        return Reason.MALFORMED
    email = f"{local}@{ascii_domain}"
    too_long = len(local.encode()) > _MAX_LOCAL_BYTES or len(email.encode()) > _MAX_EMAIL_BYTES
    return Reason.TOO_LONG if too_long else email


def email_provider_v1(value: str) -> str | Reason:
    """As email_v1, then the spellings that a provider delivers to one mailbox are made one.

    At the domains in PLUS_DOMAINS everything from the first "+" is dropped; at Gmail the dots too, and its two domains
    become one.  Everywhere else a dot or a tag may name another mailbox, and nothing changes.
    """
    email = email_v1(value)
    if isinstance(email, Reason):
        return email
    local, _, domain = email.partition("@")
    if domain not in PLUS_DOMAINS:
        return email
    local = local.partition("+")[0]
    if domain in GMAIL_DOMAINS:
        local, domain = local.replace(".", ""), "gmail.com"
    # "a.+tag" leaves "a.", which is no address, and "+tag" leaves nothing.
    return Reason.MALFORMED if not local or local.endswith(".") else f"{local}@{domain}"


def _is_local_part(local: str) -> bool:
    """Is this a local part, its length aside?"""
    if local.isascii() and local.replace(".", "").replace("_", "").isalnum():  # most of them
        printable = True
    else:
        printable = not any(c in _LOCAL_SPECIALS or unicodedata.category(c) in INVISIBLE for c in local)
    dots = local.startswith(".") or local.endswith(".") or ".." in local
    return printable and not dots and local != ""


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
