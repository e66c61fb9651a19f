"""The command `export`: writes a version to a file for other programs, or another VisionLoop."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from errors import BackendTimeout, Conflict, ValidationFailed, VisionLoopError
from files import atomic_path
from models_store.archive import export_archive
from models_store.registry import Registry
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import unless_deleted
from shell import print_json

EXPORT_FORMATS = ("onnx", "openvino", "torchscript", "pt", "archive", "engine")
TIMEOUT = 3600.0  # seconds
MODEL_HELP = "NAME:VERSION, or NAME for its promoted version, else its newest"


def add_export_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `export` to its parser."""
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument(
        "--format", required=True, choices=EXPORT_FORMATS, help="what to write (required)"
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        help="of the weights; default: fp32, of an engine fp16",
    )
    command.add_argument(
        "--imgsz", type=int, help="side of the square input in pixels; default: the model's own"
    )
    command.add_argument(
        "--dynamic",
        action="store_true",
        default=None,
        help="let the input take other sizes and any number of images",
    )
    command.add_argument(
        "--max-batch",
        type=int,
        help="images of the input at a time; of an engine the most that it takes; default: 1",
    )
    command.add_argument(
        "--output",
        metavar="PATH",
        default=".",
        help="file to write, or a folder (it may end with /) for a file named after the version; "
        "default: the current folder",
    )
    command.add_argument("--force", action="store_true", help="overwrite an existing file")


def export(registry: Registry, options: argparse.Namespace) -> None:
    """Run the command: write the version that the options name, and print where it is."""
    model = registry.get(options.model)
    names = ("precision", "imgsz", "dynamic", "max_batch")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.format == "archive":
        if given:
            flag = next(iter(given)).replace("_", "-")
            raise ValidationFailed(f"--{flag} does not apply to archive: it is the model itself.")
        path = _output_file(options.output, f"{model.name}-{model.version}.zip", options.force)
        export_archive(model, path.resolve(), options.force)
        print_json({"path": str(path)}) if options.json else print(path)
        return
    _output_file(options.output, "", options.force)  # refused before the work begins
    target = registry.settings.paths.exports / model.name / model.version
    task = {
        "folder": str(model.files()),
        "model_id": model.id,
        "content": model.content,
        "target": str(target),
        "request": {"format": options.format, **given},
    }
    folder = Path(options.output)
    if folder.is_dir() and not options.force:  # the child knows the file's name
        task["copied_to"] = str(folder.resolve())
    found = _exported(task, options)
    written = json.dumps(found | {"content": model.content}).encode()
    registry.trees.share_export(target / found["id"], model.name, model.version, written)
    path = _output_file(options.output, found["file"], options.force)
    # of a link, as of /dev/stdout, the file that it leads to is replaced
    with unless_deleted(model.id, model.path), atomic_path(path.resolve()) as partial:
        shutil.copyfile(target / found["id"] / found["file"], partial)
    if options.json:
        print_json({"path": str(path), "export": found})
        return
    for name, value in (found["parity"] or {}).items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    print(*found["notes"], path, sep="\n")


def _output_file(output: str, name: str, force: bool) -> Path:
    """The file to write: `output`, or in this folder the file `name` ("": not known yet).

    Raises:
        Conflict: It exists already.
        ValidationFailed: It cannot be written. Both messages say what to do.
    """
    if output == "-":
        raise ValidationFailed("'-' is no file: a model is not written to stdout. Name a file.")
    path = Path(output)
    if output.endswith("/") or path.is_dir():
        folder, path = path, path / name
    else:
        folder = path.parent
    if path.exists() and not path.is_dir():
        if not path.is_file():
            raise ValidationFailed(f"{path} is neither a file nor a folder. Name one.")
        if not force:
            raise Conflict(f"{path} exists already. Name another file, or overwrite it: --force.")
    while not folder.exists():  # it is made
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValidationFailed(
            f"{folder} is not a folder in which you can write. Name another with --output."
        )
    return path


def _exported(task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The record of an export that a child process makes. A layer above writes the files."""
    answers: list[dict[str, Any]] = []

    def told(line: str) -> None:
        with contextlib.suppress(ValueError):
            answers.append(json.loads(line))
            if "step" in answers[-1] and not options.json:
                share = answers[-1]["progress"]
                print(f"{share:4.0%}  {answers[-1]['step']}", file=sys.stderr, flush=True)

    try:
        child = run_module("engines.child", [json.dumps(task)], TIMEOUT, told)
    except ChildTimeout as error:
        raise BackendTimeout(f"The export did not finish: {error}.") from None
    answer = answers[-1] if answers else {}
    if "error" in answer:
        raise VisionLoopError(answer["error"])
    if "export" not in answer:
        lines = child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"]
        raise VisionLoopError(f"The export failed: {lines[-1][:300]}")
    return dict(answer["export"])
