"""Fetches the pretrained weights that a training was planned with and that are not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import BackendUnavailable, InvalidModelFile
from models_store.pretrained.catalogue import PretrainedFile, pretrained_file
from models_store.pretrained.download import LIMITS, FetchFailed, Limits, Watch
from models_store.pretrained.fetch import fetch
from models_store.registry import Registry
from training.planning.base_models import BaseNetwork
from training.planning.recipe import Recipe, shown_config

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def with_weights(
    recipe: Recipe, job: JobHandle, registry: Registry, limits: Limits = LIMITS
) -> Recipe:
    """The recipe with start weights that are here, or from scratch; a resumed job keeps them.

    Weights that were missing are fetched into the registry. If that fails, the settings say
    whether the training starts from scratch.

    Args:
        recipe: The recipe of the job.
        job: Is told what came, and stores the recipe that is returned.
        registry: Gets the weights; has the settings.
        limits: How long to wait for what.

    Raises:
        BackendUnavailable: They could not be fetched, and VISIONLOOP_ALLOW_DOWNLOAD is always.
        InsufficientStorage: The disk has no room for them.
        JobCancelled: The job was cancelled, or the service stops.
    """
    if recipe.base.kind != "download":
        return recipe
    file = pretrained_file(recipe.base.network)
    assert file is not None, "only published weights are planned to be fetched"
    base = _settled(recipe.base, file, job, registry, limits)
    notes = tuple(base.sentence if n == recipe.base.sentence else n for n in recipe.notes)
    settled = recipe.model_copy(update={"base": base, "notes": notes})
    job.replace_recipe(settled.model_dump(mode="json"), shown_config(settled))
    return settled


def _settled(
    base: BaseNetwork, file: PretrainedFile, job: JobHandle, registry: Registry, limits: Limits
) -> BaseNetwork:
    allowed = registry.settings.allow_download
    job.log(base.sentence)
    if allowed == "never":  # since the job was queued
        return base.from_scratch(
            f"no {base.network} weights are here, and VISIONLOOP_ALLOW_DOWNLOAD is never"
        )
    try:
        came = fetch(
            registry,
            file,
            job.folder / "download",
            Watch(job.log, job.check),
            job_id=job.id,
            limits=limits,
        )
    except (FetchFailed, InvalidModelFile) as error:
        reason = error.message.rstrip(".")
        if allowed == "always":
            raise BackendUnavailable(
                f"{file.file} could not be fetched: {reason}. Import it as {file.model_name!r}, "
                "put it into VISIONLOOP_PRETRAINED, or set VISIONLOOP_ALLOW_DOWNLOAD=auto to "
                "train from scratch without it."
            ) from error
        return base.from_scratch(f"{file.file} could not be fetched ({reason})")
    return base.of_model(
        came.model.id,
        f"Starts from {came.model.id}: {came.told}."
        if came.new
        else f"Starts from the registry's {came.model.id}.",
    )
