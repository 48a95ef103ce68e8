"""A result as a page: everything is there, nothing is loaded or run, and whatever a document holds is escaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silos.charts import Axes, bar_chart, line_chart, nice_end
from silos.report import MAX_ROWS, report

EVIL = "<script>alert('x')</script>\"&"
FIGURES = {
    "family": "logistic",
    "rows": 400,
    "positives": 90,
    "auc": "0.8123",
    "ks": "0.4711",
    "gains": [
        {"bin": i + 1, "rows": 40, "outcome": 9, "rate": "0.2250", "lift": "1.0000", "gain": "0.1"} for i in range(10)
    ],
    "calibration": [{"bin": i + 1, "rows": 40, "predicted": f"0.{i}100", "observed": f"0.{i}200"} for i in range(9)],
    "curve": [
        {"rows": f"{i / 4}", "true_positive_rate": f"{i / 4}", "false_positive_rate": f"{i / 5}"} for i in range(5)
    ],
    "confusion": [{"threshold": "0.5", "true_positives": 40, "precision": "-"}],
    "loss": {"log_loss": "0.4321", "brier": "0.1234"},
    "groups": [
        {"column": EVIL, "threshold": "0.5", "table": [{"group": EVIL, "rows": 200}]},
        {"column": "sex", "withheld": "too small"},
    ],
}


class Seen(HTMLParser):
    """Tags and attributes of a page, and whether they close in order."""

    VOID = frozenset({"meta"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.stack: list[str] = []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words += data


def document(**result):
    return {"v": 1, "job": "j1", "silo": "bank", "spec_digest": "ab" * 32, "salt": "00" * 16, "result": result}


def test_a_page_has_figures_curves_model_and_disclosure():
    model = {
        "intercept": "-0.5",
        "inputs": [{"input": "age", "coefficient": "0.25", "p_value": "<0.0001"}],
        "left_out": [],
    }
    page = report(document(auc="0.8123", model=model, metrics=FIGURES), disclosure=["Every owner learns the AUC."])
    seen = Seen(page)
    assert seen.tags.count("svg") == 4
    for text in ("Job j1", "bank", "0.8123", "age", "<0.0001", "Every owner learns the AUC.", "too small", "0.4321"):
        assert text in seen.words
    assert '<td class="n">&lt;0.0001</td>' in page


def test_nothing_runs_or_is_loaded():
    seen = Seen(report(document(metrics=FIGURES, note=EVIL), disclosure=[EVIL], title=EVIL))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"} & set(seen.tags)
    names = {name for _, name, _ in seen.attributes}
    assert not any(name.startswith("on") or name in {"src", "href", "style", "action"} for name in names)
    assert (
        "meta",
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    ) in (seen.attributes)
    assert seen.words.count(EVIL) == 6  # title, heading, note, column, group and disclosure, all as text
    assert not re.search(r"url\(|@import|https?:(?!//www\.w3\.org/2000/svg)", report(document(metrics=FIGURES)))


HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "b", "span", "ul", "li"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption"),
    *("svg", "line", "text", "polyline", "circle", "rect"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, JSON)
@settings(max_examples=30, deadline=None)
def test_any_document_makes_a_well_formed_page(result, figures):
    page = report({"job": "j", "result": {"metrics": figures, "x": result}})
    assert set(Seen(page).tags) <= HARMLESS


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIGURES, JSON)))
@settings(max_examples=30, deadline=None)
def test_any_figures_make_a_well_formed_page(figures):
    Seen(report({"job": "j", "result": {"metrics": figures}}))


def test_text_that_is_no_unicode_is_written_all_the_same():
    assert "a?b" in report(document(note="a\ud800b")).encode("utf-8").decode("utf-8")


def test_long_tables_are_cut_and_say_so():
    page = report(document(rows=[{"i": i} for i in range(MAX_ROWS + 7)]))
    assert page.count("<tr>") == MAX_ROWS + 1
    assert f"the first {MAX_ROWS} of {MAX_ROWS + 7}" in page


@pytest.mark.parametrize("n", [0, 1, 20])
def test_charts_are_well_formed(n):
    axes = Axes(EVIL, EVIL, EVIL, 2.0, 4.0)
    for chart in (
        line_chart(axes, [(i / 20, i / 10) for i in range(n)]),
        bar_chart(axes, [i / 5 for i in range(n)], line=1),
    ):
        root = ET.fromstring(chart)  # noqa: S314
        assert root.get("aria-label") == EVIL
        for element in root.iter():
            for key in ("x", "y", "cx", "cy", "x1", "y2"):
                assert 0 <= float(element.get(key, "0")) <= 340


@given(st.floats(1e-9, 1e14))
def test_the_end_of_an_axis_is_round_and_near(largest):
    end = nice_end(largest)
    assert largest <= end * (1 + 1e-9)
    assert end <= 10.01 * largest
    assert len(f"{end:g}".replace(".", "").strip("0").split("e")[0].strip("0")) <= 1


def test_the_end_of_an_axis_without_values():
    assert nice_end(0.0) == 1.0
