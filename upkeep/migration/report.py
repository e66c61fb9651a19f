"""The table of what was migrated."""

from __future__ import annotations

import json
from dataclasses import asdict

from shell import columns, size
from upkeep.migration.migrate import Report


def to_json(report: Report) -> str:
    return json.dumps(asdict(report), indent=1)


def summary(report: Report, planned: bool) -> str:
    """The counts of both sides, and what to do next.

    Args:
        report: Of a migration, or of what it would do.
        planned: Whether nothing was done yet.
    """
    heads = ("WHAT", "SOURCE") if planned else ("WHAT", "SOURCE", "TARGET", "SIZE", "SHA-256")
    rows: list[tuple[str, ...]] = [heads]
    for line in report.trees:
        told = (line.name, f"{line.source:,}")
        sizes = (f"{line.target:,}", size(line.bytes), line.digest[:16])
        rows.append(told if planned else (*told, *sizes))
    for line in report.tables:
        if line.source or line.target:
            told = (f"rows of {line.name}", f"{line.source:,}")
            rows.append(told if planned else (*told, f"{line.target:,}", "", ""))
    begun = "It goes on with a migration that was begun. " if report.resumed and planned else ""
    end = (
        f"Nothing was done yet. {begun}From {report.source} to {report.target}."
        if planned
        else f"Complete: from {report.source} to {report.target}. The source is as it was."
    )
    return f"{columns(rows)}\n{end}"
