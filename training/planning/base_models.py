"""Chooses the base network of a training: weights of the registry, of a file, or none.

`choose_base` runs when a job is requested, without torch. `training.start_weights` loads the chosen
weights in the worker.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from database import Database
from dataset.allowed_roots import data_roots, is_inside, real_path
from errors import Forbidden, InvalidModelFile, JobNotFound, ModelNotFound, ValidationFailed
from jobs.artifacts import best_weights
from jobs.job import SHORT_ID
from jobs.lost_jobs import JOB_ID
from jobs.shared_folders import JobFolders
from jobs.store import JobStore
from models_store.description import Family, Task
from models_store.foreign.file_type import check_checkpoint
from models_store.names import suggest_name
from models_store.pretrained.catalogue import (
    FAMILIES,
    MOBILENET,
    MOBILENET_NAMES,
    SUFFIXES,
    PretrainedFile,
    foreign,
    pretrained_file,
)
from models_store.pretrained.fetch import present
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings

SCALES = ("n", "s", "m", "l", "x")
ARCHITECTURE = re.compile(r"(yolo(?:v[0-9]+|[0-9]+))([a-z]u?)(-seg|-pose|-cls)?(?:\.pt)?")
WEIGHT_FILES = (".pt", ".pth")
VAGUE = frozenset({"best", "last", "weights", "model"})  # file names too generic for a model name


class BaseNetwork(BaseModel):
    """The network and weights that a training starts from.

    `value` depends on `kind`: a model id (`model`), an absolute path (`file`), the id of a job that
    failed or was cancelled (`job`), the network whose file the job fetches, with `.pt`
    (`download`), or the name of an architecture (`scratch`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scratch", "model", "file", "job", "download"]
    value: str
    family: Family
    task: Task
    default_name: str  # default name of the model to publish
    sentence: str  # description for the log and the job's config
    imgsz: int | None = None  # image size of the registry model or of the job

    @property
    def shown(self) -> str:
        """`value` for messages; of a path only the file name."""
        if self.kind == "job":
            return f"job {self.value}"
        return Path(self.value).name if self.kind == "file" else self.value

    @property
    def network(self) -> str:
        """The name of the architecture, of a base that is fetched or starts from scratch."""
        assert self.kind in ("download", "scratch")
        return self.value.removesuffix(".pt")

    def from_scratch(self, reason: str) -> BaseNetwork:
        """The base that replaces weights which could not be fetched, for the reason of a clause."""
        sentence = f"Trains {self.network} from scratch: {reason}."
        changed = {"kind": "scratch", "value": self.network, "sentence": sentence}
        return self.model_copy(update=changed)

    def of_model(self, model_id: str, sentence: str) -> BaseNetwork:
        """The base that replaces weights which were fetched into the registry."""
        changed = {"kind": "model", "value": model_id, "sentence": sentence}
        return self.model_copy(update=changed)


@dataclass(frozen=True)
class Architecture:
    """An architecture: `yolov8n-seg`, `yolo11s`, `mobilenet_v2`."""

    family: Family
    task: Task
    name: str

    @property
    def default_name(self) -> str:
        plain = self.name.removesuffix(SUFFIXES[self.task]) if self.family == "yolo" else self.name
        return f"{self.task}_{plain}"


def choose_base(
    model: str | None,
    weights: str | None,
    task: Task | None,
    registry: Registry,
    settings: Settings,
) -> BaseNetwork:
    """Choose the start weights.

    Args:
        model: A scale (`s`), an architecture (`yolo11n`, `mobilenet`), a model id, or a path.
        weights: A path, model id or job id; takes precedence over `model`.
        task: The requested task; None: the model's task, else detect.
        registry: Its models take precedence over files of pretrained weights.
        settings: Allowed roots, the folder of pretrained weights, whether to download.

    Raises:
        ValidationFailed: The architecture does not exist, or the model is for another task.
        ModelNotFound, JobNotFound, Forbidden, InvalidModelFile: The weights do not exist or cannot
            be used.
    """
    model = (model or "").strip() or "s"
    if weights := (weights or "").strip():
        family: Family = "mobilenet" if model.lower() in MOBILENET_NAMES else "yolo"
        return _given(weights, task, family, registry, settings)
    architecture = find_architecture(model, task)
    if architecture is None:
        return _given(model, task, "yolo", registry, settings)
    return _pretrained(architecture, registry, settings)


def find_architecture(text: str, task: Task | None) -> Architecture | None:
    """The architecture of a scale or an architecture's name; None for a model id or a path.

    Raises:
        ValidationFailed: It has the form of an architecture's name, but does not exist for this
            family, scale and task.
    """
    word = text.lower()
    if word in MOBILENET_NAMES:
        if task not in (None, "classify"):
            raise ValidationFailed(
                f"MobileNet is a classifier and cannot be trained for {task}. Choose a YOLO scale "
                "(n, s, m, l, x)."
            )
        return Architecture("mobilenet", "classify", MOBILENET)
    if word in SCALES:
        word = f"yolov8{word}"
    match = ARCHITECTURE.fullmatch(word)
    if match is None:
        return None
    family, scale, suffix = match.groups()
    named = next((t for t, s in SUFFIXES.items() if suffix and s == suffix), None)
    if named and task and named != task:
        raise ValidationFailed(
            f"{text!r} is for {named}, but task is {task}. Send task={named}, or another network."
        )
    task = named or task or "detect"
    name = f"{family}{scale}{SUFFIXES[task]}"
    if name not in _architectures():
        known = sorted(n for n in _architectures() if n.endswith(SUFFIXES[task]))
        families = sorted({re.sub(r"[a-z](u?)(-\w+)?$", r"\1", name) for name in known})
        if reason := foreign(word):
            raise ValidationFailed(f"{text!r} cannot be trained: {reason}. {FAMILIES}")
        raise ValidationFailed(
            f"{text!r} is not a known network for {task}. Known families: {', '.join(families)}. "
            "Add a scale, mostly n, s, m, l or x: yolov8n, yolo11s, …"
        )
    return Architecture("yolo", task, name)


def architecture_yaml(name: str) -> dict[str, object]:
    """Ultralytics' model yaml of an architecture, with its scale set."""
    path, scale = _architectures()[name]
    description = yaml.safe_load(path.read_text(encoding="utf-8"))
    return description | ({"scale": scale} if scale else {})


@lru_cache(maxsize=1)
def _architectures() -> dict[str, tuple[Path, str | None]]:
    """Name (`yolov8n-seg`) → Ultralytics' yaml file and scale. Does not import ultralytics."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.submodule_search_locations:
        return {}
    found: dict[str, tuple[Path, str | None]] = {}
    for path in Path(spec.submodule_search_locations[0]).glob("cfg/models/*/yolo*.yaml"):
        if match := re.fullmatch(r"(yolo(?:v[0-9]+|[0-9]+))([a-z]?)(-seg|-pose|-cls)?", path.stem):
            family, scale, suffix = match.groups()
            if family in ("yolov3", "yolov6"):  # no weights are published that fit
                continue
            last = "u" if family == "yolov5" else ""  # Ultralytics' YOLOv5 has another head
            if scale:
                found[path.stem] = (path, None)
                continue
            scales = yaml.safe_load(path.read_text(encoding="utf-8")).get("scales") or {}
            for letter in scales:
                found[f"{family}{letter}{last}{suffix or ''}"] = (path, str(letter))
    return found


def _pretrained(architecture: Architecture, registry: Registry, settings: Settings) -> BaseNetwork:
    """Pretrained weights of an architecture, present or to be fetched, else none."""
    name, published = architecture.name, pretrained_file(architecture.name)
    base = {
        "family": architecture.family,
        "task": architecture.task,
        "default_name": architecture.default_name,
    }
    if found := _in_registry(architecture, published, registry):
        sentence = f"Starts from the registry's {found.id}."
        return BaseNetwork(kind="model", value=found.id, sentence=sentence, **base)
    for folder in (settings.pretrained, settings.paths.pretrained):
        if file := _pretrained_file(architecture, folder):
            sentence = f"Starts from the pretrained weights {file.name}."
            return BaseNetwork(kind="file", value=str(file), sentence=sentence, **base)
    if published and settings.allow_download != "never":
        otherwise = {
            "auto": "they will be fetched, else it starts from scratch",
            "always": "they will be fetched, else the training fails",
        }[settings.allow_download]
        sentence = f"No {name} weights here: {otherwise}."
        return BaseNetwork(kind="download", value=f"{name}.pt", sentence=sentence, **base)
    reason = "VISIONLOOP_ALLOW_DOWNLOAD is never" if published else "nobody publishes any to fetch"
    sentence = (
        f"Trains {name} from scratch: no pretrained weights of that name in the registry or in "
        f"VISIONLOOP_PRETRAINED, and {reason}. Import {name}.pt as {name!r}, or put it into that "
        "folder, to start from them."
    )
    return BaseNetwork(kind="scratch", value=name, sentence=sentence, **base)


def _in_registry(
    architecture: Architecture, published: PretrainedFile | None, registry: Registry
) -> ModelVersion | None:
    """A model of the architecture's name, else the weights that were fetched for it."""
    try:
        found = registry.get(architecture.name)
    except ModelNotFound:
        pass
    else:
        described = found.description
        if (described.task, described.family) == (architecture.task, architecture.family):
            return found
    return present(registry, published) if published else None


def _pretrained_file(architecture: Architecture, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    if architecture.family == "mobilenet":
        found = sorted(folder.glob(f"{MOBILENET}*.pt*"))
        return next((path for path in found if path.suffix in WEIGHT_FILES), None)
    return next((p for p in [folder / f"{architecture.name}.pt"] if p.is_file()), None)


def _given(
    text: str, task: Task | None, family: Family, registry: Registry, settings: Settings
) -> BaseNetwork:
    """The base network that a model id, a job id or a path names."""
    if job_id := job_named(text, registry):
        return _of_job(job_id, task, registry.database)
    if not (any(c in text for c in "/\\") or text.lower().endswith(WEIGHT_FILES)):
        return _of_registry(text, task, registry)
    path = _confined(text, settings)
    check_checkpoint(path)
    stem = path.stem if path.stem.lower() not in VAGUE else f"{task or 'detect'}-{path.stem}"
    if path.stem.lower().startswith("mobilenet"):
        family = "mobilenet"
    return BaseNetwork(
        kind="file",
        value=str(path),
        family=family,
        task=task or ("classify" if family == "mobilenet" else "detect"),
        default_name=suggest_name(stem),
        sentence=f"Starts from the weights {path.name}; their architecture is kept.",
    )


def names_no_model(text: str) -> bool:
    """Whether a text may name something else than a model of the registry: a network, job or file.

    Without the registry, so that a client can tell.
    """
    word = text.lower()
    return (
        word in (*SCALES, *MOBILENET_NAMES)
        or ARCHITECTURE.fullmatch(word) is not None
        or JOB_ID.fullmatch(text) is not None
        or SHORT_ID.fullmatch(word) is not None
        or any(c in text for c in "/\\")
        or word.endswith(WEIGHT_FILES)
        or bool(foreign(word))
        or pretrained_file(word) is not None
    )


def job_named(text: str, registry: Registry) -> str | None:
    """The id of the job that a text names; None if it names something else.

    A full id of a job always does, the beginning of one only where no model has that name.

    Raises:
        ValidationFailed: The ids of several jobs begin with it.
    """
    if JOB_ID.fullmatch(text):
        return text
    if not SHORT_ID.fullmatch(text.lower()) or any(m.name == text for m in registry.list()):
        return None
    try:
        return JobStore(registry.database).get(text).id
    except JobNotFound:
        return None


def _of_job(job_id: str, task: Task | None, database: Database) -> BaseNetwork:
    """The best weights of a training that failed or was cancelled."""
    store = JobStore(database)
    job = store.get(job_id)
    if job.kind != "training":
        raise ValidationFailed(
            f"Job {job_id} is not a training, so it has no weights to start from. Name a training, "
            "or a model."
        )
    if job.status == "completed":
        raise ValidationFailed(f"Job {job_id} is completed. Start from its model {job.model_id}.")
    if not job.is_final:
        raise ValidationFailed(
            f"Job {job_id} has not ended and does not need to be resumed. Its weights can be used "
            "once it has failed or was ended on request, and its model once it is completed."
        )
    JobFolders(store.database.settings).have_kept(job_id)
    best = best_weights(store.folder(job_id))
    if best is None:
        raise ValidationFailed(
            f"Job {job_id} has no weights, because it ended before its first epoch was complete. "
            "Start a training without resume_weights."
        )
    if task and task != job.task:
        raise ValidationFailed(
            f"Job {job_id} trained for {job.task}, but task is {task}. Send task={job.task}."
        )
    return BaseNetwork(
        kind="job",
        value=job_id,
        family=job.recipe["family"],
        task=job.recipe["task"],
        default_name=job.recipe["name"],
        sentence=f"Starts from the best weights of job {job_id}, of its epoch {best.epoch}.",
        imgsz=job.recipe["imgsz"],
    )


def _of_registry(text: str, task: Task | None, registry: Registry) -> BaseNetwork:
    try:
        found = registry.get(text)
    except ModelNotFound as error:
        found = _of_network(text, registry, error)
    description = found.description
    if task and description.task != task:
        raise ValidationFailed(
            f"{found.id} is a model for {description.task}, but task is {task}. Choose a model "
            "for that task, or a scale (n, s, m, l, x)."
        )
    return BaseNetwork(
        kind="model",
        value=found.id,
        family=description.family,
        task=description.task,
        default_name=found.name,
        sentence=f"Starts from the registry's {found.id}.",
        imgsz=description.imgsz,
    )


def _of_network(text: str, registry: Registry, error: ModelNotFound) -> ModelVersion:
    """The fetched weights of a network that is named in place of a model.

    Raises:
        ValidationFailed: It is a network that cannot be used here.
        ModelNotFound: They were not fetched; the message says how, if the network is known.
    """
    word = text.strip().lower()
    if reason := foreign(word):
        raise ValidationFailed(f"{text!r} cannot be used: {reason}. {FAMILIES}") from error
    file = pretrained_file(word)
    if file is None:
        raise error
    if (found := present(registry, file)) is None:
        raise ModelNotFound(
            f"{error.message} Its pretrained weights are fetched by `visionloop models fetch "
            f"{word}` or POST /models/fetch."
        ) from error
    return found


def _confined(text: str, settings: Settings) -> Path:
    """A weights file under the allowed roots; a relative path is tried in each of them."""
    roots = data_roots(settings)
    if settings.pretrained:
        roots = (*roots, real_path(settings.pretrained))
    for place in [""] if os.path.isabs(text) else roots:
        path = real_path(os.path.join(place, text))
        if not is_inside(path, roots):
            raise Forbidden(
                f"The weights {text[:200]!r} are outside the folders this server may read. Move "
                "them under one of VISIONLOOP_DATA_ROOTS, or import them as a model and give its "
                "id."
            )
        if path.is_file():
            return path
    raise InvalidModelFile(
        f"There is no weights file {text[:200]!r}. Give a path under VISIONLOOP_DATA_ROOTS or "
        "VISIONLOOP_PRETRAINED, or a model id."
    )
