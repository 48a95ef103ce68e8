"""The benchmark of networks without its processes: data, PyTorch's side, and what is shown."""

from types import SimpleNamespace

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import network, peers

ORDER = {"activation": "tanh", "epochs": 2, "batch": 128, "rows": 900, "batches": 0}


def test_data_is_split_and_the_same_each_time():
    (inputs, y, held), (again, _, _) = network.data(900), network.data(900)
    assert [len(part) for part in inputs] == [900, 900] == [len(y), len(held)]
    assert 0.25 < held.mean() < 0.42
    assert all((a == b).all() for a, b in zip(inputs, again))
    for part in inputs:
        assert np.abs(part[~held].mean(axis=0)).max() < 0.2


def test_pytorch_learns_something():
    inputs, y, held = network.data(900)
    outputs, seconds = network.in_the_clear(inputs, y, held, network.settings_of(ORDER))
    assert len(outputs) == held.sum()
    assert roc_auc_score(y[held], outputs) > 0.7
    assert seconds > 0


def test_a_line_has_medians_of_what_was_measured():
    line = network.line("x", [[1.0, 0.5, 100, 3], [3.0, 0.5, 100, 3], [2.0, 0.7, 100, 3]], 10)
    assert line == {"label": "x", "seconds": 20.0, "cpu_seconds": 5.0, "mb": 1000 / 1e6, "rounds": 30}


def test_a_peer_that_cannot_be_installed_is_a_line_that_says_so(monkeypatch, capsys):
    def unavailable():
        raise peers.Unavailable("cannot be installed: no network")

    monkeypatch.setattr(peers, "crypten_environment", unavailable)
    found = network.stock(70, network.settings_of(ORDER), 2, 10)
    assert found == {"note": "cannot be installed: no network"}
    lines = [{"label": "ours", "seconds": 1.5, "rounds": 14}, {"label": "stock", **found}]
    result = {"rows": 600, "inputs": [24, 46], "activation": "tanh", "batches": 5, "epochs": 2, "lines": lines}
    shown = SimpleNamespace(**result, auc=0.9, pytorch_auc=0.9, scored_rows=300, scoring_seconds=0.1)
    network.show(vars(shown))
    text = " ".join(capsys.readouterr().out.split())
    assert "AUC on 300 held-out rows after 2 epochs: 0.9000, PyTorch 0.9000" in text
