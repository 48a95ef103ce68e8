"""What owners tell each other before a fit: agreed on, checked, and refused if it is impossible."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import run_owners
from vertical.owned import Group, agree, agreed_scale, floats_from, floats_text, own_block

LIMITS = {"classes": (2, 24)}


def agreement(**options):
    return run_owners(
        [
            lambda s: agree(s, "test/shape", (10, 3), None, LIMITS),
            lambda s: agree(s, "test/shape", (10, 2), {"classes": 4}, LIMITS, 5),
        ],
        **options,
    )


def changed(tag, **fields):
    """A tamper function that changes fields of what the platform sends."""

    def tamper(message):
        if message.tag != tag or message.sender != "platform":
            return message
        body = json.loads(message.body) | fields
        return replace(message, body=json.dumps(body, sort_keys=True, separators=(",", ":")).encode())

    return tamper


def test_all_know_the_shapes_and_the_facts():
    run = agreement()
    assert run["lender"] == run["platform"] == Group([3, 2], [3, 5], 1, {"classes": 4})


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": 11},
        {"inputs": 0},
        {"inputs": 2.0},
        {"size": -1},
        {"facts": {"classes": 1}},
        {"facts": {"classes": 25}},
        {"facts": {"classes": True}},
        {"facts": {"classes": 4, "more": 1}},
        {"facts": {}},
        {"facts": None},
        {"more": 1},
    ],
)
def test_what_is_impossible_is_the_peers_fault(fields):
    with pytest.raises(RemoteProtocolError, match="platform"):
        agreement(tamper=changed("test/shape", **fields))


@pytest.mark.parametrize("scale", [13, -13, "2", 2.0, None])
def test_a_scale_out_of_its_limits_is_the_peers_fault(scale):
    owners = [lambda s: agreed_scale(s, None, (-12, 12)), lambda s: agreed_scale(s, 3, (-12, 12))]
    assert set(run_owners(owners).results.values()) >= {3}
    with pytest.raises(RemoteProtocolError, match="platform"):
        run_owners(owners, tamper=changed("family/scale", scale=scale))


def test_numbers_are_stored_exactly_and_nothing_else_is_read():
    values = np.random.default_rng(0).normal(size=(3, 2))
    text = floats_text(values)
    assert np.array_equal(floats_from(json.loads(json.dumps(text))), values)
    wrong = [
        None,
        {},
        text | {"more": 1},
        text | {"dtype": "<f4"},
        text | {"shape": [3, 3]},
        text | {"shape": "3"},
        text | {"shape": [True, 6]},
        text | {"data": "!"},
        text | {"data": 3},
        floats_text(np.array([np.nan])),
    ]
    for stored in wrong:
        with pytest.raises(LocalProtocolError):
            floats_from(stored)


def test_a_block_of_our_own_lies_where_it_belongs():
    block = own_block(1, [1, 2, 1], np.array([[1.0, 2], [3, 4]]), 4)
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = [[16, 32], [48, 64]]
    assert np.array_equal(block, expected)
