"""Measures the starter models, and records the metrics with which a new home begins.

    python -m evaluation.starters

The evaluation is the one of `POST /metrics/{model_id}/evaluate` without a body: the drawn data of
`synthetic.evaluation_sets`. `make starters` runs this after the training.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cores import cpu_count
from database import now
from dataset.inspection import check
from evaluation.evaluator import evaluate
from evaluation.target import EvaluationTarget
from models_store.description import DESCRIPTION_FILE, WEIGHTS_FILE, ModelDescription
from models_store.export import export_onnx
from models_store.seed import METRICS_FILE, STARTERS, Starter, starters
from settings import Settings
from shell import Parser, run
from synthetic.evaluation_sets import NAME, drawn_set


def measure(starter: Starter, settings: Settings) -> dict[str, Any]:
    """The metrics of a starter model, and what they were measured on and with."""
    task = ModelDescription.load(starter.folder).task
    dataset_path = drawn_set(task, settings, _silent)
    dataset = check(dataset_path, task, [dataset_path.parent, dataset_path])
    with tempfile.TemporaryDirectory() as folder:
        model, output = Path(folder, "model"), Path(folder, "evaluation")
        model.mkdir()
        output.mkdir()
        for file in (DESCRIPTION_FILE, WEIGHTS_FILE):
            shutil.copyfile(starter.folder / file, model / file)
        export_onnx(model)
        target = EvaluationTarget(model, dataset, "val", dataset_name=NAME)
        found = evaluate(target, settings, output=output, progress=_silent)
    load = f"a load of {os.getloadavg()[0]:.0f}"  # of the machine; it slows the times down
    machine = f"{platform.machine()}, {cpu_count()} cores, {load}"
    letterbox = found.report["letterbox"]
    padded = {} if letterbox is None else {"letterbox": letterbox}
    return (
        found.metrics
        | padded
        | {
            "split": "val",
            "dataset": NAME,
            "measured_with": f"{found.report['engine']} on {machine}, when the starter was made",
            "last_updated": now(),
        }
    )


def record(starter: Starter, settings: Settings) -> Path:
    """Measure a starter model, and write its metrics beside its weights. Returns the file."""
    file = starter.folder / METRICS_FILE
    content = {"content": starter.content, "metrics": measure(starter, settings)}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file


def _silent(done: int, total: int) -> None:
    pass


def main() -> None:
    """Command line: measures every starter model."""
    parser = Parser(
        prog="python -m evaluation.starters",
        description="Measures the starter models on drawn images, and records their metrics.",
    )
    parser.add_argument(
        "--starters",
        type=Path,
        default=STARTERS,
        help="folder of the starter models (default: models_store/starter)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for starter in starters(options.starters):
            print(f"Wrote {record(starter, Settings(home=Path(home)))}.", flush=True)


if __name__ == "__main__":
    run(main)
