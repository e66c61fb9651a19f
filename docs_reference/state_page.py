"""The states of a job, by the words of each family of clients."""

from __future__ import annotations

from docs_reference.markdown import code, table
from jobs.states import SHARED, STATES

HEAD = """# States of jobs

A job has one state; the two families of clients have different words for some of them. `/train`,
`/jobs`, BentoML's tasks, `visionloop training` and the metric `visionloop_jobs` use those of the
first column, `/api/training` those of the second.

"""

TAIL = """
A final state never changes. Logs and the messages of errors are read by both families: of
these words they use only those that both have: {shared}.

Other words are not states of jobs: `outcome` and `action` of a promotion are decisions of the gate,
a shadow is `running` or `ended`, and the `verdict` on drift is about live traffic.
"""


def states() -> str:
    """The whole page."""
    heading = ("`/train`, `/jobs`, shell, metrics", "`/api/training`", "meaning", "final")
    rows = [(code(s.name), code(s.task), s.meaning, "yes" if s.final else "") for s in STATES]
    return HEAD + table(heading, rows) + TAIL.format(shared=", ".join(map(code, sorted(SHARED))))
