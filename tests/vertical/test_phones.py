"""Telephone numbers: one spelling per number, and nothing that is no number."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertical.phones import REGIONS, phone_v1
from vertical.values import Reason

# Where no other source is named, numbers are Google's offices, as in libphonenumber's README and tests.
GOOGLE = ("+41446681800", "+442070313000", "+16502530000", "+390236618300", "+61293744000")


@pytest.mark.parametrize(
    ("value", "region", "normal"),
    [
        ("044 668 18 00", "CH", "+41446681800"),  # libphonenumber, README
        ("+41 44 668 18 00", "US", "+41446681800"),
        ("+41 (0)44 668 18 00", "US", "+41446681800"),
        ("0041 44 668 18 00", "CH", "+41446681800"),
        ("011 41 44 668 18 00", "US", "+41446681800"),
        ("(+41) 44/668.18.00", "DE", "+41446681800"),
        ("\u202a+41 44 668 18 00\u202c", "CH", "+41446681800"),
        ("(650) 253-0000", "US", "+16502530000"),
        ("1-650-253-0000", "CA", "+16502530000"),
        ("(020) 7031 3000", "GB", "+442070313000"),
        ("02 3661 8300", "IT", "+390236618300"),  # a zero that stays
        ("0044 20 7031 3000", "DE", "+442070313000"),
        ("+800 1234 5678", "US", "+80012345678"),  # international freephone, libphonenumber's tests
        ("011 15 8765-4321", "AR", "+5491187654321"),  # libphonenumber's tests: a mobile number dialled at home
        ("+٤١ ٤٤ ٦٦٨ ١٨ ٠٠", "US", "+41446681800"),  # noqa: RUF001
        ("＋４１ ４４ ６６８ １８ ００", "US", "+41446681800"),  # noqa: RUF001
        ("044\u2011668\u201118\u201100", "CH", "+41446681800"),
    ],
)
def test_numbers_that_are_the_same(value: str, region: str, normal: str) -> None:
    assert phone_v1(value, region=region) == normal


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", Reason.BLANK),
        (" \t\u200e", Reason.BLANK),
        ("n/a", Reason.MALFORMED),
        ("0", Reason.MALFORMED),
        ("+", Reason.MALFORMED),
        ("-", Reason.MALFORMED),
        ("+41 +41 44 668 18 00", Reason.MALFORMED),
        ("++41446681800", Reason.MALFORMED),
        ("1-800-FLOWERS", Reason.MALFORMED),
        ("tel:+41-44-668-18-00", Reason.MALFORMED),  # RFC 3966
        ("+41 44 668 18 00 ext. 5", Reason.MALFORMED),
        ("+41 44 668 18 00;ext=5", Reason.MALFORMED),
        ("+41 44 668 18 00,,5", Reason.MALFORMED),  # a pause and an extension to a dialler
        ("+41 44 668 18 00 (mobile)", Reason.MALFORMED),
        ("+41 44 668 18 00\n+41 44 668 18 01", Reason.MALFORMED),
        ("044 668 18 00 / 044 668 18 01", Reason.MALFORMED),  # two numbers in one field
        ("+999 1234567", Reason.MALFORMED),  # no such country code
        ("+41 44 668 18 0", Reason.NOT_ASSIGNED),
        ("+1 555 555 5555", Reason.NOT_ASSIGNED),
        ("112", Reason.NOT_ASSIGNED),
        ("0" * 65, Reason.TOO_LONG),
        ("+41446681800\ud800", Reason.MALFORMED),
    ],
)
def test_numbers_that_are_none(value: str, reason: Reason) -> None:
    assert phone_v1(value, region="CH") == reason


def test_the_region_decides_how_a_number_without_a_country_code_is_read() -> None:
    assert phone_v1("030 123456", region="DE") == "+4930123456"
    assert phone_v1("030 123456", region="IT") == "+39030123456"
    assert phone_v1("030 123456", region="CH") == Reason.NOT_ASSIGNED
    assert phone_v1("0293744000", region="AU") == "+61293744000"
    assert phone_v1("0293744000", region="CH") == Reason.NOT_ASSIGNED


def test_every_regions_example_is_read_in_its_three_spellings() -> None:
    assert len(REGIONS) > 200
    for region in sorted(REGIONS):
        number = phonenumbers.example_number(region)
        if number is None:
            continue
        e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        for form in (phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.NATIONAL):
            assert phone_v1(phonenumbers.format_number(number, form), region=region) == e164, region
        assert phone_v1(e164, region="CH") == e164


@settings(max_examples=200)
@given(st.text("0123456789+ ()-./", max_size=16), st.sampled_from(["CH", "US", "IT", "AR", "GB", "BR", "MX"]))
def test_normal_forms_are_their_own_wherever_they_are_read(value: str, region: str) -> None:
    normal = phone_v1(value, region=region)
    if not isinstance(normal, Reason):
        assert normal[0] == "+"
        assert normal[1:].isdigit()
        assert len(normal) <= 16  # E.164: at most 15 digits
        assert {phone_v1(normal, region=r) for r in (region, "CH", "US", "IT")} == {normal}


@settings(max_examples=200)
@given(st.sampled_from(GOOGLE), st.lists(st.sampled_from(["", " ", "-", ".", "/", "\u00a0", "\u2013"]), min_size=16))
def test_separators_change_nothing(number: str, between: list[str]) -> None:
    spelt = "+" + "".join(digit + gap for digit, gap in zip(number[1:], between, strict=False))
    assert phone_v1(spelt, region="CH") == number


@settings(max_examples=200)
@given(st.integers(0, 9999), st.integers(0, 9999))
def test_different_numbers_differ(one: int, two: int) -> None:
    first, second = (phone_v1(f"044 668 {n:04d}", region="CH") for n in (one, two))
    assert (first == second) == (one == two)
