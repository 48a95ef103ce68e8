"""The operations of ONNX that a model may have: what each does to CrypTen's tensors, or to PyTorch's before encryption.

`operation(name, attributes)` is a function of the operation's inputs, in ONNX's order, and of whether the model is training.
An input that is public, such as a shape, is a tensor of PyTorch; one that was left out is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mpc.errors import LocalProtocolError

Attributes = Mapping[str, Any]
Run = Callable[[list[Any], bool], Any]
STATISTICS = {"BatchNormalization": (3, 4)}
"""Which inputs of an operation are not trained, though they are weights."""
_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def operation(name: str, attributes: Attributes, n_outputs: int = 1) -> Run:
    """What an ONNX operation does.  Raises: LocalProtocolError if it, or this use of it, is not offered."""
    if name not in _OPERATIONS or (n_outputs > 1 and name not in ("Dropout", "DropoutNd")):
        raise LocalProtocolError(f"ONNX's '{name}' is not offered")
    return _OPERATIONS[name](attributes)


def _refuse(sentence: str) -> LocalProtocolError:
    return LocalProtocolError(f"{sentence} is not offered")


def _call(x: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """A function of a layer: CrypTen's tensors have it as a method, PyTorch as a function."""
    owner = torch.nn.functional if torch.is_tensor(x) else None
    return getattr(owner, name)(x, *args, **kwargs) if owner else getattr(x, name)(*args, **kwargs)


def _numbers(value: Any) -> list[int]:
    return [int(v) for v in (value.flatten().tolist() if torch.is_tensor(value) else value)]


def _unary(name: str) -> Callable[[Attributes], Run]:
    return lambda _: lambda v, _training: getattr(v[0], name)()


def _add(_: Attributes) -> Run:
    return lambda v, _training: v[1] + v[0] if torch.is_tensor(v[0]) else v[0] + v[1]


def _sub(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        return -v[1] + v[0] if torch.is_tensor(v[0]) else v[0] - v[1]

    return run


def _mul(_: Attributes) -> Run:
    return lambda v, _training: v[1] * v[0] if torch.is_tensor(v[0]) else v[0] * v[1]


def _mod(v: list[Any], _training: bool) -> Any:
    if not (torch.is_tensor(v[0]) and torch.is_tensor(v[1])):
        raise _refuse("a remainder of shared values")
    return torch.remainder(v[0], v[1])


def _div(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        if torch.is_tensor(v[0]) and not torch.is_tensor(v[1]):
            return v[1].reciprocal() * v[0]
        return v[0] / v[1]

    return run


def _pow(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        x, p = v
        if not torch.is_tensor(p) or p.numel() != 1:
            raise _refuse("a power that differs between elements")
        exponent = float(p)
        if exponent == 0.5:
            return x.sqrt()
        return x.pow(int(exponent) if exponent == int(exponent) else exponent)

    return run


def _softmax(name: str) -> Callable[[Attributes], Run]:
    return lambda a: lambda v, _training: getattr(v[0], name)(int(a.get("axis", -1)))


def _leaky(a: Attributes) -> Run:
    alpha = float(a.get("alpha", 0.01))
    return lambda v, _training: v[0] * alpha + v[0].relu() * (1 - alpha)


def _clip(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        bounds = [None if b is None else float(b) for b in [*v[1:], None, None][:2]]
        low, high = (a.get(k, b) for k, b in zip(("min", "max"), bounds, strict=True))
        x = v[0]
        if low is not None:
            x = (x - low).relu() + low
        return x if high is None else -(-x + high).relu() + high

    return run


def _gemm(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        left = v[0].t() if a.get("transA") else v[0]
        out = left.matmul(v[1].t() if a.get("transB") else v[1])
        out = out if a.get("alpha", 1.0) == 1.0 else out * a["alpha"]
        if len(v) < 3 or v[2] is None:
            return out
        return out + (v[2] if a.get("beta", 1.0) == 1.0 else v[2] * a["beta"])

    return run


def _matmul(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        if torch.is_tensor(v[0]) and not torch.is_tensor(v[1]):
            raise _refuse("a product of a public matrix and a shared one, in this order,")
        return v[0].matmul(v[1])

    return run


def _pads(a: Attributes, spatial: int) -> tuple[int, ...]:
    """Padding per dimension.  CrypTen's reader takes the first dimension's two ends for two dimensions'."""
    pads = _numbers(a.get("pads", [0] * 2 * spatial))
    if pads[:spatial] != pads[spatial:] or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise _refuse("padding that differs between the ends of a dimension")
    return tuple(pads[:spatial])


def _conv(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        spatial = v[1].dim() - 2
        if spatial not in (1, 2):
            raise _refuse(f"a convolution over {spatial} dimensions")
        steps: dict[str, Any] = {"padding": _pads(a, spatial), "groups": int(a.get("group", 1))}
        for key, name in (("stride", "strides"), ("dilation", "dilations")):
            steps[key] = tuple(_numbers(a.get(name, [1] * spatial)))
        out = _call(v[0], f"conv{spatial}d", v[1], **steps)
        bias = v[2] if len(v) > 2 else None
        return out if bias is None else out + bias.reshape([-1] + [1] * spatial)

    return run


def _batch_norm(a: Attributes) -> Run:
    eps, momentum = float(a.get("epsilon", 1e-5)), 1.0 - float(a.get("momentum", 0.9))

    def run(v: list[Any], training: bool) -> Any:
        x, weight, bias, mean, var = v
        if torch.is_tensor(x):
            return torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
        more = {"running_mean": mean, "running_var": var, "training": training, "eps": eps, "momentum": momentum}
        return x.batchnorm(weight, bias, **more)

    return run


def _layer_norm(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        x, axis = v[0], int(a.get("axis", -1))
        axes = list(range(axis % x.dim(), x.dim()))
        centred = x - x.mean(axes, keepdim=True)
        spread = (centred * centred).mean(axes, keepdim=True) + float(a.get("epsilon", 1e-5))
        out = centred * (spread.rsqrt() if torch.is_tensor(spread) else spread.inv_sqrt()) * v[1]
        return out if len(v) < 3 or v[2] is None else out + v[2]

    return run


def _pool(name: str) -> Callable[[Attributes], Run]:
    """Pooling over one dimension or two; CrypTen's reader takes every window for a square one."""

    def build(a: Attributes) -> Run:
        kernel = _numbers(a["kernel_shape"])
        spatial = len(kernel)
        if spatial not in (1, 2):
            raise _refuse(f"pooling over {spatial} dimensions")
        lead = (1,) * (2 - spatial)
        pads = (0,) * (2 - spatial) + _pads(a, spatial)
        stride = lead + tuple(_numbers(a.get("strides", [1] * spatial)))
        dilation = lead + tuple(_numbers(a.get("dilations", [1] * spatial)))
        more: dict[str, Any] = {"stride": stride, "padding": pads}
        if name == "max_pool2d":
            more |= {"dilation": dilation, "ceil_mode": bool(a.get("ceil_mode", 0))}
        elif a.get("ceil_mode", 0) or max(dilation) > 1 or (any(pads) and not a.get("count_include_pad", 0)):
            raise _refuse("average pooling that leaves padding out of the count, or windows over the edge,")

        def run(v: list[Any], _training: bool) -> Any:
            x = v[0].unsqueeze(2) if spatial == 1 else v[0]
            out = _call(x, name, lead + tuple(kernel), **more)
            return out.squeeze(2) if spatial == 1 else out

        return run

    return build


def _global_pool(v: list[Any], _training: bool) -> Any:
    return v[0].mean(list(range(2, v[0].dim())), keepdim=True)


def _dropout(name: str) -> Callable[[Attributes], Run]:
    def build(a: Attributes) -> Run:
        p = float(a.get("ratio", 0.5))

        def run(v: list[Any], training: bool) -> Any:
            if not training:
                return v[0]
            if torch.is_tensor(v[0]):
                raise _refuse("dropout of a model that trains unencrypted")
            return getattr(v[0], name)(p=p, training=True)

        return run

    return build


def _flatten(a: Attributes) -> Run:
    axis = int(a.get("axis", 1))
    return lambda v, _training: v[0].reshape(math.prod(v[0].size()[:axis]), -1)


def _reshape(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        sizes = _numbers(v[1])
        if not a.get("allowzero"):
            sizes = [v[0].size(i) if n == 0 else n for i, n in enumerate(sizes)]
        return v[0].reshape(sizes)

    return run


def _transpose(a: Attributes) -> Run:
    return lambda v, _training: v[0].permute(_numbers(a.get("perm", range(v[0].dim() - 1, -1, -1))))


def _squeeze(name: str) -> Callable[[Attributes], Run]:
    def build(a: Attributes) -> Run:
        def run(v: list[Any], _training: bool) -> Any:
            x = v[0]
            axes = _numbers(v[1] if len(v) > 1 and v[1] is not None else a["axes"])
            full = x.dim() + (len(axes) if name == "unsqueeze" else 0)
            for axis in sorted((i % full for i in axes), reverse=name == "squeeze"):
                x = getattr(x, name)(axis)
            return x

        return run

    return build


def _concat(a: Attributes) -> Run:
    axis = int(a["axis"])

    def run(v: list[Any], _training: bool) -> Any:
        shared = [x for x in v if not torch.is_tensor(x)]
        return type(shared[0]).cat(v, dim=axis) if shared else torch.cat(v, dim=axis)

    return run


def _slice(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        x, starts, ends = v[0], _numbers(v[1]), _numbers(v[2])
        axes = _numbers(v[3]) if len(v) > 3 and v[3] is not None else list(range(len(starts)))
        steps = _numbers(v[4]) if len(v) > 4 and v[4] is not None else [1] * len(starts)
        for axis, *cut in zip(axes, starts, ends, steps, strict=True):
            x = x.index_select(axis, torch.tensor(range(*slice(*cut).indices(x.size(axis))), dtype=torch.int64))
        return x

    return run


def _gather(a: Attributes) -> Run:
    axis = int(a.get("axis", 0))

    def run(v: list[Any], _training: bool) -> Any:
        x, index = v
        if not torch.is_tensor(index):
            raise _refuse("gathering by a shared index")
        out = x.index_select(axis, index.reshape(-1) % x.size(axis))
        return out.reshape([*x.size()[:axis], *index.shape, *x.size()[axis + 1 :]])

    return run


def _pad(a: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        if a.get("mode", "constant") != "constant" or (len(v) > 3 and v[3] is not None):
            raise _refuse("padding by anything but a number")
        begin, end = torch.tensor(_numbers(v[1])).reshape(2, -1).tolist()
        sizes = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
        return _call(v[0], "pad", sizes, value=float(v[2]) if len(v) > 2 and v[2] is not None else 0.0)

    return run


def _reduce(name: str) -> Callable[[Attributes], Run]:
    def build(a: Attributes) -> Run:
        def run(v: list[Any], _training: bool) -> Any:
            axes = v[1] if len(v) > 1 and v[1] is not None else a.get("axes", range(v[0].dim()))
            return getattr(v[0], name)(_numbers(axes), keepdim=bool(a.get("keepdims", 1)))

        return run

    return build


def _expand(_: Attributes) -> Run:
    def run(v: list[Any], _training: bool) -> Any:
        return v[0].expand(*np.broadcast_shapes(tuple(v[0].size()), tuple(_numbers(v[1]))))

    return run


def _filled(a: Attributes) -> Run:
    value = a.get("value", torch.zeros(1))
    return lambda v, _training: torch.full(_numbers(v[0]), value.item(), dtype=value.dtype)


def _constant(a: Attributes) -> Run:
    value: Sequence[Any] = [x if torch.is_tensor(x) else torch.tensor(x) for x in a.values()]
    return lambda _values, _training: value[0]


def _cast(a: Attributes) -> Run:
    kind = _TYPES.get(int(a["to"]))
    if kind is None:
        raise _refuse("a cast to this type")
    return lambda v, _training: v[0].to(kind) if torch.is_tensor(v[0]) else v[0]


_SAME = {
    name: name.lower() for name in ("Abs", "Erf", "Exp", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh")
}
_OPERATIONS: dict[str, Callable[[Attributes], Run]] = {
    **{name: _unary(method) for name, method in _SAME.items()},
    "Add": _add,
    "AveragePool": _pool("avg_pool2d"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout("dropout"),
    "DropoutNd": _dropout("_feature_dropout"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _: _global_pool,
    "Identity": lambda _: lambda v, _training: v[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "MaxPool": _pool("max_pool2d"),
    "Mod": lambda _: _mod,
    "Mul": _mul,
    "Pad": _pad,
    "Pow": _pow,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Reshape": _reshape,
    "Shape": lambda _: lambda v, _training: torch.tensor(v[0].size()),
    "Slice": _slice,
    "Softmax": _softmax("softmax"),
    "Squeeze": _squeeze("squeeze"),
    "Sub": _sub,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze("unsqueeze"),
}
