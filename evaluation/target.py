"""The target of an evaluation: one model and one split of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.letterbox import AskedLetterbox

if TYPE_CHECKING:
    from dataset.dataset import Dataset


@dataclass(frozen=True)
class EvaluationTarget:
    """A model and the split of a dataset to evaluate it on.

    Attributes:
        model_folder: Folder with model.json, model.onnx and model.safetensors.
        dataset: The checked dataset, of the model's task. Classes are matched by name.
        split: One of `dataset.splits`.
        model_id: `name:version`; empty for a model that is not published.
        dataset_name: The dataset's name in reports.
        dataset_path: Path of the dataset's data.yaml or class root; None: its root folder.
        notes: Remarks on the model or the data, copied into the report.
        letterbox: The letterbox to measure with; None: the one that serves.
    """

    model_folder: Path
    dataset: Dataset
    split: str = "val"
    model_id: str = ""
    dataset_name: str = ""
    dataset_path: Path | None = None
    notes: Sequence[str] = field(default=())
    letterbox: AskedLetterbox | None = None

    @property
    def images(self) -> Sequence[Path]:
        """The readable images of the split."""
        return self.dataset.scan().splits[self.split]
