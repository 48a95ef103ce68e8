"""The disclosure: computed, deterministic, complete, and impossible without declarations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest

from coordinator.envelope import canonical, digest
from mpc.reveals import Reveal
from mpc.supply import MODES
from silos.disclosure import MATCHINGS, PROTOCOLS, RANDOMNESS, SUPPLIES, disclosure, load_reveals, render
from silos.errors import DisclosureError
from silos.spec import parse_spec, spec_digest
from silos.spec_parts import Randomness
from tests.silos.world import MATCHERS, make_spec, registry


def test_every_owner_computes_the_same_digest() -> None:
    spec = make_spec()
    other = parse_spec(json.loads(canonical(spec.document())))
    assert digest(disclosure(spec, registry)) == digest(disclosure(other, registry))
    assert digest(disclosure(make_spec(purpose="x"), registry)) != digest(disclosure(spec, registry))


def test_lines_go_to_the_roles_that_learn_them() -> None:
    def roles(_: str, __: str, ___: str) -> Mapping[str, Sequence[Reveal]]:
        everyone = ("owners", "active", "passive", "dealer", "coordinator")
        return {"p": tuple(Reveal(f"to-{to}", to, "x", "size") for to in everyone)}  # type: ignore[arg-type]

    lines = [
        (line["silo"], line["name"]) for line in disclosure(make_spec(), roles)["lines"] if line["protocol"] == "p"
    ]
    assert lines == [
        ("lender", "to-owners"),
        ("lender", "to-active"),
        ("platform", "to-owners"),
        ("platform", "to-passive"),
        ("dealer", "to-dealer"),
        ("coordinator", "to-coordinator"),
    ]


def test_it_names_spec_thresholds_and_the_dealer() -> None:
    spec = make_spec()
    document = disclosure(spec, registry)
    assert document["spec_digest"] == spec_digest(spec)
    assert document["thresholds"] == {
        "minimum_matches": 100,
        "rare_category": 100,
        "release": ["coefficients", "auc", "counts"],
    }
    assert any("deals randomness, dealer, passes" in text for text in document["assumptions"])


def test_it_reads_as_text_with_one_heading_per_silo() -> None:
    text = render(disclosure(make_spec(), registry))
    headings = [line for line in text if not line.startswith("  ")]
    assert headings == [
        "lender learns",
        "platform learns",
        "dealer learns",
        "coordinator learns",
        "Limits",
        "This holds if",
    ]
    assert "  - which of its own rows the other owner also has (exact)" in text


def test_a_protocol_without_a_declaration_stops_the_job() -> None:
    with pytest.raises(DisclosureError, match=r"protocol 'mpc.psi' does not declare what it reveals"):
        disclosure(make_spec(), lambda _, __, ___: {"mpc.psi": ()})


def test_a_module_without_a_declaration_stops_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.disclosure.PROTOCOLS", {"k": {"silos.times": ("silos.times", "REVEALS")}})
    with pytest.raises(
        DisclosureError, match=r"protocol 'silos.times' does not declare what it reveals, so 'k' cannot"
    ):
        load_reveals("k", "ecdh-psi", "dealer")
    with pytest.raises(DisclosureError, match="there is no job kind 'other'"):
        load_reveals("other", "ecdh-psi", "dealer")


def test_randomness_without_a_declaration_stops_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DisclosureError, match="there is no correlated randomness from 'a-coin'"):
        load_reveals("vertical.glm", "ecdh-psi", "a-coin")
    monkeypatch.setattr("silos.disclosure.SUPPLIES", {"a-coin": {"silos.times": ("silos.times", "REVEALS")}})
    with pytest.raises(DisclosureError, match=r"protocol 'silos.times' does not declare what it reveals"):
        load_reveals("vertical.glm", "ecdh-psi", "a-coin")


def test_only_a_supply_of_randomness_may_reveal_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.times.REVEALS", (), raising=False)
    monkeypatch.setattr("silos.disclosure.SUPPLIES", {"a-coin": {"silos.times": ("silos.times", "REVEALS")}})
    assert set(load_reveals("vertical.glm", "ecdh-psi", "a-coin")) == {
        *MATCHINGS["ecdh-psi"],
        *PROTOCOLS["vertical.glm"],
    }
    monkeypatch.setattr("silos.disclosure.PROTOCOLS", {"k": {"another": ("silos.times", "REVEALS")}})
    with pytest.raises(DisclosureError, match="does not declare what it reveals"):
        load_reveals("k", "ecdh-psi", "a-coin")


def test_every_source_of_randomness_has_protocols_and_assumptions() -> None:
    assert set(SUPPLIES) == set(RANDOMNESS) - {None} == set(get_args(Randomness)) == set(MODES)
    assert all(SUPPLIES.values())
    assert all(RANDOMNESS.values())


def test_an_unknown_way_to_match_stops_the_job() -> None:
    with pytest.raises(DisclosureError, match="there is no matching by 'guessing'"):
        load_reveals("vertical.glm", "guessing", "dealer")


def test_the_lines_follow_the_way_rows_are_matched() -> None:
    align = {"protocol": "vole-psi"}
    names = {line["name"] for line in disclosure(make_spec(align=align))["lines"]}
    assert {"matching.early-rows", "matching.rows"} <= names
    assert not [name for name in names if name.startswith("psi.")]


def test_that_tokens_are_kept_is_told_exactly_if_they_are() -> None:
    asked = {"kind": "vertical.match", "dealer": None, "parties": MATCHERS, "align": {"protocol": "oprf-psi"}}
    for spec, told in (
        (make_spec(**asked), False),
        (make_spec(**asked, keep_tokens=True), True),
        (make_spec(align={"protocol": "oprf-psi"}), False),
    ):
        lines = disclosure(spec)["lines"]
        assert {line["silo"] for line in lines if line["name"] == "tokens.kept"} == (
            {"lender", "platform"} if told else set()
        )
        assert "tokens.rows" in {line["name"] for line in lines}


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("randomness", SUPPLIES)
@pytest.mark.parametrize("kind", PROTOCOLS)
def test_every_protocol_of_every_kind_declares(kind: str, randomness: str, matching: str) -> None:
    silent = {"mpc.ot.source"}  # two owners that make randomness learn nothing by it
    expected = {*MATCHINGS[matching], *PROTOCOLS[kind], *SUPPLIES[randomness]} - silent
    assert set(load_reveals(kind, matching, randomness)) == expected


def test_a_job_without_a_dealer_has_no_line_about_one() -> None:
    document = disclosure(make_spec(randomness="ot", dealer=None), registry)
    assert {line["silo"] for line in document["lines"]} == {"lender", "platform", "coordinator"}
    assert not [text for text in document["assumptions"] if "The silo that deals randomness" in text or "None" in text]
    assert any("oblivious transfer" in text for text in document["assumptions"])


def test_assumptions_differ_with_the_randomness() -> None:
    texts = {
        mode: disclosure(make_spec(randomness=mode, dealer=None if mode == "ot" else "dealer"), registry)["assumptions"]
        for mode in MODES
    }
    assert len({tuple(text) for text in texts.values()}) == len(MODES)
    assert any("passes nothing that it knows on" in text for text in texts["verified-dealer"])
    assert any("deals wrongly stops the job before a result is released" in text for text in texts["verified-dealer"])
