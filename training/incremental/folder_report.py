"""Evaluates a model folder that is not a published version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.dataset import Dataset
from evaluation.evaluator import evaluate
from evaluation.target import EvaluationTarget
from inference.device import device
from models_store.description import ONNX_FILE, ModelDescription
from settings import get_settings

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def folder_report(folder: Path, dataset: Dataset, job: JobHandle) -> Mapping[str, Any]:
    """The report on a val split, with the folder's ONNX engine if exported, else PyTorch.

    Args:
        folder: The model folder.
        dataset: The dataset, of the model's task.
        job: Checked for cancellation after each image; its folder gets the report's files.
    """
    settings, loaded = get_settings(), None
    if not (folder / ONNX_FILE).is_file():
        from inference.torch_engine import TorchEngine  # torch

        where = device(settings)
        description = ModelDescription.load(folder)
        loaded = (TorchEngine(folder, "cpu" if where == "cpu" else "cuda", False), description)
    output = job.folder / "evaluation"
    output.mkdir(parents=True, exist_ok=True)
    return evaluate(
        EvaluationTarget(folder, dataset),
        settings,
        output=output,
        progress=lambda *_: job.check(),
        loaded=loaded,
    ).report
