"""Shows which engine serves a model on this machine, and has its engines tried again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from database import Database
from dataset.store import open_datasets
from engines.trial import LABELS
from engines.trial_submission import submit_trial
from evaluation.store import EvaluationStore
from evaluation.submission import EvaluationStores
from inference.cpu.engine_choice import StoredChoice, read_choice
from jobs.store import JobStore
from models_store.registry import Registry
from shell import Parser, on_database, run

PROG = "python -m engines"


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command; returns the exit code."""
    options = command_line(prog).parse_args(arguments)
    return on_database(lambda database: _run(database, options), options.verbose)


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = Parser(
        prog=prog,
        description="Show which engine serves a model on this machine's CPU: the times and the "
        "accuracy of those that were tried, and the reason. With --measure they are tried again, "
        "in a job of the server on this VISIONLOOP_HOME, while it has nothing else to do.",
    )
    parser.add_argument(
        "model", help="NAME:VERSION, or NAME for its promoted version, else its newest"
    )
    parser.add_argument("--measure", action="store_true", help="queue a job that tries them again")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--verbose", action="store_true", help="print log messages too")
    return parser


def _run(database: Database, options: argparse.Namespace) -> None:
    registry = Registry(database)
    model = registry.get(options.model)
    if options.measure:
        stores = EvaluationStores(
            registry,
            open_datasets(database),
            EvaluationStore(database),
            JobStore(database),
        )
        job = submit_trial(stores, model.id, {"model_id": model.id})
        if options.json:
            print(json.dumps({"job_id": job.id, "model_id": model.id, "status": job.status}))
        else:
            print(f"Job {job.id} tries the engines of {model.id}: visionloop jobs watch {job.id}")
        return
    choice = read_choice(model.path, registry.settings)
    if options.json:
        shown = choice and choice.to_json()
        print(json.dumps({"model_id": model.id, "engines": shown}, indent=1))
    elif choice is None:
        print(
            f"The engines of {model.id} were not tried on this machine; ONNX Runtime serves it. A "
            "running server tries them by itself while it is idle, or at once with --measure."
        )
    else:
        _print(model.id, choice)


def _print(model_id: str, choice: StoredChoice) -> None:
    print(f"{model_id}: {choice.reason}")
    for one in choice.engines:
        print(f"  {LABELS[one.engine]}: {one.note}")
        for key, milliseconds in one.milliseconds.items():
            print(f"    {key}: {milliseconds:.1f} ms")
        for name, value in one.metrics.items():
            print(f"    {name}: {value:.4f} (fp32 {one.fp32_metrics[name]:.4f})")
    cpu, cores = choice.machine["cpu"], choice.machine["cores"]
    print(f"Measured {choice.measured_at} on {cpu}, {cores} cores, in {choice.seconds:.0f} s.")


if __name__ == "__main__":
    run(main)
