"""Ultralytics trainers that run as a job, one for each task.

Import this module after `ultralytics_env.prepare()`: it imports Ultralytics. The classes are not
named "…Trainer", because Ultralytics adds uploads to its platform to those, which start wherever
ULTRALYTICS_API_KEY is set (8.4.190, utils/callbacks/base.py). Seams of Ultralytics 8.4.190 that
are overridden: `get_model`, `get_dataloader`, `build_dataset`, `get_validator`,
`resume_training`, `save_model`, `final_eval`, and callbacks.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.engine import trainer as ultralytics_trainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import RANK

from dataset.class_matching import matched
from files import atomic_path, link_or_copy
from jobs.artifacts import BEST, note_best
from models_store.description import Task
from training.schedule import bn_momentum
from training.yolo import mid_epoch
from training.yolo.metrics import scores
from training.yolo.progress import Progress, epoch_metrics
from training.yolo.run import Run
from training.yolo.weight_transfer import copy_norm_eps, load_classifier, transfer_class_rows


class JobRun:
    """Mixin that runs one of Ultralytics' trainers as a job.

    It reports progress after each batch, ends when the job is cancelled, writes checkpoints
    atomically, and resumes from them, also within an epoch.
    """

    run: Run

    def __init__(self: Any, run: Run, overrides: dict[str, Any]) -> None:
        self.run = run
        _forget_git()
        super().__init__(overrides=overrides)  # type: ignore[call-arg]
        self.wdir = run.checkpoints
        self.last, self.best = self.wdir / "last.pt", self.wdir / BEST
        self.add_callback("on_train_start", self._begin)
        if RANK <= 0:  # of several GPUs, the first one's process reports and saves for all
            self._report_progress()
        for event, hook in run.hooks.items():
            self.add_callback(event, hook)

    def _report_progress(self: Any) -> None:
        run, progress = self.run, Progress(self.run)
        for event, callback in {
            "on_train_batch_start": lambda _: run.job.check(),
            "on_train_batch_end": progress.trained,
            "on_val_batch_start": progress.validated,
            "on_fit_epoch_end": progress.finished_epoch,
        }.items():
            self.add_callback(event, callback)

    def get_model(self: Any, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Build the network from the start weights; when resuming, from Ultralytics' checkpoint."""
        if self.resume:
            return super().get_model(cfg=cfg, weights=weights, verbose=False)  # type: ignore[misc]
        start = self.run.start
        architecture = copy.deepcopy(start.architecture)
        names = tuple(self.data["names"].values())
        if self.run.recipe.task != "classify":
            model = super().get_model(cfg=architecture, weights=start.model, verbose=False)  # type: ignore[misc]
            if start.model is not None:
                transfer_class_rows(model, start, names)
        else:
            model = super().get_model(cfg=architecture, weights=None, verbose=False)  # type: ignore[misc]
            if start.model is not None:
                load_classifier(model, start, names)
        if start.model is not None:
            copy_norm_eps(start.model, model)
            kept = sum(i is not None for i in matched(start.names, names))
            self.run.job.log(f"Start weights know {kept} of the {len(names)} classes by name.")
        return model

    def get_dataloader(
        self: Any, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> Any:
        """Ultralytics' loader; the extensions may replace that of the training split."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)  # type: ignore[misc]
        if mode == "train":
            for extension in self.run.extensions:
                loader = extension.train_loader(self, loader)
        return loader

    def get_validator(self: Any) -> Any:
        """Ultralytics' validator, or an extension's."""
        validator = super().get_validator()  # type: ignore[misc]
        for extension in self.run.extensions:
            validator = extension.validator(validator)
        return validator

    def check_resume(self: Any, overrides: dict[str, Any]) -> None:
        """Ultralytics' arguments of the checkpoint, but the job's folder as it is called now.

        The checkpoint has the folder's path at its time; a restored home may lie elsewhere.
        """
        super().check_resume(overrides)  # type: ignore[misc]
        if self.resume:
            folder = Path(overrides["project"])
            self.args.project, self.args.save_dir = str(folder), str(folder / overrides["name"])

    def resume_training(self: Any, ckpt: Any) -> None:
        """Resume from the last complete epoch, and from within the next one if that was saved."""
        super().resume_training(ckpt)  # type: ignore[misc]
        self.run.done = mid_epoch.restore(self, self.wdir)
        if self.run.done:
            self.train_loader = mid_epoch.Remaining(self.train_loader, self.run.done)

    def save_model(self: Any) -> bool:
        """Write Ultralytics' checkpoints atomically, and keep the previous last.pt.

        best.pt and its metrics come first, last.pt comes last: a process that is killed in
        between resumes from the epoch before and repeats this one.
        """
        run, last, best = self.run, self.last, self.best
        for extension in run.extensions:
            extension.before_save(self)
        run.fitness = [*run.fitness[: self.epoch], float(self.fitness)]
        run.job.finished_epoch(self.epoch + 1, {**epoch_metrics(run, self), **run.extra})
        with atomic_path(last) as new_last:
            self.last, self.best = new_last, new_last.with_name(BEST)
            try:
                saved = bool(super().save_model())  # type: ignore[misc]
                if self.best.exists():
                    run.best = scores(
                        self.metrics, run.recipe.task, self.validator.speed, run.metric_names
                    )
                    run.best |= {"epoch": float(self.epoch + 1), "fitness": float(self.fitness)}
                    os.replace(self.best, best)
                    note_best(self.wdir, self.epoch + 1)
                run.save()
                if last.exists():
                    with atomic_path(last.with_name("previous.pt")) as previous:
                        link_or_copy(last, previous)
            finally:
                self.last, self.best = last, best
        mid_epoch.forget(self.wdir)
        run.job.checkpointed(self.epoch + 1)
        return saved

    def final_eval(self) -> None:
        """Note that training is complete.

        Ultralytics would validate best.pt again and strip last.pt. The best epoch's metrics are
        stored already, and last.pt has to stay resumable.
        """
        if RANK > 0:
            return
        self.run.finished = True
        self.run.save()

    def _begin(self: Any, _: Any) -> None:
        run = self.run
        momentum = bn_momentum(run.recipe, run.images)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        counts = [len(loader.dataset) for loader in (self.train_loader, self.test_loader)]
        where = f"from epoch {self.start_epoch + 1}" if self.start_epoch else "from the start"
        if run.done:
            batches = len(self.train_loader)
            where = f"from batch {run.done + 1} of {batches} in epoch {self.start_epoch + 1}"
        run.job.log(
            f"Training {where} to epoch {self.epochs} on {self.device}: {counts[0]} images, "
            f"{counts[1]} for validation, batch {self.batch_size}, imgsz {self.args.imgsz}, "
            f"{self.args.optimizer} with lr0 {self.args.lr0:g}, nbs {self.args.nbs}, "
            f"batch-norm momentum {momentum:g}, {torch.get_num_threads()} threads."
        )


class DetectionRun(JobRun, DetectionTrainer):
    """Training of a detection model."""


class SegmentationRun(JobRun, SegmentationTrainer):
    """Training of an instance segmentation model."""


class PoseRun(JobRun, PoseTrainer):
    """Training of a pose model."""


class ImagesWithPaths(ClassificationDataset):
    """A classification dataset whose samples name their file as `im_file`, as other tasks' do."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "im_file": self.samples[index][0]}


class ClassificationRun(JobRun, ClassificationTrainer):
    """Training of a classifier."""

    def build_dataset(self: Any, img_path: str, mode: str = "train", batch: Any = None) -> Any:
        """Ultralytics' dataset; training samples also carry the path of their file."""
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        return ImagesWithPaths(
            img_path, self.args, augment=True, prefix="train", names=self.data["names"]
        )


TRAINERS: dict[Task, Any] = {
    "detect": DetectionRun,
    "segment": SegmentationRun,
    "pose": PoseRun,
    "classify": ClassificationRun,
}


def _forget_git() -> None:
    """Prevent Ultralytics from writing facts about the current Git repository into checkpoints."""
    nothing: Any = SimpleNamespace(root=None, branch=None, commit=None, message=None, origin=None)
    ultralytics_trainer.GIT = nothing
