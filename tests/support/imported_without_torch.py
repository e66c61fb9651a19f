"""`python -m tests.support.imported_without_torch MODULE`: which heavy modules that imports."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
    print(
        [name for name in ("torch", "ultralytics", "bentoml", "matplotlib") if name in sys.modules]
    )
