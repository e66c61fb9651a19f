"""The states of a job, and the word of each family of clients for them.

`/train`, `/jobs`, the shell and the metrics use the words of the table of jobs. `/api/training` has
words of its own. A job's log and the messages of errors are read by clients of both families:
they use a state's word only where both have the same (`SHARED`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["queued", "running", "stopping", "stopped", "completed", "failed"]
TaskStatus = Literal["pending", "running", "completed", "failed", "cancelled"]


class State(NamedTuple):
    """A state of a job."""

    name: Status  # in the table of jobs, `/train`, `/jobs`
    task: TaskStatus  # in `/api/training`
    meaning: str
    final: bool = False


STATES = (
    State("queued", "pending", "waits for a slot, or to be resumed after its process ended"),
    State("running", "running", "a process works on it"),
    State("stopping", "running", "a cancel was requested; its process is about to end"),
    State("stopped", "cancelled", "ended by a cancel", final=True),
    State("completed", "completed", "done; a training's model is published", final=True),
    State("failed", "failed", "ended by an error, which the job names", final=True),
)
STATUSES: tuple[Status, ...] = tuple(state.name for state in STATES)
FINAL: tuple[Status, ...] = tuple(state.name for state in STATES if state.final)
LIVE: tuple[Status, ...] = ("running", "stopping")  # statuses of jobs that have or had a process
TASK_STATUSES: dict[Status, TaskStatus] = {state.name: state.task for state in STATES}
SHARED = frozenset({"running", "completed", "failed"})

MEANINGS = "; ".join(f"{state.name}: {state.meaning}" for state in STATES)
TASK_MEANINGS = "; ".join(
    f"{task}: {' or '.join(s.meaning for s in STATES if s.task == task)}"
    for task in dict.fromkeys(TASK_STATUSES.values())
)
