"""Every message of words that training, evaluating and scoring send is uniform, and two data sets look the same.

A probability is multiplied by how many there are of a run (Bonferroni); less than FAMILY fails.  So one run in ten thousand
would fail by chance, for other keys: they are fixed, and what passes once passes always.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matrix import mask_matrices
from mpc.wire import Kind
from tests.harness import Message, Run
from tests.mpc.transcripts import words_of
from tests.vertical.attack_runs import RUNS, data, seen
from tests.vertical.attacks import ACTIVE, PASSIVE, p_values, told_apart, watch, word_messages, word_shape

ROWS = 2048
FAMILY = 1e-4
SURE = 5.0
"""Deviations that a guess hardly ever reaches: one in 1.7 million does."""
LEFT_OUT = {
    "glm/range": "one bit: whether all scores are in range, on purpose, once more for every doubling",
    "trees/routing": "which rows go left, on purpose, where the settings say so",
    "dealer/key": "a fresh key",
    "crypten/common-key": "a fresh key",
    "crypten/next-key": "a fresh key",
}
"""Tags that are not looked at, and why.

What is opened on purpose under other tags (coefficients to their owner, figures, decisions) is a sum of messages that each
are uniform; the messages are looked at, and the sum is not.
"""
HIDDEN = [name for name in RUNS if name != "trees with routing revealed"]


def worst(run: Run, left_out: dict[str, str]) -> tuple[float, str]:
    """The smallest probability of all messages, times how many there are."""
    found = p_values(word_messages(run, list(left_out)))
    p, name = min(found)
    return p * len(found), name


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", RUNS)
def test_every_message_of_words_is_uniform(name, which):
    run = seen(name, which, ROWS).run
    assert worst(run, LEFT_OUT) > (FAMILY, "")


@pytest.mark.parametrize("name", RUNS)
def test_nearly_all_that_travels_is_looked_at(name):
    """What is not: control values, and short messages of a tag of which there are fewer than 512 words together."""
    run = seen(name, 0, ROWS).run
    sent = sum(m.size for m in run.transcript if m.kind != Kind.JSON and m.tag not in LEFT_OUT)
    parts = word_messages(run, list(LEFT_OUT))
    looked_at = sum(words.nbytes for what, words in parts if not what.split(" (")[0].endswith("opened"))
    assert looked_at > 0.95 * sent


@pytest.mark.parametrize("name", HIDDEN)
def test_two_data_sets_give_transcripts_of_one_shape_that_cannot_be_told_apart(name):
    """With other columns, and a label that is rare in one and not in the other.

    Only of an evaluation the shape may differ: how many comparisons a sort makes depends on a secret random order.  That it
    depends on nothing else is shown in tests/mpc/test_sorting.py.
    """
    one, other = (seen(name, which, ROWS).run for which in (0, 1))
    if name != "evaluation":
        assert word_shape(one, list(LEFT_OUT)) == word_shape(other, list(LEFT_OUT))
    judged = told_apart(one, other, list(LEFT_OUT))
    assert len(judged) >= 2
    assert max(judged) < (SURE, "")


# --- weak variants, which are noticed


def tampered(run: Run, change: object) -> Run:
    """A run of which some messages look as they would in a weaker protocol."""
    out = Run()
    out.transcript = [change(m) for m in run.transcript]  # type: ignore[operator]
    return out


def unmasked(which: int) -> Run:
    """A training in which the passive owner's columns go out as they are, in the fixed point of the protocol."""
    words = np.rint(data(which, ROWS).X * 2.0**10).astype(np.int64).view(np.uint64)

    def change(m: Message) -> Message:
        return replace(m, body=words.tobytes()) if (m.tag, m.sender) == ("matrix/mask", PASSIVE) else m

    return tampered(seen("glm", which, ROWS).run, change)


def test_an_unmasked_share_is_noticed():
    p, name = worst(unmasked(0), LEFT_OUT)
    assert p < FAMILY
    assert name.startswith("'matrix/mask'")


@pytest.mark.parametrize("bits", [63, 60])
def test_a_mask_that_is_some_bits_short_is_noticed(bits):
    """A mask below 2^63 on residuals: their size, and so the sign of each, shows in the top bits."""

    def change(m: Message) -> Message:
        if m.tag != "matrix/vector" or m.sender != ACTIVE or m.size != 8 * ROWS:
            return m
        return replace(m, body=(words_of(m) >> np.uint64(64 - bits)).tobytes())

    p, name = worst(tampered(seen("glm", 0, ROWS).run, change), LEFT_OUT)
    assert p < FAMILY
    assert name.startswith("'matrix/vector'")


def test_unmasked_columns_of_two_data_sets_are_told_apart():
    deviations, name = max(told_apart(unmasked(0), unmasked(1), list(LEFT_OUT)))
    assert deviations > 20
    assert name.startswith("'matrix/mask'")


def test_routing_that_is_revealed_is_noticed():
    """If it were not left out: columns with few values send more rows to one side."""
    p, name = worst(seen("trees with routing revealed").run, {})
    assert p < FAMILY
    assert name.startswith("'trees/routing'")


# --- masks that are used twice


def differences(messages: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Differences of all pairs of messages of one size."""
    pairs = combinations(enumerate(messages), 2)
    return [
        (f"difference of messages {i} and {j}", one - other)
        for (i, one), (j, other) in pairs
        if one.dtype == other.dtype and one.size == other.size
    ]


def masked_by(run: Run, tag: str) -> list[np.ndarray]:
    """The first twelve long messages of one tag from the passive owner."""
    return [words_of(m) for m in run.transcript if m.tag == tag and m.sender == PASSIVE and m.size > 4096][:12]


def masked_twice(first: int, second: int) -> list[np.ndarray]:
    """What goes out if an owner masks two versions of its columns, under these numbers."""

    def body(session):
        for number, which in ((first, 0), (second, 1)):
            X = np.rint(data(which, ROWS).X * 2.0**10).astype(np.int64)
            mask_matrices(session, [(ROWS, 0), (ROWS, 3)], X if session.me else X[:, :0], number)

    return masked_by(watch([body, body]).run, "matrix/mask")


@pytest.mark.parametrize(("name", "tag"), [("network in batches", "matrix/mask"), ("glm", "matrix/vector")])
def test_no_two_messages_have_one_mask(name, tag):
    found = p_values(differences(masked_by(seen(name, 0, ROWS).run, tag)))
    assert len(found) >= 6
    assert min(found)[0] * len(found) > FAMILY


def test_one_mask_on_two_versions_of_columns_would_show_their_difference():
    """Each message alone is uniform, and their difference is that of the columns."""
    fair = masked_twice(0, 2)
    assert min(p_values(differences(fair)))[0] > FAMILY
    X, Y = (np.rint(data(which, ROWS).X * 2.0**10).astype(np.int64).view(np.uint64).reshape(-1) for which in (0, 1))
    weak = [fair[0], fair[0] - X + Y]
    assert min(p_values([("one", weak[0]), ("other", weak[1])]))[0] > FAMILY
    assert min(p_values(differences(weak)))[0] < 1e-100
    assert (weak[0] - weak[1] == X - Y).all()


def test_the_dealer_refuses_to_mask_two_matrices_under_one_number():
    with pytest.raises(RemoteProtocolError, match=r"matrix number [01] is taken"):
        masked_twice(0, 0)


def test_columns_cannot_be_changed_after_they_were_masked():
    """What would make one mask cover two versions without the dealer's knowing."""
    kept = {}

    def body(session):
        X = np.ones((ROWS, 3 * session.me), dtype=np.int64)
        matrices = mask_matrices(session, [(ROWS, 0), (ROWS, 3)], X, 0)
        X[:] = 7
        kept[session.me] = matrices[session.me]

    watch([body, body])
    assert (kept[1].content == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        kept[1].content[0, 0] = 2
    thawed = replace(kept[1], content=kept[1].content.copy())
    with pytest.raises(LocalProtocolError, match="could have changed"):
        thawed.check_frozen(1)
