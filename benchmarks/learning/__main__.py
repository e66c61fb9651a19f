"""The learning methods beside their baselines: `python -m benchmarks.learning METHOD`.

Each run is kept as a JSON file below `--out`; what is there is not run again, so that a benchmark
can be interrupted, and added to with further seeds. Tables (Markdown) and plots are made anew
from all runs at each call. The defaults are for two CPU cores; `--full` is meant for a GPU.
Without `--data` the project's own drawn pictures are used.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from pathlib import Path

METHODS = ("incremental", "distillation", "freeze")
OUT = Path("~/.visionloop-benchmarks/learning").expanduser()


def main() -> None:
    parser = argparse.ArgumentParser(
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
        method.add_argument("--out", type=Path, default=OUT, help=f"for runs and results ({OUT})")
        method.add_argument("--data", type=Path, help="a data.yaml or class folder; default: drawn")
        method.add_argument("--task", choices=("detect", "segment", "classify"), default="detect")
        method.add_argument("--seeds", type=int, default=1, help="runs of each, seeds 0 …")
        method.add_argument("--full", action="store_true", help="the large setting, for a GPU")
        method.add_argument("--device", default="", help="cpu or cuda; default: what is there")
        method.add_argument("--report", action="store_true", help="only make the tables anew")
        module.add_arguments(method)
    options = parser.parse_args()
    options.out = options.out.expanduser().resolve()
    settle(options)
    importlib.import_module(f"benchmarks.learning.{options.method}").run(options)


def settle(options: argparse.Namespace) -> None:
    """A home of the benchmark's own, before anything reads the settings."""
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["VISIONLOOP_HOME"] = str(options.out / "home")
    os.environ["BENTOML_HOME"] = str(options.out / "bento")
    named = [options.data, getattr(options, "weights", None), getattr(options, "teacher", None)]
    roots = [os.path.realpath(os.path.expanduser(path)) for path in named if path]
    roots = [os.path.dirname(root) if os.path.isfile(root) else root for root in roots]
    os.environ["VISIONLOOP_DATA_ROOTS"] = ",".join([*roots, str(options.out)])
    if options.device:
        os.environ["VISIONLOOP_DEVICE"] = options.device


if __name__ == "__main__":
    main()
