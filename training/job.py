"""A training job from start to end: train, publish, evaluate, promote."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Sequence

from dataset.store import open_datasets
from errors import ModelNotFound, VisionLoopError
from evaluation.gate import default_gate
from evaluation.job import run_evaluation, update_metrics
from evaluation.promotion import PromotionRecipe, old_data, run
from evaluation.recipe import EvaluationRecipe
from evaluation.store import EvaluationRow, EvaluationStore
from inference.engine_files import served_letterbox
from jobs.execution.gpus import gpus_of
from jobs.handle import JobHandle
from jobs.job import Job
from models_store.decision_log import DecisionReason
from models_store.registry import Registry, published
from models_store.versions import ModelVersion
from training.incremental.forgetting_job import report_forgetting, stored_warning
from training.missing_weights import with_weights
from training.planning.recipe import Recipe, shown_config
from training.publish import Trained, publish
from training.schedule import TRAINING_SHARE
from training.yolo.ranks import lead


def evaluate_training(
    version: ModelVersion, recipe: Recipe, job: JobHandle, registry: Registry
) -> EvaluationRow | None:
    """Evaluate a trained model on the val split of its dataset.

    The model is already published and stays published if the evaluation fails; the job's log says
    why. If an earlier attempt of the job has evaluated it with the letterbox that serves, that
    evaluation is returned.

    Raises:
        JobCancelled: The job was cancelled, or the service stops.
    """
    try:
        row = EvaluationStore(registry.database).of_job(job.id, version.id)
        served = served_letterbox(version.files(), version.description, registry.settings)
        if row is not None and row.letterbox == served:
            update_metrics(row, registry, "own_data")
            job.advance(1.0, row.figures)
            return row
        evaluation = EvaluationRecipe(
            model_id=version.id,
            task=recipe.task,
            dataset=recipe.dataset,
            trained_on=version.source.get("dataset_fingerprint"),
            notes=tuple(version.source.get("decisions", ())),
        )
        return run_evaluation(evaluation, job, registry, (TRAINING_SHARE, 1.0))
    except Exception as error:
        reason = str(error)
        if not isinstance(error, VisionLoopError):
            traceback.print_exc()
            reason = f"{type(error).__name__}; the job's log has the details."
        job.log(f"The evaluation failed: {reason} The model {version.id} stays published.")
        return None


Trainer = Callable[[Recipe, JobHandle], Trained]


def trainer(recipe: Recipe) -> Trainer:
    """The trainer of a recipe's mode. Imports torch."""
    if recipe.mode == "regular":
        from training.modes.regular import train
    elif recipe.mode == "freeze_strategy":
        from training.modes.freeze import train
    elif recipe.mode == "incremental":
        from training.modes.incremental import train
    else:
        from training.modes.distillation import train
    return train


def after_training(
    version: ModelVersion, recipe: Recipe, job: JobHandle, registry: Registry
) -> None:
    """Promote the trained model if it passes the gate of the settings.

    If the gate cannot be evaluated, the promotion is refused; the training job still succeeds.
    """
    gate, by = default_gate(registry.settings), "training"
    try:
        evaluation = EvaluationRecipe(
            model_id=version.id, task=recipe.task, dataset=recipe.dataset, split=gate.split or "val"
        )
        old = None
        if gate.dataset:
            path = open_datasets(registry.database).resolve(gate.dataset)
            evaluation = evaluation.model_copy(update={"dataset": str(path)})
        elif known := old_data(recipe.model_dump(mode="json")):
            old = evaluation.model_copy(update={"dataset": known, "split": "val"})
        run(
            PromotionRecipe(model_id=version.id, gate=gate, evaluation=evaluation, by=by, old=old),
            job,
            registry,
        )
    except Exception as error:
        said = f"{type(error).__name__}; the job's log has the details."
        if isinstance(error, VisionLoopError):
            said = error.message
        else:
            traceback.print_exc()
        reason = f"It could not be compared with the promoted version: {said}"
        job.log(f"{version.id} was not promoted. {reason}")
        with contextlib.suppress(ModelNotFound):  # deleted meanwhile
            registry.refuse(
                version.id, DecisionReason(by, (reason,), gate.model_dump(), job_id=job.id)
            )


def with_notes(recipe: Recipe, sentences: Sequence[str], job: JobHandle) -> Recipe:
    """The recipe with sentences among its notes; the job shows them."""
    new = [sentence for sentence in sentences if sentence not in recipe.notes]
    if not new:
        return recipe
    noted = recipe.model_copy(update={"notes": (*recipe.notes, *new)})
    job.replace_recipe(noted.model_dump(mode="json"), shown_config(noted))
    return noted


def train(job: JobHandle, row: Job, registry: Registry) -> ModelVersion:
    """Train, publish and evaluate; resumes from where an earlier attempt of the job ended.

    A version that has forgotten more than the gate allows is not promoted, also where no other
    version of its name is promoted, so that the gate has nothing to compare.
    """
    recipe = Recipe.model_validate(row.recipe)
    version = published(job.id, registry)
    if version is None:
        recipe = with_weights(recipe, job, registry)
        lead(gpus_of(row.recipe, registry.settings))
        trained = trainer(recipe)(recipe, job)
        job.check()
        recipe = with_notes(recipe, trained.decisions, job)
        version = publish(trained, recipe, job, registry)
    measured = evaluate_training(version, recipe, job, registry)
    if recipe.mode == "incremental" and measured is not None:
        report_forgetting(registry.get(version.id), measured, recipe, job, registry)
    if recipe.promote != "auto":
        return version
    if measured is not None and (warning := stored_warning(measured, registry)):
        gate = default_gate(registry.settings)
        why = DecisionReason("training", (warning,), gate.model_dump(), job_id=job.id)
        registry.refuse(version.id, why)
        job.log(f"{version.id} was not promoted. {warning}")
        return version
    after_training(version, recipe, job, registry)
    return version
