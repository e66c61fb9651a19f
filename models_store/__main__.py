"""Command line of the registry: `python -m models_store …`; usable while the server runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from access.shell import record
from errors import BackendTimeout, Conflict, ValidationFailed, VisionLoopError
from files import atomic_path
from models_store.archive import export_archive, import_archive
from models_store.decision_log import by_user
from models_store.foreign.importer import import_model
from models_store.pretrained.catalogue import requested
from models_store.pretrained.download import FetchFailed, Watch
from models_store.pretrained.fetch import fetch, require_allowed, with_remedy
from models_store.registry import Registry
from models_store.seed import seed
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion, unless_deleted
from shell import Parser, columns, on_database, run

EXPORT_FORMATS = ("onnx", "openvino", "torchscript", "pt", "archive", "engine")
EXPORT_TIMEOUT = 3600.0  # seconds
PROG = "python -m models_store"
MODEL_HELP = "NAME:VERSION, or NAME for its promoted version, else its newest"
EPILOG = """examples:
  %(prog)s import best.pt --name street_signs --promote
  %(prog)s import mobilenet.pth --family mobilenet --names stop,yield,other
  %(prog)s fetch yolo11n --activate
  %(prog)s activate street_signs
  %(prog)s export street_signs --format onnx --output street_signs.onnx
  %(prog)s export street_signs --format archive

A MODEL is NAME:VERSION, or NAME for its promoted version (else its newest). A VERSION may be
shortened to its first characters, at least 4. A running server on the same VISIONLOOP_HOME and
BENTOML_HOME sees every change within a second.

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong arguments"""


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    options = command_line(prog).parse_args(arguments)
    return on_database(lambda database: options.run(Registry(database), options), options.verbose)


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands."""
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    common.add_argument("--verbose", action="store_true", help="print log messages too")
    parser = Parser(
        prog=prog,
        description="List, import, fetch, activate, promote and delete the models of this "
        "VisionLoop.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        return sub

    command("list", _list, "List all versions by name, the newest first.")
    show = command("show", _show, "Show all details of one version.")
    show.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    imported = command("import", _import, "Import a PyTorch checkpoint (.pt, .pth).")
    imported.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    imported.add_argument("--name", help="name of the new model; default: from the file's name")
    imported.add_argument(
        "--family",
        choices=("yolo", "mobilenet"),
        help="reject the file unless its model is of this family",
    )
    imported.add_argument(
        "--names",
        help="class names in id order, separated by commas, or @FILE with one name per line",
    )
    imported.add_argument(
        "--imgsz", type=int, help="input size in pixels; default: the size stored in the file"
    )
    imported.add_argument("--description", default="", help="free text shown with the model")
    imported.add_argument(
        "--promote", action="store_true", help="promote the new version, without the gate"
    )
    fetched = command(
        "fetch",
        _fetch,
        "Fetch pretrained weights into the registry: of COCO's 80 classes, or ImageNet's 1000.",
    )
    fetched.add_argument(
        "network",
        metavar="NETWORK",
        help="yolo11n, yolov8s-seg, mobilenet or another; the model is named yolo11n-coco",
    )
    fetched.add_argument(
        "--promote", action="store_true", help="promote the new version, without the gate"
    )
    fetched.add_argument(
        "--activate", action="store_true", help="make it the model for requests without a model id"
    )
    activate = command(
        "activate", _activate,
            "Make this the model for requests without a model id. With NAME, later promotions "
            "change the version; NAME:VERSION is fixed."
    )  # fmt: skip
    activate.add_argument("model", metavar="MODEL", help="NAME:VERSION or NAME")
    promote = command(
        "promote",
        _promote,
        "Promote a version without the gate: requests with its bare name then get this version.",
    )
    promote.add_argument(
        "model", metavar="MODEL", help="NAME:VERSION, or NAME for its newest version"
    )
    rollback = command(
        "rollback", _rollback,
            "Promote the previously promoted version again; a second rollback goes one further "
            "back."
    )  # fmt: skip
    rollback.add_argument("name", metavar="NAME", help="model name, without a version")
    listed = command(
        "decisions",
        _decisions,
        "List the promotions, rejections and rollbacks of a name, with the reasons.",
    )
    listed.add_argument("name", metavar="NAME", help="model name, without a version")
    delete = command("delete", _delete, "Remove a version and its files.")
    delete.add_argument(
        "model", metavar="MODEL", help="NAME:VERSION, or NAME if it has a single version"
    )
    _add_export(
        command(
            "export",
            _export,
            "Write a version to one file: for other programs, or as an archive for another "
            "VisionLoop. The file is offered only if it gives the same results as the model that "
            "serves. docs/how-to/move-a-model.md says which options each format has.",
        )
    )
    arrived = command(
        "import-archive",
        _import_archive,
        "Publish a version from a file of `export --format archive`.",
    )
    arrived.add_argument("file", type=Path, metavar="FILE", help="the archive")
    arrived.add_argument("--name", help="name of the new model; default: the name in the archive")
    arrived.add_argument(
        "--promote", action="store_true", help="promote the new version, without the gate"
    )
    command(
        "reindex",
        _reindex,
        "Rebuild the registry's database rows from the model store, and delete unfinished folders.",
    )
    command(
        "seed",
        _seed,
        "Add the starter models that are missing, and activate one if no model is active.",
    )
    return parser


def _add_export(command: argparse.ArgumentParser) -> None:
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


def _list(registry: Registry, options: argparse.Namespace) -> None:
    models = registry.list()
    if options.json:
        _json({"models": [model.to_json() for model in models]})
    elif not models:
        print("There are no models. `visionloop models seed` adds the starter models.")
    else:
        heading = ("MODEL", "TYPE", "FAMILY", "CLASSES", "MB", "CREATED", "")
        print(columns([heading, *map(_row, models)]))


def _row(model: ModelVersion) -> tuple[str, ...]:
    marks = [word for word in ("active", "promoted") if getattr(model, word)]
    return (
        model.id,
        model.description.type,
        model.description.family,
        str(len(model.description.names)),
        f"{model.size_bytes / 1e6:.1f}",
        model.created_at[:16].replace("T", " "),
        ", ".join(marks),
    )


def _show(registry: Registry, options: argparse.Namespace) -> None:
    _print(registry.get(options.model), options, full=True)


def _import(registry: Registry, options: argparse.Namespace) -> None:
    model = import_model(
        registry,
        options.file,
        name=options.name,
        family=options.family,
        names=_class_names(options.names),
        imgsz=options.imgsz,
        description=options.description,
        promote=options.promote,
    )
    _record(registry, "import", model.id, _imported(options))
    _print(model, options)


def _fetch(registry: Registry, options: argparse.Namespace) -> None:
    settings, file = registry.settings, requested(options.network)
    require_allowed(settings, file)
    with _progress() as watch:
        try:
            came = fetch(registry, file, settings.paths.scratch, watch, retry=True)
        except FetchFailed as error:
            raise with_remedy(file, error) from error
    if not came.new:
        print(f"{came.told}; nothing was fetched.", file=sys.stderr)
    if options.promote and not came.model.promoted:
        registry.promote(came.model.id, by_user())
    if options.activate:
        registry.activate(came.model.name, by_user().by)
    if came.new or options.promote or options.activate:
        _record(registry, "fetch", came.model.id, came.told)
    _print(registry.get(came.model.id), options)


@contextlib.contextmanager
def _progress() -> Iterator[Watch]:
    """Shows a download on stderr: a bar in a terminal, else a line now and then."""
    from rich.console import Console  # late: the other commands do not need it
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield Watch(lambda line: print(line, file=sys.stderr, flush=True))
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        def log(line: str) -> None:
            if not line.startswith("Fetching: "):  # the bar shows it
                console.print(line, markup=False)

        yield Watch(log, progress=progress)


def _imported(options: argparse.Namespace) -> str:
    return "imported and promoted it" if options.promote else "imported it"


def _class_names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if text.startswith("@"):
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]
    return [name.strip() for name in text.split(",")]


def _activate(registry: Registry, options: argparse.Namespace) -> None:
    before = registry.active_pointer()
    model = registry.activate(options.model, by_user().by)
    _record(
        registry, "activate", model.id, f"activated {options.model} (before: {before or 'none'})"
    )
    _print(model, options)


def _promote(registry: Registry, options: argparse.Namespace) -> None:
    before = registry.promoted(registry.candidate(options.model).name)
    model = registry.promote(options.model, by_user())
    _record(
        registry, "promote", model.id, f"promoted {before.id if before else 'none'} → {model.id}"
    )
    _print(model, options)


def _rollback(registry: Registry, options: argparse.Namespace) -> None:
    before = registry.promoted(options.name)
    model = registry.rollback(options.name, by_user())
    _record(
        registry,
        "rollback",
        model.id,
        f"rolled back {before.id if before else 'none'} → {model.id}",
    )
    _print(model, options)


def _decisions(registry: Registry, options: argparse.Namespace) -> None:
    rows = registry.decisions(options.name)
    if options.json:
        _json({"decisions": [row.to_json() for row in rows]})
        return
    for row in rows:
        forced = ", forced" if row.forced else ""
        print(f"{row.at[:16].replace('T', ' ')}  {row.name}:{row.version}  {row.action}{forced}")
        print(f"  by {row.by}", *row.reasons, sep="\n  ")


def _record(registry: Registry, command: str, target: str | None, what: str) -> None:
    """Add an entry for a command to the audit trail."""
    record(registry.database, f"models_store {command}", target, what)


def _delete(registry: Registry, options: argparse.Namespace) -> None:
    model = registry.delete(options.model, by_user())
    _record(registry, "delete", model.id, "deleted the model")
    _json({"deleted": model.id}) if options.json else print(f"Deleted {model.id}.")


def _export(registry: Registry, options: argparse.Namespace) -> None:
    model = registry.get(options.model)
    names = ("precision", "imgsz", "dynamic", "max_batch")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.format == "archive":
        if given:
            flag = next(iter(given)).replace("_", "-")
            raise ValidationFailed(f"--{flag} does not apply to archive: it is the model itself.")
        path = _output_file(options.output, f"{model.name}-{model.version}.zip", options.force)
        export_archive(model, path.resolve(), options.force)
        _json({"path": str(path)}) if options.json else print(path)
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
        _json({"path": str(path), "export": found})
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
        child = run_module("engines.child", [json.dumps(task)], EXPORT_TIMEOUT, told)
    except ChildTimeout as error:
        raise BackendTimeout(f"The export did not finish: {error}.") from None
    answer = answers[-1] if answers else {}
    if "error" in answer:
        raise VisionLoopError(answer["error"])
    if "export" not in answer:
        lines = child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"]
        raise VisionLoopError(f"The export failed: {lines[-1][:300]}")
    return dict(answer["export"])


def _import_archive(registry: Registry, options: argparse.Namespace) -> None:
    model = import_archive(registry, options.file, name=options.name, promote=options.promote)
    _record(registry, "import-archive", model.id, _imported(options))
    _print(model, options)


def _reindex(registry: Registry, options: argparse.Namespace) -> None:
    done = registry.reindex()
    _record(registry, "reindex", None, " ".join(done) or "found nothing to do")
    _sentences(done, "Nothing to do.", options)


def _seed(registry: Registry, options: argparse.Namespace) -> None:
    done = seed(registry, again=True)
    if done:
        _record(registry, "seed", None, " ".join(done))
    _sentences(done, "The starter models are present.", options)


def _print(model: ModelVersion, options: argparse.Namespace, full: bool = False) -> None:
    if options.json:
        _json(model.to_json())
    elif not full:
        print(columns([_row(model)]))
    else:
        description = model.description
        metrics = model.metrics or {}
        rows = [
            *((key, str(value)) for key, value in model.to_json().items() if key not in _LONG),
            ("classes", ", ".join(description.names)),
            ("input", description.preprocessing.model_dump_json()),
            ("source", json.dumps(model.source, ensure_ascii=False)),
            *((f"metric {key}", str(value)) for key, value in metrics.items()),
            ("folder", str(model.path)),
        ]
        print(columns(rows))


_LONG = ("classes", "source", "metrics")


def _sentences(done: list[str], nothing: str, options: argparse.Namespace) -> None:
    if options.json:
        _json({"done": done})
    else:
        print("\n".join(done) or nothing)


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    run(main)
