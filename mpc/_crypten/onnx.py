"""PyTorch models for CrypTen: exported as an ONNX graph in memory, and the graph read back, operation by operation.

The graph is the architecture alone.  It is traced on a copy whose every weight is a number of its own, so that it is the
same at the party that has the weights and at those that have a dummy; the weights are put in by name afterwards.  Nothing
is pickled, no file is read, and an operation that is not in the closed table is refused.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.onnx.symbolic_helper
import torch.onnx.utils
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from mpc._crypten.ops import STATISTICS, Run, operation
from mpc.errors import LocalProtocolError

OPSET = 17
_EXPORTING = threading.Lock()
"""PyTorch's exporter keeps its state in globals; parties that are threads of one process take turns."""


@dataclass(frozen=True)
class Node:
    """One step of a graph: an operation on named inputs, each once; what is public and known is inside `run` already."""

    output: str
    inputs: tuple[str, ...]
    run: Run


@dataclass(frozen=True)
class Plan:
    """A graph: its inputs and output, the weights by name, those of them that are statistics, and the steps in order."""

    inputs: tuple[str, ...]
    output: str
    weights: Mapping[str, torch.Tensor]
    statistics: frozenset[str]
    nodes: tuple[Node, ...]


class _Memory:
    """What the exporter writes to."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass


def export(model: torch.nn.Module, example: Any) -> Plan:
    """The plan of a PyTorch model; see the module's documentation.

    example: an input of the right shape, or a tuple of them; its values do not matter.

    Raises: LocalProtocolError if it has an operation that is not offered, or a weight that is not the model's own.
    """
    memory = _Memory()
    with _EXPORTING, warnings.catch_warnings(), _dropout_kept():
        warnings.simplefilter("ignore")  # of the exporter's age, and of what a tracer cannot see
        torch.onnx.export(
            _numbered(model),
            example if isinstance(example, tuple) else (example,),
            memory,  # type: ignore[arg-type]  # all that is asked of a file
            dynamo=False,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=["input"] if torch.is_tensor(example) else None,
            output_names=["output"],
        )
    plan, own = read(memory.data), model.state_dict()
    for name, weight in plan.weights.items():
        if name not in own or own[name].shape != weight.shape:
            raise LocalProtocolError(f"the model's graph has a weight '{name}' that the model does not have")
    trained = {name for name, _ in model.named_parameters()}
    weights = {name: own[name].detach().clone() for name in plan.weights}
    return Plan(plan.inputs, plan.output, weights, frozenset(plan.weights) - trained, plan.nodes)


def _numbered(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in which no two weights are alike: the exporter makes one weight of those that are."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for i, weight in enumerate([*twin.parameters(), *twin.buffers()]):
            if weight.is_floating_point():
                weight.fill_(1 + i / 1024)
    return twin


@contextmanager
def _dropout_kept() -> Iterator[None]:
    """While it exports, PyTorch keeps dropout, which it takes for nothing outside of training."""
    kept = {"aten::dropout": "Dropout", "aten::feature_dropout": "DropoutNd"}
    for name, op in kept.items():
        torch.onnx.utils.register_custom_op_symbolic(name, _symbolic(op), OPSET)
    try:
        yield
    finally:
        for name in kept:
            torch.onnx.utils.unregister_custom_op_symbolic(name, OPSET)


def _symbolic(op: str) -> Callable[..., Any]:
    @torch.onnx.symbolic_helper.parse_args("v", "f", "i")
    def symbolic(graph: Any, x: Any, p: float, train: int) -> Any:  # noqa: ARG001 - the graph is for both
        return graph.op(op, x, ratio_f=p, outputs=2)[0]

    return symbolic


def read(data: bytes) -> Plan:
    """The plan of a serialised ONNX graph.

    Raises: LocalProtocolError if it is none, keeps data outside, has several outputs or an operation that is not offered.
    """
    try:
        graph = onnx.load_model_from_string(data).graph
    except DecodeError as exc:
        raise LocalProtocolError("this is not an ONNX graph") from exc
    if len(graph.output) != 1:
        raise LocalProtocolError(f"a model has one output, this graph has {len(graph.output)}")
    weights: dict[str, torch.Tensor] = {}
    known: dict[str, torch.Tensor | None] = {"": None}
    for tensor in graph.initializer:
        value = _tensor(tensor)
        (weights if value.is_floating_point() else known)[tensor.name] = value
    nodes, statistics = [], set()
    for node in graph.node:
        attributes = {a.name: _attribute(a) for a in node.attribute}
        shared = [name for name in node.input if name not in known]
        run = _bound(operation(node.op_type, attributes, len(node.output)), node.input, known)
        if shared:
            nodes.append(Node(node.output[0], tuple(dict.fromkeys(shared)), run))
        else:
            known[node.output[0]] = run([], False)
        statistics |= {node.input[i] for i in STATISTICS.get(node.op_type, ())}
    inputs = tuple(value.name for value in graph.input if value.name not in weights)
    return Plan(inputs, graph.output[0].name, weights, frozenset(statistics & set(weights)), tuple(nodes))


def _bound(run: Run, names: Sequence[str], known: Mapping[str, torch.Tensor | None]) -> Run:
    """`run` with the inputs that are public in their places; it takes the others, each once."""
    places = {name: i for i, name in enumerate(dict.fromkeys(n for n in names if n not in known))}
    slots = [(None, places[name]) if name in places else (known[name], -1) for name in names]

    def bound(values: list[Any], training: bool) -> Any:
        return run([value if at < 0 else values[at] for value, at in slots], training)

    return bound


def _tensor(proto: Any) -> torch.Tensor:
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise LocalProtocolError(f"'{proto.name}' lies outside of the ONNX graph; nothing is read from files here")
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _attribute(attribute: Any) -> Any:
    kind = onnx.AttributeProto
    if attribute.type == kind.TENSOR:
        return _tensor(attribute.t)
    if attribute.type not in (kind.FLOAT, kind.INT, kind.STRING, kind.INTS, kind.FLOATS):
        raise LocalProtocolError(f"the attribute '{attribute.name}' of an ONNX graph is not offered")
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def write_back(graph: Any, model: torch.nn.Module) -> torch.nn.Module:
    """Put a decrypted graph's weights into the PyTorch model that it was made from.

    Raises: LocalProtocolError if the graph is still encrypted.
    """
    if graph.encrypted:
        raise LocalProtocolError("the model is encrypted: decrypt it first")
    with torch.no_grad():
        for name, weight in model.state_dict(keep_vars=True).items():
            if name in graph._modules:
                weight.copy_(graph._modules[name].data)
    return model
