"""E-mail addresses: what is one address, what is none, and what a provider delivers to one mailbox."""

from __future__ import annotations

import sys

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertical import emails
from vertical.emails import email_provider_v1
from vertical.values import Reason


def email(value: str) -> str | None:
    normal = emails.email_v1(value)
    return None if isinstance(normal, Reason) else normal


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+news@Example.COM\t\n", "ada.lovelace+news@example.com"),
        ("\u00a0ada@example.com\u3000", "ada@example.com"),
        ("ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ada@example.com"),  # noqa: RUF001
        ("ada@example。com", "ada@example.com"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("JOSÉ@example.com", "jos\u00e9@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("straße@example.com", "straße@example.com"),
        ("ΝΊΚΟΣ@example.com", "νίκος@example.com"),
        ("李@例え.テスト", "李@xn--r8jz45g.xn--zckzah"),
        ("o'brien_1=x@a-b.co.uk", "o'brien_1=x@a-b.co.uk"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        ("ﬁona@example.com", "fiona@example.com"),
    ],
)
def test_emails_that_are_the_same(value: str, normal: str) -> None:
    assert email(value) == normal


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "@", "ada", "ada@", "@example.com", "ada@@example.com", "a@b@example.com"),
        *("ada@localhost", "ada@example.com.", "ada@.com", "ada@example..com", "ada@-example.com", "ada@example-.com"),
        *(
            "ada@exa_mple.com",
            "ada@exa mple.com",
            "ada@[127.0.0.1]",
            "ada@ab--c.com",
            "ada@xn--.com",
            "ada@xn--a-ecp.ru",
        ),
        *('"ada"@example.com', "ada (x)@example.com", "a,b@example.com", "<ada@example.com>", "mailto:ada@example.com"),
        *(".ada@example.com", "ada.@example.com", "a..b@example.com", "a b@example.com", "a\tb@example.com"),
        *("ada\u200b@example.com", "\ufeffada@example.com", "ada\x00@example.com", "ada\ud800@example.com"),
        *("ada@exam\u200bple.com\ud800", "ada@exa\x00mple.com", "ada\ue000@example.com", "ada\U000e0fff@example.com"),
        *("a" * 65 + "@example.com", "é" * 33 + "@example.com"),
        *("a@" + "b" * 64 + ".com", "a@" + "b." * 126 + "com", "a@" + "ü" * 70000 + ".com"),
    ],
)
def test_emails_that_are_none(value: str) -> None:
    assert email(value) is None


def test_emails_that_differ() -> None:
    different = ["strasse@example.com", "straße@example.com", "a.b@gmail.com", "ab@gmail.com", "ab+x@gmail.com"]
    assert len({email(v) for v in different}) == 5


def test_longest_email() -> None:
    domain = ".".join(["b" * 60] * 3 + ["b" * 6])
    assert len(domain) == 189
    assert email("a" * 64 + "@" + domain) is not None
    assert email("a" * 64 + "@" + domain + "b") is None


def test_emails_are_idempotent_for_every_character() -> None:
    for code in range(sys.maxunicode + 1):
        normal = email(f"a{chr(code)}b@example.com")
        assert normal is None or email(normal) == normal, f"U+{code:04X}"


@settings(max_examples=300)
@given(st.text(max_size=20), st.text(max_size=20))
def test_emails_are_idempotent(local: str, domain: str) -> None:
    for value in (f"{local}@{domain}", f"{local}@{domain}.com", f"{local}@example.com", local):
        normal = email(value)
        assert normal is None or email(normal) == normal


@settings(max_examples=300)
@given(st.from_regex(r"[a-z0-9-]{1,8}(\.[a-z0-9-]{1,8}){0,3}\.?", fullmatch=True))
def test_plain_domains_are_what_the_library_makes_of_them(domain: str) -> None:
    try:
        expected = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        expected = None
    if expected is None or "." not in expected[:-1] or expected.endswith("."):
        expected = None
    assert emails._domain(domain) == expected


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("Smith@bar.com", "smith@bar.com"),  # RFC 5321, appendix D
        ("ken+sieve@example.org", "ken+sieve@example.org"),  # RFC 5233, section 4
        ("user+mailbox@example.com", "user+mailbox@example.com"),  # this and the rest: RFC 3696, section 3
        ("customer/department=shipping@example.com", "customer/department=shipping@example.com"),
        ("$A12345@example.com", "$a12345@example.com"),
        ("!def!xyz%abc@example.com", "!def!xyz%abc@example.com"),
        ("_somename@example.com", "_somename@example.com"),
        (r"Abc\@def@example.com", None),  # quoted or escaped: allowed there, rejected here
        (r"Fred\ Bloggs@example.com", None),
        ('"Abc@def"@example.com', None),
        ('"Fred Bloggs"@example.com', None),
    ],
)
def test_addresses_of_the_standards(value: str, normal: str | None) -> None:
    assert email(value) == normal


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", Reason.BLANK),
        (" \u00a0\t", Reason.BLANK),
        ("ada", Reason.MALFORMED),
        ("ada@localhost", Reason.MALFORMED),
        ("a" * 65 + "@example.com", Reason.TOO_LONG),  # RFC 5321, section 4.5.3.1.1
        ("é" * 33 + "@example.com", Reason.TOO_LONG),  # octets, not characters: RFC 6531, section 3.3
        ("a@" + "b." * 126 + "com", Reason.TOO_LONG),
        ("a b" * 65 + "@example.com", Reason.MALFORMED),
    ],
)
def test_why_an_address_is_none(value: str, reason: Reason) -> None:
    assert emails.email_v1(value) == reason
    assert email_provider_v1(value) == reason


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("Ada.Lovelace+News@GoogleMail.com", "adalovelace@gmail.com"),
        ("a.d.a@gmail.com", "ada@gmail.com"),
        ("ada+x+y@gmail.com", "ada@gmail.com"),
        ("a.d.a+x@outlook.com", "a.d.a@outlook.com"),
        ("ada+x@proton.me", "ada@proton.me"),
        ("ada@protonmail.com", "ada@protonmail.com"),  # the same mailbox perhaps; not for us to say
        ("ada.l+x@example.com", "ada.l+x@example.com"),
        ("ada.l+x@mail.gmail.com", "ada.l+x@mail.gmail.com"),
        ("ada-x@yahoo.com", "ada-x@yahoo.com"),
        ("+ada@gmail.com", Reason.MALFORMED),
        ("ada.+x@outlook.com", Reason.MALFORMED),
        ("ada.+x@gmail.com", "ada@gmail.com"),
    ],
)
def test_what_providers_deliver_to_one_mailbox(value: str, normal: str | Reason) -> None:
    assert email_provider_v1(value) == normal


def test_the_list_of_providers_is_in_normal_form() -> None:
    assert len(emails.PLUS_DOMAINS) == 14
    assert all(email(f"a@{domain}") == f"a@{domain}" for domain in emails.PLUS_DOMAINS)


@settings(max_examples=300)
@given(st.text("ab.+", max_size=8), st.sampled_from([*sorted(emails.PLUS_DOMAINS), "example.com", "gmail.com.example"]))
def test_provider_rules_only_join_addresses_and_are_idempotent(local: str, domain: str) -> None:
    plain, normal = emails.email_v1(f"{local}@{domain}"), email_provider_v1(f"{local}@{domain}")
    if isinstance(plain, Reason):
        assert normal == plain
    elif not isinstance(normal, Reason):
        assert email_provider_v1(normal) == normal
        assert emails.email_v1(normal) == normal
        assert domain in emails.PLUS_DOMAINS or normal == plain
