"""The arrows between packages, and what no module may do, read from the source without importing it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("coordinator", "mpc", "silos", "vertical")
ALLOWED = {  # which of our packages a package may import, besides itself
    "mpc": set(),
    "coordinator": set(),
    "vertical": {"mpc"},
    "silos": {"coordinator", "mpc", "vertical"},
}
NETWORK = {"aiohttp", "asyncio", "http", "select", "selectors", "socket", "socketserver", "ssl", "urllib"}
FILES = {"duckdb", "glob", "io", "os", "pathlib", "pyarrow", "shutil", "sqlite3", "subprocess", "tempfile"}
TENSORS = {"crypten", "numpy", "torch"}
FORBIDDEN = {
    "mpc": NETWORK | FILES | {"datetime", "time"},
    "vertical": NETWORK | FILES | {"crypten", "datetime", "time"},
    "coordinator": TENSORS | {"duckdb", "numba", "pyarrow", "sklearn"},
    "silos": {"crypten"},
}
NOWHERE = {"cPickle", "dill", "joblib", "marshal", "pickle", "random", "shelve"}
RANDOM_CALLS = {
    "torch": {"load", "manual_seed", "normal", "bernoulli", "multinomial"},
    "numpy": {"random"},
    "np": {"random"},
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
# An auditor reads the offline verifier as one file, so it is one.
LONG_MODULES = {"silos/verify.py"}
# Each model is the body of the event or request it is called after, which its module's docstring says once.
MODELS_THAT_SPEAK = {"coordinator/api.py", "coordinator/statements.py"}
# The route table has a summary of each handler, and the API description is made of it.
HANDLERS = "coordinator/handlers.py"
PROTOCOLS = (
    "mpc/psi.py",
    "mpc/delegated/protocol.py",
    "mpc/matching/hidden.py",
    "mpc/matching/opprf.py",
    "mpc/matching/oprf.py",
    "mpc/matching/protocol.py",
    "mpc/matching/star.py",
    "mpc/matching/tables.py",
    "mpc/measure.py",
    "mpc/tokens/protocol.py",
    "vertical/linkage.py",
    "mpc/matrix.py",
    "mpc/gram.py",
    "mpc/fourier.py",
    "mpc/truncation.py",
    "mpc/products.py",
    "mpc/compare.py",
    "mpc/shuffle.py",
    "mpc/sorting.py",
    "mpc/extrema.py",
    "mpc/groups.py",
    "mpc/functions.py",
    "mpc/smooth.py",
    "mpc/ot/extension.py",
    "mpc/activations.py",
    "mpc/linear.py",
    "vertical/glm.py",
    "vertical/columns.py",
    "vertical/linear.py",
    "vertical/owned.py",
    "vertical/regression.py",
    "vertical/sparse.py",
    "vertical/statistics.py",
    "vertical/stepwise.py",
    "vertical/stepwise_logistic.py",
    "vertical/sweep.py",
    "vertical/woe.py",
    "vertical/woe_counts.py",
    "vertical/woe_encoding.py",
    "vertical/multinomial.py",
    "vertical/passes.py",
    "vertical/trees/constraints.py",
    "vertical/trees/histogram.py",
    "vertical/trees/leaves.py",
    "vertical/trees/objective.py",
    "vertical/trees/paths.py",
    "vertical/trees/predict.py",
    "vertical/trees/rows.py",
    "vertical/trees/splits.py",
    "vertical/trees/train.py",
    "vertical/network.py",
    "vertical/network_layers.py",
    "vertical/evaluate.py",
    "vertical/metrics.py",
    "vertical/binary.py",
    "vertical/classes.py",
    "vertical/figures.py",
    "vertical/losses.py",
    "vertical/outcomes.py",
    "vertical/ranking.py",
    "vertical/segments.py",
    "vertical/score.py",
    "vertical/online.py",
    "vertical/stability.py",
)
LABELS = ("Reveals:", "Cost:", "Security:", "Source:")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def modules(*packages: str) -> list[str]:
    found = [p.relative_to(ROOT).as_posix() for package in packages for p in sorted((ROOT / package).rglob("*.py"))]
    assert found
    return found


def imported(name: str) -> Iterator[str]:
    """Dotted names of everything a module imports, anywhere in it; a relative import is none of ours."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} uses a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(name: str) -> set[str]:
    return {dotted.split(".")[0] for dotted in imported(name)}


def functions(name: str) -> Iterator[Function]:
    return (node for node in ast.walk(tree(name)) if isinstance(node, Function))


def public(name: str) -> Iterator[Function | ast.ClassDef]:
    return (n for n in tree(name).body if isinstance(n, Function | ast.ClassDef) and not n.name.startswith("_"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_is_below_it(package):
    for name in modules(package):
        ours = tops(name) & set(PACKAGES) - {package}
        assert ours <= ALLOWED[package], f"{name} imports {ours}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_nothing_that_is_not_its_business(package):
    for name in modules(package):
        wrong = tops(name) & (FORBIDDEN[package] | NOWHERE)
        assert not wrong, f"{name} imports {wrong}"


def test_protocols_open_no_file():
    for name in modules("mpc", "vertical"):
        called = {n.func.id for n in ast.walk(tree(name)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not called & {"open", "eval", "exec", "input", "print"}, name


def test_one_module_imports_crypten():
    assert [name for name in modules(*PACKAGES) if "crypten" in tops(name)] == ["mpc/engine.py"]


@pytest.mark.parametrize("name", modules(*PACKAGES))
def test_randomness_and_loading_have_one_way(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            banned = RANDOM_CALLS.get(node.value.id, set())
            drawn = node.value.id == "torch" and node.attr.startswith("rand")
            wrong = drawn or node.attr in banned
            assert not wrong, f"{name} uses {node.value.id}.{node.attr}"


def test_no_module_state_is_changed_from_functions():
    for name in modules(*PACKAGES):
        assert not [n for n in ast.walk(tree(name)) if isinstance(n, ast.Global)], name


@pytest.mark.parametrize("name", modules(*PACKAGES))
def test_rooms_are_small(name):
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_MODULE or name in LONG_MODULES, f"{name} has {lines} lines"
    for function in functions(name):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= LONGEST_FUNCTION, f"{name}: {function.name} has {length} lines"


@pytest.mark.parametrize("name", modules(*PACKAGES))
def test_what_is_public_says_what_it_is(name):
    assert ast.get_docstring(tree(name)), f"{name} has no docstring"
    for node in public(name):
        if name == HANDLERS or (name in MODELS_THAT_SPEAK and isinstance(node, ast.ClassDef)):
            continue
        assert ast.get_docstring(node), f"{name}: {node.name} has no docstring"


def test_every_handler_has_a_summary_in_the_route_table():
    from coordinator.routes import ROUTES

    assert {node.name for node in public(HANDLERS)} == {route.handler.__name__ for route in ROUTES}
    assert all(route.summary for route in ROUTES)


def talks(node: Function) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return bool({ast.unparse(a.annotation) for a in arguments if a.annotation} & {"Session", "Channel"})


def protocol_functions(name: str) -> dict[str, str]:
    """Docstrings of what talks to others: public functions given a session or channel, and methods of classes that are."""
    found = {}
    for node in public(name):
        if isinstance(node, Function) and talks(node):
            found[node.name] = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, Function)]
            if any(talks(n) for n in methods if n.name == "__init__"):
                found |= {n.name: ast.get_docstring(n) or "" for n in methods if not n.name.startswith("_")}
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_what_it_reveals_and_costs(name):
    docstrings = protocol_functions(name)
    complete = {function for function, text in docstrings.items() if all(label in text for label in LABELS)}
    assert complete, f"{name} has no protocol that says everything"
    for function, text in docstrings.items():
        as_another = any(f"as `{other}`" in text for other in complete - {function})
        assert function in complete or as_another, f"{name}: {function} does not say {', '.join(LABELS)}"
