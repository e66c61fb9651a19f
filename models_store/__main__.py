"""Command line of the registry: `python -m models_store …`; usable while the server runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from access.shell import record
from models_store.archive import import_archive
from models_store.decision_log import by_user
from models_store.export_command import MODEL_HELP, add_export_options, export
from models_store.foreign.importer import Conversion, import_model
from models_store.pretrained.catalogue import requested
from models_store.pretrained.download import FetchFailed, Watch
from models_store.pretrained.fetch import fetch, require_allowed, with_remedy
from models_store.registry import Registry
from models_store.seed import seed
from models_store.versions import ModelVersion
from shell import Parser, add_command, columns, existing, on_database, print_json, run

PROG = "python -m models_store"
AddCommand = Callable[[str, Any, str], argparse.ArgumentParser]  # name, function, description
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
    command = partial(add_command, commands, parents=[common])
    command("list", _list, "List all versions by name, the newest first.")
    show = command("show", _show, "Show all details of one version.")
    show.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_arrivals(command)
    _add_choices(command)
    delete = command("delete", _delete, "Remove a version and its files.")
    delete.add_argument(
        "model", metavar="MODEL", help="NAME:VERSION, or NAME if it has a single version"
    )
    _add_archives(command)
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


def _add_arrivals(command: AddCommand) -> None:
    """Add the commands that make a version of a file or of fetched weights."""
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


def _add_choices(command: AddCommand) -> None:
    """Add the commands that say which version serves, and why."""
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


def _add_archives(command: AddCommand) -> None:
    """Add the commands that take a version to another VisionLoop, and bring it in."""
    add_export_options(
        command(
            "export",
            export,
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


def _list(registry: Registry, options: argparse.Namespace) -> None:
    models = registry.list()
    if options.json:
        print_json({"models": [model.to_json() for model in models]})
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
        existing(options.file, "a checkpoint (.pt or .pth)"),
        Conversion(
            family=options.family,
            names=_class_names(options.names),
            imgsz=options.imgsz,
            description=options.description,
        ),
        name=options.name,
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
        file = existing(Path(text[1:]), "a file with one class name per line")
        lines = file.read_text(encoding="utf-8").splitlines()
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
        print_json({"decisions": [row.to_json() for row in rows]})
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
    print_json({"deleted": model.id}) if options.json else print(f"Deleted {model.id}.")


def _import_archive(registry: Registry, options: argparse.Namespace) -> None:
    file = existing(options.file, "an archive that `models export --format archive` wrote")
    model = import_archive(registry, file, name=options.name, promote=options.promote)
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
        print_json(model.to_json())
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
        print_json({"done": done})
    else:
        print("\n".join(done) or nothing)


if __name__ == "__main__":
    run(main)
