"""Runs a YOLO training as a job, and writes the best checkpoint as a model folder.

All YOLO training modes use this trainer. A mode creates a `Run`, whose `hooks` and `extensions`
change the training. `training.modes.regular` changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cores import cpu_count
from errors import VisionLoopError
from jobs.artifacts import BEST
from jobs.execution.gpus import gpus_of
from jobs.failures import explained
from models_store.ultralytics_env import prepare
from models_store.weights import build_model, describe, fill, save_model
from settings import get_settings
from training.checkpoints import check_order
from training.prepare import scan_images
from training.publish import Trained
from training.yolo.arguments import arguments
from training.yolo.ranks import others
from training.yolo.run import Run


def train(run: Run) -> Trained:
    """Train, or resume training, and return the best checkpoint as a model folder.

    Raises:
        VisionLoopError: The training failed for a reason that the user can fix; see the message.
        JobCancelled: The job was cancelled, or the service stops.
    """
    recipe, job = run.recipe, run.job
    prepare()
    threads = torch.get_num_threads()
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.load()
    with explained(recipe.batch, recipe.imgsz):
        last = newest_checkpoint(run.checkpoints) if run.fitness else None
        if run.finished or len(run.fitness) >= recipe.epochs:
            job.log("The training is already complete; the model will be published.")
        else:
            gpu = torch.cuda.is_available() and get_settings().device != "cpu"
            gpus = gpus_of(recipe.model_dump(), get_settings())
            if gpus > 1 and (found := visible_gpus()) < gpus:
                raise VisionLoopError(
                    f"The training is to use {gpus} GPUs (VISIONLOOP_TRAIN_GPUS), but finds "
                    f"{found}. Set it to 1, or run it where as many are."
                )
            scan_images(run.dataset, job)
            data = run.dataset.materialise(job.folder / "data")
            job.check()
            overrides = arguments(
                recipe,
                images=run.images,
                decoded=run.decoded * gpus,
                names=run.dataset.names,
                data=data,
                folder=job.folder,
                device=",".join(map(str, range(gpus))) if gpu else "cpu",
                cores=cpu_count() // gpus,
                bf16=gpu and torch.cuda.is_bf16_supported(including_emulation=False),
            )
            overrides |= run.overrides
            if last is not None:
                checkpoint, learned = last
                check_order(learned, run.dataset.names, job.id)
                overrides["resume"] = str(checkpoint)
            else:
                run.fitness, run.best = [], {}
            trainer = make_trainer(run, overrides)
            torch.set_num_threads(threads)  # select_device changes it
            task = {"overrides": overrides, "samples": run.images}
            with (
                job.graceful_stop(),
                others(job, gpus, task),
                explained(recipe.batch, recipe.imgsz),
            ):
                trainer.train()
        return _collect(run)


def follow(run: Run, overrides: dict[str, Any]) -> None:
    """Train as one of the further GPUs of a training, with the arguments of the first."""
    threads = torch.get_num_threads()
    trainer = make_trainer(run, overrides)
    torch.set_num_threads(threads)
    trainer.train()
    torch.distributed.destroy_process_group()


def visible_gpus() -> int:
    """The number of GPUs that this process can use."""
    return torch.cuda.device_count()


def newest_checkpoint(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The newest readable checkpoint of the last two and its class names, or None."""
    from ultralytics.nn.tasks import load_checkpoint

    for name in ("last.pt", "previous.pt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            model, _ = load_checkpoint(path)
        except Exception:  # a damaged file can raise anything
            continue
        return path, tuple(model.names.values())
    return None


def make_trainer(run: Run, overrides: dict[str, Any]) -> Any:
    """The Ultralytics trainer of the recipe's task. Imports Ultralytics.

    Args:
        run: The training run that it belongs to.
        overrides: Ultralytics' training arguments; see `arguments`.
    """
    from training.yolo.job_trainers import TRAINERS

    return TRAINERS[run.recipe.task](run, overrides)


def _collect(run: Run) -> Trained:
    """Write the best checkpoint as a model folder: weights and description only."""
    from ultralytics.nn.tasks import load_checkpoint

    best = run.checkpoints / BEST
    if not best.is_file():
        raise VisionLoopError(
            "The training ended without a checkpoint. Its log has the reason; start it again."
        )
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
    for extension in run.extensions:
        extension.model_saved(run, rebuilt, folder)
    shown = _shown(run.best, run.metric_names)
    run.job.log(f"Epoch {run.best.get('epoch', 0):.0f} is published: {shown}.")
    return Trained(folder, run.best, run.dataset.learned.fingerprint, run.dataset.class_counts)


def _shown(metrics: Mapping[str, float], more: Sequence[str]) -> str:
    chosen = ("accuracy", "mAP50", "mAP50_95", "mask_mAP50", "pose_mAP50", *more)
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in chosen if name in metrics)
