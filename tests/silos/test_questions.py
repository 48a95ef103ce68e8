"""The socket that an online scoring job is asked on: lines in, lines out, and what is no question."""

import contextlib
import socket
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from mpc.errors import PeerLost, Refused
from silos.errors import ConfigError
from silos.questions import NAME, Scorer, places, serve
from vertical.align import Identifiers
from vertical.batches import column
from vertical.linkage import pool


class Answers:
    """Stands for the recipient's end of a run."""

    def __init__(self, most=100, lost=False):
        self.asked, self.waits, self.ended, self.most, self.lost = [], 0, False, most, lost

    def ask(self, row):
        if self.lost:
            raise PeerLost("platform", "online/ask")
        if len(self.asked) >= self.most:
            raise Refused("enough")
        self.asked.append(row)
        return row / 10

    def wait(self):
        self.waits += 1

    def end(self):
        self.ended = True


@pytest.fixture
def folder():
    """Of the test alone."""
    with tempfile.TemporaryDirectory(prefix="q") as made:
        yield Path(made)


class Running:
    """`serve` in a thread, until it ends."""

    def __init__(self, folder, answers, silent_s=60.0, lasts_s=60.0):
        self.error = None

        def body():
            try:
                until = time.monotonic() + lasts_s
                serve(folder, answers, place, silent_s=silent_s, until=until)
            except Exception as exc:
                self.error = exc

        def place(key):
            return {"ann": 1, "bob": 2}.get(key[0])

        self.thread = threading.Thread(target=body)
        self.thread.start()
        while not (folder / NAME).exists() and self.thread.is_alive():
            self.thread.join(0.002)

    def over(self):
        self.thread.join(20)
        assert not self.thread.is_alive()


def connected(folder):
    while True:
        try:
            return Scorer(folder)
        except ConfigError:
            threading.Event().wait(0.002)


def test_keys_in_scores_out_until_somebody_ends_it(folder):
    answers = Answers()
    running = Running(folder, answers)
    with connected(folder) as first, connected(folder) as second:
        assert (first.score("ann"), second.score("bob"), first.score("bob")) == (0.1, 0.2, 0.2)
        with pytest.raises(ConfigError, match="no matched row has this key"):
            second.score("carl")
        second.end()
        running.over()
        with pytest.raises(ConfigError, match=r"has ended|does not answer"):
            first.score("ann")
    assert answers.ended
    assert answers.asked == [1, 2, 2]
    assert not (folder / NAME).exists()
    assert running.error is None


@pytest.mark.parametrize(
    "line", [b"\xff", b"[]", b'{"key": []}', b'{"key": [1]}', b'{"key": "ann"}', b'{"key": ["a"], "x": 1}']
)
def test_what_is_no_question_is_said_so_and_nobody_is_asked(folder, line):
    answers = Answers()
    running = Running(folder, answers)
    with connected(folder) as end, socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(folder / NAME))
        raw.sendall(line + b"\n")
        assert b"a question is a line of JSON" in raw.recv(4096)
        end.end()
    running.over()
    assert answers.asked == []


def test_a_line_without_end_closes_its_connection_and_no_other(folder):
    running = Running(folder, Answers())
    with connected(folder) as good, socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(folder / NAME))
        raw.sendall(b"x" * 5000)
        raw.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(10) == b""
        assert good.score("ann") == 0.1
        good.end()
    running.over()


def test_used_up_questions_end_the_job(folder):
    answers = Answers(most=1)
    running = Running(folder, answers)
    with connected(folder) as scorer:
        assert scorer.score("ann") == 0.1
        with pytest.raises(ConfigError, match="enough"):
            scorer.score("ann")
    running.over()
    assert answers.ended


def test_silence_is_filled_and_time_runs_out(folder):
    answers = Answers()
    running = Running(folder, answers, silent_s=0.01, lasts_s=0.2)
    running.over()
    assert answers.waits >= 2
    assert answers.ended


def test_a_lost_peer_ends_it_with_its_error(folder):
    running = Running(folder, Answers(lost=True))
    with connected(folder) as scorer, pytest.raises(ConfigError, match="has ended"):
        scorer.score("ann")
    running.over()
    assert isinstance(running.error, PeerLost)
    assert not (folder / NAME).exists()


def test_a_folder_without_a_job(folder):
    for empty in (folder, folder / "nowhere"):
        with pytest.raises(ConfigError, match="no online scoring runs"):
            Scorer(empty)


def test_a_folder_may_have_a_longer_name_than_a_socket(folder):
    deep = folder / ("d" * 120)
    deep.mkdir()
    running = Running(deep, Answers())
    with connected(deep) as scorer:
        assert scorer.score("ann") == pytest.approx(0.1)
        scorer.end()
    running.over()


def test_a_key_is_found_however_it_is_written():
    keys = (("email/v1", None), ("text/v1", None))
    texts = ["Ann@Example.org", "bob@example.org", "?"]
    own = Identifiers(keys)
    batches = own.add([[column(pa.array(texts, pa.string()))], [column(pa.array(["a", "b", "c"], pa.string()))]])
    items = pool(batches, ("email/v1", "text/v1"), "refuse").items
    place = places(keys, items)
    assert items[place([" ANN@example.org "])] == items[place(["ann@example.org"])]
    assert place(["bob@example.org"]) != place(["ann@example.org"])
    assert [place(values) for values in (["carl@example.org"], ["?"], ["a"], [], ["a@b.org", "x"])] == [None] * 5
