"""Queues batch annotation jobs, and unpacks the images that are uploaded for them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from annotation.datasets import AnnotatedDatasets
from annotation.recipe import AnnotationRequest, plan_annotation
from dataset import zip_archive
from dataset.shared import uploads
from jobs.job import Job
from jobs.store import JobStore
from models_store.versions import ModelVersion
from settings import Settings


def enqueue_annotation(
    request: AnnotationRequest,
    model: ModelVersion,
    sent: Mapping[str, Any],
    annotated: AnnotatedDatasets,
    jobs: JobStore,
    settings: Settings,
) -> Job:
    """Check a batch annotation and queue its job. Reads folders: call it off the event loop.

    Args:
        request: The images to annotate, and the settings.
        model: The model that predicts the annotations.
        sent: The request as the client sent it, for the job's `config`.
        annotated, jobs: The stores to which the dataset and the job are added.
        settings: The data roots.

    Raises:
        VisionLoopError: As `plan_annotation` raises it.
    """
    number = secrets.token_hex(8)
    recipe = plan_annotation(request, model, annotated, settings, number)
    hidden = {"dataset"} if request.temporary else set()
    job = jobs.create(
        "annotation",
        config={**sent, "resolved": recipe.model_dump(mode="json", exclude=hidden)},
        recipe=recipe.model_dump(mode="json"),
        mode=request.tool,
        task=recipe.task,
        base_model=model.id,
        model_name=model.name,
    )
    jobs.log_writer(job.id).say(f"Waits for a slot: {request.tool} by {model.id}.")
    return job


@contextmanager
def uploaded_images(file: IO[bytes], settings: Settings) -> Iterator[Path]:
    """Context with the folder of an unpacked zip of images; deleted if the block raises.

    If the block succeeds, the folder belongs to the job.

    Raises:
        DatasetInvalid, PayloadTooLarge: The zip cannot be unpacked.
    """
    folder = uploads.new_folder(settings.paths.uploads)
    try:
        zip_archive.unpack(file, folder, settings.max_upload_bytes, settings.disk_reserve)
        uploads.share(folder, settings)
        yield folder
    except BaseException:
        uploads.discard(folder, settings)
        raise
