"""`/api/training`: training jobs as the second client family sees them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from api import job_logs
from api.auth import require_admin
from api.gateway import Gateway, Wired
from api.jobs import (
    PATIENCE,
    JobLog,
    as_sent,
    cancel,
    find,
    json_body,
    json_schema,
    status_of,
    submit,
)
from api.schemas import RequestFields, errors
from errors import ModelNotFound
from inference.device import device
from models_store.names import suggest_name
from training import hyperparameters
from training.dispatcher import slots
from training.distillation_options import DistillationOptions
from training.incremental_options import IncrementalOptions
from training.jobs import Job
from training.logs import read_last
from training.recipe import Mode, Promote, TrainingRequest
from training.rehearsal import CRITERIA, Criterion

router = APIRouter(prefix="/api/training", tags=["Training, second client family"])

STATUSES = {
    "queued": "pending",
    "running": "running",
    "stopping": "running",
    "stopped": "cancelled",
    "completed": "completed",
    "failed": "failed",
}
LISTED_LINES, SHOWN_LINES = 5, 200  # of the log, inside a task
WEIGHT = "a number from 0 to 1000"


_REPLAY = frozenset({"base_model_path", "old_data_path", "replay_ratio", "max_replay_samples"})
_DISTILLATION = frozenset(
    {
        "teacher_model_path", "distill_temperature", "distill_cls_weight", "distill_reg_weight",
        "distill_feat_weight", "distill_mask_weight", "enable_consistency", "consistency_weight",
        "pseudo_conf_threshold", "replay_distill_boost",
    }
)  # fmt: skip
OWN: dict[str, frozenset[str]] = {
    "freeze_strategy": frozenset({"use_freeze_strategy", "min_epochs_per_stage"}),
    "incremental": _REPLAY | {"new_classes", "rehearsal"},
    "distillation": _REPLAY | _DISTILLATION,
}
"""Fields that mean something in some modes only."""


OLD_FORM = frozenset({"trainingType", "project_id"})
"""What the second family's form also sends, whatever is chosen in it. It has no effect here."""


class Fields(RequestFields):
    """What to train: infinite numbers are none."""

    model_config = ConfigDict(allow_inf_nan=False)


class TrainingFields(Fields):
    """The one flat object that all modes take; what belongs to other modes only is not looked at.

    The mode is the validation's context, else the field `mode` of a subclass.
    """

    passed_over = OLD_FORM
    inside: ClassVar = {"hyper": hyperparameters.NAMES}

    task: str | None = Field(
        None, max_length=40, description="detect, segment, classify or pose (detect)"
    )
    model_type: str = Field(
        "s", max_length=400, description="a scale n s m l x, a model id, or a network's name"
    )
    data_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a data set's id",
    )
    epochs: int = Field(50, ge=1, le=100_000, description="a whole number from 1 to 100000")
    imgsz: int | None = Field(
        None, ge=32, le=4096, description="pixels, a whole number from 32 to 4096 (640)"
    )
    batch: int = Field(8, ge=1, le=1024, description="a whole number from 1 to 1024")
    patience: int = Field(15, ge=0, le=10_000, description="a whole number from 0 to 10000")
    name: str | None = Field(None, max_length=200, description="a name for the new model")
    project: Any = Field(None, description="anything; has no effect here")
    resume_weights: str | None = Field(
        None,
        max_length=4096,
        description="weights to start from: a path, a model id, or the id of a job that failed",
    )
    use_freeze_strategy: bool = Field(True, description="true or false")
    min_epochs_per_stage: int = Field(15, ge=1, le=10_000, description="a whole number from 1")
    base_model_path: str | None = Field(None, max_length=4096, description="a path or model id")
    new_classes: list[str] | str = Field(
        [], max_length=100_000, description="class names, a list or one text with commas between"
    )
    old_data_path: str | None = Field(
        None, max_length=4096, description="a data.yaml, class folder or data set's id"
    )
    replay_ratio: float = Field(0.2, ge=0, le=1, description="a number from 0 to 0.9")
    max_replay_samples: int = Field(1000, ge=0, description="a whole number from 0")
    rehearsal: Criterion = Field(
        "herding", description=f"what old samples are chosen by: {', '.join(CRITERIA)}"
    )
    teacher_model_path: str | None = Field(None, max_length=4096, description="a path or model id")
    distill_temperature: float = Field(2.0, gt=0, le=100, description="a number above 0")
    distill_cls_weight: float = Field(1.0, ge=0, le=1000, description=WEIGHT)
    distill_reg_weight: float = Field(2.0, ge=0, le=1000, description=WEIGHT)
    distill_feat_weight: float = Field(5.0, ge=0, le=1000, description=WEIGHT)
    distill_mask_weight: float = Field(1.0, ge=0, le=1000, description=WEIGHT)
    enable_consistency: bool = Field(False, description="true or false")
    consistency_weight: float = Field(1.0, ge=0, le=1000, description=WEIGHT)
    pseudo_conf_threshold: float = Field(0.7, ge=0, le=1, description="a number from 0 to 1")
    replay_distill_boost: float = Field(1.0, ge=0, le=1000, description=WEIGHT)
    promote: Promote = Field(
        "never", description="never, or auto: at its end, if it passes the gate of the settings"
    )
    hyper: dict[str, Any] = Field(
        {}, description="an object with Ultralytics' hyperparameters", examples=[{"lr0": 0.01}]
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_other_modes(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        mode = info.context or values.get("mode") or "regular"
        others = set().union(*OWN.values()) - OWN.get(mode, frozenset())
        return {name: value for name, value in values.items() if name not in others}

    def request(self, mode: Mode) -> TrainingRequest:
        """The same under neutral names."""
        return TrainingRequest(
            mode=mode,
            task=self.task,
            model=self.model_type,
            weights=self.resume_weights,
            data=self.data_path,
            name=suggest_name(self.name) if self.name else None,
            epochs=self.epochs,
            imgsz=self.imgsz,
            batch=self.batch,
            patience=self.patience,
            use_freeze_strategy=self.use_freeze_strategy,
            min_epochs_per_stage=self.min_epochs_per_stage,
            base_model=self.base_model_path,
            promote=self.promote,
            hyper=self.hyper,
            incremental=self.incremental() if mode == "incremental" else None,
            distillation=self.distillation() if mode == "distillation" else None,
        )

    def incremental(self) -> IncrementalOptions:
        given = self.new_classes
        names = given.split(",") if isinstance(given, str) else given
        return IncrementalOptions(
            new_classes=tuple(name.strip() for name in names if name.strip()),
            rehearsal=self.rehearsal,
            **self._replay(),
        )

    def distillation(self) -> DistillationOptions:
        return DistillationOptions(
            teacher=self.teacher_model_path,
            temperature=self.distill_temperature,
            cls_weight=self.distill_cls_weight,
            reg_weight=self.distill_reg_weight,
            feat_weight=self.distill_feat_weight,
            mask_weight=self.distill_mask_weight,
            enable_consistency=self.enable_consistency,
            consistency_weight=self.consistency_weight,
            pseudo_conf_threshold=self.pseudo_conf_threshold,
            replay_distill_boost=self.replay_distill_boost,
            **self._replay(),
        )

    def _replay(self) -> dict[str, Any]:
        return {
            "old_data": self.old_data_path,
            "replay_ratio": self.replay_ratio,
            "max_replay_samples": self.max_replay_samples,
        }


class TaskStarted(BaseModel):
    task_id: str
    status: str = Field(examples=["pending"])
    message: str


class Task(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    task_id: str
    training_type: Literal["regular", "incremental", "freeze_strategy", "distillation"]
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    progress: float = Field(description="0 to 100; moves within an epoch")
    current_epoch: int
    total_epochs: int
    created_at: str
    started_at: str | None
    completed_at: str | None
    error_message: str | None
    result_path: str | None = Field(description="the new version's folder")
    model_id: str | None = Field(description="the new version")
    metrics: dict[str, Any]
    config: dict[str, Any] = Field(description="as sent; `resolved` is what was made of it")
    logs: list[str] = Field(description="the last lines")


class TrainingStatus(BaseModel):
    """How busy the training is."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    queue_length: int
    device: str
    slots: int = Field(description="how many run at once")


def _route(path: str, mode: Mode, summary: str) -> None:
    @router.post(
        path,
        response_model=TaskStarted,
        responses=errors(400, 403, 404),
        openapi_extra=json_schema(TrainingFields),
        dependencies=[Depends(require_admin)],
        summary=summary,
        name=mode,
    )
    async def start(request: Request, gateway: Wired) -> Any:
        fields = await json_body(request, TrainingFields, mode)
        sent = await as_sent(request, fields)
        job = await submit(gateway, fields.request(mode), sent)
        message = f"Training '{job.model_name}' is queued."
        return {"task_id": job.id, "status": "pending", "message": message}


_route("/regular", "regular", "Train a model")
_route("/incremental", "incremental", "Teach a model further classes")
_route("/distillation", "distillation", "Train a small model with a large one as teacher")
_route("/freeze-strategy", "freeze_strategy", "Train in stages: head, neck, backbone")


@router.get("/tasks", response_model=list[Task])
async def list_all(gateway: Wired) -> Any:
    """The training jobs, the newest first."""
    jobs = await asyncio.to_thread(gateway.jobs.list, "training")
    return await asyncio.to_thread(lambda: [_task(gateway, job, LISTED_LINES) for job in jobs])


@router.get("/tasks/{task_id}", response_model=Task, responses=errors(404))
async def show(task_id: str, gateway: Wired) -> Any:
    """One training job."""
    job = await find(gateway, task_id, "training")
    return await asyncio.to_thread(_task, gateway, job, SHOWN_LINES)


@router.get(
    "/tasks/{task_id}/logs", response_model=JobLog, responses=errors(404) | job_logs.STREAMED
)
async def logs(request: Request, task_id: str, gateway: Wired, follow: bool = False) -> Any:
    """The job's log; with `follow=true` as server-sent events until the job ends."""
    job = await find(gateway, task_id, "training")
    return await job_logs.answer(request, gateway, job, follow, _status)


@router.post(
    "/tasks/{task_id}/cancel",
    response_model=TaskStarted,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def stop(task_id: str, gateway: Wired) -> Any:
    """End a training job; answers when its process is gone."""
    await find(gateway, task_id, "training")
    job = await cancel(gateway, task_id, PATIENCE)
    ended = {
        "stopped": "was cancelled",
        "completed": "was completed before it could be cancelled",
        "failed": "failed before it could be cancelled",
    }.get(job.status, "is being cancelled")
    return {"task_id": task_id, "status": _status(job), "message": f"Task {task_id} {ended}."}


@router.get("/status", response_model=TrainingStatus)
async def status(gateway: Wired) -> Any:
    """How many training jobs there are, on what they run, how many wait."""
    counts = dict.fromkeys(STATUSES.values(), 0)
    listed = await asyncio.to_thread(gateway.jobs.counts)
    for (kind, status), count in listed.items():
        if kind == "training":
            counts[STATUSES[status]] += count
    waiting = sum(count for (_, status), count in listed.items() if status == "queued")
    settings = gateway.settings
    more = {"queue_length": waiting, "device": device(settings), "slots": slots(settings)}
    return counts | more


def _status(job: Job) -> str:
    return STATUSES[status_of(job)]


def _task(gateway: Gateway, job: Job, lines: int) -> dict[str, Any]:
    return {
        "task_id": job.id,
        "training_type": job.mode,
        "status": _status(job),
        "progress": job.progress,
        "current_epoch": job.current_epoch,
        "total_epochs": job.total_epochs,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.finished_at,
        "error_message": job.error,
        "result_path": _result(gateway, job),
        "model_id": job.model_id,
        "metrics": job.metrics,
        "config": job.config,
        "logs": read_last(gateway.jobs.log(job.id), lines),
    }


def _result(gateway: Gateway, job: Job) -> str | None:
    if job.model_id is None:
        return None
    try:
        return str(gateway.registry.get(job.model_id).path)
    except ModelNotFound:  # deleted since
        return None
