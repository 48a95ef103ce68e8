"""Settings for all tests: nothing depends on how fast the machine is, and nothing of a test stays behind."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# Several files are tested at a time: libraries that each take all cores would wait for one another.  Workers inherit it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

settings.register_profile("accord", deadline=None, print_blob=True)
settings.load_profile("accord")


def pytest_sessionfinish() -> None:
    """Remove the copy of libsodium that its binding leaves in the temporary directory when it is imported."""
    binding = sys.modules.get("rbcl._sodium")
    if binding is not None:
        Path(binding.lib_path).unlink(missing_ok=True)
