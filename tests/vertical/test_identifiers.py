"""Rules and prepared columns: a closed registry, rows that are all accounted for, and errors that show no value."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ProtocolError
from vertical.emails import PLUS_DOMAINS
from vertical.identifiers import RULES, DuplicateIdentifiersError, prepare
from vertical.phones import REGIONS
from vertical.values import Reason, text_of

NAMES = ["email-provider/v1", "email/v1", "hashed-sha256/v1", "person/v1", "phone/v1", "text/v1"]
HASHED = hashlib.sha256(b"ada@example.com").hexdigest()


def region_of(rule: str) -> str | None:
    return "CH" if RULES[rule].regional else None


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (" C-0042 ", "C-0042"),
        ("c-0042", "c-0042"),
        ("①", "1"),
        ("e\u0301", "\u00e9"),
        ("two words", "two words"),
        ("two\u00a0words", "two words"),
        ("x" * 1024, "x" * 1024),
        ("", Reason.BLANK),
        (" \t\u00a0", Reason.BLANK),
        ("x" * 1025, Reason.TOO_LONG),
        ("é" * 513, Reason.TOO_LONG),
        ("a\x00b", Reason.MALFORMED),
        ("a\nb", Reason.MALFORMED),
        ("a\u200bb", Reason.MALFORMED),
        ("a\u2028b", Reason.MALFORMED),
        ("\ud800", Reason.MALFORMED),
        ("\ue000", Reason.MALFORMED),
        ("\U000e0fff", Reason.MALFORMED),
    ],
)
def test_text(value: str, normal: str | Reason) -> None:
    assert RULES["text/v1"].normalise(value) == normal


@settings(max_examples=300)
@given(st.text(max_size=6), st.text(max_size=6))
def test_texts_differ_unless_unicode_says_they_are_the_same(one: str, two: str) -> None:
    first, second = (RULES["text/v1"].normalise(v) for v in (one, two))
    if not isinstance(first, Reason) and not isinstance(second, Reason):
        same = unicodedata.normalize("NFKC", one).strip() == unicodedata.normalize("NFKC", two).strip()
        assert (first == second) == same


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (HASHED, HASHED),
        (f" {HASHED.upper()}\n", HASHED),
        ("", Reason.BLANK),
        (HASHED[:-1], Reason.MALFORMED),
        (HASHED + "0", Reason.MALFORMED),
        (HASHED[:-1] + "g", Reason.MALFORMED),
        (HASHED[:-1] + "\uff11", Reason.MALFORMED),
        ("0x" + HASHED[2:], Reason.MALFORMED),
        ("ada@example.com", Reason.MALFORMED),
        (HASHED[:32] + "\ud800", Reason.MALFORMED),
    ],
)
def test_hashed_columns(value: str, normal: str | Reason) -> None:
    assert RULES["hashed-sha256/v1"].normalise(value) == normal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ada", "ada"),
        (b"ad\xc3\xa4", "adä"),
        (b"", ""),
        (b"\xff", Reason.NOT_UTF8),
        (b"\xed\xa0\x80", Reason.NOT_UTF8),  # a surrogate
        (b"\xc0\x80", Reason.NOT_UTF8),  # NUL in two bytes
        (None, Reason.BLANK),
        (7, Reason.NOT_TEXT),
        (7.5, Reason.NOT_TEXT),
        (float("nan"), Reason.NOT_TEXT),
        (["ada"], Reason.NOT_TEXT),
    ],
)
def test_values_that_are_text(value: object, text: str | Reason) -> None:
    assert text_of(value) == text


ANY_VALUE = st.one_of(
    st.text(st.characters(), max_size=20), st.binary(max_size=20), st.none(), st.integers(), st.floats()
)


@pytest.mark.parametrize("rule", NAMES)
@settings(max_examples=200)
@given(data=st.data())
def test_no_value_breaks_a_rule_and_every_item_is_tagged(rule: str, data: Any) -> None:
    values = [data.draw(ANY_VALUE) for _ in RULES[rule].roles]
    item = RULES[rule].item(values, region_of(rule))
    assert isinstance(item, Reason) or item.startswith(rule.replace("/", "\0").encode() + b"\0")


@pytest.mark.parametrize("rule", [name for name in NAMES if name != "person/v1"])
@settings(max_examples=200)
@given(
    value=st.one_of(
        st.text(st.characters(), max_size=30),
        st.from_regex(r"[0-9a-fA-F]{64}", fullmatch=True),
        st.text("aB.+@gmailcom", max_size=20),
        st.from_regex(r"\+?[0-9 ()-]{6,16}", fullmatch=True),
    )
)
def test_normal_forms_are_their_own(rule: str, value: str) -> None:
    item = RULES[rule].item([value], region_of(rule))
    if not isinstance(item, Reason):
        normal = item.removeprefix(RULES[rule].prefix)
        assert RULES[rule].item([normal.decode()], region_of(rule)) == item
        assert RULES[rule].item([normal], region_of(rule)) == item, "bytes are read as UTF-8"


def test_the_items_of_every_rule_are_pinned() -> None:
    """If one changes, results change: it has to be another version of its rule."""
    rows: dict[str, tuple[list[object], bytes]] = {
        "email/v1": (["Ada.L+x@GoogleMail.com"], b"email\0v1\0ada.l+x@googlemail.com"),
        "email-provider/v1": (["Ada.L+x@GoogleMail.com"], b"email-provider\0v1\0adal@gmail.com"),
        "phone/v1": (["044 668 18 00"], b"phone\0v1\0+41446681800"),
        "person/v1": (
            ["Ada", "Müller", "1990-02-01", "sw1a 1aa"],
            b"person\0v1\0ada\0muller\x001990-02-01\0SW1A1AA",
        ),
        "hashed-sha256/v1": ([HASHED.upper()], b"hashed-sha256\0v1\0" + HASHED.encode()),
        "text/v1": ([" C-0042"], b"text\0v1\0C-0042"),
    }
    assert sorted(RULES) == sorted(rows) == NAMES
    for rule, (values, item) in rows.items():
        assert RULES[rule].item(values, region_of(rule)) == item


def test_prepare_tags_items_and_keeps_their_rows() -> None:
    column = [
        "Ada@example.com",
        None,
        "bob@example.com",
        3.5,
        "nobody",
        b"raw@example.com",
        b"\xff@a.de",
        " ",
        "a" * 300,
    ]
    got = prepare([column], "email/v1", "refuse")
    assert got.items == [
        b"email\x00v1\x00ada@example.com",
        b"email\x00v1\x00bob@example.com",
        b"email\x00v1\x00raw@example.com",
    ]
    assert got.rows == [0, 2, 5]
    assert got.reasons == {Reason.BLANK: 2, Reason.NOT_TEXT: 1, Reason.MALFORMED: 2, Reason.NOT_UTF8: 1}
    assert (got.rejected, got.blank, got.duplicates, got.n_rows) == (6, 2, 0, 9)
    empty = prepare([[]], "email/v1", "refuse")
    assert (empty.items, empty.rows, empty.reasons, empty.n_rows, empty.blank) == ([], [], {}, 0, 0)


def test_an_identifier_of_several_columns() -> None:
    columns: list[list[object]] = [
        ["Ada", "ADA", "Bob", None],
        ["Lovelace", "Love-lace", "", "X"],
        ["1815-12-10", "18151210", "1990-01-01", "1990-01-01"],
        ["sw1a 1aa", "SW1A1AA", "1000", b"\xff"],
    ]
    got = prepare(columns, "person/v1", "first")
    assert got.items == [b"person\0v1\0ada\0lovelace\x001815-12-10\0SW1A1AA"]
    assert (got.rows, got.duplicates, got.reasons) == ([0], 1, {Reason.BLANK: 2})
    with pytest.raises(DuplicateIdentifiersError, match="1 rows repeat"):
        prepare(columns, "person/v1", "refuse")


def test_types_never_match_each_other() -> None:
    rules = ("email/v1", "email-provider/v1", "text/v1")
    items = [prepare([["a@example.com"]], rule, "refuse").items[0] for rule in rules]
    assert len({item.rpartition(b"\0")[2] for item in items}) == 1
    assert len(set(items)) == 3


def test_first_keeps_the_first_row_of_each() -> None:
    column = ["b@example.com", "a@example.com", "B@example.com ", "x", "a@EXAMPLE.com", "b@example.com"]
    got = prepare([column], "email/v1", "first")
    assert (got.rows, got.rejected, got.duplicates) == ([0, 1], 1, 3)
    assert [i.rpartition(b"\0")[2] for i in got.items] == [b"b@example.com", b"a@example.com"]


def test_duplicates_are_refused_by_number_not_by_value() -> None:
    column = ["marker-7f3a@example.com", "MARKER-7f3a@example.com", "marker-7f3a@example.com", "b@example.com"]
    with pytest.raises(DuplicateIdentifiersError) as caught:
        prepare([column], "email/v1", "refuse")
    assert str(caught.value).startswith("2 rows repeat the identifier of an earlier row (rule email/v1)")
    assert "marker" not in str(caught.value).lower()
    assert (caught.value.n_rows, caught.value.rule) == (2, "email/v1")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ProtocolError)


@pytest.mark.parametrize(
    ("columns", "rule", "duplicates", "region", "sentence"),
    [
        ([[]], "email/v2", "refuse", None, f"unknown identifier rule 'email/v2': expected one of {', '.join(NAMES)}"),
        ([[]], "email/v1", "last", None, "unknown treatment of duplicates 'last': expected refuse or first"),
        ([], "email/v1", "first", None, "rule email/v1 takes 1 column (e-mail address), got 0"),
        ([[], []], "text/v1", "first", None, "rule text/v1 takes 1 column (customer number), got 2"),
        (
            [[]],
            "person/v1",
            "first",
            None,
            "rule person/v1 takes 4 columns (given name, family name, date of birth, postcode), got 1",
        ),
        ([[]], "email/v1", "first", "CH", "rule email/v1 takes no region"),
        ([[]], "phone/v1", "first", None, "rule phone/v1 needs a region that has a numbering plan"),
        ([[]], "phone/v1", "first", "ZZ", "rule phone/v1 needs a region that has a numbering plan"),
        ([["a"], [], [], []], "person/v1", "first", None, "the columns of an identifier must be of equal length"),
    ],
)
def test_what_prepare_refuses(
    columns: list[list[object]], rule: str, duplicates: str, region: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError) as caught:
        prepare(columns, rule, duplicates, region)
    assert str(caught.value) == sentence


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["a@x.io", "A@x.io", "b@x.io", "", "c", None, "d@x.io", b"\xff", 3]), max_size=12))
def test_every_row_is_accounted_for(column: list[object]) -> None:
    got = prepare([column], "email/v1", "first")
    assert got.n_rows == len(column)
    assert all(count > 0 for count in got.reasons.values())
    assert got.rows == sorted(got.rows)
    assert len(set(got.items)) == len(got.items) == len(got.rows)
    again = prepare([[column[r] for r in got.rows]], "email/v1", "refuse")
    assert again.items == got.items


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RULES["email/v1"] = RULES["text/v1"]  # type: ignore[index]
    assert all(name == rule.name for name, rule in RULES.items())
    assert {"CH", "US", "GB"} < REGIONS
    assert "001" not in REGIONS


def test_the_page_has_every_rule_reason_and_provider() -> None:
    page = (Path(__file__).parents[2] / "docs" / "identifiers.md").read_text(encoding="utf-8")
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `([a-z0-9-]+/v1)` \| ([^|]+) \|", page, re.MULTILINE)}
    assert rows == {name: ", ".join(rule.roles) for name, rule in RULES.items()}
    assert set(re.findall(r"^## `(.+)`$", page, re.MULTILINE)) == RULES.keys()
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)) == {reason.value for reason in Reason}
    assert set(re.findall(r"`([a-z]+\.(?:com|fm|me))`", page)) == PLUS_DOMAINS
