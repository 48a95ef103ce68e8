"""Parts of models at rest: what is kept comes back, what was changed does not, and the disk shows nothing."""

import json
import os
import stat

import pytest

from silos import model_card
from silos.config import init_home
from silos.errors import ConfigError
from silos.models import MAGIC, ModelStore, parse_part

MODEL, OTHER = "ab" * 16, "cd" * 16


def document(model=MODEL, silo="lender", **changed):
    return {
        "v": 1,
        "model": model,
        "kind": "vertical.glm",
        "family": "logistic",
        "created": "2026-11-21T10:00:00Z",
        "purpose": "credit risk",
        "silo": silo,
        "owners": ["lender", "platform"],
        "active": "lender",
        "dataset": "loans",
        "spec_digest": "1" * 64,
        "schema_hash": "2" * 64,
        "exposed": False,
        "features": [{"column": "canary-income", "as": "number", "monotone": 0}],
        "encoder": {"inputs": [["canary-income", "number", None, "1.5", "2"], ["city|<b>", "category", "x", "0", "1"]]},
        "fitted": {"weights": "canary-weight"},
        "rows": {"training": 700, "held_out": 300},
        "metrics": {"auc": "0.7654"},
        "reference": {},
        "disclosure": [{"silo": "platform", "learns": "the number of rows"}],
        **changed,
    }


@pytest.fixture
def home(tmp_path):
    init_home(tmp_path / "lender", "lender")
    return tmp_path / "lender"


def test_what_is_kept_comes_back(home):
    store = ModelStore(home)
    assert store.models() == []
    parts = [parse_part(document(model)) for model in (OTHER, MODEL)]
    for part in parts:
        store.save(part)
    assert ModelStore(home).load(MODEL) == parts[1]
    assert store.models() == [MODEL, OTHER]
    changed = parse_part(document(purpose="another"))
    store.save(changed)
    assert store.load(MODEL).purpose == "another"
    store.delete(MODEL)
    assert store.models() == [OTHER]
    for call in (store.load, store.delete):
        with pytest.raises(ConfigError, match="no part of model"):
            call(MODEL)


def test_nothing_of_a_part_can_be_read_on_disk_and_only_by_its_owner(home):
    path = ModelStore(home).save(parse_part(document()))
    raw = path.read_bytes()
    assert raw.startswith(MAGIC)
    assert b"canary" not in raw
    assert b"lender" not in raw
    for file in (path, home / "models.key"):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    assert "canary" not in repr(ModelStore(home).load(MODEL)).replace("canary-income", "")
    ModelStore(home).save(parse_part(document()))
    assert path.read_bytes()[len(MAGIC) :][:12] != raw[len(MAGIC) :][:12], "a nonce is used once"


@pytest.mark.parametrize("place", [0, 20, 40, -1])
def test_a_part_that_was_changed_is_refused(home, place):
    path = ModelStore(home).save(parse_part(document()))
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="damaged"):
        ModelStore(home).load(MODEL)


def test_a_part_in_the_place_of_another_or_cut_short_is_refused(home):
    store = ModelStore(home)
    first, second = (store.save(parse_part(document(model))) for model in (MODEL, OTHER))
    first.write_bytes(second.read_bytes())
    with pytest.raises(ConfigError, match="of another model"):
        store.load(MODEL)
    for length in (0, 5, 20, 30):
        second.write_bytes(second.read_bytes()[:length])
        with pytest.raises(ConfigError, match="damaged"):
            store.load(OTHER)


def test_without_its_key_nothing_can_be_read_and_no_new_key_is_made(home):
    store = ModelStore(home)
    store.save(parse_part(document()))
    key = home / "models.key"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigError, match=r"models\.key .* is gone"):
        store.load(MODEL)
    assert not key.exists()
    key.write_bytes(b"short")
    with pytest.raises(ConfigError, match="is damaged"):
        store.load(MODEL)
    key.write_bytes(kept)
    assert store.load(MODEL).model == MODEL


def test_of_two_processes_that_make_a_key_one_wins(home, monkeypatch):
    store, link = ModelStore(home), os.link

    def late(source, target):
        target.write_bytes(bytes(32))
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    store.save(parse_part(document()))
    assert (home / "models.key").read_bytes() == bytes(32)
    assert not list(home.glob(".models.key*"))
    assert store.load(MODEL).model == MODEL


def test_names_and_documents_that_are_none_are_refused(home):
    for name in ("../x", "AB" * 16, ""):
        with pytest.raises(ConfigError, match="is not a job id"):
            ModelStore(home).load(name)
    for changed in ({"v": 2}, {"model": "x"}, {"owners": ["lender"]}, {"extra": 1}, {"rows": {"training": "many"}}):
        with pytest.raises(ConfigError, match="the part of a model"):
            parse_part(document(**changed))


def test_a_card_names_own_columns_and_no_coefficient():
    made = model_card.card(parse_part(document()))
    assert made["columns"] == ["canary-income", "city|<b>"]
    assert "canary-weight" not in json.dumps(made)
    text = model_card.markdown(made)
    assert "- city\\|&lt;b>" in text
    assert "- Metrics, auc: 0.7654" in text
    assert "- platform: the number of rows" in text
    assert "canary-weight" not in text
    bare = model_card.markdown(model_card.card(parse_part(document(metrics={}, disclosure=[]))))
    assert "- Metrics: not released" in bare
    assert "Who learned" not in bare
