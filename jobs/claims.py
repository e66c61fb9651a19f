"""Claims: what a job's row names the one attempt by that may write for the job.

The dispatcher writes a claim to the row before it starts the attempt's worker, which has it in its
environment. A process whose claim is no longer in the row is refused; see `JobStore.fence`. So a
worker that was given up, but still runs on a machine that nobody reaches, does no harm.
"""

from __future__ import annotations

import re
import socket
import uuid

CLAIM_ENV = "VISIONLOOP_CLAIM"  # environment variable that holds the worker's claim
HOST = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
HERE = f"local:{HOST}:"


def local_claim() -> str:
    """A new claim for a worker on this machine."""
    return f"{HERE}{uuid.uuid4().hex}"


def machine_of(claim: str | None) -> str | None:
    """Where the claim's worker runs: a host, or `cluster`; None: there is no worker."""
    if claim is None:
        return None
    return claim.split(":")[1] if claim.startswith("local:") else "cluster"


def is_of_this_machine(claim: str | None) -> bool:
    """Whether the claim's worker is a process of this machine; None: of a row without a claim."""
    return claim is None or claim.startswith(HERE)
