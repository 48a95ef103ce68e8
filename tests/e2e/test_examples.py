"""The examples run as they are, print what they say, and every notebook is its script."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
BUILD = runpy.run_path(str(EXAMPLES / "build.py"))
NAMES = BUILD["NAMES"]


def run(name: str) -> str:
    """What an example prints, run as its reader would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_review_sentiment() -> None:
    said = run("review_sentiment")
    alone, together = re.search(r"the brand alone: (0\.\d+); with the texts: (0\.\d+)$", said, re.MULTILINE).groups()
    assert float(alone) < 0.65
    assert float(together) > 0.85
    assert "VerticalLogisticRegression" in said


@pytest.mark.e2e
def test_demand() -> None:
    said = run("demand")
    assert "P>|z|" in said
    assert re.search(r"^temp +times 1\.\d\d$", said, re.MULTILINE)
    assert float(re.search(r"D2 (0\.\d+)$", said, re.MULTILINE).group(1)) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script(name: str) -> None:
    text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
    made = json.loads(text)
    expected = BUILD["cells"]((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 4)
    assert [(c["cell_type"], c["source"]) for c in made["cells"]] == [(c["cell_type"], c["source"]) for c in expected]
    outputs = [out for cell in made["cells"] for out in cell.get("outputs", ())]
    assert outputs
    assert all(set(out) == {"name", "output_type", "text"} for out in outputs)
    printed = "".join(line for out in outputs for line in out["text"])
    assert not re.search(r"/(tmp|home|work|root|var|Users)\b|Traceback", printed)


def test_every_script_has_a_notebook() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(NAMES)
    others = {"build", "world", "match"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NAMES, *others}
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name}.ipynb)" in table for name in NAMES)
