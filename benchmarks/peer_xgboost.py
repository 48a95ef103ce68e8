"""XGBoost in the clear on bins that somebody else made; run by `benchmarks.trees` in an environment of its own.

    python benchmarks/peer_xgboost.py FOLDER SETTINGS

FOLDER holds train.npy, label.npy and test.npy: bins as numbers, 0 for missing.  SETTINGS is JSON for XGBoost.  Prints a line of
JSON with the seconds that training took, and writes the margins of the test rows to margins.npy.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import xgboost


def main() -> None:
    """Command line."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    rows, label, test = (np.load(folder / f"{name}.npy") for name in ("train", "label", "test"))
    trees = settings.pop("trees")
    start = time.perf_counter()
    matrix = xgboost.QuantileDMatrix(np.where(rows == 0, np.nan, rows), label, max_bin=settings["max_bin"])
    model = xgboost.train(settings, matrix, trees)
    seconds = time.perf_counter() - start
    margins = model.predict(xgboost.DMatrix(np.where(test == 0, np.nan, test)), output_margin=True)
    np.save(folder / "margins.npy", margins)
    print(json.dumps({"seconds": seconds, "version": xgboost.__version__}))


if __name__ == "__main__":
    main()
