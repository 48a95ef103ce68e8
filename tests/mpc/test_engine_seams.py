"""What was replaced in CrypTen stays replaced: its generators, what it may not do, and the version it is pinned to."""

from __future__ import annotations

import gc
import hashlib
import random  # noqa: TID251 - to make it raise
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf.errors import ReadonlyConfigError

from mpc import engine
from mpc._crypten import seams
from mpc.engine import bind, crypten, mpc_tensor, reveal, share_from, to_words
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.kinds import warm_up
from mpc.rng import Prg, derive_key
from mpc.wire import Kind
from tests.mpc.playing import joined, play, results

ROOT = Path(__file__).parents[2]
X = np.linspace(-5, 5, 12).reshape(3, 4)
TORCH = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "seed", "manual_seed")
TORCH_LIKE = ("rand_like", "randn_like", "randint_like", "initial_seed", "Generator")
IN_PLACE = ("random_", "uniform_", "normal_", "bernoulli_", "exponential_", "geometric_", "log_normal_", "cauchy_")


def bound(n_parties: int, body):
    def within(session):
        with bind(session):
            return body(session)

    return play(n_parties, within)


def _known_key() -> bytes:
    """A key that depends on the party and on how many it drew before."""
    thread = threading.current_thread()
    thread.drawn = getattr(thread, "drawn", 0) + 1
    return hashlib.sha256(f"{thread.name}/{thread.drawn}".encode()).digest()


@pytest.fixture
def known_keys(monkeypatch):
    """The keys parties agree on for sharings of zero, fixed: the first key of each party."""
    monkeypatch.setattr(seams, "fresh_key", _known_key)
    keys = [hashlib.sha256(f"party-{name}/1".encode()).digest() for name in "abc"]
    return [derive_key(key, "zero-sharing") for key in keys]


@pytest.fixture
def no_other_randomness(monkeypatch):
    """Every generator of Python, NumPy and PyTorch that is not the operating system's raises."""
    warm_up()  # a compiler's temporary files have random names

    def trap(*_args, **_kwargs):
        raise AssertionError("a generator that is not AES was asked")

    places = [(torch, n) for n in TORCH + TORCH_LIKE] + [(torch.Tensor, n) for n in IN_PLACE]
    assert all(hasattr(owner, name) for owner, name in places)
    places += [(np.random, n) for n in dir(np.random) if callable(getattr(np.random, n)) and not n.startswith("_")]
    places += [
        (random, n) for n in ("random", "seed", "randint", "randrange", "getrandbits", "choice", "shuffle", "uniform")
    ]
    for owner, name in places:
        if hasattr(owner, name):
            monkeypatch.setattr(owner, name, trap)


@pytest.mark.parametrize("n_parties", [2, 3])
def test_the_mersenne_twister_is_unreachable(n_parties, no_other_randomness):
    with pytest.raises(AssertionError, match="not AES"):
        torch.rand(1)

    def body(session):
        x = share_from(0, X if session.me == 0 else None, X.shape, 20)
        y = mpc_tensor(x)
        values = [x * x, x.matmul(x.t()), x.square(), x / 3, y > 0, y == 0, y.relu(), y.sigmoid(), y.max(1)[0]]
        values += [
            crypten.cryptensor(torch.ones(4), requires_grad=True).dropout(0.5),
            crypten.rand(5),
            crypten.bernoulli(y * 0),
        ]
        (y * y).sum().get_plain_text()
        return [reveal(value) for value in values]

    for out in results(bound(n_parties, body)):
        np.testing.assert_allclose(out[0], X * X, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(out[4], X > 0)
        assert ((out[-2] >= 0) & (out[-2] < 1)).all()


def test_no_generator_of_pytorch_is_reachable_from_crypten():
    def body(_session):
        seen: set[int] = set()
        todo: list[object] = [crypten.generators, *(crypten.generators[k] for k in ("prev", "next", "local", "global"))]
        while todo:
            thing = todo.pop()
            if id(thing) not in seen and not isinstance(thing, type | types.ModuleType | types.FunctionType):
                seen.add(id(thing))
                assert not isinstance(thing, torch.Generator | np.random.Generator | random.Random)
                todo += gc.get_referents(thing)
        kinds = {
            name: type(crypten.generators[name][torch.device("cpu")]) for name in ("prev", "next", "local", "global")
        }
        return kinds, len(seen)

    for kinds, n_seen in results(bound(2, body)):
        assert set(kinds.values()) == {Prg}
        assert n_seen > 4


@pytest.mark.parametrize("n_parties", [2, 3])
def test_shares_are_the_known_keys_streams(n_parties, known_keys):
    """Known answer: party i's share of zero is the stream of its predecessor's key minus that of its own."""

    def body(session):
        first = share_from(1, X if session.me == 1 else None, X.shape, 20)
        second = share_from(0, X if session.me == 0 else None, X.shape, 20)
        return to_words(first), to_words(second)

    shares = results(bound(n_parties, body))
    streams = [Prg(key) for key in known_keys[:n_parties]]
    encoded = np.rint(X * 2**20).astype(np.int64).view(np.uint64)
    for draw, owner in ((0, 1), (1, 0)):
        words = [stream.words(X.shape) for stream in streams]
        for i in range(n_parties):
            zero = words[i - 1] - words[i]
            np.testing.assert_array_equal(shares[i][draw], zero + encoded if i == owner else zero)
        np.testing.assert_array_equal(joined([s[draw] for s in shares]), encoded)


def test_short_draws_have_the_bits_they_should(known_keys):
    def body(_session):
        bits = crypten.mpc.primitives.BinarySharedTensor.rand(1000, bits=5).share
        with pytest.raises(LocalProtocolError, match="64-bit words"):
            crypten.common.rng.generate_random_ring_element((2,), ring_size=2**32)
        return int(bits.min()), int(bits.max()), len(bits.unique())

    assert results(bound(2, body)) == [(0, 31, 32)] * 2


def test_shares_are_uniform(known_keys):
    values = np.full(50_000, 3.0)
    out = results(bound(2, lambda session: to_words(share_from(0, values if session.me == 0 else None, (50_000,), 20))))
    for share in out:
        counts = np.bincount(share.view(np.uint8), minlength=256)
        expected = counts.sum() / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 8 * np.sqrt(2 * 255)


def test_openings_are_fresh_each_time():
    def body(session):
        x = share_from(0, X if session.me == 0 else None, X.shape, 20)
        x * x, x * x  # the same product twice must not open the same words
        return to_words(x)

    run = bound(2, body)
    opened = [m.body for m in run.transcript if m.tag == "products/open"]
    assert len(set(opened)) == len(opened) == 4
    halves = {body[i : i + 8] for body in opened for i in range(0, len(body), 8)}
    assert len(halves) == 4 * 2 * X.size


REFUSED = {
    "init": (lambda: crypten.init(), "bound with mpc.engine.bind"),
    "threads": (lambda: crypten.init_thread(0, 2), "bound with mpc.engine.bind"),
    "gloo": (lambda: crypten.communicator._init(use_threads=False), "bound with mpc.engine.bind"),
    "processes": (lambda: crypten.mpc.run_multiprocess(2), "bound with mpc.engine.bind"),
    "seed": (lambda: crypten.manual_seed(1, 2, 3), "AES in counter mode"),
    "load": (lambda: crypten.load("x"), "nothing is pickled"),
    "load from party": (lambda: crypten.load_from_party("x"), "nothing is pickled"),
    "save": (lambda: crypten.save(1, "x"), "nothing is pickled"),
    "save from party": (lambda: crypten.save_from_party(1, "x"), "nothing is pickled"),
    "unpickle": (lambda: crypten.common.serial.restricted_loads(b""), "nothing is pickled"),
    "trace": (lambda: crypten.trace(), "never cached"),
    "cache": (lambda: crypten.fill_cache(), "never cached"),
    "first party": (lambda: crypten.mpc.provider.TrustedFirstParty(), "the session's dealer"),
    "third party": (lambda: crypten.mpc.provider.TrustedThirdParty(), "the session's dealer"),
    "server": (lambda: crypten.mpc.provider.TTPServer(), "the session's dealer"),
    "homomorphic": (lambda: crypten.mpc.provider.HomomorphicProvider(), "the session's dealer"),
    "replicated": (lambda: crypten.mpc.primitives.replicated.mul(1, 2), "re-randomise"),
    "old truncation": (lambda: crypten.mpc.primitives.beaver.truncate(1, 2), r"off by 2\^32"),
    "noise": (lambda: crypten.nn.privacy.DPSplitModel(None, 0, 1), "predictable"),
    "debug": (lambda: crypten.cfg.__setitem__("debug.debug_mode", True), "prints secrets"),
    "validation": (lambda: crypten.cfg.__setitem__("debug.validation_mode", True), "reveals every"),
    "active": (lambda: crypten.cfg.temp_override({"mpc.active_security": True}).__enter__(), "active security"),
    "protocol": (lambda: crypten.cfg.__setitem__("mpc.protocol", "replicated"), "re-randomise"),
    "provider": (lambda: crypten.cfg.__setitem__("mpc.provider", "TFP"), "the session's dealer"),
    "file": (lambda: crypten.cfg.load_config(None), "the session's dealer"),
    "chebyshev": (lambda: crypten.cfg.__setitem__("functions.sigmoid_tanh_method", "chebyshev"), "wrong sign"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_made_right_says_so(name):
    call, why = REFUSED[name]
    with pytest.raises(LocalProtocolError, match=why + ".* is not offered"):
        call()


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ReadonlyConfigError):
        crypten.cfg.debug.debug_mode = True
    with crypten.cfg.temp_override({"functions.exp_iterations": 9}), pytest.raises(ReadonlyConfigError):
        crypten.cfg.mpc.provider = "TFP"


def test_operations_that_cannot_be_exact_say_so():
    def body(session):
        x = share_from(0, X if session.me == 0 else None, X.shape, 20)
        y = mpc_tensor(x)
        refused = [
            (lambda: x / 0, "division by zero"),
            (lambda: x / float("nan"), "division by zero"),
            (lambda: x / torch.tensor([1, 2, 3, 4]), "integers that differ"),
            (lambda: x / 2**62, "too large"),
            (lambda: x.matmul(x), "do not multiply"),
            (lambda: x.conv_transpose2d(x), "'conv_transpose2d' takes a batch"),
        ]
        for call, why in refused:
            with pytest.raises(LocalProtocolError, match=why):
                call()
        with pytest.raises(TypeError, match="only integer powers"):
            y.pow(1.5)
        return reveal(y.pow(3)), reveal(y.pow(0))  # the parties are still in step

    for cube, one in results(bound(2, body)):
        np.testing.assert_allclose(cube, X**3, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(one, np.ones_like(X))


@pytest.mark.parametrize(
    "body",
    [
        "[1,2,3",
        "[-5]",
        "[1.5]",
        "[true]",
        '["3"]',
        '{"a":1}',
        "[[1]]",
        "99999999999",
        "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
    ],
)
def test_a_size_that_is_none_is_the_senders_fault(body):
    def party(session):
        comm = crypten.communicator.get()
        if session.me == 0:
            session.channel.send("b", "crypten/size", Kind.JSON, body.encode())
            return None
        return comm.broadcast_obj(None, 0)

    with pytest.raises(RemoteProtocolError, match="a broke the protocol at step 'crypten/size'"):
        bound(2, party)


def test_sizes_travel_and_objects_do_not():
    def body(session):
        comm = crypten.communicator.get()
        tensor = torch.arange(3) if session.me == 1 else torch.zeros(3, dtype=torch.int64)
        out = [
            comm.broadcast_obj(torch.Size([2, 3]) if session.me == 1 else None, 1),
            comm.broadcast(tensor, 1).tolist(),
        ]
        out.append([t.tolist() for t in comm.all_gather(torch.tensor([session.me]))])
        gathered = comm.gather(torch.tensor([session.me]), 0)
        assert [t if t is None else t.tolist() for t in gathered] == ([[0], [1]] if session.me == 0 else [None])
        with pytest.raises(LocalProtocolError, match="only sizes and integers travel"):
            comm.broadcast_obj({"weights": [1.0]}, session.me)
        with pytest.raises(LocalProtocolError, match="int64 tensors"):
            comm.all_reduce(torch.zeros(2))
        with pytest.raises(LocalProtocolError, match="'scatter' between parties is not offered"):
            comm.scatter([], 0)
        return out

    assert results(bound(2, body)) == [[torch.Size([2, 3]), [0, 1, 2], [[0], [1]]]] * 2


def test_another_crypten_is_refused_by_name():
    path = "crypten.common.util:count_wraps"
    with pytest.raises(ImportError, match=r"'crypten\.common\.util:count_wraps' is not the function of CrypTen"):
        engine.check_pins({path: "0" * 64})
    with pytest.raises(ImportError, match=r"should have 'crypten\.common\.util:no_such'"):
        engine.check_pins({"crypten.common.util:no_such": "0" * 64})
    assert set(engine.PINS) == set(engine._OURS) | set(engine.REFUSED)


def test_a_changed_function_stops_the_import():
    code = """
import sys, torch.onnx._internal.torchscript_exporter.registration as moved
sys.modules["torch.onnx._internal.registration"] = moved
import crypten.encoder
def decode(self, tensor): return tensor
crypten.encoder.FixedPointEncoder.decode = decode
import mpc.engine
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "crypten.encoder:FixedPointEncoder.decode" in done.stderr.splitlines()[-1]


def test_the_import_leaves_no_alias_behind():
    assert "torch.onnx._internal.registration" not in sys.modules


def test_one_module_imports_crypten():
    product = [
        path for package in ("coordinator", "mpc", "silos", "vertical") for path in (ROOT / package).rglob("*.py")
    ]
    importers = [
        path.name for path in product if re.search(r"^\s*(import|from) crypten\b", path.read_text(), re.MULTILINE)
    ]
    assert importers == ["engine.py"]
