"""Export jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.making import make_export
from engines.options import download_path, resolve
from engines.submission import ExportRecipe
from models_store.registry import Registry

if TYPE_CHECKING:
    from jobs.handle import JobHandle

TIMEOUT = 3600.0  # seconds; an engine for a large network takes many minutes


def run_export(recipe: ExportRecipe, job: JobHandle, registry: Registry) -> None:
    """Make the export of a recipe, from the start.

    Raises:
        VisionLoopError: It cannot be made, or does not reproduce the model.
    """
    model = registry.get(recipe.model_id)
    options = resolve(recipe.request, model.description)

    def report(step: str, share: float) -> None:
        job.log(step)
        job.advance(share)
        job.check()

    record = make_export(model, recipe.request, options, registry.settings, TIMEOUT, report)
    figures = {k: v for k, v in (record.parity or {}).items() if isinstance(v, int | float)}
    job.advance(1.0, figures)
    for note in record.notes:
        job.log(note)
    shown = ", ".join(f"{k} {v:.3g}" for k, v in figures.items() if k.startswith("max_"))
    job.log(f"Wrote {record.file}: {record.size_bytes} bytes{f', {shown}' if shown else ''}.")
    job.log(f"Download it: GET {download_path(model.id, recipe.request)}")
