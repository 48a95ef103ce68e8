"""Make the notebooks: each NAME.ipynb from its NAME.py, whose cells begin with "# %%", with what the cells print.

python examples/build.py [--run] [NAME ...]

Without names, all of them.  A script is run, a minute or less each, if its code is not that of the notebook, or with --run.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = ("credit_risk", "ad_click", "uplift", "review_sentiment", "demand", "fraud", "health")
MARK = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def cells(script: str) -> list[dict[str, Any]]:
    """The cells of a script, without outputs, in the notebook format."""
    parts = MARK.split(script)
    found = []
    for kind, source in zip(parts[1::2], parts[2::2], strict=True):
        text = source.strip("\n")
        if kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in text.split("\n")]
            found.append({"cell_type": "markdown", "metadata": {}, "source": _lines("\n".join(lines))})
        else:
            code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
            found.append({**code, "source": _lines(text)})
    return found


def run(script: list[dict[str, Any]]) -> None:
    """Run the cells in order and put in what they print."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in script:
        if cell["cell_type"] == "code":
            count += 1
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)  # noqa: S102 - our own examples
            cell["execution_count"] = count
            if printed.getvalue():
                cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())}]


def notebook(script: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole notebook."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": script, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def keep(script: list[dict[str, Any]], path: Path) -> bool:
    """Take over what the notebook has printed, if its code is the same; says whether it is."""
    if not path.exists():
        return False
    old = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    new = [cell for cell in script if cell["cell_type"] == "code"]
    if [cell["source"] for cell in old] != [cell["source"] for cell in new]:
        return False
    for cell, before in zip(new, old, strict=True):
        cell |= before
    return True


def main(arguments: Sequence[str]) -> None:
    """Build these notebooks, or all."""
    names = [name for name in arguments if name != "--run"] or NAMES
    for name in names:
        path = HERE / f"{name}.ipynb"
        made = cells((HERE / f"{name}.py").read_text(encoding="utf-8"))
        if "--run" in arguments or not keep(made, path):
            run(made)
        path.write_text(json.dumps(notebook(made), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
