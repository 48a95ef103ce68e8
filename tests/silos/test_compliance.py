"""Compliance reports: the facts are those of the statements, the page and the PDF say the same, and nothing is made up."""

from __future__ import annotations

import base64
import datetime as dt
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from coordinator.envelope import digest
from silos import lineage
from silos.compliance import Document, document
from silos.compliance_html import html
from silos.compliance_pdf import pdf
from silos.disclosure import disclosure
from silos.facts import job_facts, readable
from silos.spec import Spec, spec_digest
from silos.verify import Check, Entry, Report, Story
from tests.coordinator.world import RECORD
from tests.silos.world import MATCHERS, NOW, make_spec, request

CHARGE = {"counterparty": "platform", "rho": "0.125", "before": "0.25", "limit": "0.5", "delta": "1e-6"}
PERSON = {"name": "Ana Ruíz Žižek", "key": "k" * 44, "time": "2026-03-01T12:01:00Z", "signature": "s" * 88}


def consent(silo: str, **changes: Any) -> dict[str, Any]:
    owner = silo != "dealer"
    body = {
        "disclosure_digest": "d" * 64,
        "dataset_commitment": "c" * 64 if owner else "",
        "link_certificate": base64.b64encode(silo.encode()).decode(),
        "endpoint": "",
        "link_token": "0" * 32,
        "valid_until": "2026-03-01T13:00:00Z",
        "head": {"size": 3, "root": "e" * 64},
        "rule": "credit-model" if owner else "",
        "policy_digest": "a" * 64,
        "approvals": [PERSON] if silo == "lender" else [],
        "record": dict(RECORD) if silo == "lender" else ({**dict.fromkeys(RECORD, ""), **SILENT} if owner else None),
        "budget": [CHARGE] if silo == "lender" else [],
    }
    return {**body, **changes}


RECORD_OF = "Annex A: record of processing (GDPR Art. 30(1))"
IMPACT = "Annex B: for a data protection impact assessment (GDPR Art. 35(7))"
FEWER = [
    {**request()["parties"][0], "features": ["LIMIT_BAL"]},
    request()["parties"][1],
]
"""The owners of the usual job without one of its columns."""
SILENT = {"categories": [], "subjects": [], "retention_days": 0}


def story(spec: Spec | None = None, *ending: tuple[str, str, dict[str, Any]]) -> Story:
    """A job up to its end, as verified entries."""
    spec = spec or make_spec()
    shown = disclosure(spec)
    said: list[tuple[str, str, dict[str, Any]]] = [
        ("lender", "proposed", {"spec": spec.document()}),
        ("lender", "disclosed", {"disclosure": shown}),
    ]
    if ending:
        said += ending
    else:
        said += [(silo, "consented", consent(silo, disclosure_digest=digest(shown))) for silo in spec.participants]
        said += [(silo, "started", {"links": {}, "identities": {}}) for silo in spec.participants]
        items = {"lender": ["auc", "counts"], "platform": ["counts"]}
        said += [
            (silo, "released", {"recipient": silo, "result_digest": "f" * 64, "items": items[silo]})
            for silo in spec.owners
        ]
        said += [(silo, "finished", {"cost": {}}) for silo in spec.participants]
    entries = [
        Entry(
            index=40 + i,
            event=event,
            job=spec.job,
            spec_digest=spec_digest(spec),
            payload=b"",
            digest=f"{i:064x}",
            signature=b"",
            silo=silo,
            seq=0,
            prev="",
            time=(NOW + dt.timedelta(minutes=i)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            body=body,
            name=f"entry {40 + i}, '{event}' by {silo}",
            signer=f"{silo[0]}1" * 32,
        )
        for i, (silo, event, body) in enumerate(said)
    ]
    return Story(spec.job, entries, spec.document(), shown, list(spec.owners), list(spec.participants))


def made(*stories: Story, fails: str = "") -> Document:
    report = Report(stories=list(stories) or [story()])
    report.checks = [Check("checkpoint", True, "53 entries"), Check("entry 40", True, "fine")]
    report.checks += [Check("releases", False, fails)] if fails else []
    return document(report, Path("bundle.zip"))


def words(document: Document) -> str:
    """All text of a report."""
    lines = [document.title, document.subtitle, document.verdict]
    for section in document.sections:
        lines += [section.title, *section.text, *section.points]
        lines += [cell for table in section.tables for row in (table.head, *table.rows) for cell in row]
    return "\n".join(lines)


def section(document: Document, title: str) -> Any:
    return next(s for s in document.sections if s.title == title)


class Text(HTMLParser):
    """What a reader of a page sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.out, self.hidden = "", 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.out += "" if self.hidden else data


def test_facts_are_those_that_were_signed() -> None:
    job = job_facts(story())
    assert (job.state, job.submitter, job.purpose, job.reason) == ("done", "lender", "credit risk", "")
    assert job.roles == {
        "lender": "data owner",
        "platform": "data owner",
        "dealer": "dealer of randomness, without data",
    }
    uses = {(use.column, use.operation) for use in job.owners[0].uses}
    assert uses == {("email", "join"), ("default", "label"), ("LIMIT_BAL", "train"), ("SEX", "train")}
    assert job.charges == [("lender", CHARGE)]
    assert [approval["name"] for _, approval in job.approvals] == ["Ana Ruíz Žižek"]


@pytest.mark.parametrize(
    ("event", "reason"), [("refused", "column 'SEX' may not be used"), ("withdrawn", "a customer objected")]
)
def test_a_job_that_did_not_run_says_why_and_has_no_result(event: str, reason: str) -> None:
    body = {"reason": reason, "rule": "credit-model"} if event == "refused" else {"reason": reason}
    document = made(story(None, ("platform", event, body)))
    text = words(document)
    assert f"platform: {reason}" in text
    assert "Nothing was released." in text
    assert "No consent of lender, platform, dealer: nothing ran." in text
    assert "lender holds" not in section(document, "Lineage").picture


def test_a_report_answers_what_an_authority_asks() -> None:
    document = made()
    text = words(document)
    for fact in (
        "Lender plc",
        "dpo@lender.example",
        "contract",
        "credit history",
        "borrowers",
        "365 days",
        "credit risk",
    ):
        assert fact in text
    assert "not said by the owner" in text, "what the platform leaves out is not invented"
    record = section(document, RECORD_OF).tables[0]
    assert [row[0] for row in record.rows] == ["Lender plc", "not said by the owner (platform)"]
    budget = section(document, "Privacy budget before and after (zCDP)").tables[0].rows[0]
    assert budget[4:8] == ("0.25", "0.125", "0.375", "0.5")
    assert "Ana Ruíz Žižek at 2026-03-01T12:01:00Z" in text
    record = section(document, RECORD_OF).tables[0]
    assert record.rows[0][:5] == ("Lender plc", "dpo@lender.example", "credit risk", "borrowers", "credit history")
    learned = section(document, "Who learns what, as everybody agreed to before").tables[0].rows
    assert [list(row) for row in learned] == [
        [line["silo"], line["learns"], line["precision"]] for line in disclosure(make_spec())["lines"]
    ]


def test_a_period_has_one_line_for_each_job_and_one_record_for_each_purpose() -> None:
    other = story(make_spec(job="f" * 32, purpose="fraud"), ("platform", "refused", {"reason": "no", "rule": ""}))
    document = made(story(), other)
    assert document.title == "Compliance report, 2 jobs"
    assert [row[5] for row in section(document, "Jobs").tables[0].rows] == ["done", "refused"]
    purposes = [row[2] for row in section(document, RECORD_OF).tables[0].rows]
    assert purposes == ["credit risk", "credit risk"], "what did not run is no processing"


def test_evidence_that_does_not_verify_is_said_first() -> None:
    document = made(fails="entry 48, 'released' by lender: it is wrong")
    assert not document.good
    assert document.verdict == "NOT verified: entry 48, 'released' by lender: it is wrong."
    assert section(document, "Integrity of the evidence").tables[0].rows == (
        ("FAILED", "releases", "entry 48, 'released' by lender: it is wrong"),
    )


def test_a_job_that_cannot_be_read_is_named() -> None:
    strange = story()
    strange.entries[0].body["spec"] = {"kind": "nothing"}
    jobs, unread = readable([strange])
    assert not jobs
    assert len(unread) == 1
    assert unread[0].startswith("job 0123456789abcdef0123456789abcdef: ")


def test_the_page_shows_all_of_it_escaped_and_loads_nothing() -> None:
    document = made(story(None, ("platform", "refused", {"reason": "<script>alert(1)</script> & more", "rule": ""})))
    page = html(document)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=", page)
    shown = " ".join(Text(page).out.split())
    for line in words(document).splitlines():
        assert " ".join(line.split()) in shown


def test_the_lineage_is_a_picture_of_what_was_released() -> None:
    drawn = lineage.graph([job_facts(story())])
    assert {node.lines[0] for node in drawn.nodes} == {
        "lender / loans",
        "platform / usage",
        "vertical.glm: done",
        "lender holds",
        "platform holds",
    }
    assert len(drawn.edges) == 4
    root = ElementTree.fromstring(lineage.svg(drawn))  # noqa: S314 - our own text
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "Lineage: 2 data sets, 1 job, 2 results" in ElementTree.tostring(root, encoding="unicode")


def test_the_pdf_says_what_the_page_says_and_is_the_same_twice() -> None:
    from pypdf import PdfReader

    document = made()
    data = pdf(document)
    assert data == pdf(document)
    reader = PdfReader(io.BytesIO(data))
    text = re.sub(r"\s", "", "".join(page.extract_text() for page in reader.pages))
    for line in words(document).splitlines():
        for word in line.split():
            assert word in text or re.sub(r"\W", "", word) in text, word
    assert reader.metadata is not None
    assert reader.metadata.title == document.title
    assert {item.title for item in reader.outline if not isinstance(item, list)} >= {"The job", "Lineage"}


def test_a_job_that_nobody_started_is_no_processing() -> None:
    document = made(story(None, ("platform", "refused", {"reason": "no", "rule": ""})))
    record = section(document, RECORD_OF)
    assert (record.text, record.tables, record.points) == (("No job ran.",), (), ())


@pytest.mark.parametrize(
    ("spec", "measures"),
    [
        (
            make_spec(),
            [
                "Rows are matched by 'vole-psi'; what each party learns of them by that is in the disclosures.",
                "Columns are computed on under secret sharing, with correlated randomness from 'dealer'.",
            ],
        ),
        (
            make_spec(kind="vertical.match", dealer=None, parties=MATCHERS, align={"protocol": "ecdh-psi"}),
            ["Rows are matched by 'ecdh-psi'; what each party learns of them by that is in the disclosures."],
        ),
    ],
)
def test_measures_are_those_of_the_jobs(spec: Spec, measures: list[str]) -> None:
    document = made(story(spec))
    own = [point.removeprefix("d) Measure: ") for point in section(document, IMPACT).points[:-3]]
    assert own == measures
    assert [point.removeprefix("Security (g): ") for point in section(document, RECORD_OF).points[:-3]] == measures


def test_what_was_released_before_a_job_ended_is_in_the_picture() -> None:
    whole = story()
    last = next(i for i, entry in enumerate(whole.entries) if entry.event == "released")
    gone = replace(whole.entries[last + 1], event="withdrawn", body={"reason": "a customer objected"})
    part = replace(whole, entries=[*whole.entries[: last + 1], gone])
    document = made(part)
    assert [row[1] for row in section(document, "Results and their recipients").tables[0].rows] == ["lender"]
    picture = section(document, "Lineage").picture
    assert "lender holds" in picture
    assert "platform holds" not in picture


def test_a_data_set_has_the_columns_of_all_jobs() -> None:
    first, second = make_spec(), make_spec(job="f" * 32, parties=FEWER)
    for stories in ([story(first), story(second)], [story(second), story(first)]):
        drawn = lineage.graph([job_facts(one) for one in stories])
        assert [node.lines[1] for node in drawn.nodes if node.lines[0] == "lender / loans"] == ["4 columns"]


def test_many_jobs_are_a_table() -> None:
    count = lineage.MAX_DRAWN + 1
    document = made(*(story(make_spec(job=f"{n:032x}")) for n in range(count)))
    shown = section(document, "Lineage")
    assert shown.text == ("25 jobs are too many for one picture, which has room for 24; this table says it.",)
    assert not shown.picture
    assert len(shown.tables[0].rows) == 2 * count
    assert shown.tables[0].rows[0] == ("lender / loans", "0" * 32, "lender, platform")


def test_small_figures_are_written_out() -> None:
    charge = {**CHARGE, "rho": "0.0000003", "before": "0.0000002"}
    whole = story()
    for entry in whole.entries:
        if entry.event == "consented" and entry.silo == "lender":
            entry.body["budget"] = [charge]
    table = section(made(whole), "Privacy budget before and after (zCDP)").tables[0]
    assert table.rows[0][6] == "0.0000005"


def test_what_others_wrote_hides_nothing() -> None:
    """Control characters and such that turn the direction of text are shown, not obeyed."""
    purpose = "credit\x00\u202erisk"
    document = made(story(make_spec(purpose=purpose)))
    assert "credit\\u0000\\u202erisk" in words(document)
    for text in (words(document), html(document)):
        assert "\u202e" not in text
        assert "\x00" not in text
    node = lineage.Node("a", 0, "data", ("\x00\u202eabc", "\x1b"))
    picture = lineage.svg(lineage.Graph((node,), ()))
    assert ">abc</text>" in picture
    ElementTree.fromstring(picture)  # noqa: S314 - our own text
    assert pdf(document)


@pytest.mark.parametrize("letter", ["x", "W ", "wwwwww "])
def test_a_cell_that_no_page_holds_is_cut_in_the_pdf_only(letter: str) -> None:
    from pypdf import PdfReader

    long = (letter * 4000)[:4000]
    record = {**RECORD, "legal_basis": long, "transfers": long, "categories": [long], "controller": long}
    whole = story(None, *_with_record(record))
    document = made(whole)
    assert long in html(document)
    text = " ".join("".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf(document))).pages).split())
    assert "… (in full in the HTML page)" in text


def _with_record(record: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The statements of a job that runs, with another record of the lender's data set."""
    said = [(entry.silo, entry.event, entry.body) for entry in story().entries]
    return [
        (silo, event, {**body, "record": record} if (silo, event) == ("lender", "consented") else body)
        for silo, event, body in said[2:]
    ]
