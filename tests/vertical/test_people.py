"""A person by name, date of birth and postcode: what is one spelling, and what stays apart."""

from __future__ import annotations

import datetime as dt
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertical import people
from vertical.people import person_v1
from vertical.values import Reason

ANY_TEXT = st.text(st.characters(), max_size=12)


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("Ada", "ada"),
        ("  ADA\t", "ada"),
        ("Anne-Marie", "annemarie"),
        ("Anne Marie", "annemarie"),
        ("O'Brien", "obrien"),
        ("O’Brien", "obrien"),  # noqa: RUF001
        ("Oʼbrien", "obrien"),  # noqa: RUF001
        ("van der Berg", "vanderberg"),
        ("José", "jose"),
        ("Jose\u0301", "jose"),
        ("Łukasz", "lukasz"),
        ("Đặng", "dang"),
        ("Åse Sørensen", "asesorensen"),
        ("Æthelþryð", "aethelthryd"),
        ("Müller", "muller"),
        ("Mueller", "mueller"),
        ("Weiß", "weiss"),
        ("İbrahim", "ibrahim"),
        ("Işık", "isik"),  # noqa: RUF001
        ("ΝΊΚΟΣ", "νικοσ"),
        ("Νίκος", "νικοσ"),
        ("Алёна", "алена"),
        ("Андрей", "андреи"),
        ("ﬁona", "fiona"),
        ("Ａｄａ", "ada"),  # noqa: RUF001
        ("A\u00adda", "ada"),
        ("John 3rd", "john3rd"),
        ("أحمد", "احمد"),
        ("दीपा", "दीपा"),  # vowel signs are spelling
        ("がく", unicodedata.normalize("NFKD", "がく")),
        ("김", unicodedata.normalize("NFKD", "김")),
        ("x" * 256, "x" * 256),
        ("x" * 257, Reason.TOO_LONG),
        ("", Reason.BLANK),
        (" \t", Reason.BLANK),
        ("-", Reason.MALFORMED),
        ("123", Reason.MALFORMED),
        ("Ada\x00", Reason.MALFORMED),
        ("Ada\ud800", Reason.MALFORMED),
        ("Ada\ue000", Reason.MALFORMED),
    ],
)
def test_names(value: str, normal: str | Reason) -> None:
    assert people.name(value) == normal


def test_scripts_stay_apart() -> None:
    assert people.name("Иван") != people.name("Ivan")
    assert people.name("か") != people.name("が")


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("1990-02-01", "1990-02-01"),
        (" 19900201 ", "1990-02-01"),
        ("1990-02-01T00:00:00Z", "1990-02-01"),
        ("1990-02-01 23:59", "1990-02-01"),
        ("1990-02-01T23:59:59.999999999+14:00", "1990-02-01"),  # the day as written
        (str(dt.date(1990, 2, 1)), "1990-02-01"),
        (str(dt.datetime(1990, 2, 1, 12, 30, 5, 250)), "1990-02-01"),
        (str(dt.datetime(1990, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))), "1990-02-01"),
        (dt.datetime(1990, 2, 1, tzinfo=dt.UTC).isoformat(), "1990-02-01"),
        ("2000-02-29", "2000-02-29"),
        ("", Reason.BLANK),
        ("1900-02-29", Reason.MALFORMED),
        ("1990-02-30", Reason.MALFORMED),
        ("1990-13-01", Reason.MALFORMED),
        ("1990-00-10", Reason.MALFORMED),
        ("01/02/1990", Reason.MALFORMED),
        ("01.02.1990", Reason.MALFORMED),
        ("01021990", Reason.MALFORMED),
        ("1990-0201", Reason.MALFORMED),
        ("90-02-01", Reason.MALFORMED),
        ("1799-12-31", Reason.MALFORMED),
        ("2200-01-01", Reason.MALFORMED),
        ("1990-02-01 at noon", Reason.MALFORMED),
        ("١٩٩٠-٠٢-٠١", Reason.MALFORMED),  # noqa: RUF001
    ],
)
def test_dates(value: str, normal: str | Reason) -> None:
    assert people.date(value) == normal


@settings(max_examples=300)
@given(st.integers(1790, 2210), st.integers(0, 13), st.integers(0, 32))
def test_days_exist_exactly_when_the_calendar_has_them(year: int, month: int, day: int) -> None:
    try:
        exists = 1800 <= dt.date(year, month, day).year <= 2199
    except ValueError:
        exists = False
    text = f"{year}-{month:02d}-{day:02d}"
    assert people.date(text) == (text if exists else Reason.MALFORMED)
    assert people.date(text.replace("-", "")) == (text if exists else Reason.MALFORMED)


@given(st.integers(1, 31), st.integers(1, 31), st.integers(1800, 2199))
def test_no_other_order_is_taken_for_a_date(first: int, second: int, year: int) -> None:
    assert people.date(f"{first:02d}{second:02d}{year}") == Reason.MALFORMED


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("SW1A 1AA", "SW1A1AA"),
        ("sw1a1aa", "SW1A1AA"),
        ("01067", "01067"),
        ("1000-205", "1000205"),
        ("12345\u20136789", "123456789"),
        ("１０００", "1000"),  # noqa: RUF001
        ("", Reason.BLANK),
        ("-", Reason.MALFORMED),
        ("1", Reason.MALFORMED),
        ("1234567890123", Reason.MALFORMED),
        ("Zürich", Reason.MALFORMED),
        ("12_345", Reason.MALFORMED),
    ],
)
def test_postcodes(value: str, normal: str | Reason) -> None:
    assert people.code(value) == normal


def test_four_parts_make_a_person() -> None:
    ada = "ada\0lovelace\x001990-02-01\0SW1A1AA"
    assert person_v1("Ada", "Lovelace", "1990-02-01", "sw1a 1aa") == ada
    assert person_v1("ADA ", "Love-Lace", "19900201", "SW1A1AA") == ada
    assert person_v1("Lovelace", "Ada", "1990-02-01", "SW1A1AA") != ada
    assert person_v1("Ada Love", "Lace", "1990-02-01", "SW1A1AA") != ada


@pytest.mark.parametrize("position", range(4))
def test_a_part_that_is_none_leaves_no_person(position: int) -> None:
    parts = ["Ada", "Lovelace", "1990-02-01", "SW1A 1AA"]
    parts[position] = " "
    assert person_v1(*parts) == Reason.BLANK
    parts[position] = "?"
    assert person_v1(*parts) == Reason.MALFORMED


def test_names_are_idempotent_for_every_character() -> None:
    for code in range(0x20000):
        normal = people.name(f"a{chr(code)}\u0327b")
        assert isinstance(normal, Reason) or people.name(normal) == normal, f"U+{code:04X}"


@settings(max_examples=300)
@given(ANY_TEXT)
def test_each_part_is_idempotent_for_any_text(value: str) -> None:
    for rule in (people.name, people.date, people.code):
        normal = rule(value)
        assert isinstance(normal, Reason) or rule(normal) == normal


@settings(max_examples=300)
@given(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Mn"], max_codepoint=0x2FFF), max_size=8))
def test_composition_case_and_spaces_change_no_name(value: str) -> None:
    spelt = {people.name(unicodedata.normalize(form, value)) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert spelt == {people.name(value)}
    assert people.name(f" {value}-") == people.name(value) or not value
    assert people.name(value.casefold()) == people.name(value)


NAMES = st.text("abcxyz", min_size=1, max_size=4)


@settings(max_examples=300)
@given(*[st.tuples(NAMES, NAMES, st.dates(dt.date(1900, 1, 1), dt.date(2020, 1, 1)), st.integers(1000, 9999))] * 2)
def test_different_people_differ(one: tuple[object, ...], two: tuple[object, ...]) -> None:
    first, second = (person_v1(*map(str, person)) for person in (one, two))
    assert isinstance(first, str)
    assert (first == second) == (one == two)
