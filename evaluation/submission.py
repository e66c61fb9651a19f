"""Puts evaluations into the job queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset.store import DatasetStore
from evaluation.recipe import EvaluationRecipe, plan_evaluation
from evaluation.store import EvaluationStore
from jobs.job import Job
from jobs.store import JobStore
from models_store.registry import Registry


@dataclass(frozen=True)
class EvaluationStores:
    """The stores that evaluations are planned from and looked up in."""

    registry: Registry
    datasets: DatasetStore
    evaluations: EvaluationStore
    jobs: JobStore

    def plan(
        self,
        model_id: str,
        dataset: str | None,
        split: str | None,
        letterbox: str | None = None,
    ) -> EvaluationRecipe:
        """`plan_evaluation` on these stores."""
        return plan_evaluation(
            model_id,
            dataset,
            split,
            self.registry,
            self.datasets,
            self.jobs,
            self.registry.settings,
            letterbox,
        )


def submit_evaluation(
    stores: EvaluationStores,
    model_id: str,
    dataset: str | None,
    split: str | None,
    letterbox: str | None,
    sent: Mapping[str, Any],
) -> Job:
    """Plan an evaluation and queue it. Reads the labels: call it off the event loop.

    Args:
        stores: The stores of models, datasets and jobs.
        model_id, dataset, split, letterbox: Passed to `plan_evaluation`.
        sent: The request as the client sent it, for the job's `config`.

    Raises:
        VisionLoopError: As `plan_evaluation`.
    """
    recipe = stores.plan(model_id, dataset, split, letterbox)
    return enqueue(stores.jobs, recipe, sent, recipe.model_dump(mode="json"))


def enqueue(
    jobs: JobStore,
    evaluation: EvaluationRecipe,
    sent: Mapping[str, Any],
    recipe: Mapping[str, Any],
    mode: str | None = None,
) -> Job:
    """Queue a job of kind `evaluation`.

    Args:
        jobs: The job table.
        evaluation: Recipe of the evaluation.
        sent: The request as the client sent it, for the job's `config`.
        recipe: The recipe that the worker reads: `evaluation`, or one that contains it.
        mode: The job's mode, such as `gate`; None: the job only evaluates.
    """
    job = jobs.create(
        "evaluation",
        config={**sent, "resolved": evaluation.model_dump(mode="json")},
        recipe=recipe,
        mode=mode,
        task=evaluation.task,
        base_model=evaluation.model_id,
        model_name=evaluation.model_id.partition(":")[0],
    )
    jobs.log_writer(job.id).say(f"Waits for a slot: {mode or 'evaluation'}.")
    return job
