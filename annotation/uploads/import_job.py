"""The job that stores an upload as a dataset, with progress; see `annotation.uploads.upload`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from annotation.cleanup import delete_leftovers
from annotation.datasets import AnnotatedDatasets
from annotation.uploads.loose_files import LooseFile
from annotation.uploads.reception import receive
from annotation.uploads.upload import Content, UploadOptions, keyed_id
from dataset.shared import uploads
from dataset.store import DatasetStore, open_datasets
from disk_space import no_room_in
from errors import DatasetInvalid, PayloadTooLarge, ValidationFailed
from jobs.job import Job
from jobs.store import JobStore
from models_store.description import Task
from models_store.registry import Registry

if TYPE_CHECKING:
    from jobs.handle import JobHandle

ZIP = "upload.zip"  # file name of an uploaded zip in the job's folder of images
UNPACKED = 0.05  # share of the progress before the first image is read
READ = 0.9  # the same when all are read; the dataset is stored then
CHUNK = 2**20


class ImportRecipe(BaseModel):
    """What an import job does.

    Attributes:
        dataset: Absolute path of the folder with the uploaded files; deleted after the job.
        names: The files' names, in order of their numbers in the folder; empty: it has a zip.
        dataset_id: Id of the dataset that the job makes.
        name, task, classes: As in `UploadOptions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    names: tuple[str, ...] = ()
    dataset_id: str
    name: str
    task: Task | None = None
    classes: tuple[str, ...] = ()


def submit_import(
    content: Content,
    options: UploadOptions,
    datasets: DatasetStore,
    annotated: AnnotatedDatasets,
    jobs: JobStore,
) -> Job:
    """Keep an upload's files and queue the job that makes a dataset of them.

    Deletes what imports left that were cancelled. Copies files: call it off the event loop.

    Raises:
        PayloadTooLarge: The files are larger than an upload may be.
        InsufficientStorage: The disk has no room.
        RateLimited: The caller's jobs that have not ended are as many as allowed.
    """
    delete_leftovers(annotated, jobs, annotated.database.settings)
    settings = annotated.database.settings
    folder = uploads.new_folder(datasets.staging)
    try:
        loose = content if isinstance(content, Sequence) else (LooseFile(ZIP, content),)
        size = 0
        for number, file in enumerate(loose):
            target = folder / (ZIP if content is not loose else f"{number:06}")
            size += _keep(file, target)
            if size > datasets.max_upload:
                raise PayloadTooLarge(
                    f"The files are larger than {datasets.max_upload / 2**20:,.0f} MiB together "
                    "(VISIONLOOP_MAX_UPLOAD_MB). Send them in several requests."
                )
            if (error := no_room_in(folder, datasets.reserve)) is not None:
                raise error
        uploads.share(folder, settings)
        name = options.name.strip()[:100] or "dataset"
        recipe = ImportRecipe(
            dataset=str(folder),
            names=tuple(file.name for file in loose) if content is loose else (),
            dataset_id=keyed_id(datasets, content, options) or datasets.new_id(name),
            name=name,
            task=options.task,
            classes=options.classes,
        )
        sent: dict[str, Any] = {"name": options.name, "task": options.task}
        shown = {"dataset_id": recipe.dataset_id, "files": len(loose), "size_bytes": size}
        job = jobs.create(
            "import",
            config={**sent, "classes": list(options.classes), "resolved": shown},
            recipe=recipe.model_dump(mode="json"),
            task=options.task,
        )
    except BaseException:
        uploads.discard(folder, settings)
        raise
    jobs.log_writer(job.id).say(f"Waits for a slot: the dataset {recipe.dataset_id}.")
    return job


def run_import(recipe: ImportRecipe, job: JobHandle, registry: Registry) -> None:
    """Make the dataset. If an earlier attempt was killed after that, there is nothing to do.

    Raises:
        DatasetInvalid, PayloadTooLarge: The upload is invalid or too large; nothing is stored.
        JobCancelled: The job was cancelled.
    """
    datasets = open_datasets(registry.database)
    folder = Path(recipe.dataset)
    if datasets.exists(recipe.dataset_id):
        uploads.discard(folder, registry.settings)
        return

    def progress(done: int, total: int) -> None:
        job.check()
        share = UNPACKED + (READ - UNPACKED) * done / max(total, 1)
        job.advance(share, {"images": float(done), "images_total": float(total)})

    content: Content = folder / ZIP
    if recipe.names:
        numbered = enumerate(recipe.names)
        content = [LooseFile(name, folder / f"{number:06}") for number, name in numbered]
    job.log(f"Reading {len(recipe.names)} files." if recipe.names else "Unpacking the zip.")
    options = UploadOptions(recipe.name, recipe.task, recipe.classes)
    try:
        card = receive(
            datasets,
            AnnotatedDatasets(registry.database),
            content,
            options,
            recipe.dataset_id,
            progress,
        )
    except (DatasetInvalid, PayloadTooLarge, ValidationFailed):  # another attempt would not help
        uploads.discard(folder, registry.settings)
        raise
    uploads.discard(folder, registry.settings)
    images = card["accounting"]["images"]
    job.log(f"Dataset {card['id']}: {images['received']} images.")
    for problem in card["problems"]:
        job.log(f"{'Fatal: ' if problem['fatal'] else ''}{problem['message']}")
    fatal = sum(problem["fatal"] for problem in card["problems"])
    job.advance(1.0, {"problems": len(card["problems"]), "fatal_problems": fatal})


def _keep(file: LooseFile, target: Path) -> int:
    """Copy a file. Returns its size."""
    if isinstance(file.content, Path):
        shutil.copyfile(file.content, target)
        return target.stat().st_size
    file.content.seek(0)
    with target.open("xb") as sink:
        shutil.copyfileobj(file.content, sink, CHUNK)
        return sink.tell()
