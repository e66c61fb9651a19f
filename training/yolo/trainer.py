"""What the YOLO training modes share: an Ultralytics trainer that belongs to a job.

It reports progress to the batch, ends when the job is cancelled, writes checkpoints that a power
cut cannot spoil, and goes on from them, within an epoch too. The modes add hooks; see
`regular.py` for the plain one.
Seams of Ultralytics 8.4.190 used: `get_model`, `resume_training`, `save_model`, `final_eval` and
callbacks.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cores import cpu_count
from dataset.class_matching import matched
from errors import VisionLoopError
from jobs.artifacts import BEST, note_best
from jobs.failures import explained
from models_store.ultralytics_env import prepare
from models_store.weights import build_model, describe, fill, save_model
from settings import get_settings
from training.prepare import look_through
from training.publish import Trained
from training.schedule import bn_momentum
from training.start_weights import CLASS_BRANCHES, Start, keep_rows
from training.yolo import mid_epoch
from training.yolo.arguments import arguments
from training.yolo.class_means import ClassPrototypes
from training.yolo.feature_extractor import FeatureExtractor
from training.yolo.metrics import BY_PART, scores
from training.yolo.progress import Progress
from training.yolo.run import Run

if TYPE_CHECKING:
    pass


def train(run: Run) -> Trained:
    """Train, or go on training, and leave the best checkpoint as a model folder.

    Raises:
        VisionLoopError: Something users can do something about; the message says what.
        JobCancelled: A stop was asked for.
    """
    recipe, job = run.recipe, run.job
    prepare()
    threads = torch.get_num_threads()
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.load()
    with explained(recipe.batch, recipe.imgsz):
        last = newest_checkpoint(run.checkpoints) if run.fitness else None
        if run.finished or len(run.fitness) >= recipe.epochs:
            job.log("The training had finished; only its publication is left.")
        else:
            gpu = torch.cuda.is_available() and get_settings().device != "cpu"
            look_through(run.dataset, job)
            data = run.dataset.materialise(job.folder / "data")
            job.check()
            overrides = arguments(
                recipe,
                images=run.images,
                decoded=run.decoded,
                names=run.dataset.names,
                data=data,
                folder=job.folder,
                device="0" if gpu else "cpu",
                cores=cpu_count(),
                bf16=gpu and torch.cuda.is_bf16_supported(including_emulation=False),
            )
            if last is not None:
                overrides["resume"] = str(last)
            else:
                run.fitness, run.best = [], {}
            trainer = trainer_class(run)(overrides=overrides)
            torch.set_num_threads(threads)  # select_device changes it
            with job.graceful_stop():
                trainer.train()
        return _collect(run)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read, of the last two."""
    from ultralytics.nn.tasks import load_checkpoint

    for name in ("last.pt", "previous.pt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            load_checkpoint(path)
        except Exception:  # whatever a damaged file provokes
            continue
        return path
    return None


def trainer_class(run: Run) -> type:
    """Ultralytics' trainer of the recipe's task, belonging to a job."""
    from ultralytics.models import yolo

    bases: dict[str, Any] = {
        "detect": yolo.detect.DetectionTrainer,
        "segment": yolo.segment.SegmentationTrainer,
        "pose": yolo.pose.PoseTrainer,
        "classify": yolo.classify.ClassificationTrainer,
    }
    # Not named "…Trainer": to those Ultralytics adds the uploads to its platform, which start
    # wherever ULTRALYTICS_API_KEY is set (8.4.190, utils/callbacks/base.py).
    return type("JobRun", (_JobRun, *run.extensions, bases[run.recipe.task]), {"run": run})


class _JobRun:
    """Mixed into one of Ultralytics' trainers, whose attributes it uses."""

    run: Run

    def __init__(self: Any, overrides: dict[str, Any]) -> None:
        _forget_git()
        super().__init__(overrides=overrides)  # type: ignore[call-arg]
        self.wdir = self.run.checkpoints
        self.last, self.best = self.wdir / "last.pt", self.wdir / BEST
        progress = Progress(self.run)
        for event, callback in {
            "on_train_start": self._begin,
            "on_train_batch_start": lambda _: self.run.job.check(),
            "on_train_batch_end": progress.trained,
            "on_val_batch_start": progress.validated,
            "on_fit_epoch_end": progress.finished_epoch,
        }.items():
            self.add_callback(event, callback)
        for event, hook in self.run.hooks.items():
            self.add_callback(event, hook)

    def get_model(self: Any, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """From the start weights; when resuming, from the checkpoint that Ultralytics gives."""
        if self.resume:
            return super().get_model(cfg=cfg, weights=weights, verbose=False)  # type: ignore[misc]
        start = self.run.start
        architecture = copy.deepcopy(start.architecture)
        names = tuple(self.data["names"].values())
        if self.run.recipe.task != "classify":
            model = super().get_model(cfg=architecture, weights=start.model, verbose=False)  # type: ignore[misc]
            if start.model is not None:
                _keep_class_rows(model, start, names)
        else:
            model = super().get_model(cfg=architecture, weights=None, verbose=False)  # type: ignore[misc]
            if start.model is not None:
                _load_classifier(model, start, names)
        if start.model is not None:
            _same_norm_eps(start.model, model)
            kept = sum(i is not None for i in matched(start.names, names))
            self.run.job.log(f"Start weights know {kept} of the {len(names)} classes by name.")
        return model

    def resume_training(self: Any, ckpt: Any) -> None:
        """From the last whole epoch, and from within the one after it where that was saved."""
        super().resume_training(ckpt)  # type: ignore[misc]
        self.run.done = mid_epoch.restore(self, self.wdir)
        if self.run.done:
            self.train_loader = mid_epoch.Remaining(self.train_loader, self.run.done)

    def save_model(self: Any) -> bool:
        """As Ultralytics, but written aside and renamed, keeping the one before."""
        run, last, best = self.run, self.last, self.best
        run.fitness = [*run.fitness[: self.epoch], float(self.fitness)]
        self.last, self.best = last.with_name("last.writing"), best.with_name("best.writing")
        try:
            saved = bool(super().save_model())  # type: ignore[misc]
            if self.best.exists():
                run.best = scores(self.metrics, run.recipe.task, self.validator.speed)
                run.best |= {"epoch": float(self.epoch + 1), "fitness": float(self.fitness)}
                os.replace(self.best, best)
                note_best(self.wdir, self.epoch + 1)
            run.save()
            if last.exists():
                previous = last.with_name("previous.writing")
                previous.unlink(missing_ok=True)
                _twin(last, previous)
                os.replace(previous, last.with_name("previous.pt"))
            os.replace(self.last, last)
        finally:
            self.last, self.best = last, best
        mid_epoch.forget(self.wdir)
        run.job.checkpointed(self.epoch + 1)
        return saved

    def final_eval(self) -> None:
        """Nothing: the best epoch's metrics are noted, and last.pt stays resumable."""
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
            f"Training {where} to epoch {self.epochs} on {self.device}: {counts[0]} pictures, "
            f"{counts[1]} for validation, batch {self.batch_size}, imgsz {self.args.imgsz}, "
            f"{self.args.optimizer} with lr0 {self.args.lr0:g}, nbs {self.args.nbs}, "
            f"batch-norm momentum {momentum:g}, {torch.get_num_threads()} threads."
        )


def _twin(path: Path, other: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _keep_class_rows(model: Any, start: Start, names: tuple[str, ...]) -> None:
    """Ultralytics (8.4.190, `_remap_cls_by_names`) takes `A` for `a`, and gives both one's row."""
    known: Any = start.model
    for branch in CLASS_BRANCHES:
        layers, others = (getattr(of.model[-1], branch, None) or () for of in (model, known))
        for layer, other in zip(layers, others, strict=False):
            keep_rows(layer[-1], other[-1], names, start.names)


def _load_classifier(model: Any, start: Start, names: tuple[str, ...]) -> None:
    """Ultralytics would copy the last layer by position; names decide."""
    head = model.model[-1].linear
    fresh = copy.deepcopy(head.state_dict())
    model.load(start.model, verbose=False)
    head.load_state_dict(fresh)
    known: Any = start.model
    keep_rows(head, known.model[-1].linear, names, start.names)


def _same_norm_eps(source: nn.Module, model: nn.Module) -> None:
    values = {m.eps for m in source.modules() if isinstance(m, nn.BatchNorm2d)}
    if len(values) == 1:
        eps = values.pop()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = eps


def _forget_git() -> None:
    """Ultralytics notes the repository that it runs in, in every checkpoint."""
    from ultralytics.engine import trainer  # after `ultralytics_env.prepare()`, as all of it

    nothing: Any = SimpleNamespace(root=None, branch=None, commit=None, message=None, origin=None)
    trainer.GIT = nothing


def _collect(run: Run) -> Trained:
    """The best checkpoint, stripped to what the registry keeps."""
    from ultralytics.nn.tasks import load_checkpoint

    best = run.checkpoints / BEST
    if not best.is_file():
        raise VisionLoopError("The training ended without a checkpoint.")
    model, _ = load_checkpoint(best)
    points = run.dataset.keypoints
    description = describe(
        model,
        run.recipe.imgsz,
        keypoint_names=points.names if points else None,
        description=f"Trained from {run.recipe.base.shown}.",
    )
    folder = run.job.folder / "model"
    folder.mkdir(exist_ok=True)
    rebuilt = build_model(description)
    fill(rebuilt, model.state_dict())
    save_model(folder, rebuilt, description)
    if run.recipe.task == "classify":
        _measure_classes(run, rebuilt).save(folder)
    run.job.log(f"Epoch {run.best.get('epoch', 0):.0f} is published: {_shown(run.best)}.")
    return Trained(folder, run.best, run.dataset.learned.fingerprint, run.dataset.class_counts)


def _measure_classes(run: Run, model: nn.Module) -> ClassPrototypes:
    """Where each class lies: for a training that goes on from here without these pictures."""
    gpu = torch.cuda.is_available() and get_settings().device != "cpu"
    extractor = FeatureExtractor(
        model, "classify", run.recipe.imgsz, torch.device("cuda" if gpu else "cpu")
    )
    classes = run.dataset.classes
    images = {image: classes[image] for image in run.dataset.scan().splits["train"]}
    return ClassPrototypes.measure(extractor, images, len(run.dataset.names), run.job.check)


def _shown(metrics: Mapping[str, float]) -> str:
    chosen = ("accuracy", "mAP50", "mAP50_95", "mask_mAP50", "pose_mAP50", *BY_PART)
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in chosen if name in metrics)
