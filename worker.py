"""`python -m worker JOB_ID`: one job in a process of its own; which package does which kind."""

from __future__ import annotations

from typing import Any

from errors import VisionLoopError
from models_store.registry import Registry
from training.jobs import Job
from training.worker import WorkerJob, leave, main


def work(job: WorkerJob, row: Job, registry: Registry) -> dict[str, Any]:
    """Do the job. Returns what to note about its outcome."""
    # Late: a kind of job loads what it needs; plots, engines and trainers take seconds.
    if row.kind == "training":
        from training.job import train

        return {"model_id": train(job, row, registry).id}
    if row.kind == "evaluation":
        from training import promotion
        from training.evaluating import run_evaluation
        from training.evaluation_recipe import EvaluationRecipe

        if row.mode == promotion.GATE:
            promotion.run(promotion.PromotionRecipe.model_validate(row.recipe), job, registry)
        else:
            run_evaluation(EvaluationRecipe.model_validate(row.recipe), job, registry)
        return {}
    if row.kind == "annotation":
        from training.annotating import run_annotation
        from training.annotation_recipe import AnnotationRecipe

        run_annotation(AnnotationRecipe.model_validate(row.recipe), job, registry)
        return {}
    raise VisionLoopError(f"There are no jobs of kind {row.kind!r}.")


if __name__ == "__main__":
    leave(main(work))
