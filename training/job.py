"""A training job from start to end: train, publish, evaluate, promote."""

from __future__ import annotations

from models_store.registry import Registry
from models_store.versions import ModelVersion
from training.evaluating import evaluate_training
from training.forgetting import report_forgetting
from training.jobs import Job
from training.modes import trainer
from training.promotion import after_training
from training.publication import publish, published
from training.recipe import Recipe
from training.worker import JobHandle


def train(job: JobHandle, row: Job, registry: Registry) -> ModelVersion:
    """Train, publish, evaluate; from where an earlier attempt was ended."""
    recipe = Recipe.model_validate(row.recipe)
    version = published(job.id, registry)
    if version is None:
        trained = trainer(recipe)(recipe, job)
        job.check()
        version = publish(trained, recipe, job, registry)
    measured = evaluate_training(version, recipe, job, registry)
    if recipe.mode == "incremental" and measured is not None:
        report_forgetting(registry.get(version.id), measured, recipe, job, registry)
    if recipe.promote == "auto":
        after_training(version, recipe, job, registry)
    return version
