"""Writes the Dockerfile that `bentoml containerize visionloop:latest` would build.

`python -m benchmarks.containerfile FILE`
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import bentoml


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    # BentoML 1.4.39 takes a template only from below the current folder, and unpacks the Bento into
    # a temporary one: https://github.com/bentoml/BentoML/issues/5566
    os.chdir(tempfile.gettempdir())
    bentoml.container.get_containerfile("visionloop:latest", output_path=str(target))


if __name__ == "__main__":
    main()
