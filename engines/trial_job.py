"""Jobs that try the engines of a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.allowed_roots import data_roots, shown_name
from dataset.inspection import check
from engines.timing import OthersLoad, is_idle
from engines.trial import Trial, TrialData
from engines.trial_submission import NEVER_IDLE, REPEATS, TrialRecipe
from errors import VisionLoopError
from files import temporary_folder
from models_store.registry import Registry
from models_store.tables import record_event
from models_store.versions import unless_deleted
from synthetic.evaluation_sets import NAME, calibration_images, drawn_set

if TYPE_CHECKING:
    from evaluation.recipe import EvaluationRecipe
    from jobs.handle import JobHandle

PATIENCE = 1800.0  # seconds to wait for an idle machine, all waits together
QUIET = 1.0  # seconds without other work after which the machine is idle
MEASURING = 0.95  # share of the progress at which the times are measured


def run_trial(recipe: TrialRecipe, job: JobHandle, registry: Registry) -> None:
    """Try the engines of a model and store the choice.

    Raises:
        VisionLoopError: The model was deleted or cannot be loaded, or the machine is never idle.
        JobCancelled: A stop was requested.
    """
    model = registry.get(recipe.model_id)
    settings = registry.settings
    with (
        unless_deleted(model.id, model.files()),
        temporary_folder(settings.paths.scratch) as scratch,
    ):
        trial = Trial(
            folder=model.path,
            model_id=model.id,
            settings=settings,
            scratch=scratch,
            data=_data(recipe, job, registry, scratch),
            log=job.log,
            progress=lambda share: _advance(job, share),
            idle=IdleMachine(job).wait,
        )
        choice = trial.run()
        with registry.database.write() as session:
            details = {"engine": choice.engine, "reason": choice.reason}
            record_event(session, "engine", (model.name, model.version), details, job_id=job.id)
    figures = {
        f"{one.engine}_relative_time": one.relative_time
        for one in choice.engines
        if one.relative_time is not None
    }
    job.advance(1.0, figures)


class IdleMachine:
    """Waits until other processes leave the CPU to the measurement."""

    def __init__(
        self, job: JobHandle, patience: float = PATIENCE, quiet: float | None = None
    ) -> None:
        self._job, self._left = job, patience
        self._quiet = QUIET if quiet is None else quiet
        self._told = False

    def wait(self) -> None:
        """Return once the machine was idle for a moment.

        Raises:
            VisionLoopError: All waits together took longer than the patience.
            JobCancelled: A stop was requested.
        """
        load = OthersLoad()
        while True:
            _advance(self._job, MEASURING)
            time.sleep(self._quiet)
            if is_idle(used := load()):
                return
            self._left -= self._quiet
            if not self._told:
                self._told = True
                self._job.log(f"Other processes use {used:.1f} cores; waiting until they do not.")
            if self._left <= 0:
                raise VisionLoopError(
                    f"{NEVER_IDLE} What served goes on serving. It is tried again after an hour, "
                    f"and up to {REPEATS} times after ever longer pauses. Or start it when there "
                    "is less to do: POST /models/{id}/engines, or visionloop engines MODEL "
                    "--measure."
                )


def _advance(job: JobHandle, share: float) -> None:
    job.advance(share)
    job.check()


def _data(
    recipe: TrialRecipe, job: JobHandle, registry: Registry, scratch: Path
) -> TrialData | str:
    """The data for int8, or why there is none."""
    if recipe.evaluation is None:
        return recipe.why_not
    try:
        return _checked(recipe.evaluation, job, registry, scratch)
    except VisionLoopError as error:
        return f"int8 was not tried: {error.message}"


def _checked(
    evaluation: EvaluationRecipe, job: JobHandle, registry: Registry, scratch: Path
) -> TrialData | str:
    settings, task = registry.settings, evaluation.task

    def progress(done: int, total: int) -> None:
        _advance(job, 0.0)

    if evaluation.dataset is None:
        path = drawn_set(task, settings, progress)
        dataset = check(path, task, [path.parent, path])
        drawn = calibration_images(task, scratch / "calibration", progress)
        return TrialData(dataset, NAME, evaluation.split, drawn)
    path = Path(evaluation.dataset)
    dataset = check(path, task, data_roots(settings), min_classes=1)
    name = shown_name(path, settings)
    images = list(dataset.scan().splits.get("train", ()))
    if not images:
        return f"int8 was not tried: {name} has no train split to calibrate it with."
    return TrialData(dataset, name, evaluation.split, images)
