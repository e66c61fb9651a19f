"""The look through a data set with which a training begins, told in the job's log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.datasets import Dataset
    from training.worker import JobHandle

TOLD = 8  # problems in the log
LONGEST = 300  # characters of each
SILENCE = 30.0  # seconds between two words on how far it is: signs of life, too


def look_through(dataset: Dataset, job: JobHandle) -> None:
    """Look at every picture, and log what was found.

    Raises:
        DatasetInvalid: The data set cannot be trained on.
        JobCancelled: A stop was asked for.
    """
    spoken = time.monotonic()

    def seen(done: int, all_: int) -> None:
        nonlocal spoken
        job.check()
        if time.monotonic() - spoken > SILENCE:
            spoken = time.monotonic()
            job.log(f"Looked at {done:,} of {all_:,} pictures.")

    dataset.look(seen)
    for finding in dataset.findings:
        if finding.kind == "corrupt_image":
            for example in finding.examples:
                job.log(f"Left out: {example[:LONGEST]}")
    for problem in dataset.problems[:TOLD]:
        job.log(f"Data set: {problem[:LONGEST]}")
    if (more := len(dataset.problems) - TOLD) > 0:
        job.log(f"Data set: {more} more kinds of problems; POST /api/datasets/check lists them.")
    dataset.require_usable()
