"""Groups: the small ones are never opened, and cannot be had by taking the others from the totals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import run_owners
from vertical.curves import TOGETHER
from vertical.segments import MAX_GROUPS, REST, Group, cells

MINIMUM = 10


def found(values, y, at=1, **options):
    """(names, rows, positives) as opened, or None."""

    def owner(i):
        def body(session):
            own = np.asarray(y).astype(np.uint64) if i == 0 else np.zeros(len(y), dtype=np.uint64)
            group = Group("kind", at, np.array(values, dtype=object) if i == at else None)
            result = cells(session, group, own, 0, MINIMUM)
            if result is None:
                return None
            sums = [x.sum(axis=0, dtype=np.uint64) for x in (result.rows, result.positives)]
            rows, positives = session.open_many("test/open", sums)
            return result.names, rows.tolist(), positives.tolist()

        return body

    run = run_owners([owner(0), owner(1)], **options)
    assert run["lender"] == run["platform"]
    return run["lender"]


def table(**counts):
    """Values and labels with (positives, negatives) for each name."""
    values, y = [], []
    for name, (positives, negatives) in counts.items():
        values += [name] * (positives + negatives)
        y += [1] * positives + [0] * negatives
    order = np.random.default_rng(0).permutation(len(y))
    return [values[i] for i in order], np.array(y)[order]


@pytest.mark.parametrize("at", [0, 1])
def test_large_groups_are_shown_by_size(at):
    values, y = table(a=(10, 15), b=(30, 40), c=(12, 10))
    assert found(values, y, at) == (("b", "a", "c"), [70, 25, 22], [30, 10, 12])


def test_small_groups_are_put_together():
    values, y = table(a=(20, 20), b=(6, 12), c=(5, 3), d=(30, 20))
    assert found(values, y) == (("d", "a", REST), [50, 40, 26], [30, 20, 11])


def test_one_small_group_takes_the_smallest_other_with_it():
    values, y = table(a=(20, 20), b=(9, 30), d=(30, 20))
    assert found(values, y) == (("d", TOGETHER), [50, 79], [30, 29])


def test_nothing_is_shown_if_only_one_group_is_large():
    values, y = table(a=(20, 20), b=(9, 2))
    assert found(values, y) is None


def test_too_many_groups_are_one_from_the_start():
    sizes = {f"g{i:02}": (20 + MAX_GROUPS * 2 - i, 20) for i in range(MAX_GROUPS + 3)}
    names, rows, _ = found(*table(**sizes))
    assert len(names) == MAX_GROUPS
    assert names[-1] == REST
    assert rows[-1] == sum(sum(sizes[f"g{i:02}"]) for i in range(MAX_GROUPS - 1, MAX_GROUPS + 3))


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_whatever_can_be_derived_has_the_minimum(sizes):
    """All unions whose numbers follow from the table and the totals are unions of what is shown."""
    counts = {f"g{i}": size for i, size in enumerate(sizes) if sum(size)}
    values, y = table(**counts)
    if len(y) == 0:
        return
    result = found(values, y)
    if result is None:
        return
    _, rows, positives = result
    assert sum(rows) == len(y)
    assert sum(positives) == y.sum()
    assert all(p >= MINIMUM and n - p >= MINIMUM for n, p in zip(rows, positives))


def test_a_column_of_other_rows_is_refused():
    with pytest.raises(LocalProtocolError, match="has 3 rows and not 4"):
        found(["a", "b", "a"], np.zeros(4), at=0)


@pytest.mark.parametrize("names", ['"a"', "[]", '["a", "a"]', "[1]", f'["{"x" * 81}"]'])
def test_malformed_names_are_noticed(names):
    import dataclasses

    def tamper(message):
        return dataclasses.replace(message, body=names.encode()) if message.tag == "segments/names" else message

    values, y = table(a=(20, 20))
    with pytest.raises(RemoteProtocolError, match="1 to 20 different names"):
        found(values, y, tamper=tamper)


def test_what_is_sent_depends_on_the_decisions_only():
    shapes = []
    for positives in (20, 40):
        values, y = table(a=(positives, 60 - positives), b=(30, 30))
        group = Group("kind", 1, np.array(values, dtype=object))

        def owner(i, y=y, group=group):
            own = y.astype(np.uint64) if i == 0 else np.zeros(120, dtype=np.uint64)
            seen = group if i == 1 else Group("kind", 1, None)
            return lambda session: cells(session, seen, own, 0, MINIMUM)

        shapes.append(run_owners([owner(0), owner(1)]).shape())
    assert shapes[0] == shapes[1]
