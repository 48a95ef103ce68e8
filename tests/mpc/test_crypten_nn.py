"""CrypTen's models on our engine: layers, gradients and training against PyTorch in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from pydantic import ValidationError
from torch.onnx._internal.torchscript_exporter.registration import registry

from mpc.engine import FRAC_BITS, bind, crypten, mpc_tensor, reveal, share_from
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.triples import Triple
from tests.mpc.playing import joined, play, results

nn, functional = torch.nn, torch.nn.functional
ULP = 2.0**-FRAC_BITS
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")


def play_bound(n_parties: int, body):
    """Run `body(session)` with CrypTen bound at every party; what each returned."""

    def within(session):
        with bind(session):
            return body(session)

    return results(play(n_parties, within))


def everywhere(n_parties: int, body):
    """As `play_bound`; what the first party returned."""
    return play_bound(n_parties, body)[0]


def numbers(*shape: int, seed: int = 7, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape))


def apart(model: nn.Module, seed: int = 5) -> nn.Module:
    """The model with weights and statistics of its own, none of them alike."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                values = torch.from_numpy(rng.uniform(-0.6, 0.6, weight.shape))
                weight.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model


class Residual(nn.Module):
    """Two convolutions, normalised, around which the input is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.normal = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.end = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.end(self.second(functional.relu(self.normal(self.first(x)))))
        return (functional.relu(x + y) * 0.5).view(x.size(0), -1)


class Attention(nn.Module):
    """Two heads that look at their own input."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads(x, x, x, need_weights=False)[0] + x


class Pieces(nn.Module):
    """What exporters make of shapes: slices, joins, constants, the same input twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x[:, :2], x[:, 2:4]
        joined = torch.cat([left * left, right - 0.25, left.unsqueeze(0).squeeze(0)], dim=1)
        return (joined.reshape(x.shape[0], -1).transpose(0, 1) / 2.5).sum(0, keepdim=True) - joined.mean() + 3.0**0.5


EXACT = {  # model, input's shape, how large the inputs are; every value passes a few products
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)), (3, 5)),
    "without bias": (lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU6(), nn.LeakyReLU(0.125)), (3, 5)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=(1, 0), stride=(1, 2)),
            nn.ReLU(),
            nn.MaxPool2d((2, 3), stride=(2, 1), padding=1),
            nn.Flatten(),
            nn.Linear(27, 2),
        ),
        (2, 2, 5, 8),
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2, dilation=(1, 2)),
            nn.AvgPool2d((3, 2), stride=1, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (2, 2, 6, 7),
    ),
    "one dimension": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2), nn.Flatten(1)),
        (2, 2, 8),
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2)), (3, 5)),
    "padding": (lambda: nn.Sequential(nn.ConstantPad2d((1, 0, 2, 1), 0.5), nn.Hardtanh(-1.5, 2)), (1, 2, 2, 2)),
    "pieces": (Pieces, (3, 4)),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_model_of_pytorch_gives_its_outputs(name):
    make, shape = EXACT[name]
    model, dummy, x = apart(make()).eval(), make().eval(), numbers(*shape, scale=20)
    with torch.no_grad():
        expected = model.double()(x)
    model.float()

    def body(session):
        mine = crypten.nn.from_pytorch(model if session.me == 1 else dummy, torch.zeros(shape))
        plain = mine(x.float()).detach()  # before it is encrypted it is an ordinary model
        return plain if session.me == 1 else None, mine.encrypt(src=1)(crypten.cryptensor(x)).get_plain_text()

    (_, first), (plain, second) = play_bound(2, body)
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, rtol=0, atol=2e-4)


def test_three_parties_and_the_weights_of_the_second():
    model, x = apart(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), numbers(5, 4)

    def body(session):
        mine = crypten.nn.from_pytorch(
            model if session.me == 1 else nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(5, 4)
        )
        plain = mine(x.float())
        out = mine.encrypt(src=1)(crypten.cryptensor(x, src=2)).get_plain_text()
        again = mine.decrypt().to_pytorch()(x.float())
        return plain.detach(), out, again.detach()

    _, out, again = everywhere(3, body)
    expected = model(x.float()).detach()
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(again, expected, rtol=0, atol=2e-5)


def test_the_graph_does_not_depend_on_the_weights_and_ties_none():
    """Two normalisations start out alike; PyTorch's exporter would make their weights one, and train them as one."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    fresh, other = (crypten.nn.from_pytorch(m.eval(), torch.zeros(2, 3)) for m in (model, apart(nn.Sequential(*model))))
    assert list(fresh._graph.items()) == list(other._graph.items())
    assert {name for name, _ in fresh.named_parameters()} == {f"{i}.{w}.data" for i in "01" for w in ("weight", "bias")}
    assert {name for name, _ in fresh.named_buffers()} == {
        f"{i}.running_{w}.data" for i in "01" for w in ("mean", "var")
    }


def test_exporting_leaves_pytorch_as_it_was():
    names = ("aten::dropout", "aten::feature_dropout")
    before = [registry.get_function_group(name).get(17) for name in names]
    crypten.nn.from_pytorch(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval(), torch.zeros(1, 2))
    assert [registry.get_function_group(name).get(17) for name in names] == before


def _onnx(node: str, **attributes: object) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(node, ["x"], ["y"], **attributes)],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph).SerializeToString()


def _external() -> bytes:
    model = onnx.load_model_from_string(_onnx("Relu"))
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return model.SerializeToString()


REFUSED_GRAPHS = {
    "recurrent": (lambda: _onnx("LSTM", hidden_size=2), "ONNX's 'LSTM' is not offered"),
    "a name of Python's": (lambda: _onnx("__class__"), "ONNX's '__class__' is not offered"),
    "a loop": (lambda: _onnx("Loop"), "ONNX's 'Loop' is not offered"),
    "noise": (lambda: b"\xff\x00 not a graph", "not an ONNX graph"),
    "a file": (_external, "'w' lies outside of the ONNX graph"),
    "one-sided padding": (
        lambda: _onnx("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        "differs between the ends",
    ),
    "uncounted padding": (lambda: _onnx("AveragePool", kernel_shape=[2, 2], pads=[1] * 4), "out of the count"),
}


@pytest.mark.parametrize("name", REFUSED_GRAPHS)
def test_a_graph_with_anything_else_is_refused(name):
    make, why = REFUSED_GRAPHS[name]
    with pytest.raises(LocalProtocolError, match=why):
        crypten.nn.from_onnx(make())


def test_a_recurrent_model_is_refused_by_name():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    with pytest.raises(LocalProtocolError, match="is not offered"):
        crypten.nn.from_pytorch(Recurrent(), torch.zeros(1, 1, 2))


def both(name: str, *options: object, **more: object):
    """A function that CrypTen's tensors have as a method and PyTorch for its own as a function of layers."""
    return lambda x, *rest: (getattr(functional, name) if torch.is_tensor(x) else getattr(x, name))(
        *((x,) if torch.is_tensor(x) else ()), *rest, *options, **more
    )


def method(name: str, *options: object, **more: object):
    return lambda x, *rest: getattr(x, name)(*rest, *options, **more)


GRADIENTS = {
    "product": (lambda a, b: a * b, [(3, 4), (4,)]),
    "matrices": (lambda a, b: a.matmul(b), [(3, 4), (4, 2)]),
    "matrices, in batches": (lambda a, b: a.matmul(b), [(2, 1, 3, 4), (5, 4, 2)]),
    "vector and matrix": (lambda a, b: a.matmul(b), [(4,), (4, 2)]),
    "matrix and vector": (lambda a, b: a.matmul(b), [(3, 4), (4,)]),
    "vectors": (lambda a, b: a.matmul(b), [(4,), (4,)]),
    "sum": (method("sum", 1), [(3, 4)]),
    "mean of two dimensions": (method("mean", [0, 2], keepdim=True), [(3, 4, 2)]),
    "variance": (method("var"), [(3, 4)]),
    "variance by n": (method("var", 1, unbiased=False), [(3, 4)]),
    "variance of two dimensions": (method("var", [0, 2], unbiased=True, keepdim=True), [(3, 4, 2)]),
    "largest of a row": (lambda a: a.max(1)[0], [(3, 7)]),
    "largest": (method("max"), [(3, 5)]),
    "smallest": (lambda a: a.min(0)[0], [(3, 5)]),
    "relu": (method("relu"), [(3, 5)]),
    "norm": (method("norm", p=1, dim=1), [(3, 5)]),
    "cube": (method("pow", 3), [(3, 5)]),
    "broadcast": (lambda a: a.expand(2, 3, 5) * 2.5, [(3, 1)]),
    "convolution 1": (both("conv1d", stride=2, padding=1, dilation=2), [(2, 3, 11), (4, 3, 3)]),
    "convolution 1, groups": (both("conv1d", groups=2, padding=2), [(2, 4, 7), (6, 2, 3)]),
    "convolution 2": (both("conv2d", stride=(2, 1), padding=(0, 1), dilation=(1, 2)), [(2, 3, 8, 6), (2, 3, 3, 2)]),
    "convolution 2, groups": (both("conv2d", groups=2, stride=2), [(2, 4, 6, 5), (2, 2, 3, 2)]),
    "average": (both("avg_pool2d", (2, 3), stride=1, padding=(1, 1)), [(2, 2, 5, 6)]),
    "pooled": (both("max_pool2d", (2, 3), stride=(2, 1), padding=1, dilation=(1, 2)), [(2, 2, 5, 6)]),
    "pooled over the edge": (both("max_pool2d", 2, ceil_mode=True), [(1, 2, 5, 7)]),
    "adaptive average": (both("adaptive_avg_pool2d", (2, 3)), [(1, 2, 5, 7)]),
    "adaptive largest": (both("adaptive_max_pool2d", (2, 3)), [(1, 2, 5, 7)]),
    "join": (lambda a, b: (torch if torch.is_tensor(a) else crypten).cat([a, b], dim=1) * 2.5, [(3, 5), (3, 2)]),
}


def compared_gradients(name: str, fn, values: list[torch.Tensor], n_parties: int = 2) -> float:
    """The largest difference to PyTorch's, of a function's value and of its weighted sum's gradients."""
    plain = [value.clone().requires_grad_() for value in values]
    expected = fn(*plain)
    weights = torch.linspace(0.5, 1.5, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    (expected * weights).sum().backward()

    def body(session):
        shared = [crypten.cryptensor(value, requires_grad=True) for value in values]
        out = fn(*shared)
        value = out.get_plain_text()
        (out * crypten.cryptensor(weights)).sum().backward()
        return [value, *(x.grad.get_plain_text() for x in shared)]

    got, wanted = everywhere(n_parties, body), [expected.detach(), *(x.grad for x in plain)]
    assert [x.shape for x in got] == [x.shape for x in wanted], name
    return max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", GRADIENTS)
def test_values_and_gradients_are_pytorchs(name):
    fn, shapes = GRADIENTS[name]
    shift = -100 if name.startswith("pooled") else 0  # pads must not win against negative values
    values = [numbers(*shape, seed=i) + shift for i, shape in enumerate(shapes)]
    assert compared_gradients(name, fn, values, 3 if name == "convolution 2" else 2) < 2e-5


def test_gradients_that_are_not_offered_say_so():
    def body(session):
        x = crypten.cryptensor(numbers(1, 2, 4), requires_grad=True)
        kernel = crypten.cryptensor(numbers(2, 2, 3))
        for out, why in (
            (x.repeat(2, 1, 1), "CrypTen's 'repeat'"),
            (x.conv_transpose1d(kernel), "CrypTen's 'conv_transpose1d'"),
            ((x * x + 1).norm(p=3), "a 3-norm"),
        ):
            with pytest.raises(LocalProtocolError, match=f"the gradient of {why} is not offered"):
                out.sum().backward()

    everywhere(2, body)


def test_an_unbiased_variance_of_one_value_is_refused():
    def body(session):
        with pytest.raises(LocalProtocolError, match="two values or more"):
            crypten.cryptensor(numbers(3, 1)).var(1)

    everywhere(2, body)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13])
def test_the_first_of_the_largest_is_marked(length):
    rows = np.random.default_rng(length).integers(-3, 3, (6, length)).astype(float)
    rows[0] = rows[0, 0]  # all alike
    rows[1, -1] = 2.0**40

    def body(session):
        x = mpc_tensor(share_from(0, rows if session.me == 0 else None, rows.shape, FRAC_BITS))
        value, place = x.max(1)
        return reveal(value), reveal(place), reveal(x.argmax(1, one_hot=False)), reveal(x.max()), reveal(x.argmax())

    value, place, index, largest, mark = everywhere(2, body)
    np.testing.assert_array_equal(value, rows.max(1))
    np.testing.assert_array_equal(index, rows.argmax(1))
    np.testing.assert_array_equal(place, np.eye(length)[rows.argmax(1)])
    assert largest == rows.max()
    np.testing.assert_array_equal(mark.argmax(), rows.argmax())
    assert mark.sum() == 1


def test_the_largest_of_ten_takes_twenty_rounds():
    run = play(2, lambda session: _max_of_ten(session))
    tags = [m.tag for m in run.transcript if (m.sender, m.receiver) == ("a", "b") and not m.tag.startswith("crypten/")]
    level = ["compare/mask", "compare/join", "compare/join", "compare/bit", "products/open"]
    assert tags == level * 4
    assert len([m for m in run.transcript if m.tag == "dealer/request"]) <= 3  # all four levels are asked for at once


def _max_of_ten(session):
    with bind(session):
        crypten.cryptensor(numbers(3, 10)).max(1)


@pytest.mark.parametrize("spatial", [1, 2])
def test_transposed_convolutions_are_exact_in_the_ring(spatial):
    steps = {"stride": (2, 3)[:spatial], "padding": (1, 0)[:spatial], "dilation": (1, 2)[:spatial]}
    request = Triple(
        op=f"conv_transpose{spatial}d",
        shape0=(2, 4, 3, 3)[: spatial + 2],
        shape1=(4, 3, 3, 2)[: spatial + 2],
        groups=2,
        **steps,
    )
    drawn = results(play(3, lambda session: session.correlations.draw(request)))
    a, b = (joined([d[i] for d, _ in drawn]) for i in (0, 1))
    c = joined([s[0] for _, s in drawn])
    np.testing.assert_array_equal(c, _transposed(a, b, **steps, groups=2))
    assert c.shape == request.shape


def _transposed(x, w, stride, padding, dilation, groups):
    """A transposed convolution by its definition: every input adds a scaled kernel."""
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation)]
    out, per = np.zeros((x.shape[0], w.shape[1] * groups, *reach), dtype=np.uint64), x.shape[1] // groups
    for batch, channel, *at in itertools.product(*map(range, x.shape)):
        first = channel // per * w.shape[1]
        window = [slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in zip(at, stride, dilation, w.shape[2:])]
        out[(batch, slice(first, first + w.shape[1]), *window)] += x[(batch, channel, *at)] * w[channel]
    return out[(..., *(slice(p, n - p) for p, n in zip(padding, reach)))]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape1": (3, 2, 3)},
        {"shape1": (4, 2)},
        {"groups": 3},
        {"padding": (9,)},
        {"stride": (0,)},
        {"dilation": ()},
        {"shape0": (2, 4, 0)},
    ],
)
def test_transposed_convolutions_that_make_no_sense_do_not_parse(wrong):
    right = {"shape0": (2, 4, 5), "shape1": (4, 2, 3), "stride": (1,), "padding": (0,), "dilation": (1,), "groups": 2}
    assert Triple(op="conv_transpose1d", **right).shape == (2, 4, 7)
    with pytest.raises(ValidationError):
        Triple(op="conv_transpose1d", **(right | wrong))


def test_dropout_and_statistics_follow_the_mode():
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)).train()

    def body(session):
        mine = crypten.nn.from_pytorch(model, torch.zeros(2, 4)).encrypt(src=0)
        x = crypten.cryptensor(numbers(50, 4))
        trained, used = mine(x).get_plain_text(), mine.eval()(x).get_plain_text()
        return trained, used

    trained, used = everywhere(2, body)
    dropped = trained.abs() < 4 * ULP
    assert 0.3 < float(dropped.double().mean()) < 0.7
    np.testing.assert_allclose(trained[~dropped], 2 * used[~dropped], rtol=0, atol=1e-4)


SMALL = {  # models that train, the loss, the targets, and how far the weights may be from PyTorch's after the steps
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), "MSELoss", (8, 4), 2e-5),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 1)), "BCEWithLogitsLoss", (8, 4), 1e-3),
    "tanh": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Sigmoid()), "BCELoss", (8, 4), 1e-3,
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ),
        "CrossEntropyLoss",
        (6, 1, 6, 6),
        2e-3,
    ),
    "attention": (Attention, "MSELoss", (2, 3, 4), 1e-3),
    "residual": (Residual, "MSELoss", (3, 3, 2, 2), 2e-3),
    "gelu": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 2)), "MSELoss", (5, 4), 2e-3),
}  # fmt: skip


def targets_for(loss: str, out: torch.Tensor) -> torch.Tensor:
    if loss == "CrossEntropyLoss":
        return functional.one_hot(torch.arange(len(out)) % out.shape[1], out.shape[1]).double()
    return (numbers(*out.shape, seed=9) > 0).double() if loss.startswith("BCE") else numbers(*out.shape, seed=9)


@pytest.mark.parametrize("name", SMALL)
def test_training_stays_near_pytorchs(name):
    make, loss, shape, tolerance = SMALL[name]
    model, x = apart(make()).double().train(), numbers(*shape)
    start = apart(make())
    targets = targets_for(loss, model(x).detach())
    model.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in start.state_dict().items()})
    plain = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5)
    losses = []
    for _ in range(3):
        plain.zero_grad()
        value = getattr(nn, loss)()(model(x), targets)
        losses.append(value.item())
        value.backward()
        plain.step()

    def body(session):
        mine = crypten.nn.from_pytorch(start.train() if session.me == 0 else make().train(), torch.zeros(shape))
        mine.encrypt(src=0)
        inputs, labels = crypten.cryptensor(x, src=0), crypten.cryptensor(targets, src=1)
        optimiser, seen = crypten.optim.SGD(mine.parameters(), lr=0.125, momentum=0.5), []
        for _ in range(3):
            optimiser.zero_grad()
            value = getattr(crypten.nn, loss)()(mine(inputs), labels)
            seen.append(value.get_plain_text().item())
            value.backward()
            optimiser.step()
        return seen, mine.decrypt().to_pytorch().state_dict()

    seen, weights = everywhere(2, body)
    np.testing.assert_allclose(seen, losses, rtol=0, atol=tolerance)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            np.testing.assert_allclose(weights[key], value, rtol=0, atol=tolerance, err_msg=key)


POWERS = 2 ** torch.linspace(-18, 15.999, 60, dtype=torch.float64)
DOMAINS = {  # argument, relative and absolute error
    "sigmoid": (torch.linspace(-1000, 1000, 41), 0, 1e-4),
    "tanh": (torch.linspace(-20, 20, 41), 0, 1e-4),
    "erf": (torch.linspace(-8, 8, 41), 0, 1e-5),
    "exp": (torch.cat([torch.linspace(-1000, -20, 9), torch.linspace(-15, 11.09, 61)]), 2**-12, 2 * ULP),
    "reciprocal": (torch.cat([POWERS, -POWERS]), 2**-13, 2 * ULP),
    "log": (POWERS, 0, 2**-13),
    "sqrt": (POWERS, 2**-13, 3 * ULP),
    "inv_sqrt": (POWERS, 2**-13, 2 * ULP),
    "cos": (torch.linspace(-60000, 60000, 41), 0, 2 * ULP),
    "sin": (torch.linspace(-7, 7, 41), 0, 2 * ULP),
}
RIGHT = {"inv_sqrt": torch.rsqrt}


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("n_parties", [2, 3])
def test_functions_are_right_on_the_whole_of_their_domain(name, n_parties):
    argument, relative, absolute = DOMAINS[name]
    x = (argument.double() / ULP).round() * ULP
    expected = RIGHT.get(name, getattr(torch, name, None))(x)
    got = everywhere(n_parties, lambda _session: getattr(crypten.cryptensor(x), name)().get_plain_text())
    np.testing.assert_allclose(got, expected, rtol=relative, atol=absolute)


WIDE = r"it must be at least 2\^-18 and below 2\^16"
OUTSIDE = {
    "exp": (11.1, "an exponential: it must be below 16 ln 2"),
    "reciprocal": (0.0, f"a reciprocal: {WIDE}"),
    "log": (-(2.0**32) + 0.25, f"a logarithm: {WIDE}"),
    "sqrt": (2.0**16, f"a square root: {WIDE}"),
    "inv_sqrt": (3 * ULP, f"an inverse square root: {WIDE}"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_value_outside_is_an_error_everywhere_and_the_parties_stay_in_step(name):
    bad, why = OUTSIDE[name]

    def body(session):
        with pytest.raises(OutOfRange, match=f"'tensor' left the range of {why}"):
            getattr(crypten.cryptensor(torch.tensor([1.0, bad, 2.0])), name)()
        return getattr(crypten.cryptensor(torch.tensor([1.0])), name)().get_plain_text().item()

    assert abs(everywhere(3, body) - {"exp": np.e, "log": 0.0}.get(name, 1.0)) < 1e-3


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_is_right_for_scores_far_apart(name):
    scores = numbers(6, 5, scale=30)
    assert compared_gradients(name, lambda a: getattr(a, name)(1), [scores]) < 5e-4


SMOOTH = {
    "sigmoid": method("sigmoid"),
    "tanh": method("tanh"),
    "exp": method("exp"),
    "erf": method("erf"),
    "log": lambda a: (a * a + 0.5).log(),
    "sqrt": lambda a: (a * a + 0.5).sqrt(),
    "inverse root": lambda a: (a * a + 0.5).rsqrt() if torch.is_tensor(a) else (a * a + 0.5).inv_sqrt(),
    "quotient": lambda a: a / (a * a + 0.5),
    "norm 2": method("norm", dim=1),
    "sine": method("sin"),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_functions_are_pytorchs(name):
    assert compared_gradients(name, SMOOTH[name], [numbers(3, 4)]) < 2e-3


ROUNDS = {
    "square": (2, lambda x: x.square()),
    "relu": (5, lambda x: x.relu()),
    "sigmoid": (7, lambda x: x.sigmoid()),
    "tanh": (7, lambda x: x.tanh()),
    "erf": (7, lambda x: x.erf()),
    "cosine": (4, lambda x: x.cos()),
    "exponential": (15, lambda x: x.exp()),
    "logarithm": (13, lambda x: x.log()),
    "square root": (16, lambda x: x.sqrt()),
    "inverse square root": (15, lambda x: x.inv_sqrt()),
    "reciprocal": (21, lambda x: x.reciprocal()),
    "softmax of ten": (42, lambda x: x.softmax(1)),
    "its logarithm": (39, lambda x: x.log_softmax(1)),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_a_function_takes_the_rounds_its_documentation_says(name):
    rounds, run_it = ROUNDS[name]

    def body(session):
        with bind(session):
            run_it(crypten.cryptensor(torch.linspace(0.5, 3, 10).reshape(1, 10)))

    run = play(2, body)
    sent = [m for m in run.transcript if (m.sender, m.receiver) == ("a", "b") and not m.tag.startswith("crypten/")]
    assert len(sent) == rounds


def test_a_normalising_layer_keeps_nothing_of_the_model_it_was_before_encryption():
    def body(session):
        layer = crypten.nn.BatchNorm2d(2)
        if session.me == 0:
            layer.running_mean.data.fill_(3.0)
            layer.running_var.data.fill_(4.0)
        layer.eval().encrypt(src=0)
        return layer(crypten.cryptensor(torch.full((1, 2, 2, 2), 5.0))).get_plain_text()

    np.testing.assert_allclose(everywhere(2, body), 1.0, rtol=0, atol=2e-4)


def test_the_gradient_of_a_polynomial_leaves_its_coefficients_alone():
    coefficients, x = torch.tensor([1.0, -2.0, 0.5]), numbers(5)

    def body(session):
        shared = crypten.cryptensor(x, requires_grad=True)
        shared.polynomial(coefficients).sum().backward()
        return shared.grad.get_plain_text()

    np.testing.assert_allclose(everywhere(2, body), 1 - 4 * x + 1.5 * x * x, rtol=0, atol=2e-5)
    assert coefficients.tolist() == [1.0, -2.0, 0.5]
