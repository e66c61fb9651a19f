"""What a token may do: four scopes in one order, of which each includes those before it."""

from __future__ import annotations

from typing import Literal, get_args

ScopeName = Literal["use", "annotate", "train", "admin"]

USE: ScopeName = "use"
ANNOTATE: ScopeName = "annotate"
TRAIN: ScopeName = "train"
ADMIN: ScopeName = "admin"

ORDER: tuple[ScopeName, ...] = get_args(ScopeName)

MEANINGS: dict[ScopeName, str] = {
    USE: "predict, and read models, datasets, jobs and metrics",
    ANNOTATE: "and upload and correct datasets, pre-label them, receive a tool's annotations",
    TRAIN: "and train and evaluate, and cancel the jobs that tokens of the same name started",
    ADMIN: "and everything else: import, activate, promote, delete, tokens, the audit trail",
}
"""Scope → what it adds to the scope before it."""


def including(scope: ScopeName) -> frozenset[str]:
    """A scope with all that it includes."""
    return frozenset(ORDER[: ORDER.index(scope) + 1])


def highest(scopes: frozenset[str]) -> ScopeName | None:
    """The scope that includes the others; None if there is none."""
    return max((name for name in ORDER if name in scopes), key=ORDER.index, default=None)
