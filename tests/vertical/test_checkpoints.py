"""What owners keep of a long computation: they go on from one attempt's step together, and from nothing else."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.rng import fresh_prg
from tests.harness import run_parties, try_parties
from vertical.align import Aligned
from vertical.checkpoints import KEPT, Checkpoints, Kept, Owners, decode, encode, expect
from vertical.resuming import AGREED, RESULT_PIECE, Finished, Keep, job_plan

NAMES = ("lender", "platform", "shop")
PLAN = b"the spec, the consents and the rows"
HEX = hashlib.sha256(b"x").hexdigest()


class Killed(Exception):
    """Where a test ends a party."""


class Memory:
    """A store that outlives a party, as a disk does a process."""

    def __init__(self):
        self.pieces, self.writes = {}, []

    def put(self, name, body):
        self.pieces[name] = bytes(body)
        self.writes.append(name)

    def get(self, name):
        return self.pieces.get(name)

    def names(self):
        return sorted(self.pieces)

    def drop(self, name):
        self.pieces.pop(name, None)


class Dying(Memory):
    """The store of a party that is killed right after so many writes."""

    def __init__(self, store, writes):
        super().__init__()
        self.pieces, self.left = store.pieces, writes

    def put(self, name, body):
        super().put(name, body)
        if len(self.writes) >= self.left:
            raise Killed(name)


def together(stores, body, *, plans=None, **options):
    """Run `body(checkpoints, owners)` at every owner, each with its own store."""
    names = NAMES[: len(stores)]

    def party(i):
        def run(channel):
            checkpoints = Checkpoints(stores[i], "training", (plans or [PLAN] * len(stores))[i], **options)
            return body(checkpoints, Owners(channel, names, i))

        return run

    return {name: party(i) for i, name in enumerate(names)}


def shares_of(values, n):
    parts = [fresh_prg().words(values.shape) for _ in range(n - 1)]
    return [*parts, values - np.add.reduce(parts)]


def attempt(stores, parts, steps, **options):
    """One attempt that comes as far as `steps` says for each owner; returns what each went on from."""

    def body(checkpoints, owners):
        found = checkpoints.restore(owners)
        state = {"w": parts[owners.me]} if found is None else {"w": found[1]["w"]}
        for step in range(1 if found is None else found[0] + 1, steps[owners.me] + 1):
            state["w"] = state["w"] + np.uint64(owners.me == 0)  # the value counts the steps
            checkpoints.save(step, state)
        return found

    return run_parties(together(stores, body, **options))


@pytest.mark.parametrize("n", [2, 3])
def test_owners_go_on_from_the_last_step_that_all_have(n):
    values = np.arange(12, dtype=np.uint64).reshape(3, 4) << np.uint64(58)
    stores, parts = [Memory() for _ in range(n)], shares_of(values, n)
    first = attempt(stores, parts, [7, 6, 7][:n])
    assert set(first.values()) == {None}
    again = attempt(stores, parts, [6] * n)
    assert {found[0] for found in again.values()} == {6}
    state = [again[name][1]["w"] for name in NAMES[:n]]
    assert np.array_equal(np.add.reduce(state), values + np.uint64(6))
    before = [decode(store.get("training.00000006")).state["w"] for store in stores]
    assert not any((old == new).any() for old, new in zip(before, state)), "a share is the one of the attempt before"
    third = attempt(stores, parts, [6] * n)
    assert not (third[NAMES[0]][1]["w"] == state[0]).any(), "two attempts go on from the same shares"


def test_one_round_of_a_few_hundred_bytes_and_nothing_of_a_state():
    stores, parts = [Memory(), Memory()], shares_of(np.zeros(1000, dtype=np.uint64), 2)
    shapes = [attempt(stores, parts, [4, 4]).transcript for _ in range(2)]
    assert [[(m.sender, m.tag) for m in messages] for messages in shapes] == [
        [("lender", "checkpoint/agree"), ("platform", "checkpoint/agree")]
    ] * 2
    assert all(m.size < 1024 for messages in shapes for m in messages)
    said = json.loads(shapes[1][0].body)
    assert said.keys() == {"plan", "nonce", "seed", "kept"}
    assert [step for step, _ in said["kept"]] == [3, 4]


def test_a_step_of_two_attempts_is_not_a_step():
    """The lender keeps step 4; the platform dies before, and keeps another step 4 in an attempt that ends before ours."""
    values = np.arange(5, dtype=np.uint64)
    stores, parts = [Memory(), Memory()], shares_of(values, 2)
    attempt(stores, parts, [4, 3])
    old = stores[0].get("training.00000004")
    attempt(stores, parts, [3, 4])
    stores[0].put("training.00000004", old)  # as if the lender had died before it dropped it
    found = attempt(stores, parts, [3, 3])
    assert {step for step, _ in found.values()} == {3}
    assert np.array_equal(found["lender"][1]["w"] + found["platform"][1]["w"], values + np.uint64(3))
    assert stores[0].names() == stores[1].names() == ["training.00000003"]


def test_nothing_in_common_is_the_beginning():
    stores, parts = [Memory(), Memory()], shares_of(np.zeros(2, dtype=np.uint64), 2)
    attempt(stores, parts, [5, 5])
    stores[1].pieces.clear()
    assert set(attempt(stores, parts, [0, 0]).values()) == {None}
    assert not stores[0].names()


def test_few_steps_are_written_and_all_owners_write_the_same():
    stores, parts = [Memory(), Memory()], shares_of(np.zeros(2, dtype=np.uint64), 2)
    attempt(stores, parts, [25, 21], every=10)
    assert stores[0].writes == stores[1].writes == ["training.00000010", "training.00000020"]
    found = attempt(stores, parts, [45, 45], every=10)
    assert {step for step, _ in found.values()} == {20}
    assert stores[0].writes[2:] == stores[1].writes[2:] == ["training.00000030", "training.00000040"]
    assert len(stores[0].names()) == KEPT


def test_resuming_is_told_and_own_data_stay_as_they_are():
    told, own = [], np.array([0.5, -2.0])
    stores = [Memory(), Memory()]

    def body(checkpoints, owners):
        found = checkpoints.restore(owners)
        if found is None:
            extra = {"mine": own} if owners.me == 0 else {}
            checkpoints.save(3, {"w": np.zeros(2, dtype=np.uint64), "order": np.arange(3 + owners.me), **extra})
        return found

    for _ in range(2):
        run = run_parties(together(stores, body, resumed=told.append))
    assert told == [3, 3]
    assert np.array_equal(expect(run["lender"][1], "mine", (2,), np.float64), own)
    assert np.array_equal(run["platform"][1]["order"], np.arange(4))


def test_shares_of_other_shapes_do_not_go_together():
    stores = [Memory(), Memory()]

    def body(checkpoints, owners):
        found = checkpoints.restore(owners)
        checkpoints.save(1, {"w": np.zeros(2 + owners.me, dtype=np.uint64)})
        return found

    run_parties(together(stores, body))
    assert set(run_parties(together(stores, body)).values()) == {None}


def test_another_computation_is_refused_by_name():
    stores, parts = [Memory(), Memory()], shares_of(np.zeros(2, dtype=np.uint64), 2)
    run = try_parties(together(stores, lambda c, owners: c.restore(owners), plans=[PLAN, b"another"]))
    assert {name: (type(e), e.party) for name, e in run.errors.items()} == {
        "lender": (RemoteProtocolError, "platform"),
        "platform": (RemoteProtocolError, "lender"),
    }
    attempt(stores, parts, [2, 2])
    with pytest.raises(LocalProtocolError, match="what is kept of step 1 belongs to another computation"):
        run_parties(together(stores, lambda c, owners: c.restore(owners), plans=[b"other", b"other"]))
    stores[0].put("training.00000002", stores[0].get("training.00000001"))
    with pytest.raises(LocalProtocolError, match="what is kept of step 2 belongs to another computation"):
        attempt(stores, parts, [2, 2])


@pytest.mark.parametrize(
    "said",
    [
        b"[]",
        b"{}",
        b'{"plan":1,"nonce":1,"seed":1,"kept":[]}',
        json.dumps({"plan": HEX, "nonce": HEX, "seed": HEX[:-1], "kept": []}).encode(),
        json.dumps({"plan": HEX, "nonce": HEX, "seed": HEX, "kept": [[0, HEX]] * 9}).encode(),
        json.dumps({"plan": HEX, "nonce": HEX, "seed": HEX, "kept": 3}).encode(),
    ],
)
def test_a_peer_that_does_not_say_what_it_has_is_named(said):
    def tamper(message):
        return replace(message, body=said) if message.sender == "platform" else message

    run = try_parties(together([Memory(), Memory()], lambda c, owners: c.restore(owners)), tamper=tamper)
    assert isinstance(run.errors["lender"], RemoteProtocolError)
    assert run.errors["lender"].party == "platform"


def test_states_are_kept_in_order_and_after_restoring():
    checkpoints = Checkpoints(Memory(), "training", PLAN)
    with pytest.raises(LocalProtocolError, match="after 'restore'"):
        checkpoints.save(1, {"w": np.zeros(1, dtype=np.uint64)})

    def body(checkpoints, owners):
        checkpoints.restore(owners)
        checkpoints.save(2, {"w": np.zeros(1, dtype=np.uint64)})
        checkpoints.save(2, {"w": np.zeros(1, dtype=np.uint64)})

    with pytest.raises(LocalProtocolError, match="step 2 after 2"):
        run_parties(together([Memory(), Memory()], body))
    with pytest.raises(LocalProtocolError, match="got 0"):
        Checkpoints(Memory(), "training", PLAN, every=0)


KINDS = st.sampled_from(["bool", "uint8", "int16", "uint32", "int64", "uint64", "float32", "float64"])
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), ARRAYS, min_size=1, max_size=4))
def test_a_state_is_read_as_it_was_written(state):
    body = encode(Kept(HEX, HEX, 7, state))
    back = decode(body)
    assert (back.plan, back.attempt, back.step, back.state.keys()) == (HEX, HEX, 7, state.keys())
    for name, array in state.items():
        assert back.state[name].dtype == array.dtype
        assert back.state[name].shape == array.shape
        assert back.state[name].tobytes() == array.tobytes()
        assert back.state[name].flags.writeable
    assert encode(back) == body


def test_whatever_is_not_a_state_is_refused():
    body = encode(Kept(HEX, HEX, 1, {"b": np.arange(3, dtype=np.uint64), "a": np.ones((2, 2))}))
    head = body[20 : 20 + int.from_bytes(body[16:20], "little")]

    def with_head(new):
        return body[:16] + len(new).to_bytes(4, "little") + new + body[20 + len(head) :]

    wrong = [
        b"",
        body[:-1],
        body + b"\0",
        body[:30],
        b"X" + body[1:],
        with_head(head + b" "),
        with_head(head.replace(b'"<u8"', b'"|O"')),
        with_head(head.replace(b'"<u8"', b'"<f8"')[:-1]),
        with_head(head.replace(b"[3]", b"[-3]")),
        with_head(head.replace(b"[3]", b"[9223372036854775807,4]")),
        with_head(head.replace(b'"b"', b'"../b"')),
        with_head(head.replace(b'"b"', b'"a"')),
        with_head(head.replace(b'"step":1', b'"step":-1')),
        with_head(head.replace(b'"step":1', b'"step":true')),
        with_head(head.replace(HEX.encode(), b"short")),
        with_head(b"[]"),
        with_head(b"[" * 60_000),
    ]
    for one in wrong:
        with pytest.raises(LocalProtocolError, match="damaged or of another version"):
            decode(one)
    for state in ({}, {"A": np.zeros(1)}, {"a": np.zeros(1, dtype=object)}, {"a": np.zeros(1, dtype=complex)}):
        with pytest.raises(LocalProtocolError, match="a state"):
            encode(Kept(HEX, HEX, 1, state))
    with pytest.raises(LocalProtocolError, match="a state has a step"):
        encode(Kept(HEX, HEX, -1, {"a": np.zeros(1)}))


def test_a_model_says_what_it_expects_of_a_state():
    state = {"w": np.zeros((2, 3), dtype=np.uint64)}
    assert expect(state, "w", (2, 3)) is state["w"]
    for name, shape, dtype in (("v", (2, 3), np.uint64), ("w", (3, 2), np.uint64), ("w", (2, 3), np.int64)):
        with pytest.raises(LocalProtocolError, match=f"must have '{name}'"):
            expect(state, name, shape, dtype)


# --- a whole training: rows, states, result


ROWS = {
    "lender": Aligned(np.array([4, 2, 9]), np.array([0, 1, 0], dtype=np.uint8), [b"a", b"", b"ccc"], (1, 0)),
    "platform": Aligned(np.array([0, 1, 2]), np.array([0, 1, 0], dtype=np.uint8), [b"a", b"", b"ccc"], (0, 3)),
}


def trainings(stores, deaths=None, matched=None, trained=None):
    """Two owners' training of five steps; deaths: after how many writes each one dies."""
    matched, trained = [] if matched is None else matched, [] if trained is None else trained

    def party(i, name):
        def run(channel):
            store = Dying(stores[i], deaths[name]) if name in (deaths or {}) else stores[i]
            owners, keep = Owners(channel, NAMES[:2], i), Keep(store, job_plan(PLAN, b"session"))
            done = keep.finished(owners)
            if done is None:
                rows = keep.aligned(owners, lambda: matched.append(name) or ROWS[name])
                assert_same_rows(rows, ROWS[name])
                checkpoints = keep.checkpoints()
                at = checkpoints.restore(owners)
                w = at[1]["w"] if at else np.zeros(2, dtype=np.uint64)
                for step in range(at[0] + 1 if at else 1, 6):
                    trained.append((name, step))
                    w = w + np.uint64(i)
                    channel.send(NAMES[1 - i], "pass", 1, b"x")
                    channel.recv(NAMES[1 - i], "pass", 1, exact=1)
                    checkpoints.save(step, {"w": w})
                peer = NAMES[1 - i]
                channel.send(peer, "open", 1, w.tobytes())
                other = np.frombuffer(channel.recv(peer, "open", 1, exact=16), dtype=np.uint64)
                done = Finished({"model": (w + other).tolist()}, {})
            keep.finish(owners, done)
            return done.result

        return run

    return {name: party(i, name) for i, name in enumerate(NAMES[:2])}


def assert_same_rows(one, other):
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.key, other.key)
    assert (one.items, one.duplicates) == (other.items, other.duplicates)


def test_a_training_that_is_killed_anywhere_comes_to_the_same_model():
    """Either owner dies right after each of its writes; the next attempt goes on and ends with what all ends with."""
    writes = 1 + 5 + 2
    for victim in NAMES[:2]:
        for n in range(1, writes + 1):
            stores, matched, trained = [Memory(), Memory()], [], []
            first = try_parties(trainings(stores, {victim: n}, matched, trained))
            assert isinstance(first.errors.get(victim), Killed), (victim, n)
            agreed = [store.get(AGREED) for store in stores]
            if any(agreed):
                assert all(store.get(RESULT_PIECE) for store in stores), "someone is done and another one has no result"
                for store in stores:
                    assert Keep(store, job_plan(PLAN, b"session")).alone().result == {"model": [5, 5]}
                continue
            before = len(trained)
            run = run_parties(trainings(stores, None, matched, trained))
            assert set(map(str, run.values())) == {str({"model": [5, 5]})}
            assert len(matched) <= (4 if n == 1 else 2), "rows that all have were matched again"
            assert len(trained) - before <= 2 * (5 - max(0, n - 3)), "more than the steps that were lost were repeated"


def test_a_result_that_all_agreed_on_needs_nobody():
    stores = [Memory(), Memory()]
    run_parties(trainings(stores))
    keep = Keep(stores[0], job_plan(PLAN, b"session"))
    assert keep.alone().result == {"model": [5, 5]}
    stores[0].put(AGREED, bytes(32))
    with pytest.raises(LocalProtocolError, match="not the one that all owners have"):
        keep.alone()
    with pytest.raises(LocalProtocolError, match="not the one that all owners have"):
        Keep(Memory(), PLAN).alone()
    with pytest.raises(LocalProtocolError, match="the rows come before"):
        Keep(Memory(), PLAN).checkpoints()


def test_states_belong_to_the_rows_they_were_made_on():
    """An owner whose rows are of another attempt than its states cannot mix them."""
    stores = [Memory(), Memory()]
    try_parties(trainings(stores, {"platform": 4}))
    assert any(name.startswith("training.") for name in stores[0].names())
    for store in stores:
        store.drop("rows.00000001")
    run = try_parties(trainings(stores))
    assert any("belongs to another computation" in str(error) for error in run.errors.values())
