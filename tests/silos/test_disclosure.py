"""The disclosure: computed, deterministic, complete, and impossible without declarations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from coordinator.envelope import canonical, digest
from mpc.reveals import Reveal
from silos.disclosure import PROTOCOLS, disclosure, load_reveals, render
from silos.errors import DisclosureError
from silos.spec import parse_spec, spec_digest
from tests.silos.world import make_spec, registry


def test_every_owner_computes_the_same_digest() -> None:
    spec = make_spec()
    other = parse_spec(json.loads(canonical(spec.document())))
    assert digest(disclosure(spec, registry)) == digest(disclosure(other, registry))
    assert digest(disclosure(make_spec(purpose="x"), registry)) != digest(disclosure(spec, registry))


def test_lines_go_to_the_roles_that_learn_them() -> None:
    def roles(_: str) -> Mapping[str, Sequence[Reveal]]:
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
        disclosure(make_spec(), lambda _: {"mpc.psi": ()})


def test_a_module_without_a_declaration_stops_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.disclosure.PROTOCOLS", {"k": {"silos.times": ("silos.times", "REVEALS")}})
    with pytest.raises(
        DisclosureError, match=r"protocol 'silos.times' does not declare what it reveals, so 'k' cannot"
    ):
        load_reveals("k")
    with pytest.raises(DisclosureError, match="there is no job kind 'other'"):
        load_reveals("other")


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_every_protocol_of_every_kind_declares(kind: str) -> None:
    assert set(load_reveals(kind)) == set(PROTOCOLS[kind])
