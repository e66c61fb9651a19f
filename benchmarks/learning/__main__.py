"""Compares the learning methods with their baselines: `python -m benchmarks.learning METHOD`.

The result of each run is stored as a JSON file below `--out`. A run whose file exists is not
repeated, so a benchmark can be interrupted and continued, and further seeds can be added later.
Every call makes the tables (Markdown) and plots again from all stored runs. The default values are
for two CPU cores; `--full` is meant for a GPU. Without `--data`, the benchmark draws its images.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from pathlib import Path

from shell import Parser

METHODS = ("incremental", "distillation", "freeze")
OUT = Path("~/.visionloop-benchmarks/learning").expanduser()


def main() -> None:
    parser = Parser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    methods = parser.add_subparsers(dest="method", required=True)
    for name in METHODS:
        if importlib.util.find_spec(f"benchmarks.learning.{name}") is None:
            continue
        module = importlib.import_module(f"benchmarks.learning.{name}")
        text = (module.__doc__ or "").partition("\n")[0]
        method = methods.add_parser(
            name, help=text, description=module.__doc__, formatter_class=parser.formatter_class
        )
        add = method.add_argument
        add("--out", type=Path, default=OUT, help=f"folder for runs and results ({OUT})")
        add(
            "--data",
            type=Path,
            help="dataset: a data.yaml, or for classify a folder of class folders; default: drawn "
            "images",
        )
        add(
            "--task",
            choices=("detect", "segment", "classify"),
            default="detect",
            help="task of the models (detect)",
        )
        add("--seeds", type=int, default=1, help="number of runs of each arm: seeds 0, 1, … (1)")
        add("--full", action="store_true", help="use the large default values, for a GPU")
        add("--device", default="", help="cpu or cuda; default: cuda if there is a GPU")
        add(
            "--report",
            action="store_true",
            help="make tables and plots from the stored runs, without a new run",
        )
        module.add_arguments(method)
    options = parser.parse_args()
    options.out = options.out.expanduser().resolve()
    settle(options)
    importlib.import_module(f"benchmarks.learning.{options.method}").run(options)


def settle(options: argparse.Namespace) -> None:
    """Set the environment variables of the settings, so that the benchmark has its own homes.

    This must happen before anything reads the settings.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["VISIONLOOP_HOME"] = str(options.out / "home")
    os.environ["BENTOML_HOME"] = str(options.out / "bento")
    named = [options.data, getattr(options, "weights", None), getattr(options, "teacher", None)]
    roots = [os.path.realpath(os.path.expanduser(path)) for path in named if path]
    roots = [os.path.dirname(root) if os.path.isfile(root) else root for root in roots]
    os.environ["VISIONLOOP_DATA_ROOTS"] = ",".join([*roots, str(options.out)])
    os.environ["VISIONLOOP_ALLOW_DOWNLOAD"] = "never"  # every machine starts from the same weights
    if options.device:
        os.environ["VISIONLOOP_DEVICE"] = options.device


if __name__ == "__main__":
    main()
