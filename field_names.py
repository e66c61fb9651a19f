"""Unknown field names of requests: the known field that the client probably meant, if any."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal

CLOSE = 0.88  # least similarity of two names, from 0 to 1, to suggest one for the other
SHORTEST = 3  # letters; a shorter name must match exactly
LISTED = 30  # maximum number of known names in a message
MOST_UNKNOWN = 64  # unknown names of a request; more are refused before any is compared
COMPARED = 60  # first letters and digits of a name that are compared

_MODEL = ("model", "model_id", "model_name", "model_path", "weights", "checkpoint", "network")
_DATA = ("data", "dataset", "data_path", "dataset_path", "data_yaml", "yaml", "dataset_id")
_FILE = ("file", "upload", "archive", "attachment")
_PHOTO = ("image", "img", "photo", "picture", "image_file", "input_image")
_DRAW = ("draw", "draw_boxes", "plot", "render", "visualize", "annotate", "return_image",
         "return_annotated_image", "annotated_image", "show_boxes")  # fmt: skip

ALIASES: dict[str, tuple[str, ...]] = {
    "confidence": (
        "conf", "threshold", "thresh", "conf_threshold", "conf_thres", "conf_thresh", "score",
        "confidence_threshold", "score_threshold", "min_confidence", "min_score", "min_conf",
        "box_threshold",
    ),
    "iou": ("iou_threshold", "iou_thres", "iou_thresh", "nms", "nms_threshold", "nms_iou",
            "overlap", "overlap_threshold"),
    "max_det": ("max_detections", "max_dets", "max_objects", "top_k", "topk", "limit"),
    "imgsz": ("size", "img_size", "image_size", "imgsize", "input_size", "resolution", "im_size"),
    "batch": ("batch_size", "bs", "batchsize"),
    "batch_size": ("batch", "bs"),
    "epochs": ("epoch", "num_epochs", "n_epochs", "max_epochs", "nb_epochs"),
    "lr0": ("lr", "learning_rate", "initial_lr", "lr_0"),
    "hyper": ("hyperparameters", "hyperparams", "hyp", "hparams", "overrides", "train_args"),
    "parameters": ("params", "args", "options"),
    "patience": ("early_stopping", "early_stop"),
    "classes": ("labels", "class_names", "class_ids", "class_id", "class_filter", "filter_classes",
                "cls", "names", "categories", "wanted_classes"),
    "model_id": _MODEL,
    "model": _MODEL,
    "model_type": _MODEL,
    "teacher_model_path": ("teacher", "teacher_model", "teacher_path", "teacher_id"),
    "base_model_path": ("base_model", "base", "base_path", *_MODEL),
    "resume_weights": ("resume", "pretrained", "weights"),
    "use_freeze_strategy": ("freeze", "freeze_strategy", "freezing", "frozen"),
    "distill_temperature": ("temperature", "temp"),
    "image": (*_PHOTO, *_FILE),
    "image_url": ("url", "uri", "link", "image_uri", "image_link", "address"),
    "image_base64": ("b64", "base64", "image_b64", "img_b64", "img_base64", "b64_image", "image",
                     "img", "data"),
    "file": (*_FILE, "zip", "zip_file", *_PHOTO, *_DATA, "weights", "model"),
    "draw_boxes": _DRAW,
    "return_annotated_image": _DRAW,
    "data_path": _DATA,
    "dataset_path": _DATA,
    "dataset": _DATA,
    "old_data_path": ("old_data", "old_dataset", "old_dataset_path"),
    "new_classes": ("classes", "class_names", "names"),
    "names": ("classes", "class_names", "labels"),
    "name": ("title", "model_name", "dataset_name", "run_name"),
    "tool": ("task", "tool_type", "tool_name"),
    "task": ("tool", "task_type"),
    "format": ("fmt", "output_format", "export_format", "file_format"),
    "split": ("subset", "partition"),
    "limit": ("count", "max", "page_size", "per_page", "top"),
    "count": ("limit", "number", "max"),
    "dir": ("folder", "path", "directory"),
    "fraction": ("share", "percent", "ratio"),
    "promote": ("auto_promote", "publish"),
    "tiles": ("tile", "tiling", "slices", "sahi"),
}  # fmt: skip
"""Field → its names in other tools and libraries.

If one name stands for several fields of a request, the first of these is suggested.
"""


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that a client most likely meant by `name`; None if none is similar.

    Examples:
        >>> meant("conf", ["image", "confidence", "iou"])
        'confidence'
        >>> meant("frezee_strategy", ["epochs", "use_freeze_strategy"])
        'use_freeze_strategy'
        >>> meant("session", ["image", "confidence"])
    """
    plain = _plain(name)
    spellings = _spellings(tuple(known))
    if len(plain) < SHORTEST:
        return next((one for spelling, one in spellings if spelling == plain), None)
    close = [(_closeness(plain, spelling), one) for spelling, one in spellings]
    best = max(close, default=(0.0, ""), key=lambda pair: pair[0])
    return best[1] if best[0] >= CLOSE else None


def unknown_sentence(
    name: str, known: Collection[str], inside: Mapping[str, Collection[str]] = {}
) -> str:
    """The error message for a field that a request rejects.

    Args:
        name: The unknown field.
        known: The fields of the request.
        inside: Fields that hold objects → the fields of these objects.
    """
    guess = meant(name, known)
    if guess is not None:
        return f"Unknown field {name[:60]!r}: did you mean {guess!r}?"
    for place, names in inside.items():
        if (guess := meant(name, names)) is not None:
            return f"Unknown field {name[:60]!r}: did you mean {guess!r} inside {place!r}?"
    return f"Unknown field {name[:60]!r}. Known: {_listed(known)}."


def _listed(known: Collection[str]) -> str:
    listed = sorted(known)
    more = ", …" if len(listed) > LISTED else ""
    return f"{', '.join(listed[:LISTED]) or 'none'}{more}"


class UnknownField(ValueError):
    """A request contains an unknown field. The message is for the client."""


Unknown = Literal["refuse", "note", "pass"]
"""Handling of an unknown name that resembles no known one: reject, ignore with a note, ignore."""


def notes_on(
    names: Iterable[str],
    known: Collection[str],
    unknown: Unknown = "note",
    inside: Mapping[str, Collection[str]] = {},
) -> list[str]:
    """One sentence for each of `names` that is unknown and therefore ignored.

    Raises:
        UnknownField: A name resembles a known one, `unknown` is "refuse", or more than
            MOST_UNKNOWN names are unknown.
    """
    if unknown == "pass":
        return []
    known = frozenset(known)
    others = [name for name in names if name not in known]
    if len(others) > MOST_UNKNOWN:
        raise UnknownField(
            f"The request has {len(others):,} unknown fields, such as {others[0][:60]!r}; more "
            f"than {MOST_UNKNOWN} are refused. Known: {_listed(known)}."
        )
    for name in others:
        if unknown == "refuse" or meant(name, known):
            raise UnknownField(unknown_sentence(name, known, inside))
    sentence = "{!r:.60} is not a field of this request and was ignored."
    return [sentence.format(name) for name in others]


@lru_cache(256)
def _spellings(known: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each known name and its aliases in plain letters, with the known name."""
    spellings = [(_plain(one), one) for one in known]
    return spellings + [(_plain(alias), one) for one in known for alias in ALIASES.get(one, ())]


def _plain(name: str) -> str:
    """The letters and digits of a name's first COMPARED characters, in lower case."""
    return "".join(letter for letter in name[:COMPARED].lower() if letter.isalnum())


def _closeness(one: str, other: str) -> float:
    """The similarity of two names, from 0 to 1.

    Equal names have 1. Names one typing error apart have 0.95: a letter inserted, deleted or
    replaced, or two adjacent letters exchanged. Others have at most 0.9, by their common letters,
    and 0 where that is certainly below CLOSE.
    """
    if one == other:
        return 1.0
    if min(len(one), len(other)) < SHORTEST:
        return 0.0
    if _one_slip(one, other):
        return 0.95
    matcher = SequenceMatcher(None, one, other)
    if min(matcher.real_quick_ratio(), matcher.quick_ratio()) < CLOSE:  # bounds of the ratio
        return 0.0
    return min(matcher.ratio(), 0.9)


def _one_slip(one: str, other: str) -> bool:
    """Whether one typing error turns one name into the other."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    exchanged = one[1:2] + one[:1] + one[2:]
    return one[1:] == other or one == other[1:] or one[1:] == other[1:] or exchanged == other
