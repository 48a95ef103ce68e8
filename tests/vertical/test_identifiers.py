"""Normalisation rules: what equals what, what is rejected, and that no error shows a value."""

from __future__ import annotations

import sys

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ProtocolError
from vertical import identifiers
from vertical.identifiers import RULES, DuplicateIdentifiersError, Prepared, prepare


def email(value: str) -> str | None:
    return RULES["email/v1"].normalise(value)


def opaque(value: str) -> str | None:
    return RULES["opaque/v1"].normalise(value)


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
    assert identifiers._domain(domain) == expected


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (" C-0042 ", "C-0042"),
        ("c-0042", "c-0042"),
        ("①", "1"),
        ("e\u0301", "\u00e9"),
        ("two words", "two words"),
        ("x" * 1024, "x" * 1024),
        ("", None),
        (" \t\u00a0", None),
        ("x" * 1025, None),
        ("é" * 513, None),
        ("a\x00b", None),
        ("a\nb", None),
        ("\ud800", None),
    ],
)
def test_opaque(value: str, normal: str | None) -> None:
    assert opaque(value) == normal


@settings(max_examples=300)
@given(st.text(max_size=30))
def test_opaque_is_idempotent(value: str) -> None:
    normal = opaque(value)
    assert normal is None or opaque(normal) == normal


def test_prepare_tags_items_and_keeps_their_rows() -> None:
    column = ["Ada@example.com", None, "bob@example.com", 3.5, "nobody", b"raw@example.com", float("nan"), 7]
    assert prepare(column, "email/v1", "refuse") == Prepared(
        items=[b"email\x00v1\x00ada@example.com", b"email\x00v1\x00bob@example.com"],
        rows=[0, 2],
        rejected=6,
        duplicates=0,
    )
    assert prepare(["é"], "opaque/v1", "refuse").items == [b"opaque\x00v1\x00\xc3\xa9"]
    assert prepare([], "email/v1", "refuse") == Prepared([], [], 0, 0)


def test_types_never_match_each_other() -> None:
    (one,), (two,) = (prepare(["a@example.com"], rule, "refuse").items for rule in ("email/v1", "opaque/v1"))
    assert one != two


def test_first_keeps_the_first_row_of_each() -> None:
    column = ["b@example.com", "a@example.com", "B@example.com ", "x", "a@EXAMPLE.com", "b@example.com"]
    got = prepare(column, "email/v1", "first")
    assert (got.rows, got.rejected, got.duplicates) == ([0, 1], 1, 3)
    assert [i.rpartition(b"\0")[2] for i in got.items] == [b"b@example.com", b"a@example.com"]


def test_duplicates_are_refused_by_number_not_by_value() -> None:
    column = ["marker-7f3a@example.com", "MARKER-7f3a@example.com", "marker-7f3a@example.com", "b@example.com"]
    with pytest.raises(DuplicateIdentifiersError) as caught:
        prepare(column, "email/v1", "refuse")
    assert str(caught.value).startswith("2 rows repeat the identifier of an earlier row (rule email/v1)")
    assert "marker" not in str(caught.value).lower()
    assert (caught.value.n_rows, caught.value.rule) == (2, "email/v1")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ProtocolError)


def test_unknown_rule_and_unknown_treatment() -> None:
    with pytest.raises(ValueError, match=r"unknown identifier rule 'email/v2': expected one of email/v1, opaque/v1"):
        prepare([], "email/v2", "refuse")
    with pytest.raises(ValueError, match="unknown treatment of duplicates 'last': expected refuse or first"):
        prepare([], "email/v1", "last")


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["a@x.io", "A@x.io", "b@x.io", "", "c", None, "d@x.io"]), max_size=12))
def test_every_row_is_accounted_for(column: list[str | None]) -> None:
    got = prepare(column, "email/v1", "first")
    assert len(got.rows) + got.rejected + got.duplicates == len(column)
    assert got.rows == sorted(got.rows)
    assert len(set(got.items)) == len(got.items) == len(got.rows)
    again = prepare([column[r] for r in got.rows], "email/v1", "refuse")
    assert again.items == got.items


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RULES["email/v1"] = RULES["opaque/v1"]
    assert all(name == rule.name for name, rule in RULES.items())
