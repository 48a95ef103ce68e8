"""Every correlation holds exactly in its ring, for several parties; requests that make no sense do not parse."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from mpc.correlations import MAX_WORDS, Correlation, parse_request
from mpc.errors import RemoteProtocolError
from mpc.triples import BinaryTriple, BitPair, SquarePair, Triple, product
from tests.mpc.playing import joined, play, results


def drawn_and_derived(n_parties: int, request: Correlation):
    """The pieces every party got: (draws per party, derived shares per party)."""
    out = results(play(n_parties, lambda session: session.correlations.draw(request)))
    return [d for d, _ in out], [s for _, s in out]


def words(shape, seed=1):
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)


def convolved(x: np.ndarray, w: np.ndarray, stride, padding, dilation, groups: int) -> np.ndarray:
    """A convolution by its definition, one output at a time, in wrapping 64-bit words."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    size = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)
    ]
    out = np.zeros((x.shape[0], w.shape[0], *size), dtype=np.uint64)
    for b, o, *at in itertools.product(*map(range, out.shape)):
        first = o // (w.shape[0] // groups) * w.shape[1]
        window = tuple(
            slice(i * s, i * s + d * (k - 1) + 1, d)
            for i, s, d, k in zip(at, stride, dilation, w.shape[2:], strict=True)
        )
        out[(b, o, *at)] = np.multiply(x[(b, slice(first, first + w.shape[1]), *window)], w[o]).sum(dtype=np.uint64)
    return out


CONV1 = Triple(op="conv1d", shape0=(2, 4, 9), shape1=(6, 2, 3), stride=(2,), padding=(1,), dilation=(2,), groups=2)
CONV2 = Triple(op="conv2d", shape0=(2, 3, 7, 6), shape1=(4, 3, 3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
TRIPLES = [
    Triple(op="mul", shape0=(5,), shape1=(5,)),
    Triple(op="mul", shape0=(), shape1=(3, 1)),
    Triple(op="mul", shape0=(2, 1, 4), shape1=(3, 1)),
    Triple(op="mul", shape0=(0,), shape1=(1,)),
    Triple(op="matmul", shape0=(7, 5), shape1=(5, 3)),
    Triple(op="matmul", shape0=(17, 5), shape1=(5, 3)),
    Triple(op="matmul", shape0=(4, 5), shape1=(5,)),
    Triple(op="matmul", shape0=(5,), shape1=(5, 4)),
    Triple(op="matmul", shape0=(5,), shape1=(5,)),
    Triple(op="matmul", shape0=(2, 1, 3, 4), shape1=(6, 4, 2)),
    CONV1,
    CONV2,
]


@pytest.mark.parametrize("n_parties", [2, 3])
@pytest.mark.parametrize("request_", TRIPLES, ids=lambda r: f"{r.op}-{r.shape0}-{r.shape1}")
def test_a_triple_is_its_product(request_, n_parties):
    draws, shares = drawn_and_derived(n_parties, request_)
    a, b = (joined([d[i] for d in draws]) for i in (0, 1))
    c = joined([s[0] for s in shares])
    assert (a.shape, b.shape, c.shape) == (request_.shape0, request_.shape1, request_.shape)
    if request_.op == "mul":
        expected = np.asarray(a * b) if a.ndim + b.ndim else a * b
    elif request_.op == "matmul":
        expected = np.matmul(a, b)  # numpy's product of uint64 wraps
    else:
        expected = convolved(a, b, **request_.conv)
    np.testing.assert_array_equal(c, expected)
    assert len({d[0].tobytes() for d in draws}) == n_parties or not a.size


@pytest.mark.parametrize("shapes", [((300, 7), (7, 1)), ((300, 7), (7, 8)), ((300, 7), (7, 9)), ((3, 200), (200, 40))])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_exact_whichever_kernel_serves_them(shapes, transposed):
    x, y = words(shapes[0]), words(shapes[1], 2)
    x = np.asfortranarray(x) if transposed else x
    expected = np.array(x.astype(object).dot(y.astype(object)) % (1 << 64), dtype=np.uint64)
    np.testing.assert_array_equal(product("matmul", x, y), expected)
    np.testing.assert_array_equal(product("matmul", x, np.ascontiguousarray(y[:, 0])), expected[:, 0])


@pytest.mark.parametrize("n_parties", [2, 3])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_squares_ands_and_bits(shape, n_parties):
    draws, shares = drawn_and_derived(n_parties, SquarePair(shape=shape))
    r = joined([d[0] for d in draws])
    np.testing.assert_array_equal(joined([s[0] for s in shares]), np.asarray(np.multiply(r, r)))

    draws, shares = drawn_and_derived(n_parties, BinaryTriple(shape0=shape, shape1=(2, *(1 for _ in shape))))
    a, b = (np.bitwise_xor.reduce([d[i] for d in draws]) for i in (0, 1))
    np.testing.assert_array_equal(np.bitwise_xor.reduce([s[0] for s in shares]), a & b)

    draws, shares = drawn_and_derived(n_parties, BitPair(shape=shape))
    bit = np.bitwise_xor.reduce([d[0] & np.uint8(1) for d in draws])
    np.testing.assert_array_equal(joined([s[0] for s in shares]), bit)


def test_bits_are_balanced():
    _, shares = drawn_and_derived(2, BitPair(shape=(20_000,)))
    ones = int(joined([s[0] for s in shares]).sum())
    assert abs(ones - 10_000) < 700  # ten standard deviations


@pytest.mark.parametrize("request_", [*TRIPLES, BitPair(shape=(2, 3)), SquarePair(shape=())], ids=repr)
def test_requests_survive_json(request_):
    raw = {k: list(v) if isinstance(v, tuple) else v for k, v in request_.model_dump().items()}
    assert parse_request(raw, "a") == request_


NONSENSE = [
    {"kind": "triple", "op": "matmul", "shape0": [2, 3], "shape1": [2, 3]},
    {"kind": "triple", "op": "matmul", "shape0": [], "shape1": [3]},
    {"kind": "triple", "op": "mul", "shape0": [2], "shape1": [3]},
    {"kind": "triple", "op": "mul", "shape0": [2], "shape1": [2], "stride": [1]},
    {"kind": "triple", "op": "mul", "shape0": [1 << 20, 1], "shape1": [1, 1 << 20]},
    {"kind": "triple", "op": "mul", "shape0": [1 << 16, 1 << 16], "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": [-1], "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": [True], "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": [2.0], "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": "2", "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": [1] * 9, "shape1": [1]},
    {"kind": "triple", "op": "manual_seed", "shape0": [1], "shape1": [1]},
    {"kind": "triple", "op": "mul", "shape0": [1], "shape1": [1], "generator": 3},
    {"kind": "triple", "op": "conv1d", "shape0": [1, 2, 5], "shape1": [1, 3, 2], **{k: [1] for k in ("stride",)}},
    {**CONV1.model_dump(), "stride": [0]},
    {**CONV1.model_dump(), "groups": 3},
    {**CONV1.model_dump(), "groups": 0},
    {**CONV1.model_dump(), "shape1": [6, 2, 9], "padding": [0]},
    {**CONV2.model_dump(), "padding": [1]},
    {"kind": "and", "shape0": [2], "shape1": [3]},
    {"kind": "square"},
    {"kind": "square", "shape": [MAX_WORDS + 1]},
    {"kind": "bit", "shape": [1], "party": 1},
]


@pytest.mark.parametrize("raw", NONSENSE, ids=repr)
def test_nonsense_is_the_askers_fault(raw):
    with pytest.raises(RemoteProtocolError, match="a broke the protocol at step 'dealer/request'"):
        parse_request(raw, "a")


def test_nonsense_cannot_be_planned_either():
    with pytest.raises(ValidationError, match="do not multiply"):
        Triple(op="matmul", shape0=(2, 3), shape1=(4,))
