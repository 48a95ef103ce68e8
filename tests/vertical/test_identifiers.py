"""Rules: a closed registry, items that no other rule gives, and a reason wherever there is none."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertical.emails import PLUS_DOMAINS
from vertical.identifiers import RULES
from vertical.phones import REGIONS
from vertical.values import Reason, text_of

NAMES = [
    *("email-provider/v1", "email/v1", "family-birth-postcode/v1", "given-birth-postcode/v1", "hashed-sha256/v1"),
    *("name-birth/v1", "name-postcode/v1", "person/v1", "phone/v1", "text/v1"),
]
SINGLE = [name for name in NAMES if len(RULES[name].roles) == 1]
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


@pytest.mark.parametrize("rule", SINGLE)
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
        "name-birth/v1": (["Ada", "Müller", "19900201"], b"name-birth\0v1\0ada\0muller\x001990-02-01"),
        "name-postcode/v1": (["Ada", "Müller", "sw1a 1aa"], b"name-postcode\0v1\0ada\0muller\0SW1A1AA"),
        "given-birth-postcode/v1": (
            ["Ada", "19900201", "sw1a 1aa"],
            b"given-birth-postcode\0v1\0ada\x001990-02-01\0SW1A1AA",
        ),
        "family-birth-postcode/v1": (
            ["Müller", "19900201", "sw1a 1aa"],
            b"family-birth-postcode\0v1\0muller\x001990-02-01\0SW1A1AA",
        ),
        "hashed-sha256/v1": ([HASHED.upper()], b"hashed-sha256\0v1\0" + HASHED.encode()),
        "text/v1": ([" C-0042"], b"text\0v1\0C-0042"),
    }
    assert sorted(RULES) == sorted(rows) == NAMES
    for rule, (values, item) in rows.items():
        assert RULES[rule].item(values, region_of(rule)) == item


@pytest.mark.parametrize(
    ("values", "rule", "item"),
    [
        (["Ada@example.com"], "email/v1", b"email\0v1\0ada@example.com"),
        ([b"raw@example.com"], "email/v1", b"email\0v1\0raw@example.com"),
        ([None], "email/v1", Reason.BLANK),
        ([" "], "email/v1", Reason.BLANK),
        ([3.5], "email/v1", Reason.NOT_TEXT),
        (["nobody"], "email/v1", Reason.MALFORMED),
        (["a" * 300], "email/v1", Reason.MALFORMED),
        ([b"\xff@a.de"], "email/v1", Reason.NOT_UTF8),
        (
            ["ADA", "Love-lace", "18151210", b"SW1A1AA"],
            "person/v1",
            b"person\0v1\0ada\0lovelace\x001815-12-10\0SW1A1AA",
        ),
        (["Bob", "", "1990-01-01", "1000"], "person/v1", Reason.BLANK),
        ([None, "X", "1990-01-01", b"\xff"], "person/v1", Reason.BLANK),
        (["Bob", b"\xff", "1990-01-01", None], "person/v1", Reason.NOT_UTF8),
    ],
)
def test_a_row_is_a_tagged_item_or_the_first_reason_why_not(
    values: list[object], rule: str, item: bytes | Reason
) -> None:
    assert RULES[rule].item(values) == item


def test_types_never_match_each_other() -> None:
    items = [RULES[rule].item(["a@example.com"]) for rule in ("email/v1", "email-provider/v1", "text/v1")]
    assert len({bytes(item).rpartition(b"\0")[2] for item in items if isinstance(item, bytes)}) == 1
    assert len(set(items)) == 3


@pytest.mark.parametrize(
    ("columns", "rule", "region", "sentence"),
    [
        (0, "email/v1", None, "rule email/v1 takes 1 column (e-mail address), got 0"),
        (2, "text/v1", None, "rule text/v1 takes 1 column (customer number), got 2"),
        (
            1,
            "person/v1",
            None,
            "rule person/v1 takes 4 columns (given name, family name, date of birth, postcode), got 1",
        ),
        (1, "email/v1", "CH", "rule email/v1 takes no region"),
        (1, "phone/v1", None, "rule phone/v1 needs a region that has a numbering plan"),
        (1, "phone/v1", "ZZ", "rule phone/v1 needs a region that has a numbering plan"),
    ],
)
def test_what_a_rule_refuses(columns: int, rule: str, region: str | None, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        RULES[rule].item(["a"] * columns, region)
    assert str(caught.value) == sentence


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
