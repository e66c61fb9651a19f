"""`python -m worker JOB_ID` on the nodes of the tests' cluster: a worker whose work is small.

A job whose mode is `wait` waits for the file `go`; one with `exit 3` ends with this code.
"""

from __future__ import annotations

import os
import time
from typing import Any

from jobs.handle import JobCancelled
from jobs.job import Job
from jobs.worker import WorkerJob, exit_process, main
from models_store.registry import Registry


def work(job: WorkerJob, row: Job, registry: Registry) -> dict[str, Any]:
    job.log(f"process {os.getpid()} on {os.environ['TEST_NODE']}, attempt {row.attempts}")
    do, _, number = str(row.mode).partition(" ")
    if do == "exit":
        os._exit(int(number))
    with job.graceful_stop():
        while not (job.folder / "go").exists():
            time.sleep(0.05)
            job.report(fraction=0.5, epoch=1, epochs=2)
            job.check()
            if job.stop_requested:
                time.sleep(1)
                job.checkpointed(1)
                job.log("saved")
                raise JobCancelled
    return {"model_id": "m:1"}


if __name__ == "__main__":
    exit_process(main(work))
