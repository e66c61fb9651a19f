"""`python -m training …`: start, watch and cancel jobs of a running server, without curl."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands import jobs
from commands.client import WHERE, Refused, Server, address, run_command
from commands.local_data import data_for, refused_with_what_is_missing, weights_for
from shell import Parser, run

PROG = "python -m training"
WEIGHTS = {  # fields that may be a file of weights, and their options
    "resume_weights": "--weights",
    "base_model_path": "--base-model",
    "teacher_model_path": "--teacher",
}
LEARNED_FROM = ("base_model_path", "teacher_model_path")
MODES = {
    "regular": "all layers are trained",
    "freeze-strategy": "layers are unfrozen in stages",
    "incremental": "classes are added to a model, which keeps those it knows",
    "distillation": "a model learns from a teacher's predictions too",
}


@dataclass(frozen=True)
class Field:
    """A field of the request, and its flag.

    Attributes:
        name: Its name in the request.
        type: The type of its value; bool: the flag has none.
        help: What it means.
        default: The server's default, as text; "": none, or it depends.
        modes: The modes that take it; None: all.
        flag: Its flag, if that is not named as it is.
    """

    name: str
    type: type
    help: str
    default: str = ""
    modes: tuple[str, ...] | None = None
    flag: str = ""


_INCREMENTAL, _DISTILLATION = ("incremental",), ("distillation",)
_REPLAY = (*_INCREMENTAL, *_DISTILLATION)

FIELDS = (
    Field("epochs", int, "number of epochs", "50"),
    Field("imgsz", int, "image size in pixels", "the base model's, else 640, or 224 to classify"),
    Field("batch", int, "images per training step", "8"),
    Field("patience", int, "epochs without improvement that end the training; 0: never", "15"),
    Field(
        "min_epochs_per_stage",
        int,
        "minimum number of epochs of each stage",
        "15",
        ("freeze-strategy",),
    ),
    Field(
        "base_model_path", str, "the model to extend, or the student", "", _REPLAY, "--base-model"
    ),
    Field("new_classes", str, "class names to add, separated by commas", "", _INCREMENTAL),
    Field("rehearsal", str, "how old images are selected for replay", "herding", _INCREMENTAL),
    Field("teacher_model_path", str, "the model to learn from", "", _DISTILLATION, "--teacher"),
    Field("old_data_path", str, "old data to replay, in the same form as --data", "", _REPLAY),
    Field("replay_ratio", float, "share of old images in each epoch", "0.2", _REPLAY),
    Field("max_replay_samples", int, "largest number of old images to replay", "1000", _REPLAY),
    Field(
        "replay_distill_boost", float, "factor for the distillation loss on old images", "1",
        _DISTILLATION,
    ),
    Field(
        "distill_temperature", float, "softmax temperature for teacher and student", "2",
        _DISTILLATION,
    ),
    Field(
        "distill_cls_weight", float, "weight of the class score loss; 0 disables this loss", "1",
        _DISTILLATION,
    ),
    Field("distill_reg_weight", float, "weight of the box loss", "2", _DISTILLATION),
    Field("distill_feat_weight", float, "weight of the feature loss", "5", _DISTILLATION),
    Field("distill_mask_weight", float, "weight of the mask loss", "1", _DISTILLATION),
    Field(
        "enable_consistency", bool, "train for equal predictions on augmented and original images",
        "", _DISTILLATION,
    ),
    Field(
        "consistency_weight", float, "weight of the consistency loss, if enabled", "1",
        _DISTILLATION,
    ),
    Field(
        "pseudo_conf_threshold", float, "smallest confidence of a pseudo-label", "0.7",
        _DISTILLATION,
    ),
)  # fmt: skip

EPILOG = f"""examples:
  %(prog)s start regular --data shapes/ --model n --epochs 30
  %(prog)s start freeze-strategy --data signs.zip --model traffic_signs_yolov8n
  %(prog)s start regular --data signs-k3xq7w2a --model signs --no-watch
  %(prog)s watch 3f6c9a1e

--data takes a zip, a data.yaml or a folder of this machine, which is uploaded unless the server
may read it where it is (VISIONLOOP_DATA_ROOTS), or the id of a dataset. --model signs starts from
the model `signs` of the registry.

{WHERE} A JOB may be shortened to its first characters, at least 4.

exit codes: 0 done, 1 refused or the job did not complete, 2 wrong arguments, 130 interrupted
(the job goes on)"""


def start(server: Server, options: argparse.Namespace) -> int:
    """Start a training, and watch it unless told not to."""
    given = ("task", "name", *(field.name for field in FIELDS))
    body: dict[str, Any] = {name: getattr(options, name, None) for name in given}
    model = getattr(options, "model", None)
    body |= {"model_type": model, "resume_weights": options.weights}
    for name, option in WEIGHTS.items():
        if body[name]:
            body[name] = weights_for(server, option, body[name])
    for named in (body["resume_weights"] or model, *(body[name] for name in LEARNED_FROM)):
        if named:
            _check_model(server, named.strip())
    for name, typed in (("data_path", options.data), ("old_data_path", body["old_data_path"])):
        body[name] = data_for(server, typed, options.task)
    body["hyper"] = dict(options.hyper)
    sent = {name: value for name, value in body.items() if value not in (None, {})}
    try:
        answer = server.ask("POST", f"/api/training/{options.mode}", json=sent)
    except Refused as refusal:
        paths = (sent.get(name) for name in ("data_path", "old_data_path", *WEIGHTS))
        raise refused_with_what_is_missing(refusal, paths) from None
    for note in answer.get("notes", ()):
        print(note)
    print(f"{answer['message']} Job {answer['task_id']}")  # last, for scripts that take the id
    return jobs.watch_job(server, answer["task_id"]) if options.watch else 0


def _check_model(server: Server, text: str) -> None:
    """Refuse a model that the server does not have, before data are uploaded for nothing.

    Networks, jobs and files are left to the server.
    """
    # late: the other commands do not need it
    from training.planning.base_models import names_no_model

    if names_no_model(text):
        return
    try:
        server.ask("GET", f"/models/{quote(text, safe='')}")
    except Refused as refusal:
        if refusal.code != "MODEL_NOT_FOUND":
            return
        known: list[str] = []
        with suppress(Refused):  # the reason matters more than the hint
            known = [model["name"] for model in server.ask("GET", "/models")["models"]]
        near = get_close_matches(text.partition(":")[0], known, 1)
        meant = f" Did you mean {near[0]!r}?" if near and near[0] not in text else ""
        raise Refused(f"{refusal}{meant}", refusal.code) from None


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands; `start` has one for each mode."""
    common = address()
    parser = Parser(
        prog=prog,
        description="Training jobs of a running VisionLoop server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    text = (start.__doc__ or "").strip()
    started = commands.add_parser("start", help=text, description=text)
    modes = started.add_subparsers(required=True, metavar="MODE", title="modes", dest="mode")
    for mode, meaning in MODES.items():
        made = modes.add_parser(
            mode, parents=[common], help=meaning, description=f"Start a training: {meaning}."
        )
        made.set_defaults(run=start)
        _add_fields(made, mode)
    jobs.add_commands(commands, common)
    return parser


def _add_fields(started: argparse.ArgumentParser, mode: str) -> None:
    """Add the flags of a mode."""
    started.add_argument(
        "--data",
        required=True,
        help="dataset to train on: a zip, a data.yaml, a folder, or the id of an uploaded one",
    )
    started.add_argument(
        "--task",
        choices=("detect", "segment", "classify", "pose"),
        help="task of the model; default: that of the model to train, else detect",
    )
    if mode != "incremental":  # it extends the base model
        started.add_argument(
            "--model",
            help="model to train: a size (n, s, m, l or x), the name or id of a model to start "
            "from, or a network's name such as yolo11n or mobilenet; default: s",
        )
    started.add_argument(
        "--weights", help="weights to start from: a file, a model id, or the id of a failed job"
    )
    started.add_argument("--name", help="name of the new model; default: from task and network")
    for field in FIELDS:
        if field.modes is None or mode in field.modes:
            help = f"{field.help}; default: {field.default}" if field.default else field.help
            if field.type is bool:
                started.add_argument(_flag(field.name), action="store_const", const=True, help=help)
            else:
                flag = field.flag or _flag(field.name)
                metavar = {int: "N", float: "X"}.get(field.type, "TEXT")
                made = started.add_argument(flag, dest=field.name, type=field.type, help=help)
                made.metavar = metavar
    started.add_argument(
        "--hyper",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="a hyperparameter, such as lr0=1e-3",
    )
    started.add_argument(
        "--watch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the progress until the job ends; default: --watch",
    )


def _flag(field: str) -> str:
    return "--" + field.removesuffix("_path").replace("_", "-")


def _pair(text: str) -> tuple[str, Any]:
    """Split `lr0=0.01` into name and value; a value that is not JSON is taken as a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    return run_command(command_line(prog).parse_args(arguments), jobs.GOES_ON)


if __name__ == "__main__":
    run(main)
