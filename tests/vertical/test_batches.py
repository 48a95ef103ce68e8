"""Batches of identifiers: whatever is in the columns, the items are those of the rule, row by row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertical import batches, emails, identifiers, people, plain_numba
from vertical.batches import Column, column, normalise, warm_up
from vertical.identifiers import RULES
from vertical.values import Reason

NAMES = sorted(RULES)
HASHED = hashlib.sha256(b"ada@example.com").hexdigest()
SPACES = ["", " ", "\t", "\u00a0", "\u3000", "\x1c", "\x1f", "\x85", "\u200b", "\ufeff", "\n", "\x00", "\x7f"]
MAILS = [
    *(
        "ada@example.com",
        "Ada.Lovelace+x@GMail.com",
        "a..b@x.io",
        ".a@x.io",
        "a.@x.io",
        "a@b",
        "a@x.io.",
        "a@.io",
        "@x.io",
    ),
    *(
        "a@@x.io",
        "a@b@x.io",
        "a b@x.io",
        '"a"@x.io',
        "a@[1.2.3.4]",
        "a@-x.io",
        "a@x-.io",
        "a@xn--mnchen-3ya.de",
        "a@ab--c.de",
    ),
    *(
        "A@MÜNCHEN.de",
        "ä@x.io",
        "\u212a@x.io",
        "İ@x.io",
        "a@x_y.io",
        "a@x.i",
        "a@1.2",
        "\uff41@x.io",
        "a\u00ad@x.io",
        "a@straße.de",
    ),
    *(
        "+tag@gmail.com",
        "a.+tag@gmail.com",
        "a.+tag@outlook.com",
        "a.b+@outlook.com",
        "a+b@googlemail.com",
        "....@gmail.com",
        "a+b@notgmail.com",
    ),
    *(
        "a" * 64 + "@x.io",
        "a" * 65 + "@x.io",
        "a@" + "b" * 63 + ".io",
        "a@" + "b" * 64 + ".io",
        "a@" + "b." * 125 + "io",
    ),
    *(
        "a@" + "b." * 123 + "io",
        "A+B@Proton.ME",
        "a!#$%&'*/=?^`{|}~-_@x.io",
        "a@x.io,b@x.io",
        "a@gmail.com.au",
        "a@mail.com",
    ),
]
DATES = [
    *(
        "1990-02-01",
        "19900201",
        "1990-02-29",
        "2000-02-29",
        "1900-02-29",
        "1990-13-01",
        "1990-00-10",
        "1990-01-00",
        "17991231",
    ),
    *(
        "22000101",
        "1800-01-01",
        "21991231",
        "1990-0201",
        "199002-01",
        "1990-02-01T10:00",
        "01.02.1990",
        "\uff11\uff19\uff19\uff100201",
        "1990/02/01",
    ),
    *("1990-04-31", "20230230", "1990-2-1", "1990020", "199002011", "1990-02-01 23:59:59Z", "-9900201", "1990--0201"),
]
PEOPLE = [
    *(
        "Ada",
        "O'Brien",
        "Anne-Marie",
        "Müller",
        "123",
        "R2D2",
        "---",
        "Łukasz",
        "ß",
        "a\x00b",
        "a\tb",
        "x" * 256,
        "x" * 257,
    ),
    *("x-" * 256, "é" * 129, "\u1100\u1161", "a\u0301", "ĸ", "\u0661", "\U0001d49cda", "'"),
]
CODES = [
    "sw1a 1aa",
    "SW1A-1AA",
    "01067",
    "0",
    "00",
    "a" * 12,
    "a" * 13,
    "1 2",
    "1\u20132",
    "\uff11\uff12\uff13",
    "1.2",
    "-",
    "1\t2",
    "é1",
]
OTHERS = [
    *(
        HASHED,
        HASHED.upper(),
        HASHED[:-1],
        HASHED[:-1] + "g",
        HASHED + "0",
        "C-0042",
        "①",
        "two words",
        "x" * 1024,
        "x" * 1025,
    ),
    *(
        "é" * 512,
        "é" * 513,
        "a\u2028b",
        "a\nb",
        "a\x7fb",
        "044 668 18 00",
        "+41446681800",
        "tel 0446681800",
        "7",
        "\U000e0fff",
    ),
]
POOL: dict[str, list[str]] = {
    "e-mail address": MAILS,
    "given name": PEOPLE,
    "family name": PEOPLE,
    "date of birth": DATES,
    "postcode": CODES,
}


def region_of(rule: str) -> str | None:
    return "CH" if RULES[rule].regional else None


def expected(columns: Sequence[Sequence[object]], rule: str) -> tuple[list[bytes], list[int], Counter[Reason]]:
    """What the rule says, one row at a time."""
    got = [RULES[rule].item(values, region_of(rule)) for values in zip(*columns, strict=True)]
    items = [(item, row) for row, item in enumerate(got) if isinstance(item, bytes)]
    return (
        [item for item, _ in items],
        [row for _, row in items],
        Counter(reason for reason in got if isinstance(reason, Reason)),
    )


def check(columns: Sequence[Sequence[Any]], arrays: Sequence[pa.Array], rule: str) -> None:
    got = normalise([column(array) for array in arrays], rule, region_of(rule))
    assert (got.items(), got.rows.tolist(), got.reasons) == expected(columns, rule)
    assert got.offsets[0] == 0
    assert got.offsets[-1] == len(got.data)
    assert len(got) == len(got.rows)


@pytest.mark.parametrize("rule", NAMES)
def test_nasty_values(rule: str) -> None:
    pools = [[*POOL.get(role, OTHERS), "", None] for role in RULES[rule].roles]
    plain = [pool[0] for pool in pools]
    rows: list[list[Any]] = []
    for i, pool in enumerate(pools):  # each bad value beside good ones, and each with every space around it
        spaced = [a + value + b for value in pool if value is not None for a in SPACES for b in SPACES[:3]]
        for value in [*pool, *spaced, *MAILS, *DATES, *PEOPLE, *CODES, *OTHERS]:
            rows.append([*plain[:i], value, *plain[i + 1 :]])
    if rule == "phone/v1":
        rows = rows[::7]  # a slow rule, and nothing but blanks is not left to it
    columns = [list(values) for values in zip(*rows, strict=True)]
    check(columns, [pa.array(values, pa.string()) for values in columns], rule)


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("aB.+@ -_gmailcom\u00a0é", max_size=24),
    st.text("0123456789-", max_size=11),
    st.text("abcABC019 -'", max_size=16),
    st.from_regex(r"[a-zA-Z.+]{1,8}@[a-z-]{1,8}\.[a-z]{2}", fullmatch=True),
    st.from_regex(r"(19|20)[0-9]{2}-?[01][0-9]-?[0-3][0-9]", fullmatch=True),
    st.from_regex(r"[0-9a-fA-F]{63,65}", fullmatch=True),
    st.sampled_from([*MAILS, *DATES, *PEOPLE, *CODES, *OTHERS, *SPACES]),
)


@pytest.mark.parametrize("rule", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_text_and_any_bytes(rule: str, data: Any) -> None:
    n, roles = data.draw(st.integers(0, 8)), RULES[rule].roles
    cut = data.draw(st.integers(0, n))
    columns, arrays = [], []
    for _ in roles:
        binary, large = data.draw(st.booleans()), data.draw(st.booleans())
        value = st.one_of(TEXT.map(str.encode), st.binary(max_size=20)) if binary else TEXT
        values = data.draw(st.lists(st.one_of(st.none(), value), min_size=n, max_size=n))
        kind = (
            (pa.large_binary() if large else pa.binary()) if binary else (pa.large_string() if large else pa.string())
        )
        columns.append(values[cut:])
        arrays.append(pa.array(values, kind).slice(cut))  # a slice shares the buffers of the whole
    check(columns, arrays, rule)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3]),
        pa.array([1.5, float("nan"), None]),
        pa.array([True, None, False]),
        pa.array([None, None, None]),
        pa.array([["a"], None, []]),
        pa.array(["ada", None, "ada"]).dictionary_encode(),
        pa.array(["ada", None, "a name of more than twelve bytes"]).cast(pa.string_view()),
        pa.array([b"ada", None, b"\xff"]).cast(pa.binary_view()),
        pa.array(["x", "ada", None, "b", "y"]).dictionary_encode().slice(1, 3),
        pa.array(["x", "ada", None, "b", "y"]).cast(pa.string_view()).slice(1, 3),
        pa.array([0, 1, None, 3]).slice(1),
        pa.array([f"{i}" if i % 3 else None for i in range(40)]).slice(13, 20),
    ],
)
def test_arrays_of_every_type(array: pa.Array) -> None:
    check([array.to_pylist()], [array], "text/v1")


def test_text_that_is_not_utf8_is_counted_and_nothing_breaks() -> None:
    """Some readers label bytes as text without a look at them."""
    raw = pa.array([b"ada", b"\xff\xfe", b"\xed\xa0\x80", b"ad\xc3\xa4"], pa.binary())
    array = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    got = normalise([column(array)], "text/v1")
    assert got.items() == [b"text\0v1\0ada", b"text\0v1\0ad\xc3\xa4"]
    assert got.reasons == {Reason.NOT_UTF8: 2}


def test_a_tag_stands_in_front_of_every_item() -> None:
    values = ["ada@example.com", "Ä@example.com", "x", None, "bob@example.com"]
    one, two = (normalise([column(pa.array(values))], "email/v1", tag=tag) for tag in (b"", b"\x01\x02"))
    assert two.items() == [b"\x01\x02" + item for item in one.items()]
    assert len(one) == 3
    assert one.rows.tolist() == two.rows.tolist() == [0, 1, 4]


def test_an_empty_batch() -> None:
    for array in (pa.array([], pa.string()), pa.array([], pa.int32()), pa.array(["a"]).slice(1)):
        got = normalise([column(array)], "text/v1")
        assert (got.items(), len(got), got.reasons) == ([], 0, {})


@pytest.mark.parametrize(
    ("columns", "rule", "region", "sentence"),
    [
        (1, "email/v2", None, f"unknown identifier rule 'email/v2': expected one of {', '.join(NAMES)}"),
        (2, "email/v1", None, "rule email/v1 takes 1 column (e-mail address), got 2"),
        (1, "email/v1", "CH", "rule email/v1 takes no region"),
        (1, "phone/v1", None, "rule phone/v1 needs a region that has a numbering plan"),
    ],
)
def test_what_is_refused(columns: int, rule: str, region: str | None, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalise([column(pa.array(["a"]))] * columns, rule, region)
    assert str(caught.value) == sentence
    with pytest.raises(ValueError, match="of equal length"):
        normalise([column(pa.array(["a"] * n)) for n in (1, 2, 1, 1)], "person/v1")


def test_no_value_is_shown() -> None:
    one = column(pa.array(["marker-7f3a"]))
    assert "marker" not in repr(one) + repr(normalise([one], "text/v1"))
    assert isinstance(one, Column)


def test_the_loops_have_the_limits_of_the_rules() -> None:
    assert (plain_numba._MAX_TEXT, plain_numba._MAX_NAME) == (identifiers.MAX_TEXT_BYTES, people._MAX_NAME_BYTES)
    assert (plain_numba._MAX_LOCAL, plain_numba._MAX_EMAIL) == (emails._MAX_LOCAL_BYTES, emails._MAX_EMAIL_BYTES)
    specials = {chr(c) for c in range(33, 127) if plain_numba._LOCAL[c] == 0}
    assert specials == emails._LOCAL_SPECIALS | {"@"}
    assert sorted(batches._PARTS) == NAMES
    assert all(len(parts) == len(RULES[rule].roles) for rule, parts in batches._PARTS.items())


def test_plain_values_do_not_take_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up()
    rows = {
        "email/v1": [["Ada.Lovelace+x@Example.com "]],
        "email-provider/v1": [["Ada.L+x@GoogleMail.com"]],
        "hashed-sha256/v1": [[HASHED.upper()]],
        "text/v1": [[" C-0042"]],
        "person/v1": [["Ada"], ["O'Brien-Smith 2nd"], ["19900201"], ["sw1a 1aa"]],
    }
    want = {rule: expected(columns, rule)[0] for rule, columns in rows.items()}
    monkeypatch.setattr(identifiers.Rule, "item", None)
    for rule, columns in rows.items():
        assert normalise([column(pa.array(values)) for values in columns], rule).items() == want[rule]
    assert np.all([len(items) == 1 for items in want.values()])
