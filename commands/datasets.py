"""`visionloop datasets …`: the datasets of a running server."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.client import WHERE, Refused, Server, address, run_command
from shell import Parser, add_command, columns, existing, run, size

PROG = "python -m commands.datasets"
DATASET_HELP = "id of the dataset"
FORMATS = "coco, voc, cvat_xml, labelme, label_studio or yolo"
EPILOG = f"""examples:
  %(prog)s upload shapes.zip --name shapes
  %(prog)s upload shapes/
  %(prog)s check /data/signs/data.yaml
  %(prog)s export shapes-k3xq7w2a --format coco

{WHERE}

exit codes: 0 done, 1 refused, or the dataset cannot be trained on, 2 wrong arguments,
130 interrupted"""


def list_datasets(server: Server, options: argparse.Namespace) -> int:
    """List the datasets, the newest first."""
    found = server.ask("GET", "/api/datasets")["datasets"]
    if options.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("No datasets yet. Upload one: visionloop datasets upload FILE.zip")
    else:
        rows = [("DATASET", "NAME", "TASK", "CLASSES", "IMAGES", "SIZE", "CREATED", "")]
        print(columns([*rows, *map(_row, found)]))
    return 0


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    images = sum(split["images"] for split in card["splits"].values())
    return (
        card["id"],
        card["name"],
        card["task"],
        str(len(card["classes"])),
        f"{images:>6,}",
        f"{size(card['size_bytes']):>9}",
        card["created_at"][:16].replace("T", " "),
        "" if card["usable"] else "not usable",
    )


def show(server: Server, options: argparse.Namespace) -> int:
    """Show a dataset: classes, images per split, problems."""
    return _shown(server.ask("GET", f"/api/datasets/{_id(options.dataset)}"), options)


def upload(server: Server, options: argparse.Namespace) -> int:
    """Upload a zip: YOLO, COCO, LabelMe, Pascal VOC, CVAT or Label Studio with images, one folder
    of images per class, or images alone. A folder or a data.yaml is packed first."""
    from commands.local_data import YAML, name_of, packed, uploading  # slow to import

    fields = {"name": options.name, "task": options.task}
    sent = {name: value for name, value in fields.items() if value}
    given = existing(options.file, "a zip, a folder or a data.yaml with its images")
    name = given.name
    with contextlib.ExitStack() as stack:
        if given.is_dir() or (given.is_file() and given.suffix.lower() in YAML):
            package = stack.enter_context(packed(given))
            print(uploading(given, package), file=sys.stderr, flush=True)
            given, name = package.path, f"{name_of(given.resolve())}.zip"
        file = stack.enter_context(given.open("rb"))
        files = {"file": (name, file, "application/zip")}
        card = server.ask("POST", "/api/datasets", data=sent, files=files, timeout=None)
    return _shown(card, options)


def check(server: Server, options: argparse.Namespace) -> int:
    """Check data that is on the server; nothing is changed."""
    path = str(Path(options.data).resolve()) if Path(options.data).exists() else options.data
    body = {"data_path": path} | ({"task": options.task} if options.task else {})
    try:
        return _shown(server.ask("POST", "/api/datasets/check", json=body, timeout=None), options)
    except Refused as refusal:
        if Path(options.data).exists() and path[:200] in str(refusal):
            raise Refused(
                f"{refusal} From here: visionloop datasets upload {shlex.quote(options.data)}",
                refusal.code,
            ) from None
        from commands.local_data import refused_with_what_is_missing

        raise refused_with_what_is_missing(refusal, [options.data]) from None


def export(server: Server, options: argparse.Namespace) -> int:
    """Write a dataset to a zip, in a format that annotation tools read."""
    wanted = {"format": options.format, "revision": options.revision}
    query = {name: value for name, value in wanted.items() if value is not None}
    if not options.images:
        query["images"] = "false"
    path = server.download(
        f"/api/datasets/{_id(options.dataset)}/export", query, options.path, options.force
    )
    shown = {"path": str(path), "bytes": path.stat().st_size}
    print(json.dumps(shown) if options.json else f"{path}: {size(path.stat().st_size)}")
    return 0


def delete(server: Server, options: argparse.Namespace) -> int:
    """Delete a dataset with its annotations, unless a job needs it."""
    dataset = _id(options.dataset)
    server.ask("DELETE", f"/api/datasets/{dataset}")
    print(json.dumps({"deleted": dataset}) if options.json else f"Dataset {dataset} is deleted.")
    return 0


def _id(text: str) -> str:
    """The id of a dataset, as part of an address."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", text):
        raise Refused(f"{text!r} is no dataset's id. `visionloop datasets list` shows them.")
    return text


def _shown(card: dict[str, Any], options: argparse.Namespace) -> int:
    """Print a card or report; returns 1 if nothing can be trained on it."""
    if options.json:
        print(json.dumps(card, indent=2))
        return 0 if card["usable"] else 1
    rows: list[tuple[str, str]]
    rows = [(key, str(card[key])) for key in ("id", "name", "created_at") if key in card]
    if "size_bytes" in card:
        rows.append(("size", size(card["size_bytes"])))
    rows += [("task", card["task"]), ("classes", ", ".join(card["classes"]))]
    rows += [
        (name, f"{split['usable']:,} of {split['images']:,} images, {split['objects']:,} objects")
        for name, split in card["splits"].items()
    ]
    rows += [("fingerprint", card["fingerprint"]), ("usable", "yes" if card["usable"] else "no")]
    print(columns(rows))
    for problem in card["problems"]:
        print(f"{'error' if problem['fatal'] else 'warning'}: {problem['message']}")
    for note in card.get("notes", ()):
        print(f"note: {note}")
    return 0 if card["usable"] else 1


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands."""
    common = address()
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser = Parser(
        prog=prog,
        description="List, show, upload, check, export and delete datasets of a running server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    command = partial(add_command, commands, parents=[common])

    def task(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--task",
            choices=("detect", "segment", "pose", "classify"),
            help="default: the task that fits the labels",
        )

    command("list", list_datasets)
    command("show", show).add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    made = command("upload", upload)
    made.add_argument("file", type=Path, metavar="FILE", help="the zip, or a folder or a data.yaml")
    made.add_argument("--name", help="display name; default: that of the file")
    task(made)
    made = command("check", check)
    made.add_argument(
        "data",
        metavar="DATA",
        help="a data.yaml, a folder with one folder per class, or a dataset's id",
    )
    task(made)
    made = command("export", export)
    made.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    made.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=Path(),
        help="file to write, or a folder; default: the current folder",
    )
    made.add_argument("--format", help=f"{FORMATS}; default: yolo, or that of its batch annotation")
    made.add_argument("--revision", type=int, help="0: as uploaded; default: the newest")
    made.add_argument(
        "--images",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the zip contains the images; default: --images",
    )
    made.add_argument("--force", action="store_true", help="overwrite an existing file")
    command("delete", delete).add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    return run_command(command_line(prog).parse_args(arguments), "interrupted")


if __name__ == "__main__":
    run(main)
