"""A whole generalised linear model in the formats that other systems read: ONNX and PMML, from the parts of all owners.

Both formats hold everything that predicting takes, encoding included: the columns of all owners go in as they are in their
files, and the mean comes out.  So whoever gets such a file has the whole model, which is why it takes every owner's part, each
exported by its owner.  A column is called `silo.column`.  A number that is not known is NaN in ONNX and missing in PMML; a
category that is not known is the text "missing" in ONNX and missing in PMML.

ONNX computes in double precision, with what categories add rounded to single precision, as its label encoder has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree as Xml

from silos.errors import ConfigError
from vertical.contributions import Category, Number, Term
from vertical.encoding import MISSING

Link = Literal["logit", "log", "identity", "softmax"]
ONNX_OPSET, ONNX_ML_OPSET, ONNX_IR = 17, 2, 8
PMML_VERSION, PMML_NAMESPACE = "4.4", "http://www.dmg.org/PMML-4_4"


@dataclass(frozen=True)
class Block:
    """One owner's part of a model.

    terms: for each score of the model, what each column adds to it; one score unless there are several classes.  intercepts:
    one for each score at the owner of the label, None elsewhere.
    """

    owner: str
    terms: tuple[tuple[Term, ...], ...]
    intercepts: tuple[float, ...] | None


@dataclass(frozen=True)
class Whole:
    """All parts of a model.  name: of the model, for its reader."""

    name: str
    link: Link
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        scores = {len(block.terms) for block in self.blocks}
        if len(scores) != 1 or sum(block.intercepts is not None for block in self.blocks) != 1:
            raise ConfigError("these are not all parts of one model: one of them, and only one, has the intercept")
        if (self.scores > 1) != (self.link == "softmax"):
            raise ConfigError(f"a model of {self.scores} scores does not have the link '{self.link}'")
        if len({block.owner for block in self.blocks}) != len(self.blocks):
            raise ConfigError("these are not all parts of one model: an owner has two")

    @property
    def scores(self) -> int:
        """How many scores a row has."""
        return len(self.blocks[0].terms)

    @property
    def intercepts(self) -> tuple[float, ...]:
        """One for each score."""
        return next(block.intercepts for block in self.blocks if block.intercepts is not None)

    def fields(self) -> list[tuple[str, Term]]:
        """Every column's name, and one of its terms, which tells its kind."""
        return [(f"{block.owner}.{term.column}", term) for block in self.blocks for term in block.terms[0]]

    def adding(self, score: int) -> list[tuple[str, Term]]:
        """Every column's name, and what it adds to one of the scores."""
        return [(f"{block.owner}.{term.column}", term) for block in self.blocks for term in block.terms[score]]


# --- ONNX


class _Graph:
    """Nodes and constants of an ONNX graph, with names made up in order."""

    def __init__(self) -> None:
        import onnx

        self._onnx, self.double = onnx, onnx.TensorProto.DOUBLE
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: float, shape: tuple[int, ...] = (1, 1)) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(self._onnx.helper.make_tensor(name, self.double, shape, [value]))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"node{len(self.nodes)}"
        made = self._onnx.helper.make_node(operator, list(inputs), [output], domain=domain or None, **attributes)
        self.nodes.append(made)
        return output


def to_onnx(whole: Whole) -> bytes:
    """The model as a serialised ONNX graph: inputs of shape (rows, 1), output "mean" of (rows, 1) or (rows, classes).

    Raises: ConfigError if ONNX does not accept it.
    """
    import onnx

    graph, helper = _Graph(), onnx.helper
    columns = {name: _unknown(graph, name) for name, term in whole.fields() if isinstance(term, Number)}
    scores = []
    for k in range(whole.scores):
        added = [_added(graph, name, term, columns) for name, term in whole.adding(k)]
        scores.append(graph.node("Sum", *added, graph.constant(whole.intercepts[k])))
    if whole.link == "softmax":
        graph.node("Softmax", graph.node("Concat", *scores, axis=1), output="mean", axis=1)
    else:
        graph.node({"logit": "Sigmoid", "log": "Exp", "identity": "Identity"}[whole.link], scores[0], output="mean")
    kinds = {Number: onnx.TensorProto.DOUBLE, Category: onnx.TensorProto.STRING}
    inputs = [helper.make_tensor_value_info(name, kinds[type(term)], ["rows", 1]) for name, term in whole.fields()]
    output = helper.make_tensor_value_info("mean", onnx.TensorProto.DOUBLE, ["rows", whole.scores])
    made = helper.make_graph(graph.nodes, "model", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid("ai.onnx.ml", ONNX_ML_OPSET)]
    model = helper.make_model(
        made, opset_imports=opsets, ir_version=ONNX_IR, producer_name="accord", doc_string=whole.name
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as exc:
        raise ConfigError("the model cannot be written as ONNX") from exc
    return bytes(model.SerializeToString())


def _unknown(graph: _Graph, name: str) -> str:
    return graph.node("Or", graph.node("IsNaN", name), graph.node("IsInf", name))


def _added(graph: _Graph, name: str, term: Term, unknown: dict[str, str]) -> str:
    if isinstance(term, Category):
        keys, values = list(term.levels), list(term.levels.values())
        coded: dict[str, Any] = {"keys_strings": keys, "values_floats": values, "default_float": term.other}
        return graph.node("Cast", graph.node("LabelEncoder", name, domain="ai.onnx.ml", **coded), to=graph.double)
    mean = graph.constant(term.mean)
    known = graph.node("Where", unknown[name], mean, name)
    scaled = graph.node("Div", graph.node("Sub", known, mean), graph.constant(term.sd))
    clipped = graph.node("Clip", scaled, graph.constant(term.low, ()), graph.constant(term.high, ()))
    value = graph.node("Add", graph.node("Mul", clipped, graph.constant(term.weight)), graph.constant(term.present))
    return graph.node("Where", unknown[name], graph.constant(term.missing), value)


# --- PMML


def to_pmml(whole: Whole) -> str:
    """The model as a PMML document of one RegressionModel.

    Raises: ConfigError if a name or a level cannot be written in XML.
    """
    root = Xml.Element("PMML", version=PMML_VERSION, xmlns=PMML_NAMESPACE)
    header = _under(root, "Header", description=whole.name)
    _under(header, "Application", name="accord")
    dictionary = _under(root, "DataDictionary")
    for name, term in whole.fields():
        kind = ("continuous", "double") if isinstance(term, Number) else ("categorical", "string")
        _under(dictionary, "DataField", name=name, optype=kind[0], dataType=kind[1])
    classes = {"logit": ["1", "0"], "softmax": [str(k) for k in range(whole.scores)]}.get(whole.link, [])
    kind = ("categorical", "string") if classes else ("continuous", "double")
    target = _under(dictionary, "DataField", name="y", optype=kind[0], dataType=kind[1])
    for label in classes:
        _under(target, "Value", value=label)
    dictionary.set("numberOfFields", str(len(dictionary)))
    normalisation = {"logit": "logit", "softmax": "softmax", "log": "exp", "identity": "none"}[whole.link]
    function = "classification" if classes else "regression"
    model = _under(root, "RegressionModel", functionName=function, normalizationMethod=normalisation)
    schema = _under(model, "MiningSchema")
    for name, _ in whole.fields():
        _under(schema, "MiningField", name=name, invalidValueTreatment="asIs")
    _under(schema, "MiningField", name="y", usageType="target")
    derived = _under(model, "LocalTransformations")
    for k in range(whole.scores):
        attributes = {"intercept": repr(whole.intercepts[k])}
        table = _under(model, "RegressionTable", **attributes, **({"targetCategory": classes[k]} if classes else {}))
        for name, term in whole.adding(k):
            made = f"{name}:adds:{k}"
            field = _under(derived, "DerivedField", name=made, optype="continuous", dataType="double")
            _pmml_category(field, name, term) if isinstance(term, Category) else _pmml_number(field, name, term)
            _under(table, "NumericPredictor", name=made, coefficient="1")
    if whole.link == "logit":
        _under(model, "RegressionTable", intercept="0", targetCategory="0")
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _under(parent: Xml.Element, tag: str, text: str | None = None, /, **attributes: str) -> Xml.Element:
    for value in (*attributes.values(), text or ""):
        if not all(
            c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" for c in value
        ):
            raise ConfigError("a name or a level of a column has characters that XML does not allow")
    child = Xml.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _apply(parent: Xml.Element, function: str) -> Xml.Element:
    return _under(parent, "Apply", function=function)


def _constant(parent: Xml.Element, value: float) -> None:
    _under(parent, "Constant", repr(value), dataType="double")


def _pmml_number(field: Xml.Element, name: str, term: Number) -> None:
    """if(isMissing(x), missing, present + weight * max(low, min(high, (x - mean) / sd)))."""
    choice = _apply(field, "if")
    _under(_apply(choice, "isMissing"), "FieldRef", field=name)
    _constant(choice, term.missing)
    total = _apply(choice, "+")
    _constant(total, term.present)
    product = _apply(total, "*")
    _constant(product, term.weight)
    above = _apply(product, "max")
    _constant(above, term.low)
    below = _apply(above, "min")
    _constant(below, term.high)
    quotient = _apply(below, "/")
    difference = _apply(quotient, "-")
    _under(difference, "FieldRef", field=name)
    _constant(difference, term.mean)
    _constant(quotient, term.sd)


def _pmml_category(field: Xml.Element, name: str, term: Category) -> None:
    values = {"defaultValue": repr(term.other), "mapMissingTo": repr(term.levels[MISSING])}
    mapped = _under(field, "MapValues", outputColumn="adds", dataType="double", **values)
    _under(mapped, "FieldColumnPair", field=name, column="level")
    table = _under(mapped, "InlineTable")
    for level, value in term.levels.items():
        row = _under(table, "row")
        _under(row, "level", level)
        _under(row, "adds", repr(value))


def blocks_agree(blocks: Sequence[Block], owners: Sequence[str]) -> None:
    """Raises: ConfigError unless there is exactly one block of every owner."""
    have = sorted(block.owner for block in blocks)
    if have != sorted(owners):
        raise ConfigError(
            f"the model has parts of {', '.join(sorted(owners))}, and here are those of {', '.join(have)}"
        )
