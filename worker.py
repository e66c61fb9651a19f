"""`python -m worker JOB_ID`: runs one job; says which package does which kind."""

from __future__ import annotations

from functools import partial
from typing import Any

from errors import VisionLoopError
from jobs.job import Job
from jobs.worker import WorkerJob, exit_process, main
from models_store.registry import Registry


def work(job: WorkerJob, row: Job, registry: Registry) -> dict[str, Any]:
    """Do the job. Returns values for its row.

    Raises:
        VisionLoopError: The job failed, with a message for the user.
    """
    if registry.settings.store_url is not None:
        from dataset.shared.inputs import have_inputs
        from jobs.shared_folders import JobFolders
        from storage.agreement import agree_on_store

        agree_on_store(registry.database)  # the machine of this process may have other variables
        job.patiently(partial(have_inputs, row.recipe, registry.database))
        base = row.recipe.get("base") or {}
        if base.get("kind") == "job":
            job.patiently(partial(JobFolders(registry.settings).have_kept, str(base["value"])))
    # Late: each kind imports what it needs; plots, engines and trainers take seconds.
    if row.kind == "training":
        from training.job import train

        return {"model_id": train(job, row, registry).id}
    if row.kind == "evaluation":
        from evaluation import promotion
        from evaluation.job import run_evaluation
        from evaluation.recipe import EvaluationRecipe

        if row.mode == promotion.GATE:
            promotion.run(promotion.PromotionRecipe.model_validate(row.recipe), job, registry)
        else:
            run_evaluation(EvaluationRecipe.model_validate(row.recipe), job, registry)
        return {}
    if row.kind == "annotation":
        from annotation.job import run_annotation
        from annotation.recipe import AnnotationRecipe

        run_annotation(AnnotationRecipe.model_validate(row.recipe), job, registry)
        return {}
    if row.kind == "fetch":
        from jobs.model_fetch import FetchRecipe, run_fetch

        return {"model_id": run_fetch(FetchRecipe.model_validate(row.recipe), job, registry).id}
    if row.kind == "export":
        from engines.job import run_export
        from engines.submission import ExportRecipe

        run_export(ExportRecipe.model_validate(row.recipe), job, registry)
        return {}
    if row.kind == "engine":
        from engines.trial_job import run_trial
        from engines.trial_submission import TrialRecipe

        run_trial(TrialRecipe.model_validate(row.recipe), job, registry)
        return {}
    if row.kind == "import":
        from annotation.uploads.import_job import ImportRecipe, run_import

        run_import(ImportRecipe.model_validate(row.recipe), job, registry)
        return {}
    raise VisionLoopError(
        f"Jobs of kind {row.kind!r} cannot be run. Known kinds: training, evaluation, annotation, "
        "fetch, export, engine and import."
    )


if __name__ == "__main__":
    exit_process(main(work))
