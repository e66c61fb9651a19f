"""What can be pruned, and by what limits."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal[
    "models", "exports", "engines", "jobs", "kept", "uploads", "thumbnails", "temporary", "aside"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEEP = 3  # versions of a name
DAYS = 30.0  # age in days

MEANING: dict[Kind, str] = {
    "models": "old versions: not promoted, active, shadowed, needed by a job or by a rollback, and "
    "not among the newest of their name",
    "exports": "exported files of models, which can be made again",
    "engines": "engines that were chosen for another CPU, or for other versions of the programs",
    "jobs": "jobs that have ended: their rows, logs and kept weights; the models they made stay",
    "kept": "images kept from live traffic",
    "uploads": "files uploaded for jobs that were cancelled or never queued; objects in S3 that "
    "nothing refers to",
    "thumbnails": "thumbnails, PNGs and indexes of the images of datasets, which are made again",
    "temporary": "files of processes that were killed",
    "aside": "what `restore --force` moved aside",
}
