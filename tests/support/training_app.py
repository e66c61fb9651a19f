"""The application with its job table, without a server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from jobs.job import Job
from jobs.processes import started_at
from jobs.store import JobStore
from serving.gateway import Gateway
from tests.support.dispatching import CLAIM, begin

FORM = {  # what the second family's web form sends, whatever is chosen in it
    "task": "detect",
    "model_type": "n",
    "epochs": 50,
    "imgsz": 640,
    "batch": 8,
    "patience": 15,
    "name": "",
    "project": "",
    "resume_weights": "",
    "use_freeze_strategy": True,
    "min_epochs_per_stage": 15,
    "base_model_path": "",
    "new_classes": [],
    "old_data_path": "",
    "replay_ratio": 0.2,
    "max_replay_samples": 1000,
    "teacher_model_path": "",
    "distill_temperature": 2.0,
    "distill_cls_weight": 1.0,
    "distill_reg_weight": 2.0,
    "distill_feat_weight": 5.0,
    "distill_mask_weight": 1.0,
    "enable_consistency": False,
    "consistency_weight": 1.0,
    "pseudo_conf_threshold": 0.7,
    "replay_distill_boost": 1.0,
    "trainingType": "regular",
    "project_id": "12",
}
TASK = {
    "task_id",
    "training_type",
    "status",
    "progress",
    "current_epoch",
    "total_epochs",
    "created_at",
    "started_at",
    "completed_at",
    "error_message",
    "result_path",
    "model_id",
    "metrics",
    "config",
    "logs",
}
UNKNOWN = "0" * 32

Call = Callable[..., httpx.Response]


@dataclass
class Service:
    """The application without its server, and the table behind it."""

    fastapi: FastAPI
    app: ASGIApp
    gateway: Gateway
    data: Path
    call: Call

    @property
    def jobs(self) -> JobStore:
        return self.gateway.jobs

    def get(self, path: str, **options: Any) -> Any:
        answer = self.call(self.app, "GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.call(self.app, "POST", path, json=body, **options)

    def start(self) -> Job:
        """A job that was asked for as the second family does."""
        answer = self.post("/api/training/regular", FORM | {"data_path": str(self.data)})
        return self.jobs.get(answer.json()["task_id"])

    def run(self, job: Job, pid: int | None = None) -> str:
        """Have a process that lives run the job: this one. Returns its claim."""
        pid = pid or os.getpid()
        assert begin(self.jobs, job.id, pid, started_at(pid))
        return CLAIM
